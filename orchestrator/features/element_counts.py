"""Counts of X-ray lines at one place, and the survey image they are mapped with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instruments import Frame
from orchestrator.errors import FeatureError
from orchestrator.features.feature_set import Feature, FeatureSet

EXTRACTOR = "element_counts"


class ElementCounts:
    """Extractor for frames of kind `eds` (detectors named by line) and for survey frames of kind `stem`.

    Of spectra, values: `counts_<line>` of the whole block and all sub-frames with std sqrt(n + 1), which is the
    posterior standard deviation of a rate under a flat prior, so that no count still says little; `exposure_s` beam-on
    time, `x_nm`, `y_nm` nominal centre, `area_nm2`; arrays: `counts_<line>` (rows, columns).
    Of a survey, arrays: `survey` (rows, columns) in the detector's unit, `x_nm` (columns,), `y_nm` (rows,).
    """

    def __init__(self, lines: Sequence[str], *, survey_detector: str = "haadf") -> None:
        if not lines:
            raise FeatureError("element_counts needs at least one line, such as Fe_Ka")
        self._lines = tuple(lines)
        self._survey_detector = survey_detector

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame. Raises FeatureError for a detector or line that it lacks, or for normalised counts."""
        return self._spectra(frame) if frame.mode.kind == "eds" else self._survey(frame)

    def _spectra(self, frame: Frame) -> FeatureSet:
        maps = {f"counts_{line}": self._line(frame, line) for line in self._lines}
        values: dict[str, Feature] = {}
        for name, counts in maps.items():
            total = float(counts.sum())
            values[name] = Feature(value=total, std=float(np.sqrt(total + 1)))
        command = frame.requested
        values["exposure_s"] = Feature(value=command.scan.beam_on_s(command.subframe_count))
        values["area_nm2"] = Feature(value=command.scan.area_nm2)
        values |= _place(frame)
        return FeatureSet(extractor=EXTRACTOR, action_id=frame.action_id, values=values, arrays=maps)

    def _line(self, frame: Frame, line: str) -> np.ndarray:
        if line not in frame.counts:
            raise FeatureError(f"frame {frame.action_id} has no line {line}; it has {', '.join(sorted(frame.counts))}")
        detector = next((detector for detector in frame.mode.detectors if detector.name == line), None)
        if detector is not None and not detector.raw_counts:
            raise FeatureError(f"{line} is normalised, not counted: Poisson statistics do not hold; take raw counts")
        return frame.total(line)

    def _survey(self, frame: Frame) -> FeatureSet:
        name = self._survey_detector
        if name not in frame.counts:
            raise FeatureError(f"survey {frame.action_id} has no {name}; it has {', '.join(sorted(frame.counts))}")
        image = frame.total(name).astype(np.float64)
        place = _place(frame)
        rows, columns = image.shape
        x_nm = place["x_nm"].value + (np.arange(columns) - (columns - 1) / 2) * frame.pixel_size_nm
        y_nm = place["y_nm"].value + (np.arange(rows) - (rows - 1) / 2) * frame.pixel_size_nm
        arrays = {"survey": image, "x_nm": x_nm, "y_nm": y_nm}
        return FeatureSet(extractor=EXTRACTOR, action_id=frame.action_id, values=place, arrays=arrays)


def _place(frame: Frame) -> dict[str, Feature]:
    """Nominal centre of the frame, from what was read back."""
    state = frame.state
    return {
        "x_nm": Feature(value=state.stage.x_nm + state.beam_shift_x_nm),
        "y_nm": Feature(value=state.stage.y_nm + state.beam_shift_y_nm),
    }
