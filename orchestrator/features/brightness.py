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

        The standard error is that of the mean over pixels as they differ, structure of the specimen included. Of
        patterns it is a detector's pixel, and the spread that of the scan points; of one pattern alone, its pixels'.
        """
        values: dict[str, Feature] = {}
        for detector in frame.mode.detectors:
            counts = _counts(frame, detector.name)
            mean = float(counts.mean()) - detector.offset_counts
            feature = Feature(value=mean, std=float(counts.std()) / sqrt(counts.size))
            values.setdefault("counts_per_px", feature)
            values[f"counts_per_px.{detector.name}"] = feature
        return FeatureSet(extractor=NAME, action_id=frame.action_id, values=values, arrays={})


def _counts(frame: Frame, detector: str) -> np.ndarray:
    counts = frame.counts[detector]
    if not frame.has_patterns(detector):
        return np.asarray(counts, dtype=np.float64)
    picture = frame.picture(detector)
    return picture * (picture.size / counts.size)
