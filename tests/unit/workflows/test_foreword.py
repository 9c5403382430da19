"""The disk an experiment may take, forecast before its start."""

from __future__ import annotations

from typing import Any

import pytest

from instruments import Capabilities, Detector, Mode
from instruments.units import electrons
from orchestrator.spec import ExperimentSpec
from workflows.foreword import bytes_needed

HAADF = Mode(name="haadf", detectors=(Detector(name="haadf"),))
CAMERA = Mode(name="4d", kind="4d_stem", detectors=(Detector(name="camera", shape_px=(256, 256)),))
CAPABILITIES = Capabilities(name="bench", simulated=True, axes=(), modes=(HAADF, CAMERA))


def spec(mode: dict[str, Any] | None = None, dose_e_per_a2: float | None = None, **budget: float) -> ExperimentSpec:
    fixed = {
        "y_nm": 0,
        "field_of_view_nm": 64,
        "pixel_size_nm": 1,
        "dwell_time_us": 1000,
        "probe_current_pa": 50,
        "defocus_nm": 0,
    }
    return ExperimentSpec.model_validate(
        {
            "name": "room",
            "specimen": {"material": "anything"},
            "instrument": {
                "name": "bench",
                "optics": {"beam_energy_ev": 60000, "semi_convergence_angle_mrad": 31.5},
                "scan": {"subframe_count": 2},
                "fixed": fixed,
            },
            "search_space": {"x_nm": {"low": -60, "high": 60}, **({"mode": mode} if mode else {})},
            "objective": {"name": "brightness"},
            "policy": {"name": "sobol"},
            "budget": budget or {"frames": 4},
            "safety": {"max_dose_e_per_a2": dose_e_per_a2},
        }
    )


def test_a_scan_of_patterns_needs_room_for_all_of_them() -> None:
    images = bytes_needed(spec(), CAPABILITIES)
    patterns = bytes_needed(spec({"choices": ["haadf", "4d"]}), CAPABILITIES)
    assert patterns - images == 4 * 2 * 64 * 64 * 256 * 256 * 2  # frames, sub-frames, points, detector pixels, bytes
    first = CAPABILITIES.model_copy(update={"modes": (CAMERA, HAADF)})
    assert bytes_needed(spec(), first) == patterns, "without a mode it is the instrument's first"


def test_time_bounds_how_many_scans_there_can_be() -> None:
    frame = bytes_needed(spec({"choices": ["4d"]}, frames=1), CAPABILITIES)
    timed = bytes_needed(spec({"choices": ["4d"]}, instrument_time_s=12.0), CAPABILITIES)  # a scan takes 4.1 s
    assert timed == pytest.approx(3 * frame, abs=3)


def test_electrons_bound_how_many_scans_there_can_be() -> None:
    frame = bytes_needed(spec({"choices": ["4d"]}, frames=1), CAPABILITIES)
    each = electrons(50.0, 64 * 64 * 1e-3)
    paid = bytes_needed(spec({"choices": ["4d"]}, electrons=2.5 * each), CAPABILITIES)
    assert paid == pytest.approx(3 * frame, abs=3)


def test_the_dose_limit_bounds_how_many_scans_there_can_be() -> None:
    frame = bytes_needed(spec({"choices": ["4d"]}, frames=1), CAPABILITIES)
    each = electrons(50.0, 64 * 64 * 1e-3)
    turned_nm = 64 * 2**0.5 + 2  # a field at any angle, a cell at either end; the space is 120 nm wide
    dose_e_per_a2 = 6.5 * each / ((120 + turned_nm) * turned_nm * 100)
    dosed = bytes_needed(spec({"choices": ["4d"]}, dose_e_per_a2, instrument_time_s=1e6), CAPABILITIES)
    assert dosed == pytest.approx(7 * frame, abs=7)
