"""A bent scan is straightened from the phases of its own lattice, also where rows shift by more than half a row."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.features.bending import Bending, grid_nm

PIXEL_NM = 0.02
BASIS_NM = np.array([[0.316, 0.158], [0.0, 0.316 * np.sqrt(3) / 2]])
G = np.array([[1, 0], [0, 1], [1, -1]]) @ np.linalg.inv(BASIS_NM)


def drawn(amount_nm: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy lattice whose scan creeps, and the displacement (rows, columns, 2) without its mean."""
    places = grid_nm((384, 384), PIXEL_NM)
    x, y = np.moveaxis(places / places.max(), -1, 0)
    bent = amount_nm * np.stack([0.8 * y**3 + 0.3 * x * y, 0.5 * y**2 - 0.4 * x**2 * y], axis=-1)
    waves = np.exp(2j * np.pi * ((places - bent) @ G.T)).real.sum(axis=-1)
    noise = np.random.default_rng(seed).normal(size=waves.shape)
    return waves + noise, bent - bent.mean(axis=(0, 1))


@pytest.mark.parametrize("amount_nm", [0.05, 0.5])
def test_displacement_is_found(amount_nm: float) -> None:
    image, true = drawn(amount_nm)
    found = Bending.of(image, PIXEL_NM, G).displacement_nm(grid_nm(image.shape, PIXEL_NM))
    error = found - true
    error -= error.mean(axis=(0, 1))
    assert np.abs(true).max() > 0.6 * amount_nm
    assert np.sqrt((error[20:-20, 20:-20] ** 2).sum(axis=-1).mean()) < 0.012


def test_a_straight_scan_stays_straight() -> None:
    image, _ = drawn(0.0)
    found = Bending.of(image, PIXEL_NM, G).displacement_nm(grid_nm(image.shape, PIXEL_NM))
    assert np.abs(found).max() < 0.03


def test_bent_undoes_displacement() -> None:
    bending = Bending.of(drawn(0.5)[0], PIXEL_NM, G)
    there = bending.bent(np.array([[1.0, -2.0], [-3.0, 3.0]]))
    assert there - bending.displacement_nm(there) == pytest.approx(np.array([[1.0, -2.0], [-3.0, 3.0]]), abs=1e-4)


def test_straightened_image_has_the_undistorted_lattice() -> None:
    image, _ = drawn(0.5)
    straight = Bending.of(image, PIXEL_NM, G).straightened(image, PIXEL_NM)
    places = grid_nm(image.shape, PIXEL_NM)[30:-30, 30:-30]
    before, after = (
        [abs((picture[30:-30, 30:-30] * np.exp(2j * np.pi * (places @ g))).mean()) for g in G]
        for picture in (image, straight)
    )
    assert np.mean(after) > 0.45  # of 0.5, bilinear interpolation included
    assert np.mean(after) > 1.5 * np.mean(before)
