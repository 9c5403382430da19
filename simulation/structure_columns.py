"""Atom columns of a structure seen along the beam, which of them are equal, and supercells with one column changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray

from simulation.errors import InvalidParameter
from simulation.scattering_factors import elements, symbol_of
from simulation.specimens import Specimen

_SAME_COLUMN_ANGSTROM = 0.05
_ANGSTROM_PER_NM = 10.0


@dataclass(frozen=True, slots=True)
class Column:
    """The atoms of an orthogonal cell that share x and y; `symbols` in the order the beam meets them (rising z)."""

    name: str
    x_nm: float
    y_nm: float
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Defect:
    """A column whose content has changed: the host column's name, and what stands there instead."""

    column: str
    becomes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnLattice:
    """The columns of an orthogonal cell, their atoms, and the translations that leave the cell as it is.

    `members[i]` are the atoms of column i, in the order the beam meets them; `translations_angstrom` is (n, 2), (x, y),
    the identity first.
    """

    specimen: Specimen
    columns: tuple[Column, ...]
    members: tuple[tuple[int, ...], ...]
    translations_angstrom: NDArray[np.float64]

    @classmethod
    def of(cls, specimen: Specimen) -> ColumnLattice:
        """Columns in rising y, then x. Columns of equal content that no translation joins are "C", "C#2", ..."""
        members = _grouped(specimen)
        translations = _translations(specimen)
        positions = np.array([_mean_xy(specimen, atoms) for atoms in members])
        names = _names(specimen, members, positions, translations)
        columns = tuple(
            Column(name, float(x) / _ANGSTROM_PER_NM, float(y) / _ANGSTROM_PER_NM, _symbols(specimen, atoms))
            for name, (x, y), atoms in zip(names, positions, members, strict=True)
        )
        return cls(specimen, columns, members, translations)

    def first(self, name: str) -> int:
        """Index of the first column of that name."""
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        known = ", ".join(dict.fromkeys(column.name for column in self.columns))
        raise InvalidParameter(f"the structure has no column {name!r}; its columns are {known}")


