"""Extractor `patterns`: images and centres of known patterns, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from instruments import AcquireFrame, Detector, Frame, MicroscopeState, Mode, Optics, ScanPattern, StagePosition
from instruments.patterns import PatternBlock, PatternGeometry
from orchestrator.features.errors import FeatureError, NormalisedCounts
from orchestrator.features.patterns import Patterns
from orchestrator.features.registry import create

GEOMETRY = PatternGeometry(shape_px=(5, 5), centre_y_px=2, centre_x_px=2, mrad_per_px=10.0)


def frame_of(counts: np.ndarray) -> Frame:
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=10.0)
    mode = Mode(name="patterns", kind="4d_stem", detectors=(Detector(name="camera", without_references="none"),))
    command = AcquireFrame(
        action_id="a", deadline_s=1.0, optics=optics, mode="patterns", subframe_count=len(counts),
        scan=ScanPattern(field_of_view_nm=1.0, shape_px=counts.shape[1:3], dwell_time_us=1.0),
    )  # fmt: skip
    state = MicroscopeState(time_s=1.0, stage=StagePosition(), optics=optics)
    return Frame(
        action_id="a", requested=command, state=state, mode=mode, counts={"camera": counts}, pixel_size_nm=1.0,
        dose_e_per_a2=0.0, electrons=0.0, started_s=0.0, ended_s=1.0, instrument="bench", simulated=True,
    )  # fmt: skip


def test_subframes_are_summed_before_a_centre_is_taken() -> None:
    counts = np.zeros((2, 1, 2, 5, 5), np.uint16)
    counts[0, 0, 0, 2, 3], counts[1, 0, 0, 4, 2] = 3, 1  # 10 mrad along x three times, 20 mrad along y once
    features = create("patterns", GEOMETRY, {"bright": (0.0, 5.0), "dark": (5.0, 50.0)}).extract(frame_of(counts))
    assert features.arrays["centre_x_mrad"][0, 0] == pytest.approx(7.5)
    assert features.arrays["centre_y_mrad"][0, 0] == pytest.approx(5.0)
    assert np.isnan(features.arrays["centre_x_mrad"][0, 1]), "nothing was counted there"
    assert features.arrays["dark"].tolist() == [[4, 0]]
    assert features.arrays["bright"].sum() == 0
    assert features.values["pattern_fraction"].value == 1.0


def test_another_exposures_block_is_refused() -> None:
    counts = np.ones((1, 2, 2, 5, 5), np.uint16)
    running = Patterns(GEOMETRY, {}).running(frame_of(counts).requested)
    with pytest.raises(ValueError, match="of b"):
        running.add(PatternBlock("b", 0, 4, counts[0, 0]))
    assert running.so_far().values["pattern_fraction"].value == 0.0


def test_what_is_no_pattern_or_no_count_is_refused() -> None:
    extractor = Patterns(GEOMETRY, {})
    with pytest.raises(FeatureError, match="no patterns of"):
        extractor.extract(frame_of(np.ones((1, 2, 2, 4, 4), np.uint16)))
    with pytest.raises(NormalisedCounts, match="no raw counts"):
        extractor.extract(frame_of(np.ones((1, 2, 2, 5, 5), np.float32)))
