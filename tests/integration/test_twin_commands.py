"""Everything a column is told, told to the fitted twin through the guard: done and read back, or no axis of its."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from instruments import Axis, CommandRefused, SafetyEnvelope, Unsupported
from instruments.axes import KNOWN_AXES
from instruments.guards import GuardedMicroscope
from instruments.registration import displacement
from simulation.world.at_once import MRAD_PER_PX
from tests.integration.twin_bench import STILL, at_once, frame, setting, twin

WITH_FRAMES = {
    "field_of_view_nm", "pixel_size_nm", "dwell_time_us", "flyback_time_us", "rotation_deg", "subframe_count",
    "frame_px", "park_s",
}  # fmt: skip
NOT_THERE = {
    "image_shift_x_nm", "image_shift_y_nm", "spot_index", "magnification_index", "condenser_aperture",
    "selected_area_aperture", "column_valves", "high_tension", "vacuum",
}  # fmt: skip


def another(axis: Axis, now: float | str | None) -> float | str:
    """A value of the axis at which it does not stand."""
    if axis.choices:
        return next(word for word in axis.choices if word != now)
    if axis.name == "camera_length_mm":
        return 80.0
    low, high = max(axis.minimum, -5.0), axis.maximum
    return float(round(low + (min(high, 10.0 + low) - low) / 2)) or low


def test_whatever_has_a_name_is_carried_out_or_not_there(image_cache: Path) -> None:
    """All known axes but those that come with a frame: set and read back where asked for, or Unsupported."""
    microscope = twin(image_cache, fittings=True, **STILL)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(permissions=("valves", "high_tension", "vacuum")))
    card = microscope.capabilities()
    names = [name for name in KNOWN_AXES if name not in WITH_FRAMES and card.axis(name) is None]
    names = [name for name in names if not any(axis.name.endswith(f".{name}") for axis in card.axes)]
    assert set(names) == NOT_THERE
    for name in NOT_THERE:
        with pytest.raises(Unsupported, match=f"no axis {name}"):
            guarded.execute(setting(f"no-{name}", **{name: 1.0}))
    moving = [
        axis for axis in card.axes if axis.name not in WITH_FRAMES and (axis.choices or axis.minimum < axis.maximum)
    ]
    assert len(moving) > 50
    for axis in moving:
        value = another(axis, guarded.read_state().axis_value(axis.name))
        state = guarded.execute(setting(f"go-{axis.name}", **{axis.name.replace(".", "__"): value}))
        assert state.axis_value(axis.name) == value, axis.name
    assert {axis.name for axis in card.axes} - {axis.name for axis in moving} == WITH_FRAMES | {"beam_energy_ev"}


def test_a_tilted_beam_and_descan_move_the_pattern_and_not_the_specimen() -> None:
    """The pattern goes with the beam's tilt, comes back by descan, and the frame says where its middle is."""
    microscope = twin(fittings=True, **STILL, focus_offset_nm=0.0, contamination_nm=1e-6, rms_displacement_nm=0.0)

    def middle(action_id: str, **optics: float) -> tuple[float, float]:
        shot = microscope.acquire(at_once(action_id, "diffraction", field_nm=1.5, side_px=96, optics=optics))
        pattern = microscope.noiseless(action_id, 0)["camera"]
        row, column = center_of_mass(np.where(pattern > pattern.max() / 2, pattern, 0.0))
        assert (row, column) == pytest.approx(tuple(shot.context["pattern_centre_px"]), abs=1.0)
        return row, column

    upright = middle("upright")
    moved = np.subtract(middle("tilted", tilt_x_mrad=5.0, tilt_y_mrad=-2.0), upright) * MRAD_PER_PX
    assert moved == pytest.approx((-2.0, 5.0), abs=0.2)
    microscope.execute(setting("back", descan_x_mrad=-5.0, descan_y_mrad=2.0))
    assert middle("descanned", tilt_x_mrad=5.0, tilt_y_mrad=-2.0) == pytest.approx(upright, abs=1.0)
    with pytest.raises(CommandRefused, match="descan is not 0: mode 'maadf' has images of a beam on the axis alone"):
        microscope.acquire(frame("scan"))
    microscope.execute(setting("off", descan_x_mrad=0.0, descan_y_mrad=0.0))
    with pytest.raises(CommandRefused, match="tilt_x_mrad is not 0"):
        microscope.acquire(frame("tilted-scan", optics={"tilt_x_mrad": 1.0}))
    assert microscope.outcome("scan") == "not_started"


def test_out_of_focus_a_tilted_beam_moves_the_image() -> None:
    """Underfocus by d shows a plane nearer to the gun, where a beam tilted to +x was d tan(tilt) nearer to -x."""
    microscope = twin(fittings=True, **STILL, focus_offset_nm=0.0, contamination_nm=1e-6, rms_displacement_nm=0.0)
    images: list[np.ndarray] = []
    for action_id, tilt_mrad in (("straight", 0.0), ("aside", 10.0)):
        optics = {"defocus_nm": 6.0, "tilt_x_mrad": tilt_mrad}
        microscope.acquire(at_once(action_id, "tem", field_nm=3.0, side_px=48, optics=optics))
        images.append(microscope.noiseless(action_id, 0)["camera"])
    found = displacement(*images)
    expected_px = -6.0 * np.tan(10e-3) * 48 / 3.0
    assert (found.x_px, found.y_px) == pytest.approx((expected_px, 0.0), abs=0.25)


def test_a_camera_length_brings_its_mode_and_a_smaller_aperture_a_wider_probe(image_cache: Path) -> None:
    still = {**STILL, "focus_offset_nm": 0.0, "focal_spread_nm": 0.0}
    microscope = twin(image_cache, fittings=True, **still, densities_per_nm2={})
    state = microscope.execute(setting("short", camera_length_mm=80.0))
    assert (state.mode, state.time_s) == ("haadf", 10.0)
    sharp, wide = frame("sharp"), frame("wide", optics={"semi_convergence_angle_mrad": 16.0})
    for command in (sharp, wide):
        microscope.acquire(command)
    contrasts = [float(microscope.noiseless(command.action_id, 0)["maadf"].std()) for command in (sharp, wide)]
    assert contrasts[1] < 0.8 * contrasts[0]
    with pytest.raises(CommandRefused, match="semi convergence angle 12 mrad is outside 15"):
        microscope.acquire(frame("narrow", optics={"semi_convergence_angle_mrad": 12.0}))
    with pytest.raises(CommandRefused, match="phi12 190 deg is outside -180 to 180"):
        microscope.acquire(frame("turned", optics={"aberrations": {"c12_nm": 1.0, "phi12_deg": 190.0}}))
