"""Finite projection: each atom's potential spread in depth over the slices that it reaches, without loss.

An atom is met as if it stood in the middle of its slice. Its core, some 0.01 nm deep as far as large angles are
concerned, then lies in one slice whatever its depth; cut by a boundary its halves would scatter a whole slice apart,
and the image of a heavy atom would change by half. Neighbour: `tabulated_potential` cuts there, as another code does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from simulation.atom_parts import AtomPart
from simulation.scattering_factors import atomic_potential_v
from simulation.slices import AtomSlice, Slices, owners, slice_count
from simulation.specimens import Specimen

_REACH_V = 1e-2
"""Where the potential is weaker, it goes to the outermost slices of the atom."""


@dataclass(frozen=True, slots=True)
class PartedSlices:
    """Slices whose `numbers` are places in `parts`."""

    slices: Slices
    parts: tuple[AtomPart, ...]


def parted_slices(specimen: Specimen, slice_thickness_nm: float, parametrization: str) -> PartedSlices:
    """What each slice holds of every atom; the parts of an atom add up to the whole.

    What would lie outside the cell belongs to the first or the last slice.
    """
    depth = specimen.cell_angstrom[2]
    count = slice_count(depth, slice_thickness_nm)
    thickness = depth / count
    reaches = reaches_of(specimen, slice_thickness_nm, parametrization)
    owner = owners(specimen, slice_thickness_nm)
    places: dict[AtomPart, int] = {}

    def content(index: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        for number, reach in reaches.items():
            for step in range(max(-reach, index - count + 1), min(reach, index) + 1):
                met = (specimen.numbers == number) & (owner == index - step)
                part = _part(number, step, thickness, index == 0 or step == -reach, index == count - 1 or step == reach)
                place = places.setdefault(part.upwards, len(places))
                yield place, specimen.positions_angstrom[met, :2]

    slices = Slices.of((_joined(content(index)) for index in range(count)), thickness)
    return PartedSlices(slices, tuple(places))


def reaches_of(specimen: Specimen, slice_thickness_nm: float, parametrization: str) -> dict[int, int]:
    """How many slices beyond its own, to either side, an atom of each element reaches."""
    depth = specimen.cell_angstrom[2]
    thickness = depth / slice_count(depth, slice_thickness_nm)
    return {
        number: max(0, ceil(radius_angstrom(number, _REACH_V, parametrization) / thickness - 0.5))
        for number in np.unique(specimen.numbers).tolist()
    }


def radius_angstrom(number: int, potential_v: float, parametrization: str) -> float:
    """Distance from the nucleus at which the potential has fallen to this."""

    def excess(radius: float) -> float:
        return float(atomic_potential_v(number, radius, parametrization)) - potential_v

    outer = 2.0
    while excess(outer) > 0:
        outer *= 1.5
    return float(brentq(excess, 0.05, outer, xtol=1e-10))


def _part(number: int, step: int, thickness_angstrom: float, is_first: bool, is_last: bool) -> AtomPart:
    """What lies `step` slices beyond the atom's own, and all before or behind it in its first and last slice."""
    lower = -inf if is_first else (step - 0.5) * thickness_angstrom
    upper = inf if is_last else (step + 0.5) * thickness_angstrom
    return AtomPart(number, lower, upper)


def _joined(content: Iterator[tuple[int, NDArray[np.float64]]]) -> AtomSlice:
    met = [(place, xy) for place, xy in content if len(xy)]
    numbers = [np.full(len(xy), place, dtype=np.int64) for place, xy in met]
    return AtomSlice(
        np.concatenate([np.empty(0, np.int64), *numbers]), np.concatenate([np.empty((0, 2)), *(xy for _, xy in met)])
    )
