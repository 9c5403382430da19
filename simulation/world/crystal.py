"""The endless lattice of the world: where its columns stand, by cell index; nothing is stored per atom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import hypot
from typing import Any, NamedTuple

import numpy as np

from simulation.specimens import Specimen
from simulation.structure_columns import Column, ColumnLattice

_SHELL_TOLERANCE = 1.05


class Site(NamedTuple):
    """A column of the lattice: index into `Crystal.columns`, and the cell it belongs to."""

    column: int
    i: int
    j: int


@dataclass(frozen=True)
class Crystal:
    """A rectangular periodic cell of columns, its corner at (origin_x_nm, origin_y_nm) of the specimen frame."""

    cell_width_nm: float
    cell_height_nm: float
    columns: tuple[Column, ...]
    origin_x_nm: float = 0.0
    origin_y_nm: float = 0.0

    @classmethod
    def of(cls, atoms: Any, rng: np.random.Generator) -> Crystal:
        """Columns of an orthogonal `ase.Atoms` cell (angstrom, beam along z); the origin is drawn from `rng`."""
        specimen = Specimen.of(atoms)
        width_nm, height_nm = specimen.cell_angstrom[0] / 10, specimen.cell_angstrom[1] / 10
        origin_x_nm, origin_y_nm = rng.uniform((0, 0), (width_nm, height_nm))
        columns = ColumnLattice.of(specimen).columns
        return cls(width_nm, height_nm, columns, float(origin_x_nm), float(origin_y_nm))

    def indices(self, name: str) -> list[int]:
        """Columns of that name in one cell."""
        return [index for index, column in enumerate(self.columns) if column.name == name]

    def sites_per_nm2(self, name: str) -> float:
        """Columns of that name per area."""
        return len(self.indices(name)) / (self.cell_width_nm * self.cell_height_nm)

    def position_nm(self, site: Site) -> tuple[float, float]:
        """(x, y) of a site in the specimen frame."""
        column = self.columns[site.column]
        return (
            self.origin_x_nm + site.i * self.cell_width_nm + column.x_nm,
            self.origin_y_nm + site.j * self.cell_height_nm + column.y_nm,
        )

    def nearest(self, name: str, x_nm: np.ndarray, y_nm: np.ndarray) -> list[Site]:
        """The site of a column of that name nearest to each point."""
        x, y = np.asarray(x_nm, dtype=float), np.asarray(y_nm, dtype=float)
        indices = self.indices(name)
        i, j, distance2 = [], [], []
        for index in indices:
            u = (x - self.origin_x_nm - self.columns[index].x_nm) / self.cell_width_nm
            v = (y - self.origin_y_nm - self.columns[index].y_nm) / self.cell_height_nm
            i.append(np.rint(u).astype(int))
            j.append(np.rint(v).astype(int))
            distance2.append(((u - i[-1]) * self.cell_width_nm) ** 2 + ((v - j[-1]) * self.cell_height_nm) ** 2)
        best = np.argmin(distance2, axis=0)
        return [Site(indices[b], int(i[b][n]), int(j[b][n])) for n, b in enumerate(best)]

    @cached_property
    def _shells(self) -> list[list[tuple[int, int, int]]]:
        shells: list[list[tuple[int, int, int]]] = []
        for index, here in enumerate(self.columns):
            found: list[tuple[float, tuple[int, int, int]]] = []
            for other in self.indices(here.name):
                there = self.columns[other]
                for di in (-2, -1, 0, 1, 2):
                    for dj in (-2, -1, 0, 1, 2):
                        dx = there.x_nm - here.x_nm + di * self.cell_width_nm
                        dy = there.y_nm - here.y_nm + dj * self.cell_height_nm
                        if (other, di, dj) != (index, 0, 0):
                            found.append((hypot(dx, dy), (other, di, dj)))
            reach = min(distance for distance, _ in found) * _SHELL_TOLERANCE
            shells.append(sorted(step for distance, step in found if distance <= reach))
        return shells

    def neighbours(self, site: Site) -> list[Site]:
        """Nearest sites of the same kind of column (six in a hexagonal monolayer)."""
        return [Site(other, site.i + di, site.j + dj) for other, di, dj in self._shells[site.column]]
