"""What every builder refuses, and the numbers it is judged by: species, lengths, distances, densities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation import arguments
from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter, InvalidSpecimen
from simulation.scattering_factors import symbol_of

LARGEST_LENGTH_NM = 1000.0
"""Of what is built atom by atom."""
LEAST_DISTANCE_ANGSTROM = 0.5
"""Atoms closer than this are taken for one atom built twice."""
GRAM_PER_CM3_FROM_DALTON_PER_ANGSTROM3 = 1.66053906660
"""CODATA 2018: one dalton in grams, times 1e24."""


def atomic_number(symbol: str) -> int:
    """The atomic number of an element that the scattering tables hold; raises `InvalidSpecimen` otherwise."""
    from ase.data import atomic_numbers

    return int(atomic_numbers[symbol_of(symbol)])


def positive(name: str, value: float, unit: str) -> float:
    """`value` as a float, refused unless it is finite and above 0; lengths are at most 1000 nm."""
    number = arguments.positive(name, value, unit)
    if unit == "nm" and number > LARGEST_LENGTH_NM:
        raise InvalidParameter(f"{name} = {number:g} nm is above {LARGEST_LENGTH_NM:g} nm; lengths are in nm")
    return number


def within(name: str, value: float, low: float, high: float, unit: str) -> float:
    """`value` as a float, refused outside `low` to `high` (both allowed)."""
    if not low <= arguments.finite(name, value, unit) <= high:
        raise InvalidParameter(
            f"{name} = {value} {unit} is outside {low:g} to {high:g} {unit}; choose a value between them"
        )
    return float(value)


def known(name: str, value: str, choices: Any) -> str:
    """`value`, refused unless it is one of `choices`."""
    if value not in choices:
        raise InvalidParameter(f"unknown {name} {value!r}; choose one of {', '.join(sorted(choices))}")
    return value


def close_pairs(
    positions_angstrom: NDArray[np.float64], cell_angstrom: NDArray[np.float64], reach_angstrom: float
) -> NDArray[np.int64]:
    """(n, 2) pairs of atoms nearer than `reach_angstrom`, through the faces of the cell as well."""
    from scipy.spatial import cKDTree

    wrapped = np.mod(positions_angstrom, cell_angstrom)
    wrapped = np.where(wrapped >= cell_angstrom, 0.0, wrapped)  # rounding of np.mod
    tree = cKDTree(wrapped, boxsize=cell_angstrom)
    return tree.query_pairs(reach_angstrom, output_type="ndarray").astype(np.int64)


def checked(atoms: Any) -> Any:
    """The same `ase.Atoms`, refused if it is empty or two of its atoms are nearer than 0.5 angstrom."""
    if len(atoms) == 0:
        raise InvalidSpecimen("the structure holds 0 atoms; make it larger, or the region in which atoms are kept")
    lengths = np.asarray(atoms.cell.lengths(), dtype=np.float64)
    pairs = close_pairs(np.asarray(atoms.positions), lengths, LEAST_DISTANCE_ANGSTROM)
    if len(pairs):
        first, second = pairs[0]
        raise InvalidSpecimen(
            f"{len(pairs)} pairs of atoms are nearer than {LEAST_DISTANCE_ANGSTROM} angstrom, the first"
            f" {atoms.symbols[first]} {first} and {atoms.symbols[second]} {second} at"
            f" {np.round(atoms.positions[first], 3).tolist()} angstrom; enlarge the cell or vacuum, or move one of them"
        )
    return atoms


@kinds_checked
def mass_density_g_per_cm3(atoms: Any) -> float:
    """Mass of all atoms over the volume of the cell."""
    mass_dalton = float(np.sum(atoms.get_masses()))
    return mass_dalton / float(atoms.get_volume()) * GRAM_PER_CM3_FROM_DALTON_PER_ANGSTROM3


@kinds_checked
def areal_density_per_nm2(atoms: Any) -> float:
    """Atoms per area of the cell seen along the beam."""
    width, height, _ = atoms.cell.lengths()
    return len(atoms) / (float(width) * float(height)) * 100.0
