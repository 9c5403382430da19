"""The stage of the fitted twin tilts: what that takes, what images do, what the guard and registration find wrong."""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquisitionFailed,
    CommandRefused,
    Frame,
    InstrumentFault,
    SafetyEnvelope,
    StagePosition,
    Unsupported,
)
from instruments.guards import GuardedMicroscope
from instruments.limits import StageBox
from instruments.registration import Displacement, displacement
from simulation.microscope import SimulatedMicroscope
from simulation.world.damage import Raster
from tests.integration.twin_bench import STILL, at_once, frame, setting, survey, twin

HEIGHT_NM = 25.0
PX_NM = 60.0 / 64


def leaning(cache: Path, **changes: Any) -> SimulatedMicroscope:
    """A fitted twin that goes where it is sent, its specimen somewhere off the tilt axis."""
    settings: dict[str, Any] = {
        "fittings": True, **STILL, "eucentric_error_nm": HEIGHT_NM, "densities_per_nm2": {},
    }  # fmt: skip
    return twin(cache, **(settings | changes))


def seen(microscope: SimulatedMicroscope, action_id: str, **stage: float) -> Frame:
    return microscope.acquire(survey(action_id, stage=StagePosition(**stage)))


def moved(first: Frame, second: Frame) -> Displacement:
    """How far the content went, in pixels."""
    return displacement(first.total("maadf"), second.total("maadf"))


@pytest.mark.parametrize("axis", ["z_nm", "alpha_deg", "beta_deg"])
def test_an_unfitted_stage_does_not_tilt(axis: str) -> None:
    microscope = twin()
    assert microscope.capabilities().axis(axis) is None
    tilted = frame("a", stage=StagePosition(**{axis: 1.0}))
    with pytest.raises(Unsupported, match=f"no axis {axis}"):
        microscope.execute(setting("s", **{axis: 1.0}))
    for attempt in (microscope.acquire, microscope.forecast):
        with pytest.raises(Unsupported, match=f"no axis {axis}"):
            attempt(tilted)
    microscope.rebuild([tilted])
    assert microscope.outcome("a") == "not_started"


def test_tilting_takes_its_time_and_ends_at_its_limits(image_cache: Path) -> None:
    microscope = leaning(image_cache)
    state = microscope.execute(setting("go", alpha_deg=10.0, beta_deg=-4.0))
    assert state.time_s == pytest.approx(2.0 + 10.0 / 2.0), "settling, and ten degrees at two a second"
    assert (state.stage.alpha_deg, state.stage.beta_deg) == (10.0, -4.0)
    assert all(reading.is_reached for reading in state.axes.values() if reading.requested is not None)
    with pytest.raises(CommandRefused, match="alpha_deg 31 is outside -30 to 30 deg"):
        microscope.execute(setting("far", alpha_deg=31.0))
    with pytest.raises(CommandRefused, match="stage beta 31 deg is outside"):
        microscope.acquire(frame("far-frame", stage=StagePosition(beta_deg=31.0)))
    assert microscope.read_state() == state.model_copy(update={"axes": microscope.read_state().axes})


def test_a_specimen_off_the_tilt_axis_moves_when_tilted_and_registration_sees_which_way(image_cache: Path) -> None:
    """Content so high above the axis goes by -sin(alpha) along y and by sin(beta) along x, and nowhere at the axis."""
    microscope = leaning(image_cache)
    axis_z_nm = microscope.truth()["eucentric_z_nm"]
    assert 1.0 < abs(axis_z_nm) < HEIGHT_NM
    level, height_nm = seen(microscope, "level", z_nm=20.0), 20.0 - axis_z_nm
    by_alpha = moved(level, seen(microscope, "alpha", z_nm=20.0, alpha_deg=12.0))
    assert (by_alpha.x_px, by_alpha.y_px) == pytest.approx((0.0, -sin(radians(12)) * height_nm / PX_NM), abs=0.4)
    by_beta = moved(level, seen(microscope, "beta", z_nm=20.0, beta_deg=12.0))
    assert (by_beta.x_px, by_beta.y_px) == pytest.approx((sin(radians(12)) * height_nm / PX_NM, 0.0), abs=0.4)
    at_axis = moved(level, seen(microscope, "eucentric", z_nm=axis_z_nm, alpha_deg=12.0))
    assert (at_axis.x_px, at_axis.y_px) == pytest.approx((0.0, 0.0), abs=0.4)


