"""Stratified displacements are what they claim: standard normal and independent, with less noise in what matters."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.thermal_displacements import unit_displacements

COLUMNS = [(0, 3), (1,), (2, 4, 5)]


def many(configuration_count: int) -> np.ndarray:
    """(seeds * configurations, atoms * 3)."""
    draws = [unit_displacements(COLUMNS, configuration_count, seed) for seed in range(1500)]
    return np.concatenate(draws).reshape(-1, 18)


@pytest.mark.parametrize("configuration_count", [1, 5, 12])
def test_moments_are_those_of_independent_standard_normals(configuration_count: int) -> None:
    draws = many(configuration_count)
    independent = 1500 * min(configuration_count, 2)  # at least so many are independent
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(independent)
    assert np.abs(np.cov(draws.T) - np.eye(18)).max() < 5 * np.sqrt(2 / independent)
    assert np.abs((draws**4).mean(axis=0) - 3).max() < 5 * np.sqrt(96 / independent)


def test_a_seed_fixes_every_bit_and_columns_do_not_depend_on_each_other() -> None:
    first = unit_displacements(COLUMNS, 6, 11)
    assert np.array_equal(first, unit_displacements(COLUMNS, 6, 11))
    assert not np.array_equal(first, unit_displacements(COLUMNS, 6, 12))
    assert np.array_equal(first[:, [0, 3, 1]], unit_displacements([(0, 2), (1,)], 6, 11)[:, [0, 2, 1]])


def test_interference_of_two_stacked_atoms_is_less_noisy_than_with_independent_draws() -> None:
    """cos(2 pi k (u1 - u2)) averaged over 12 configurations, k = 2 per angstrom, u = 0.07 angstrom rms."""

    def averages(draw: object) -> np.ndarray:
        return np.array([np.cos(2 * np.pi * 2 * 0.07 * draw(seed)).mean() for seed in range(400)])  # type: ignore[operator]

    def stratified(seed: int) -> np.ndarray:
        found = unit_displacements([(0, 1)], 12, seed)
        return found[:, 0, 0] - found[:, 1, 0]

    def independent(seed: int) -> np.ndarray:
        found = np.random.default_rng(seed).standard_normal((12, 2))
        return found[:, 0] - found[:, 1]

    exact = np.exp(-((2 * np.pi * 2 * 0.07) ** 2))
    assert averages(stratified).mean() == pytest.approx(exact, abs=0.02)
    assert averages(stratified).std() < 0.75 * averages(independent).std()
