"""The column fitter: unbiased, with honest errors, equal to a general least-squares fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from orchestrator.features.columns import fit_columns

SIGMA, SPACING, COUNT = 3.0, 24, 30


def picture(rng: np.random.Generator, height: float = 40.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = (COUNT + 2) * SPACING
    centres = (np.arange(COUNT) + 1.5) * SPACING
    x, y = (grid.ravel() for grid in np.meshgrid(centres, centres))
    x, y = x + rng.uniform(-1, 1, x.shape), y + rng.uniform(-1, 1, y.shape)
    axis = np.arange(size)
    bells_x = np.exp(-((axis - x[:, None]) ** 2) / (2 * SIGMA**2))
    bells_y = np.exp(-((axis - y[:, None]) ** 2) / (2 * SIGMA**2))
    return 5.0 + height * bells_y.T @ bells_x, x, y


def test_values_and_standard_errors() -> None:
    rng = np.random.default_rng(1)
    mean, x, y = picture(rng, 160.0)
    start = rng.uniform(-0.7, 0.7, (2, len(x)))
    fits = fit_columns(rng.poisson(mean), x + start[0], y + start[1], 2.8)
    found = {"amplitude": (fits.amplitude, 160.0, 0), "x": (fits.x_px, x, 1), "y": (fits.y_px, y, 2)}
    found |= {"sigma": (fits.sigma_px, SIGMA, 3), "background": (fits.background, 5.0, 4)}
    for name, (value, truth, number) in found.items():
        pull = (value - truth) / fits.std[:, number]
        print(f"{name}: mean pull {pull.mean():+.3f}, coverage {np.mean(np.abs(pull) < 1.96):.3f}")
        assert 0.92 < np.mean(np.abs(pull) < 1.96) < 0.98, name
        assert abs(pull.mean()) < 0.15, name


def test_agrees_with_general_least_squares_without_noise() -> None:
    mean, x, y = picture(np.random.default_rng(2))
    fits = fit_columns(mean, x[:5] + 0.4, y[:5] - 0.3, 2.8, pixel_std=0.1)
    rows, columns = np.mgrid[0 : mean.shape[0], 0 : mean.shape[1]]
    for number in range(5):
        near = (np.abs(rows - round(y[number])) <= 9) & (np.abs(columns - round(x[number])) <= 9)

        def residual(p, near=near):
            bell = np.exp(-((columns[near] - p[1]) ** 2 + (rows[near] - p[2]) ** 2) / (2 * p[3] ** 2))
            return p[0] * bell + p[4] - mean[near]

        general = least_squares(residual, [30, x[number], y[number], 3, 4]).x
        assert fits.x_px[number] == pytest.approx(general[1], abs=2e-3)
        assert fits.y_px[number] == pytest.approx(general[2], abs=2e-3)
        assert fits.integral[number] == pytest.approx(2 * np.pi * general[0] * general[3] ** 2, rel=5e-3)


def test_a_column_at_the_border_is_refused() -> None:
    with pytest.raises(ValueError, match=r"column 1 at \(2.0, 20.0\) px is nearer than 9 px"):
        fit_columns(np.ones((40, 40)), np.array([20.0, 2.0]), np.array([20.0, 20.0]), 3.0)
