"""Diffraction patterns to virtual images and centres of mass, of a whole frame or while its patterns arrive.

Neighbours: `instruments.patterns` sums in whole numbers, so that both ways give the same bits; `detectors` is for
frames of real annular detectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np

from instruments.capabilities import Detector
from instruments.commands import AcquireFrame
from instruments.frames import Frame
from instruments.patterns import PatternBlock, PatternGeometry, PatternSums, centres_of_mass_px
from orchestrator.features.errors import FeatureError, NormalisedCounts
from orchestrator.features.feature_set import Feature, FeatureSet

NAME = "patterns"


class Patterns:
    """Extractor `patterns`: an image for each ring, and the mean deflection of the beam, from a pixelated detector.

    `rings`: (inner, outer) angles in mrad by the name of their image.
    """

    def __init__(self, geometry: PatternGeometry, rings: Mapping[str, tuple[float, float]]) -> None:
        self._geometry = geometry
        self._regions = {name: geometry.ring(inner, outer) for name, (inner, outer) in rings.items()}

    def extract(self, frame: Frame) -> FeatureSet:
        """Arrays by ring (rows, columns) of counts, centre_x_mrad and centre_y_mrad; all sub-frames together.

        Raises FeatureError for a frame without patterns of this geometry, NormalisedCounts where they are no counts.
        """
        counts = frame.counts[self._pixelated(frame).name]
        running = self.running(frame.requested)
        running.add(PatternBlock(frame.action_id, 0, running.count, counts.reshape(-1, *self._geometry.shape_px)))
        return running.so_far()

    def running(self, command: AcquireFrame) -> RunningPatterns:
        """The same, for an exposure that begins: add its blocks as they come."""
        return RunningPatterns(self._geometry, self._regions, command)

    def _pixelated(self, frame: Frame) -> Detector:
        for detector in frame.mode.detectors:
            counts = frame.counts.get(detector.name)
            if counts is None or counts.ndim != 5 or counts.shape[3:] != self._geometry.shape_px:
                continue
            if counts.dtype.kind != "u" or not detector.raw_counts:
                raise NormalisedCounts(f"frame {frame.action_id}: {detector.name} is {counts.dtype}, no raw counts")
            return detector
        raise FeatureError(
            f"frame {frame.action_id}: mode {frame.mode.name!r} has no patterns of {self._geometry.shape_px} px; "
            "choose a mode of kind 4d_stem, and the geometry of its detector"
        )


class RunningPatterns:
    """What is known of an exposure so far."""

    def __init__(self, geometry: PatternGeometry, regions: Mapping[str, np.ndarray], command: AcquireFrame) -> None:
        self._geometry, self._names, self._action_id = geometry, tuple(regions), command.action_id
        self._shape = (command.subframe_count, *command.scan.shape_px)
        self.count = int(np.prod(self._shape))
        self._sums = PatternSums(self.count, geometry.shape_px, regions)

    def add(self, block: PatternBlock) -> None:
        """Some patterns more. Raises ValueError for a block that was added before, or of another exposure."""
        if (block.action_id, block.total) != (self._action_id, self.count):
            raise ValueError(
                f"a block of {block.total} patterns of {block.action_id}, not of {self.count} of {self._action_id}"
            )
        self._sums.add(block.first, block.counts)

    def so_far(self) -> FeatureSet:
        """Features of what is there: counts 0 and centres nan where no pattern came yet."""
        images = {name: self._folded(self._sums.image(name)) for name in self._names}
        moments = np.stack([self._folded(moment) for moment in self._sums.moments()])
        y_px, x_px = centres_of_mass_px(moments)
        centres = {
            "centre_x_mrad": (x_px - self._geometry.centre_x_px) * self._geometry.mrad_per_px,
            "centre_y_mrad": (y_px - self._geometry.centre_y_px) * self._geometry.mrad_per_px,
        }
        values = {name: _mean(image[moments[0] > 0]) for name, image in images.items()}
        values |= {name: _mean(centre[np.isfinite(centre)]) for name, centre in centres.items()}
        values["pattern_fraction"] = Feature(value=self._sums.there_count / self.count)
        return FeatureSet(extractor=NAME, action_id=self._action_id, values=values, arrays={**images, **centres})

    def _folded(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self._shape).sum(axis=0)


def _mean(values: np.ndarray) -> Feature:
    if not values.size:
        return Feature(value=float("nan"), reason="nothing was counted")
    return Feature(value=float(values.mean()), std=float(values.std()) / sqrt(values.size))
