"""Points to commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from instruments import Axis, Capabilities, Detector, Mode
from orchestrator.errors import SpecError
from orchestrator.mapping import command_for, stage_for, subframes_for
from orchestrator.spec import ExperimentSpec

ROOT = Path(__file__).parents[3]
POINT = {
    "purpose": "field", "x_nm": 12.0, "y_nm": -7.0, "field_of_view_nm": 20.0, "pixel_size_nm": 0.039, "mode": "maadf",
    "dwell_time_us": 3.0, "probe_current_pa": 10.0, "defocus_nm": 1.5,
}  # fmt: skip


@pytest.fixture
def spec() -> ExperimentSpec:
    return ExperimentSpec.from_yaml(ROOT / "examples" / "native_defects.yaml")


@pytest.fixture
def capabilities() -> Capabilities:
    return Capabilities(
        name="here",
        simulated=True,
        axes=tuple(
            Axis(name=name, minimum=-500, maximum=500, frame="beam_shift")
            for name in ("beam_shift_x_nm", "beam_shift_y_nm")
        ),
        modes=(
            Mode(
                name="maadf", camera_length_mm=160, detectors=(Detector(name="maadf", inner_mrad=40, outer_mrad=100),)
            ),
        ),
    )


def test_a_command_holds_everything_of_its_point(spec: ExperimentSpec, capabilities: Capabilities) -> None:
    command = command_for(POINT, spec, capabilities, "a1")
    assert command.scan.shape_px == (513, 513)
    assert command.scan.pixel_size_nm == pytest.approx(0.039)
    assert (command.scan.beam_shift_x_nm, command.scan.beam_shift_y_nm) == (12.0, -7.0)
    assert command.optics.defocus_nm == 1.5
    assert command.optics.camera_length_mm == 160
    assert command.subframe_count == 3
    assert command.subframe_count * command.scan.dwell_time_us == pytest.approx(3.0)
    assert command.purpose == "field"


def test_a_point_without_a_mode_is_taken_in_the_first(spec: ExperimentSpec, capabilities: Capabilities) -> None:
    point = {key: value for key, value in POINT.items() if key != "mode"}
    assert command_for(point, spec, capabilities, "a1") == command_for(POINT, spec, capabilities, "a1")


def test_far_points_move_the_stage_and_near_ones_do_not() -> None:
    assert stage_for(499, -499, 500).x_nm == 0
    far = stage_for(3000, 10, 500)
    assert abs(3000 - far.x_nm) <= 500
    assert stage_for(3000, 10, 500) == stage_for(3100, 40, 500)


@pytest.mark.parametrize(("dwell_us", "expected"), [(0.5, 1), (1.0, 1), (2.5, 2), (40.0, 4)])
def test_subframes_are_dropped_before_dwell_gets_too_short(dwell_us: float, expected: int) -> None:
    assert subframes_for(dwell_us, 4, 1.0) == expected


def test_missing_values_and_too_many_pixels_are_named(spec: ExperimentSpec, capabilities: Capabilities) -> None:
    with pytest.raises(SpecError, match="dwell_time_us"):
        command_for({key: value for key, value in POINT.items() if key != "dwell_time_us"}, spec, capabilities, "a")
    with pytest.raises(SpecError, match="1024 px"):
        command_for({**POINT, "field_of_view_nm": 100.0}, spec, capabilities, "a")


def test_where_axes_settle_for_minutes_the_deadline_waits_for_them(
    spec: ExperimentSpec, capabilities: Capabilities
) -> None:
    quick = command_for(POINT, spec, capabilities, "a").deadline_s
    heavy = Axis(name="probe_current_pa", maximum=100, settle_s=600.0)
    slow = capabilities.model_copy(update={"axes": (*capabilities.axes, heavy)})
    assert quick < 200
    assert command_for(POINT, spec, slow, "a").deadline_s > 1200
