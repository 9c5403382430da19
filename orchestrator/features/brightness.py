"""How many counts a frame has, by detector: needs no calibration, no lattice and no electrons.

Neighbour: `objectives.brightness`, which keeps the brightest place.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from instruments.frames import Frame
from orchestrator.features.feature_set import Feature, FeatureSet

NAME = "brightness"


class Brightness:
    """Extractor `brightness`: mean counts of a pixel and sub-frame above the detector's offset, with their spread."""

    def extract(self, frame: Frame) -> FeatureSet:
        """A value `counts_per_px` of the mode's first detector, and `counts_per_px.DETECTOR` of each; no arrays.

        The standard error is that of the mean over pixels as they differ, structure of the specimen included.
        """
        values: dict[str, Feature] = {}
        for detector in frame.mode.detectors:
            counts = np.asarray(frame.counts[detector.name], dtype=np.float64)
            mean = float(counts.mean()) - detector.offset_counts
            feature = Feature(value=mean, std=float(counts.std()) / sqrt(counts.size))
            values.setdefault("counts_per_px", feature)
            values[f"counts_per_px.{detector.name}"] = feature
        return FeatureSet(extractor=NAME, action_id=frame.action_id, values=values, arrays={})