def test_a_field_is_foreshortened_and_leans_through_the_focus(image_cache: Path) -> None:
    """More of the specimen is seen across the axis; the side that rises is as if the stage had gone up there."""
    microscope = leaning(image_cache, eucentric_error_nm=0.0, contamination_nm=1e-6)
    microscope.execute(setting("sync", line_sync="on"))
    lean = StagePosition(alpha_deg=20.0)
    whole = frame("whole", stage=lean, scan={"field_of_view_nm": 8.0, "shape_px": (64, 64)}, subframe_count=1)
    side = whole.model_copy(
        update={"action_id": "side", "scan": whole.scan.model_copy(update={"beam_shift_y_nm": 2.0})}
    )
    for command in (whole, side):
        microscope.acquire(command)
    images = [microscope.noiseless(command.action_id, 0)["maadf"] for command in (whole, side)]
    np.testing.assert_allclose(images[0][16:], images[1][:48], rtol=2e-3)
    actions = microscope.truth()["actions"]
    assert actions["side"]["true_defocus_nm"] - actions["whole"]["true_defocus_nm"] == pytest.approx(
        2.0 * np.tan(radians(20)), abs=0.5
    )
    assert actions["side"]["displacement_nm"][1] == pytest.approx(2.0 / cos(radians(20)) - 2.0)
    rasters = [raster for raster, _ in microscope.world.exposed if isinstance(raster, Raster)]
    assert (rasters[0].width_nm, rasters[0].height_nm) == pytest.approx((8.0, 8.0 / cos(radians(20))))


def test_where_hardly_anything_leans_hardly_anything_changes() -> None:
    """The camera's upright and leaning images are made in two ways, which have to meet: focus, film and place."""
    still = {**STILL, "eucentric_error_nm": 0.0, "rms_displacement_nm": 0.0, "focal_spread_nm": 0.0}
    microscope = twin(fittings=True, **still, clean_fraction=0.0, contamination_nm=2.0)
    images: list[np.ndarray] = []
    for number, alpha_deg in enumerate((0.0, 1e-3)):
        stage, optics = StagePosition(alpha_deg=alpha_deg), {"defocus_nm": 4.0}
        microscope.acquire(at_once(f"at{number}", "tem", field_nm=2.0, side_px=32, stage=stage, optics=optics))
        images.append(microscope.noiseless(f"at{number}", 0)["camera"])
    np.testing.assert_allclose(images[1], images[0], atol=0.05 * float(images[0].std()))


def test_a_tilt_series_keeps_clear_of_the_pole_piece(image_cache: Path) -> None:
    """Far from the middle the table allows little tilt; the stage goes to the middle first, then through the series."""
    rows = (
        StageBox(max_alpha_deg=5.0, min_x_nm=-1000.0, max_x_nm=1000.0),
        StageBox(max_alpha_deg=25.0, min_x_nm=-100.0, max_x_nm=100.0, min_z_nm=-50.0, max_z_nm=50.0),
    )
    settings = {"eucentric_error_nm": 0.0, "focal_spread_nm": 0.0}
    microscope = leaning(image_cache, **settings)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(pole_piece=rows))
    guarded.execute(setting("aside", x_nm=500.0))
    with pytest.raises(CommandRefused, match="pole-piece"):
        guarded.execute(setting("tilt", alpha_deg=20.0))
    with pytest.raises(CommandRefused, match="pole-piece"):
        guarded.acquire(frame("both", stage=StagePosition(x_nm=0.0, alpha_deg=20.0)))
    assert guarded.read_state().stage == StagePosition(x_nm=500.0)
    guarded.execute(setting("middle", x_nm=0.0))
    patterns = [
        guarded.acquire(
            at_once(f"at{alpha_deg:g}", "tem", field_nm=1.0, side_px=8, stage=StagePosition(alpha_deg=alpha_deg))
        )
        for alpha_deg in (0.0, 20.0, -20.0)
    ]
    assert [one.state.stage.alpha_deg for one in patterns] == [0.0, 20.0, -20.0]
    images = [microscope.noiseless(one.action_id, 0)["camera"] for one in patterns]
    assert not np.allclose(images[0], images[1], rtol=0.02)
    assert not np.allclose(images[1], images[2], rtol=0.02)
    with pytest.raises(CommandRefused, match="pole-piece"):
        guarded.execute(setting("up", z_nm=60.0))
    again = leaning(image_cache, **settings)
    again.rebuild([setting("aside", x_nm=500.0), setting("middle", x_nm=0.0), *(one.requested for one in patterns)])
    np.testing.assert_array_equal(again.acquire(patterns[1].requested).counts["camera"], patterns[1].counts["camera"])


