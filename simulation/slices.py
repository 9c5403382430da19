"""Cutting the specimen into equal slices across the beam; equal slices are found once, empty ones are marked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulation.arguments import positive
from simulation.errors import InvalidParameter
from simulation.specimens import Specimen
from simulation.wave_grid import steps_across

_BOUNDARY_TOLERANCE_ANGSTROM = 1e-6
_SAME_POSITION_DECIMALS = 7
_MOST_SLICES = 1_000_000
EMPTY = -1
"""In `Slices.order`: a slice without atoms."""


@dataclass(frozen=True, slots=True)
class AtomSlice:
    """The atoms of one slice: atomic numbers (n,), and x, y in angstrom (n, 2).

    With finite projection `numbers` are places in a list of parts of atoms (`finite_potential`).
    """

    numbers: NDArray[np.int64]
    xy_angstrom: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slices:
    """Distinct slices, and for each slice from the entrance its index among them (`EMPTY` for none)."""

    distinct: tuple[AtomSlice, ...]
    order: tuple[int, ...]
    thickness_angstrom: float

    @classmethod
    def of(cls, contents: Iterable[AtomSlice], thickness_angstrom: float) -> Slices:
        """From the content of each slice, found again where it is equal to another's."""
        distinct: list[AtomSlice] = []
        known: dict[bytes, int] = {}
        order: list[int] = []
        for content in contents:
            if len(content.numbers) == 0:
                order.append(EMPTY)
                continue
            atoms, key = _canonical(content)
            if key not in known:
                known[key] = len(distinct)
                distinct.append(atoms)
            order.append(known[key])
        return cls(tuple(distinct), tuple(order), thickness_angstrom)

    def only(self, depths: Collection[int]) -> Slices:
        """The same, every slice but these taken for empty."""
        met = [index if depth in depths else EMPTY for depth, index in enumerate(self.order)]
        place = {index: i for i, index in enumerate(sorted(set(met) - {EMPTY}))} | {EMPTY: EMPTY}
        distinct = tuple(self.distinct[index] for index in place if index != EMPTY)
        return Slices(distinct, tuple(place[index] for index in met), self.thickness_angstrom)


def slice_count(depth_angstrom: float, slice_thickness_nm: float) -> int:
    """Number of equal slices at most `slice_thickness_nm` thick."""
    thickness_nm = positive("slice_thickness_nm", slice_thickness_nm, "nm")
    if depth_angstrom / 10 > _MOST_SLICES * thickness_nm:
        raise InvalidParameter(
            f"slice_thickness_nm = {thickness_nm:g} nm would cut {depth_angstrom / 10:g} nm into more than"
            f" {_MOST_SLICES} slices; it is in nm, and 0.02 nm is thin"
        )
    return steps_across(depth_angstrom, thickness_nm * 10)


def slices_of(specimen: Specimen, slice_thickness_nm: float) -> Slices:
    """Each atom belongs as a whole to the slice that starts at or before its z."""
    depth = specimen.cell_angstrom[2]
    count = slice_count(depth, slice_thickness_nm)
    owner = owners(specimen, slice_thickness_nm)
    xy = specimen.positions_angstrom[:, :2]
    order = np.argsort(owner, kind="stable")
    numbers, xy = specimen.numbers[order], xy[order]
    bounds = np.searchsorted(owner[order], np.arange(count + 1)).tolist()
    contents = (AtomSlice(numbers[start:stop], xy[start:stop]) for start, stop in pairwise(bounds))
    return Slices.of(contents, depth / count)


def owners(specimen: Specimen, slice_thickness_nm: float) -> NDArray[np.int64]:
    """The slice of each atom, counted from the entrance."""
    depth = specimen.cell_angstrom[2]
    count = slice_count(depth, slice_thickness_nm)
    z = specimen.positions_angstrom[:, 2] + _BOUNDARY_TOLERANCE_ANGSTROM
    return np.floor(z / (depth / count)).astype(np.int64) % count


def _canonical(atoms: AtomSlice) -> tuple[AtomSlice, bytes]:
    rounded = np.round(atoms.xy_angstrom, _SAME_POSITION_DECIMALS) + 0.0
    order = np.lexsort((rounded[:, 1], rounded[:, 0], atoms.numbers))
    key = atoms.numbers[order].tobytes() + rounded[order].tobytes()
    return AtomSlice(atoms.numbers[order], atoms.xy_angstrom[order]), key
