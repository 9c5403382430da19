"""A specimen that leans: where the beam meets it, what of a scan has which focus, and a stage that goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from instruments import AcquireFrame, GuardedMicroscope, Optics, SafetyEnvelope, ScanPattern, StagePosition
from simulation.microscope import open_simulated
from simulation.world.faults import Faults
from simulation.world.focus_bands import BLURRED_NM, bands
from simulation.world.tilt import UPRIGHT, Tilt

ANGLES = st.floats(-60, 60)
STRUCTURE = Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz"
LENGTHS = st.floats(-1e3, 1e3)


@settings(max_examples=40)
@given(ANGLES, ANGLES, LENGTHS, LENGTHS, LENGTHS)
def test_the_beam_meets_what_is_seen_where_it_is(
    alpha_deg: float, beta_deg: float, u_nm: float, v_nm: float, height_nm: float
) -> None:
    """As a rotation about +x and then about the y it carries along has it, z up."""
    tilt = Tilt(alpha_deg, beta_deg)
    turned = Rotation.from_euler("XY", [alpha_deg, beta_deg], degrees=True).apply([u_nm, v_nm, height_nm])
    assert (*tilt.seen(u_nm, v_nm, height_nm), tilt.raised_nm(u_nm, v_nm, height_nm)) == pytest.approx(
        tuple(turned), abs=1e-9
    )
    assert tilt.on_sheet(turned[0], turned[1], height_nm) == pytest.approx((u_nm, v_nm), abs=1e-8)


def test_the_side_of_y_rises_with_alpha_and_that_of_x_sinks_with_beta() -> None:
    assert Tilt(alpha_deg=10.0).raised_nm(0.0, 1.0) == pytest.approx(np.sin(np.radians(10)))
    assert Tilt(beta_deg=10.0).raised_nm(1.0, 0.0) == pytest.approx(-np.sin(np.radians(10)))
    assert Tilt.of(StagePosition(x_nm=3.0, z_nm=5.0)) is UPRIGHT
    assert UPRIGHT.seen(1.25, -3.5, 7.0) == (1.25, -3.5) == UPRIGHT.on_sheet(1.25, -3.5, 7.0)


@settings(max_examples=40)
@given(ANGLES, ANGLES, st.floats(-180, 180))
def test_a_rectangle_keeps_its_area(alpha_deg: float, beta_deg: float, rotation_deg: float) -> None:
    tilt = Tilt(alpha_deg, beta_deg)
    width, height, _ = tilt.rectangle(8.0, 5.0, rotation_deg)
    assert width * height * tilt.foreshortening == pytest.approx(40.0)


@settings(max_examples=40)
@given(st.floats(-300, 300), st.floats(-3, 3), st.floats(-3, 3))
def test_every_pixel_is_drawn_once_at_its_own_defocus(middle_nm: float, down_nm: float, across_nm: float) -> None:
    rows, columns = np.indices((9, 12))
    defocus_nm = middle_nm + rows * down_nm + columns * across_nm
    total, mean_nm = np.zeros((9, 12)), np.zeros((9, 12))
    for band in bands(defocus_nm):
        total[band.place] += band.weights
        mean_nm[band.place] += band.weights * band.defocus_nm
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    np.testing.assert_allclose(mean_nm, np.clip(defocus_nm, -BLURRED_NM, BLURRED_NM), atol=1e-3)


@pytest.mark.parametrize(
    ("faults", "stands", "reads"),
    [
        ({}, {"x_nm": 10.0, "alpha_deg": 4.0}, {"x_nm": 10.0, "alpha_deg": 4.0}),
        ({"stuck_axes": ["alpha_deg"]}, {"x_nm": 10.0, "alpha_deg": 0.0}, {"x_nm": 10.0, "alpha_deg": 0.0}),
        ({"slipping_axes": ["x_nm"]}, {"x_nm": 0.0, "alpha_deg": 4.0}, {"x_nm": 10.0, "alpha_deg": 4.0}),
        ({"factor_by_axis": {"x_nm": 1.1}}, {"x_nm": 11.0, "alpha_deg": 4.0}, {"x_nm": 10.0, "alpha_deg": 4.0}),
        ({"play_by_axis": {"alpha_deg": 0.5}}, {"x_nm": 10.0, "alpha_deg": 3.5}, {"x_nm": 10.0, "alpha_deg": 4.0}),
    ],
)
def test_a_faulty_stage_stands_elsewhere_than_it_reads(
    faults: dict[str, Any], stands: dict[str, float], reads: dict[str, float]
) -> None:
    here, wanted = StagePosition(), StagePosition(x_nm=10.0, alpha_deg=4.0)
    found = Faults(**faults).arrived(here, here, wanted)
    assert [place.x_nm for place in found] == pytest.approx([stands["x_nm"], reads["x_nm"]])
    assert [place.alpha_deg for place in found] == [stands["alpha_deg"], reads["alpha_deg"]]


@pytest.mark.parametrize(
    ("alpha_deg", "beta_deg"), [(0.0, 0.0), (20.0, 0.0), (0.0, -20.0), (-40.0, 0.0), (40.0, -20.0)]
)
def test_the_books_of_a_guard_hold_what_a_leaning_specimen_gets(alpha_deg: float, beta_deg: float) -> None:
    """In every cell, though it lies nobody knows how far off the tilt axis; not one electron is counted twice."""
    moving = ("drift", "move_drift", "move_drift_floor")
    still = {f"{name}_nm_per_min": 0.0 for name in moving} | {"backlash_min_nm": 0.0, "backlash_max_nm": 0.0}
    twin = open_simulated(
        structure=str(STRUCTURE), seed=4, width_nm=70.0, height_nm=70.0, fittings=True, eucentric_error_nm=9.0,
        tilt_range_deg=60.0, densities_per_nm2={}, **still,
    )  # fmt: skip
    stage = StagePosition(x_nm=1.3, y_nm=-2.2, z_nm=5.0, alpha_deg=alpha_deg, beta_deg=beta_deg)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0)
    scan = ScanPattern(
        field_of_view_nm=10.0, shape_px=(80, 110), dwell_time_us=1.0, rotation_deg=30.0, beam_shift_x_nm=3.0
    )
    commands = [
        AcquireFrame(action_id="scan", deadline_s=60, stage=stage, optics=optics, scan=scan, mode="maadf"),
        AcquireFrame(
            action_id="disc", deadline_s=60, stage=stage, optics=optics, mode="tem",
            scan=ScanPattern(field_of_view_nm=6, shape_px=(9, 9), dwell_time_us=2e5, at_once=True, illuminated_nm=100),
        ),
    ]  # fmt: skip
    guarded = GuardedMicroscope(twin, SafetyEnvelope())
    twin.rebuild(commands)
    assert twin.outcome("disc") == "delivered"
    for command in commands:
        guarded.recharge(command, None)
    truth = twin.truth()
    burnt = truth["dose_map_e_per_a2"]
    booked = guarded.ledger.mean_map(truth["dose_map_x_min_nm"], truth["dose_map_y_min_nm"], *burnt.shape)
    assert burnt.max() > 100
    assert (booked >= burnt).all()
    assert guarded.ledger.max_e_per_a2 >= burnt.max()
    assert truth["electrons"] <= guarded.ledger.electrons < 1.05 * truth["electrons"]
    if alpha_deg == beta_deg == 0:
        np.testing.assert_allclose(booked, burnt, rtol=0.04, err_msg="what its current may be off by")
