"""Pieces of an image: Fourier terms, pixel grids, afterglow, the film's scattering, shot noise, drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruments import ScanPattern
from simulation.noise import count_electrons
from simulation.world.contamination import film_fraction_per_nm
from simulation.world.drift import Wander, creep_nm
from simulation.world.frame_images import Grid, Terms, with_afterglow


def grid_of(rotation_deg: float = 0.0, x_nm: float = 0.0, y_nm: float = 0.0, rows: int = 20, columns: int = 30) -> Grid:
    scan = ScanPattern(field_of_view_nm=6.0, shape_px=(rows, columns), dwell_time_us=1, rotation_deg=rotation_deg)
    return Grid.of(scan, np.full(rows, x_nm), np.full(rows, y_nm))


@pytest.mark.parametrize("shape", [(24, 16), (23, 17), (24, 17)])
def test_terms_give_the_image_back(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = 1 + 0.1 * rng.standard_normal(shape)
    terms = Terms.of(image)
    rows, columns = np.indices(shape)
    phase = np.multiply.outer(columns / shape[1], terms.h) + np.multiply.outer(rows / shape[0], terms.k)
    again = terms.mean + (np.exp(2j * np.pi * phase) @ terms.amplitudes).real
    np.testing.assert_allclose(again, image, atol=1e-4)


def test_pixels_lie_where_the_scan_pattern_says() -> None:
    x, y = grid_of(x_nm=10.0, y_nm=-4.0).points()
    assert x.shape == (20, 30)
    assert (x[0, 0], y[0, 0]) == pytest.approx((10 - 14.5 * 0.2, -4 - 9.5 * 0.2))
    assert x[3, 5] - x[3, 4] == pytest.approx(0.2)
    assert y[3, 5] - y[2, 5] == pytest.approx(0.2)
    turned_x, turned_y = grid_of(90.0, 10.0, -4.0).points()
    np.testing.assert_allclose(turned_x - 10.0, -(y + 4.0), atol=1e-12)
    np.testing.assert_allclose(turned_y + 4.0, x - 10.0, atol=1e-12)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 360), st.floats(0.05, 2))
def test_window_holds_every_pixel_within_reach(x_nm: float, y_nm: float, rotation_deg: float, reach_nm: float) -> None:
    grid = grid_of(rotation_deg)
    x, y = grid.points()
    near = np.maximum(np.abs(x - x_nm), np.abs(y - y_nm)) <= reach_nm - 1e-9
    window = grid.window(x_nm, y_nm, reach_nm)
    if window is None:
        assert not near.any()
        return
    outside = near.copy()
    outside[window] = False
    assert not outside.any()


def test_afterglow_moves_signal_to_later_pixels_of_the_line() -> None:
    image = np.zeros((3, 40), dtype=np.float32)
    image[1, 5] = 1.0
    glowing = with_afterglow(image, 0.5, 0.2)
    carried = np.exp(-2.5)
    assert glowing[1, 5] == pytest.approx(1 - carried)
    assert glowing[1, 6] / glowing[1, 5] == pytest.approx(carried, rel=1e-5)
    assert glowing.sum() == pytest.approx(1, abs=1e-5)
    assert glowing[0].sum() == glowing[2].sum() == 0
    assert with_afterglow(image, 1.0, 0.0) is image


def test_film_takes_from_the_bright_disc_and_gives_to_the_dark_field() -> None:
    change = {
        limits: film_fraction_per_nm(60e3, 31.5, *limits)
        for limits in ((0.0, 10.0), (16.0, 31.0), (40.0, 100.0), (80.0, 200.0), (0.0, 1e4))
    }
    assert change[0.0, 10.0] < 0
    assert change[16.0, 31.0] < 0
    assert 0 < change[80.0, 200.0] < change[40.0, 100.0] < 0.02
    assert abs(change[0.0, 1e4]) < 0.1 * change[40.0, 100.0]  # only what leaves the grid of angles is missing
    assert film_fraction_per_nm(120e3, 31.5, 80.0, 200.0) < change[80.0, 200.0]


def test_counts_are_poisson_and_negative_means_read_as_zero() -> None:
    image = np.full((300, 300), 0.05)
    counts = count_electrons(image, 80.0, np.random.default_rng(0))
    assert counts.dtype == np.uint16
    assert counts.mean() == pytest.approx(4, abs=4 * 2 / 300)
    assert counts.var() == pytest.approx(4, rel=0.05)
    assert count_electrons(-image, 80.0, np.random.default_rng(0)).max() == 0
    with pytest.raises(ValueError, match="70000 electrons on one pixel are beyond 60000"):
        count_electrons(np.ones((2, 2)), 70_000.0, np.random.default_rng(0))


def test_wander_starts_at_zero_is_smooth_and_a_function_of_time() -> None:
    wander = Wander.draw(1.0, 1.0, np.random.default_rng(0))
    times_s = np.linspace(0, 1000, 20_001)
    path = wander.at(times_s)
    assert path[0] == 0
    assert np.abs(np.diff(path)).max() < 0.05 * 4 / 60
    assert float(wander.at(123.0)) == pytest.approx(float(np.interp(123.0, times_s, path)), abs=1e-6)


def test_creep_slows_from_three_to_a_third_nm_per_min() -> None:
    steps = np.diff(creep_nm(np.array([0.0, 0.6, 1800.0, 1860.0]), 3.0, 0.3, 180.0))
    assert steps[0] == pytest.approx(0.03, rel=0.01)
    assert steps[2] == pytest.approx(0.3, rel=0.01)
    assert creep_nm(-5.0, 3.0, 0.3, 180.0) == 0
