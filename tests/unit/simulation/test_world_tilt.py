"""A specimen that leans: where the beam meets it, what of a scan has which focus, and a stage that goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from instruments import StagePosition
from simulation.world.faults import Faults
from simulation.world.focus_bands import BLURRED_NM, bands
from simulation.world.tilt import UPRIGHT, Tilt

ANGLES = st.floats(-60, 60)
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