@dataclass(frozen=True, slots=True)
class Supercell:
    """`repeats` (x, y) copies of a cell. One column in the middle, the site, may hold something else."""

    lattice: ColumnLattice
    repeats: tuple[int, int]

    @classmethod
    def at_least(cls, lattice: ColumnLattice, side_nm: float) -> Supercell:
        """As many cells as make both sides at least `side_nm`."""
        if not (isfinite(side_nm) and 0 < side_nm <= 20):
            raise InvalidParameter(f"supercell_nm = {side_nm} must be above 0 and at most 20 nm")
        width, height, _ = lattice.specimen.cell_angstrom
        side = side_nm * _ANGSTROM_PER_NM
        return cls(lattice, (max(1, ceil(side / width - 1e-9)), max(1, ceil(side / height - 1e-9))))

    @property
    def extent_angstrom(self) -> tuple[float, float]:
        """Size (y, x)."""
        width, height, _ = self.lattice.specimen.cell_angstrom
        return self.repeats[1] * height, self.repeats[0] * width

    def columns(self) -> list[tuple[int, ...]]:
        """The slots of every column, cell by cell."""
        size = len(self.lattice.specimen.numbers)
        cells = range(self.repeats[0] * self.repeats[1])
        return [tuple(cell * size + atom for atom in atoms) for cell in cells for atoms in self.lattice.members]

    def site_angstrom(self, column: str) -> tuple[float, float]:
        """(x, y) of the copy of the column that stands for it, in the middle cell."""
        site = self.lattice.columns[self.lattice.first(column)]
        width, height, _ = self.lattice.specimen.cell_angstrom
        return (
            site.x_nm * _ANGSTROM_PER_NM + (self.repeats[0] // 2) * width,
            site.y_nm * _ANGSTROM_PER_NM + (self.repeats[1] // 2) * height,
        )

    def atoms(self, column: str | None = None, content: Sequence[str] = ()) -> SupercellAtoms:
        """Atoms of the supercell, the site of `column` holding `content`; None leaves it perfect.

        Every atom of the perfect supercell is a slot. Atoms that stay keep their slot; others take the free slots in
        the order the beam meets them. So a slot's thermal displacement is the same whatever stands in it.
        """
        base = self.lattice.specimen
        width, height, _ = base.cell_angstrom
        shifts = [(i * width, j * height, 0.0) for j in range(self.repeats[1]) for i in range(self.repeats[0])]
        positions = np.concatenate([base.positions_angstrom + np.array(shift) for shift in shifts])
        numbers = np.tile(base.numbers, len(shifts))
        if column is not None:
            middle = (self.repeats[1] // 2) * self.repeats[0] + self.repeats[0] // 2
            index = self.lattice.first(column)
            slots = [middle * len(base.numbers) + atom for atom in self.lattice.members[index]]
            numbers[slots] = placed(self.lattice.columns[index].symbols, content)
        return SupercellAtoms(numbers, positions)


@dataclass(frozen=True, slots=True)
class SupercellAtoms:
    """Slots of a supercell: atomic numbers (n,), 0 where a slot is empty, and positions in angstrom (n, 3)."""

    numbers: NDArray[np.int64]
    positions_angstrom: NDArray[np.float64]


def placed(host: Sequence[str], content: Sequence[str]) -> NDArray[np.int64]:
    """Atomic number in each slot of a host column that holds `content` instead; 0 is empty.

    >>> placed(("Se", "Se"), ("O", "Se"))
    array([34,  8])
    """
    if len(content) > len(host):
        raise InvalidParameter(
            f"a column of {len(host)} atoms ({', '.join(host)}) cannot hold {len(content)} ({', '.join(content)});"
            f" give at most {len(host)}"
        )
    numbers = {symbol: number for number, symbol in enumerate(elements(), start=1)}
    newcomers = Counter(symbol_of(symbol) for symbol in content)
    slots = np.zeros(len(host), dtype=np.int64)
    for slot, symbol in enumerate(host):
        if newcomers[symbol] > 0:
            newcomers[symbol] -= 1
            slots[slot] = numbers[symbol]
    rest = sorted(newcomers.elements(), key=lambda symbol: -numbers[symbol])
    slots[np.flatnonzero(slots == 0)[: len(rest)]] = [numbers[symbol] for symbol in rest]
    return slots


def column_name(symbols: Sequence[str]) -> str:
    """Symbols in falling atomic number, each with its count.

    >>> column_name(("Se", "W", "Se"))
    'WSe2'
    """
    order = {symbol: number for number, symbol in enumerate(elements())}
    counts = Counter(symbols)
    ordered = sorted(counts, key=lambda symbol: -order[symbol])
    return "".join(symbol if counts[symbol] == 1 else f"{symbol}{counts[symbol]}" for symbol in ordered)


def _grouped(specimen: Specimen) -> tuple[tuple[int, ...], ...]:
    xy = specimen.positions_angstrom[:, :2]
    groups: list[list[int]] = []
    for atom in np.argsort(specimen.positions_angstrom[:, 2], kind="stable"):
        for group in groups:
            if np.hypot(*_wrapped(specimen, xy[atom] - xy[group[0]])) < _SAME_COLUMN_ANGSTROM:
                group.append(int(atom))
                break
        else:
            groups.append([int(atom)])
    rounded = [tuple(np.round(_mean_xy(specimen, group)[::-1], 3)) for group in groups]
    return tuple(tuple(groups[index]) for index in sorted(range(len(groups)), key=lambda index: rounded[index]))


def _wrapped(specimen: Specimen, step_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same step to the nearest periodic copy; (..., 2)."""
    size = np.array(specimen.cell_angstrom[:2])
    return step_angstrom - size * np.round(step_angstrom / size)


def _mean_xy(specimen: Specimen, atoms: Sequence[int]) -> NDArray[np.float64]:
    xy = specimen.positions_angstrom[list(atoms), :2]
    mean = np.mod(xy[0] + _wrapped(specimen, xy - xy[0]).mean(axis=0), specimen.cell_angstrom[:2])
    return np.where(np.isclose(mean, specimen.cell_angstrom[:2], atol=1e-9), 0.0, mean)


def _symbols(specimen: Specimen, atoms: Sequence[int]) -> tuple[str, ...]:
    return tuple(symbol_of(int(specimen.numbers[atom])) for atom in atoms)


def _names(
    specimen: Specimen,
    members: Sequence[Sequence[int]],
    positions: NDArray[np.float64],
    translations: NDArray[np.float64],
) -> list[str]:
    kinds: dict[str, list[NDArray[np.float64]]] = {}
    names: list[str] = []
    for atoms, position in zip(members, positions, strict=True):
        base = column_name(_symbols(specimen, atoms))
        known = kinds.setdefault(base, [])
        equal = [kind for kind, other in enumerate(known) if _joined(specimen, position - other, translations)]
        if not equal:
            known.append(position)
        kind = equal[0] if equal else len(known) - 1
        names.append(base if kind == 0 else f"{base}#{kind + 1}")
    return names


def _joined(specimen: Specimen, step_angstrom: NDArray[np.float64], translations: NDArray[np.float64]) -> bool:
    apart = _wrapped(specimen, step_angstrom - translations)
    return bool(np.min(np.hypot(apart[:, 0], apart[:, 1])) < _SAME_COLUMN_ANGSTROM)


def _translations(specimen: Specimen) -> NDArray[np.float64]:
    """In-plane translations that map every atom on one of its element at the same height."""
    rare = min(np.unique(specimen.numbers), key=lambda number: int(np.sum(specimen.numbers == number)))
    origins = specimen.positions_angstrom[specimen.numbers == rare]
    same_height = origins[np.abs(origins[:, 2] - origins[0, 2]) < _SAME_COLUMN_ANGSTROM]
    steps = np.mod(same_height[:, :2] - origins[0, :2], specimen.cell_angstrom[:2])
    return np.array([step for step in steps if _is_symmetry(specimen, step)])


def _is_symmetry(specimen: Specimen, step_angstrom: NDArray[np.float64]) -> bool:
    positions, numbers = specimen.positions_angstrom, specimen.numbers
    moved = positions[:, None, :2] + step_angstrom - positions[None, :, :2]
    apart = np.linalg.norm(_wrapped(specimen, moved), axis=-1)
    same = (numbers[:, None] == numbers[None, :]) & (
        np.abs(positions[:, None, 2] - positions[None, :, 2]) < _SAME_COLUMN_ANGSTROM
    )
    return bool(np.all(np.any(same & (apart < _SAME_COLUMN_ANGSTROM), axis=1)))