def test_a_tilt_that_sticks_is_told_by_its_read_back(image_cache: Path) -> None:
    microscope = leaning(image_cache, faults={"stuck_axes": ["alpha_deg"]})
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_position_error_nm=10.0))
    with pytest.raises(InstrumentFault, match="alpha_deg was sent to 12"):
        guarded.execute(setting("go", alpha_deg=12.0))
    assert guarded.read_state().stage.alpha_deg == 0.0
    with guarded.events.subscribe() as told:
        shot = guarded.acquire(frame("level", stage=StagePosition(alpha_deg=12.0)))
        messages = {event.kind: event.message for event in told.take()}
    assert shot.state.stage.alpha_deg == 0.0
    assert "alpha_deg 0 instead of 12" in messages["taken_elsewhere"]


@pytest.mark.parametrize(
    ("faults", "asked_deg", "stands_deg"),
    [
        ({"slipping_axes": ["alpha_deg"]}, 12.0, 0.0),
        ({"factor_by_axis": {"alpha_deg": 0.5}}, 24.0, 12.0),
        ({"play_by_axis": {"alpha_deg": 4.0}}, 16.0, 12.0),
    ],
)
def test_a_tilt_that_lies_is_seen_by_registration_alone(
    image_cache: Path, faults: dict[str, Any], asked_deg: float, stands_deg: float
) -> None:
    """It slips, is calibrated wrongly, or plays: read back as commanded, and the image goes another way."""
    microscope = leaning(image_cache, faults=faults)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_position_error_nm=10.0))
    level = guarded.acquire(survey("level", stage=StagePosition(z_nm=40.0)))
    tilted = guarded.acquire(survey("tilted", stage=StagePosition(z_nm=40.0, alpha_deg=asked_deg)))
    assert tilted.state.stage.alpha_deg == asked_deg
    height_px = (40.0 - microscope.truth()["eucentric_z_nm"]) / PX_NM
    found = moved(level, tilted)
    assert found.y_px == pytest.approx(-sin(radians(stands_deg)) * height_px, abs=0.6)
    assert abs(found.y_px + sin(radians(asked_deg)) * height_px) > 1.5, "not what was commanded"


def test_a_tilting_stage_drifts_and_misses_like_any_other(image_cache: Path) -> None:
    microscope = leaning(
        image_cache, backlash_min_nm=5.0, backlash_max_nm=5.0, move_drift_nm_per_min=3.0, eucentric_error_nm=0.0
    )
    frames = [seen(microscope, name, alpha_deg=12.0) for name in ("a", "b")]
    at = [np.array(microscope.truth()["actions"][name]["displacement_nm"]) for name in ("a", "b")]
    assert np.hypot(*at[0]) == pytest.approx(5.0, abs=0.5)
    found = moved(*frames)
    assert (found.x_px * PX_NM, found.y_px * PX_NM) == pytest.approx(tuple(at[0] - at[1]), abs=0.3)


def test_lost_frames_are_debited_and_late_answers_come(image_cache: Path) -> None:
    microscope = leaning(image_cache, faults={"lost_frame_fraction": 1.0, "latency_s": 0.05})
    guarded = GuardedMicroscope(microscope, SafetyEnvelope())
    with pytest.raises(AcquisitionFailed, match="got lost"):
        guarded.acquire(frame("lost", stage=StagePosition(alpha_deg=8.0)))
    assert guarded.outcome("lost") == "delivered"
    assert guarded.ledger.electrons >= microscope.truth()["electrons"] > 0
    with pytest.raises(AcquisitionFailed, match="got lost"):
        microscope.acquire(frame("lost", stage=StagePosition(alpha_deg=8.0)))
