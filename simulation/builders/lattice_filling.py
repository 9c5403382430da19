"""An infinite crystal, turned in any way, and its atoms inside an axis-aligned box; other builders cut from this."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.errors import InvalidSpecimen

EDGE_ANGSTROM = 1e-4
"""Boxes begin this far before their face, so that atoms on a face belong to one box only, whatever the rounding."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """A crystal without end: cell vectors in rows, fractional positions, atomic numbers; angstrom."""

    cell_angstrom: NDArray[np.float64]
    scaled: NDArray[np.float64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, atoms: Any) -> Lattice:
        """The lattice that repeats an `ase.Atoms` along all three of its cell vectors."""
        cell = np.asarray(atoms.cell[:], dtype=np.float64)
        if abs(np.linalg.det(cell)) < 1e-6:
            raise InvalidSpecimen("the crystal has no three-dimensional cell; give it three cell vectors in angstrom")
        scaled = np.asarray(atoms.get_scaled_positions(wrap=True), dtype=np.float64)
        return cls(cell, scaled, np.asarray(atoms.numbers, dtype=np.int64))

    def turned(self, rotation: NDArray[np.float64]) -> Lattice:
        """The same crystal turned: a direction d of it now points along `rotation @ d`."""
        return Lattice(self.cell_angstrom @ rotation.T, self.scaled, self.numbers)

    def inside(
        self, low_angstrom: NDArray[np.float64], high_angstrom: NDArray[np.float64], origin_angstrom: Any = (0, 0, 0)
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Atomic numbers and positions (n, 3) with low <= position < high, a lattice point being at the origin.

        Every position is computed from its own lattice indices, so overlapping boxes hold identical atoms.
        """
        low, high = np.asarray(low_angstrom, dtype=np.float64), np.asarray(high_angstrom, dtype=np.float64)
        origin = np.asarray(origin_angstrom, dtype=np.float64)
        corners = np.array(list(product(*zip(low, high, strict=True)))) - origin
        indices = corners @ np.linalg.inv(self.cell_angstrom)
        first, last = np.floor(indices.min(axis=0)).astype(int) - 1, np.ceil(indices.max(axis=0)).astype(int) + 1
        numbers, positions = [], []
        for number, offset in zip(self.numbers, self.scaled, strict=True):
            found = self._points(first, last, offset @ self.cell_angstrom + origin, low, high)
            positions.append(found)
            numbers.append(np.full(len(found), number, dtype=np.int64))
        return np.concatenate(numbers), np.concatenate(positions)

    def _points(
        self,
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        offset: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        a, b, c = self.cell_angstrom
        i, j, k = (np.arange(first[axis], last[axis] + 1)[:, None] for axis in range(3))
        kept = []
        plane = (j * b)[:, None, :] + (k * c)[None, :, :] + offset
        plane = plane.reshape(-1, 3)
        for index in i[:, 0]:  # plane by plane, so that a thin slanted box does not need the memory of a cube
            points = plane + index * a
            kept.append(points[np.all((points >= low) & (points < high), axis=1)])
        return np.concatenate(kept)


def turn_z(angle_rad: float) -> NDArray[np.float64]:
    """Rotation matrix about the beam, from +x towards +y."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def periodic_box(lattice: Lattice, lengths_angstrom: Any, **info: Any) -> Any:
    """`ase.Atoms` of a box with which the lattice is commensurate; raises `InvalidSpecimen` where it is not."""
    from ase import Atoms

    lengths = np.asarray(lengths_angstrom, dtype=np.float64)
    numbers, positions = lattice.inside(np.full(3, -EDGE_ANGSTROM), lengths - EDGE_ANGSTROM)
    per_volume = len(lattice.numbers) / abs(np.linalg.det(lattice.cell_angstrom))
    expected = per_volume * float(np.prod(lengths))
    if abs(len(numbers) - expected) > 1e-3 * max(expected, 1.0):
        raise InvalidSpecimen(
            f"a box of {np.round(lengths, 4).tolist()} angstrom holds {len(numbers)} atoms where its volume asks for"
            f" {expected:.2f}: the crystal does not repeat with it; choose another axis or another cell"
        )
    order = np.lexsort((positions[:, 0].round(4), positions[:, 1].round(4), positions[:, 2].round(4)))
    atoms = Atoms(numbers=numbers[order], positions=np.abs(positions[order].round(9)), cell=lengths, pbc=True)
    atoms.info.update(info)
    return atoms


def placed(numbers: Any, positions_angstrom: Any, lengths_angstrom: Any, **info: Any) -> Any:
    """`ase.Atoms` in an orthogonal periodic cell, with `info`."""
    from ase import Atoms

    atoms = Atoms(numbers=numbers, positions=positions_angstrom, cell=np.asarray(lengths_angstrom, float), pbc=True)
    atoms.info.update(info)
    return atoms


def with_vacuum(atoms: Any, vacuum_nm: float) -> Any:
    """The same atoms with `vacuum_nm` of empty cell before the entrance and after the exit face."""
    padded = atoms.copy()
    lengths = padded.cell.lengths()
    padded.set_cell([lengths[0], lengths[1], lengths[2] + 20.0 * vacuum_nm])
    padded.positions[:, 2] += 10.0 * vacuum_nm
    return padded
