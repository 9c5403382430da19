"""A specimen as a perfect crystal and the few sites where it is not that crystal.

Most unit cells decide what a site holds: a substituted, missing, added or moved atom is one the majority does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.atom_places import SAME_PLACE_ANGSTROM, AtomPlaces, points_of
from simulation.crystal_symmetry import KINDS_PER_SLICE, Crystal
from simulation.slices import owners, slice_count
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_SMALLEST_PERIOD_ANGSTROM = 1.0
_LEAST_LIKE_SHARE = 0.75
"""Of the atoms that have their like one period further on; each changed site takes this from two of them."""
_MOST_CHANGED_SHARE = 0.2
_FIRST_LOOKED_AT_COUNT = 64


@dataclass(frozen=True, slots=True)
class DefectiveCrystal:
    """The crystal that most unit cells agree on, and where the specimen differs from it."""

    crystal: Crystal
    perfect: Specimen
    changed_angstrom: NDArray[np.float64]
    """Places (n, 3) of atoms that one of the two has and the other has not."""
    slices: tuple[int, ...]
    """Which slices differ, from the entrance."""

    @classmethod
    def of(
        cls,
        specimen: Specimen,
        grid: WaveGrid,
        slice_thickness_nm: float,
        *,
        same_pixels: bool = False,
        reaches: Mapping[int, int] | None = None,
    ) -> DefectiveCrystal | None:
        """None where the specimen does not repeat, or differs at more than a fifth of its sites.

        `same_pixels` as for `Crystal.of`; `reaches`: by how many slices atoms reach beyond their own, by number.
        """
        if not len(specimen.numbers):
            return None
        kinds = specimen.numbers + KINDS_PER_SLICE * owners(specimen, slice_thickness_nm)
        places = _places_across(specimen, kinds, specimen.cell_angstrom)
        repeats = (_near_repeats(specimen, kinds, places, 1), _near_repeats(specimen, kinds, places, 0))
        perfect = _perfect(specimen, kinds, repeats)
        if perfect is None:
            return None
        own_kinds = perfect.numbers + KINDS_PER_SLICE * owners(perfect, slice_thickness_nm)
        missing = ~places.hold(perfect.positions_angstrom, own_kinds)
        added = ~_places_across(perfect, own_kinds, perfect.cell_angstrom).hold(specimen.positions_angstrom, kinds)
        if max(missing.sum(), added.sum()) > _MOST_CHANGED_SHARE * len(perfect.numbers):
            return None
        crystal = Crystal.of(perfect, grid, slice_thickness_nm, same_pixels=same_pixels)
        if crystal is None:
            return None
        changed = np.concatenate([perfect.positions_angstrom[missing], specimen.positions_angstrom[added]])
        differing = np.unique(np.concatenate([own_kinds[missing], kinds[added]]))
        slices = _reached(differing, reaches or {}, slice_count(specimen.cell_angstrom[2], slice_thickness_nm))
        return cls(crystal, perfect, changed, slices)

    def column_count(self, within_angstrom: float) -> int:
        """How many groups the changed sites form, seen along the beam."""
        left = list(range(len(self.changed_angstrom)))
        box, count = np.array(self.perfect.cell_angstrom[:2]), 0
        while left:
            away = self.changed_angstrom[left, :2] - self.changed_angstrom[left[0], :2]
            away -= np.round(away / box) * box
            left = [i for i, distance in zip(left, np.hypot(*away.T), strict=True) if distance > within_angstrom]
            count += 1
        return count


def _reached(kinds: NDArray[np.int64], reaches: Mapping[int, int], slice_count: int) -> tuple[int, ...]:
    """Slices that atoms of these kinds lie in or reach."""
    found: set[int] = set()
    for kind in kinds.tolist():
        depth, number = divmod(kind, KINDS_PER_SLICE)
        reach = reaches.get(number, 0)
        found.update(range(max(0, depth - reach), min(slice_count, depth + reach + 1)))
    return tuple(sorted(found))


def _places_across(
    specimen: Specimen, kinds: NDArray[np.int64], box_angstrom: tuple[float, float, float]
) -> AtomPlaces:
    """In a box that repeats across the beam, not along it."""
    return AtomPlaces.of(specimen.positions_angstrom, kinds, (box_angstrom[0], box_angstrom[1], 0.0))


def _near_repeats(specimen: Specimen, kinds: NDArray[np.int64], places: AtomPlaces, axis: int) -> int:
    """Into how many parts the cell can be cut along an axis (0: x, 1: y) that are alike but for a few atoms."""
    length, repeats, factor = specimen.cell_angstrom[axis], 1, 2
    sample = np.unique(np.linspace(0, len(kinds) - 1, _FIRST_LOOKED_AT_COUNT).astype(int))
    everything = np.arange(len(kinds))
    while length / (repeats * factor) >= _SMALLEST_PERIOD_ANGSTROM:
        step = np.zeros(3)
        step[axis] = length / (repeats * factor)
        if all(
            places.hold(specimen.positions_angstrom[part] + step, kinds[part]).mean() >= share
            for part, share in ((sample, _LEAST_LIKE_SHARE / 2), (everything, _LEAST_LIKE_SHARE))
        ):
            repeats *= factor
        else:
            factor += 1
    return repeats


def _perfect(specimen: Specimen, kinds: NDArray[np.int64], repeats: tuple[int, int]) -> Specimen | None:
    """The crystal of the sites that more than half of the parts (y, x) have; None where parts are single."""
    parts = repeats[0] * repeats[1]
    width, height, depth = specimen.cell_angstrom
    box = (width / repeats[1], height / repeats[0], depth)
    places = _places_across(specimen, kinds, box)
    points = points_of(specimen.positions_angstrom, kinds, (box[0], box[1], 0.0))
    taken = np.zeros(len(kinds), dtype=bool)
    sites: list[int] = []
    for index in range(len(kinds)):
        if not taken[index]:
            alike = places.tree.query_ball_point(points[index], SAME_PLACE_ANGSTROM)
            taken[alike] = True
            if 2 * len(alike) > parts:
                sites.append(index)
    if parts < 2 or not sites:
        return None
    rows, columns = np.meshgrid(np.arange(repeats[0]), np.arange(repeats[1]), indexing="ij")
    steps = np.column_stack([columns.ravel() * box[0], rows.ravel() * box[1], np.zeros(parts)])
    positions = (points[sites, :3][None, :, :] + steps[:, None, :]).reshape(-1, 3)
    return Specimen(np.tile(specimen.numbers[sites], parts), positions, specimen.cell_angstrom)
