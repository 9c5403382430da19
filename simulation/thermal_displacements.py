"""Thermal displacements for averages over few configurations: Gaussian and unbiased, but stratified column by column.

What a column of several atoms scatters far out depends most on how far its atoms stand apart across the beam; twelve
independent draws leave 3 to 7 % of noise in the image of a vacancy. So that distance is drawn from equal shares of
its distribution, and the motion of the column as a whole in opposite pairs. `phonons` draws independently instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def unit_displacements(columns: Sequence[Sequence[int]], configuration_count: int, seed: int) -> NDArray[np.float64]:
    """(configurations, atoms, 3): every atom standard normal on each axis, independent of all others.

    `columns` lists the atoms of each column, all atoms once. Independence is over seeds: within one seed the
    configurations complement each other. Column i depends on (seed, i) alone.
    """
    atom_count = sum(len(atoms) for atoms in columns)
    found = np.empty((configuration_count, atom_count, 3))
    for index, atoms in enumerate(columns):
        rng = np.random.default_rng([seed, index])
        modes = [_antithetic(configuration_count, rng)]
        modes += [_stratified(configuration_count, rng) for _ in range(len(atoms) - 1)]
        found[:, list(atoms), :2] = np.einsum("ma,mcx->cax", _column_modes(len(atoms)), np.array(modes))
        found[:, list(atoms), 2] = rng.standard_normal((configuration_count, len(atoms)))
    return found


def _stratified(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 2) standard normals: radius (Box and Muller) and azimuth from one share each of `count` equal shares."""
    shares = (rng.permuted(np.tile(np.arange(count), (2, 1)), axis=1) + rng.random((2, count))) / count
    radius, azimuth = np.sqrt(-2 * np.log1p(-shares[0])), 2 * np.pi * shares[1]
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth)], axis=1)


def _antithetic(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 2) standard normals in pairs +u, -u."""
    half = _stratified((count + 1) // 2, rng)
    return np.stack([half, -half], axis=1).reshape(-1, 2)[:count]


def _column_modes(atom_count: int) -> NDArray[np.float64]:
    """Orthonormal (modes, atoms): first all atoms together, then each atom against those before it (Helmert)."""
    modes = np.zeros((atom_count, atom_count))
    modes[0] = 1 / np.sqrt(atom_count)
    for mode in range(1, atom_count):
        modes[mode, :mode] = 1
        modes[mode, mode] = -mode
        modes[mode] /= np.sqrt(mode * (mode + 1))
    return modes
