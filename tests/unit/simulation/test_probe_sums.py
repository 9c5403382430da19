"""Atoms met by a probe: spread on a grid and one by one, against the sum of plane waves at every atom."""

import numpy as np
import pytest

from instruments.optics import Aberrations, Optics
from simulation import probe_sums as module
from simulation.incoherent import probe_intensity
from simulation.probe_sums import Layer, probe_sums

OPTICS = Optics(
    beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=3, aberrations=Aberrations(c12_nm=1, c21_nm=100)
)
CELL = np.array([60.0, 50.0])
RNG = np.random.default_rng(4)
ATOMS = RNG.uniform(0, 1, (60, 2)) * CELL
PLACES = RNG.uniform(-20, 70, (40, 2))


def layers(sigma_angstrom=0.0):
    probes = [probe_intensity(OPTICS, depth, 40.0, 0.02).blurred(sigma_angstrom) for depth in (1.0, 20.0)]
    return [
        Layer(ATOMS[:35], np.array([1.0, 0.3]), probes[0]),
        Layer(ATOMS[35:], np.array([0.2, 2.0]), probes[1]),
    ]


def by_waves(made):
    """(places, channels): every wave of the probe's intensity, at every copy of every atom within reach."""
    found = np.zeros((len(PLACES), 2))
    for layer in made:
        probe = layer.probe
        orders = len(probe.harmonics) // 2
        q = np.arange(-orders, orders + 1) / probe.side_angstrom
        shifts = [CELL * (i, j) for i in (-3, -2, -1, 0, 1, 2, 3) for j in (-3, -2, -1, 0, 1, 2, 3)]
        for atom in np.concatenate([layer.atoms + shift for shift in shifts]):
            away = atom - PLACES
            near = np.flatnonzero(np.hypot(*away.T) < probe.reach_angstrom)
            along_y, along_x = (np.exp(2j * np.pi * away[near, axis, None] * q) for axis in (1, 0))
            found[near] += ((along_y @ probe.harmonics) * along_x).sum(axis=1).real[:, None] * layer.weights
    return found


@pytest.mark.parametrize("sigma_angstrom", [0.0, 0.4])
def test_both_ways_are_sums_of_waves(monkeypatch, sigma_angstrom):
    made = layers(sigma_angstrom)
    expected = by_waves(made)
    for by_grid in (True, False):
        monkeypatch.setattr(module, "_is_grid_cheaper", lambda *_, choice=by_grid: choice)
        error = probe_sums(made, CELL, PLACES) - expected
        assert np.sqrt(np.mean(error**2)) < 3e-5 * expected.std(), by_grid


def test_tiles_do_not_show(monkeypatch):
    whole = probe_sums(layers(), CELL, PLACES)
    monkeypatch.setattr(module, "_LARGEST_SIDE_PX", 16)
    tiled = probe_sums(layers(), CELL, PLACES)
    assert np.abs(tiled - whole).max() < 1e-4 * whole.std()


def test_a_cheaper_way_is_chosen_by_counts():
    few, many = layers(), [Layer(np.tile(ATOMS, (50, 1)), np.ones(2), layers()[0].probe)]
    grid = module._Grid.around(PLACES, 20.0, 0.2)
    assert not module._is_grid_cheaper(few, PLACES, grid)
    assert module._is_grid_cheaper(many, np.tile(PLACES, (500, 1)), grid)
