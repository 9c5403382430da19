"""Layers of atoms along the beam, and slices that begin where layers are.

Atoms act where their slice starts. Equal slices start now nearer, now farther from a crystal's layers, and waves that
these scatter at rest to high angles interfere accordingly: dark field of gold along [110] in slices of 0.2 nm is wrong
by more than its contrast. With `slicing="layers"`, where atoms lie in layers, the cell is cut much thinner than asked
for, and those slices alone hold atoms that begin at a layer; free flight through the others is one step of propagation.
Equal distances of layers take equal numbers of slices. Where heights are too many (an amorphous film, a crystal off any
axis) atoms are rounded to slices as thick as asked for. Neighbour: `slices`, which cuts equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulation.errors import InvalidParameter
from simulation.slices import owners, slice_count
from simulation.specimens import Specimen

_AT_REST_ANGSTROM, _VIBRATING_ANGSTROM = (0.05, 0.2), (0.2, 1.0)
"""How far along the beam an atom of a layer may be from the next one, and the first of it from the last; never farther
than these shares of the thickness asked for:"""
_MOST_SHARES = (0.1, 0.5)
_LEAST_SHARE = 0.25
"""Of all electrons of atoms, in layers."""
_MOST_LAYERS_PER_SLICE = 3
"""In the thickness asked for: more are not worth their transmission functions."""
_MOST_DISTANCES = 16
_SAME_DISTANCE_DECIMALS = 3
_SAME_REST_DECIMALS = 9
_STEPS_ANGSTROM = (0.015, 0.04)
_MOST_STEPS = 250_000
_LONG_ANGSTROM = 50.0
"""What is longer is as good as a whole number of any of these steps."""
_LARGEST_MOTION_ANGSTROM = 1.0
"""Of an atom in a configuration of vibrating ones, from where it is at rest."""


SLICINGS: Final = ("equal", "layers")


def check_slicing(slicing: str, method: str, placement: str, projection: str) -> None:
    """Refuse what this package does not know, and layers where others' slices are met or atoms are parted."""
    if slicing not in SLICINGS:
        raise InvalidParameter(f"unknown slicing {slicing!r}; choose one of {', '.join(SLICINGS)}")
    if slicing == "layers" and (method == "incoherent" or (placement, projection) != ("exact", "infinite")):
        raise InvalidParameter(
            f"slicing 'layers' does not go with method {method!r}, placement {placement!r} and projection "
            f"{projection!r}: leave it at 'equal', or take a wave method with 'exact' and 'infinite'"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """Configurations of a specimen as slices are to hold them, how thick these are, and how far atoms were moved."""

    specimens: list[Specimen]
    thickness_nm: float
    rounding_nm: float
    """The largest distance along the beam from an atom at rest to where its slice acts."""

    @classmethod
    def equal(cls, rest: Specimen, configurations: Sequence[Specimen], slice_thickness_nm: float) -> Cut:
        """Into equal slices, atoms where they are."""
        depth = rest.cell_angstrom[2]
        starts = owners(rest, slice_thickness_nm) * (depth / slice_count(depth, slice_thickness_nm))
        rounding = np.abs(rest.positions_angstrom[:, 2] - starts).max(initial=0.0)
        return cls(list(configurations), slice_thickness_nm, float(rounding) / 10)

    @classmethod
    def at_layers(cls, rest: Specimen, configurations: Sequence[Specimen], slice_thickness_nm: float) -> Cut:
        """At layers of the atoms at rest where they have some; each atom stays in its own when it vibrates."""
        layers = Layers.of(rest, slice_thickness_nm)
        if layers is None or any(_motion_angstrom(rest, each) > _LARGEST_MOTION_ANGSTROM for each in configurations):
            return cls.equal(rest, configurations, slice_thickness_nm)
        rounding = _motion_angstrom(rest, layers.put(rest))
        return cls([layers.put(each) for each in configurations], layers.step_angstrom / 10, rounding / 10)


@dataclass(frozen=True, slots=True)
class Layers:
    """The slice of each atom, counted from the entrance, how thick slices are, and how many the cell has."""

    of_atom: NDArray[np.int64]
    step_angstrom: float
    count: int

    @classmethod
    def of(cls, specimen: Specimen, slice_thickness_nm: float) -> Layers | None:
        """None where there are none, or at too many different distances, or in too deep a cell."""
        z, thickness = specimen.positions_angstrom[:, 2], slice_thickness_nm * 10
        if not len(z):
            return None
        resting, vibrating = (_rounded(z, limits, thickness) for limits in (_AT_REST_ANGSTROM, _VIBRATING_ANGSTROM))
        rounded, in_layer = vibrating if vibrating[1].all() and not resting[1].all() else resting
        share = float(specimen.numbers @ in_layer) / float(specimen.numbers.sum())
        heights, height_of_atom = np.unique(rounded, return_inverse=True)
        distances = np.round(np.diff(heights), _SAME_DISTANCE_DECIMALS)
        if share < _LEAST_SHARE or len(np.unique(distances)) > _MOST_DISTANCES:
            return None
        distances = np.concatenate([[round(float(heights[0]), _SAME_DISTANCE_DECIMALS)], distances])
        step = _step_angstrom(np.unique(distances))
        places = np.cumsum(np.rint(distances / step)).astype(np.int64)
        count = max(ceil(specimen.cell_angstrom[2] / step), int(places[-1]) + 1)
        return cls(places[height_of_atom], step, count) if count <= _MOST_STEPS else None

    def put(self, specimen: Specimen) -> Specimen:
        """These atoms at the start of slices; the cell ends within a slice of where it ended."""
        width, height, _ = specimen.cell_angstrom
        positions = specimen.positions_angstrom.copy()
        positions[:, 2] = self.of_atom * self.step_angstrom
        return Specimen(specimen.numbers, positions, (width, height, self.count * self.step_angstrom))


def _motion_angstrom(rest: Specimen, moved: Specimen) -> float:
    """Of an atom along the beam, at most; infinite where atoms are not the same in the same order."""
    if not np.array_equal(rest.numbers, moved.numbers):
        return float("inf")
    return float(np.abs(rest.positions_angstrom[:, 2] - moved.positions_angstrom[:, 2]).max(initial=0.0))


def _rounded(
    z_angstrom: NDArray[np.float64], limits_angstrom: tuple[float, float], thickness_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each height as that of its layer, or of the middle of a slice where there are none, and which are of layers."""
    near_angstrom, wide_angstrom = (
        min(limit, share * thickness_angstrom) for limit, share in zip(limits_angstrom, _MOST_SHARES, strict=True)
    )
    order = np.argsort(z_angstrom, kind="stable")
    z = z_angstrom[order]
    group = np.concatenate([[0], np.cumsum(np.diff(z) > near_angstrom)])
    first, last = (np.searchsorted(group, np.arange(group[-1] + 1), side=side) for side in ("left", "right"))
    means = np.bincount(group, z) / np.bincount(group)
    loose = z[last - 1] - z[first] > wide_angstrom
    for start, stop in enumerate(np.searchsorted(means, means + thickness_angstrom).tolist()):
        loose[start:stop] |= stop - start > _MOST_LAYERS_PER_SLICE
    rounded = means[group]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loose, [False]]).astype(int))).tolist()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        inside = slice(int(first[start]), int(last[stop - 1]))
        rounded[inside] = _middles(z[inside], thickness_angstrom)
    back = np.argsort(order, kind="stable")
    return rounded[back], ~loose[group][back]


def _middles(z_angstrom: NDArray[np.float64], thickness_angstrom: float) -> NDArray[np.float64]:
    """The middles of the equal slices, no thicker than that, that heights in ascending order lie in."""
    low, span = float(z_angstrom[0]), float(z_angstrom[-1] - z_angstrom[0])
    count = max(1, ceil(span / thickness_angstrom))
    index = np.minimum(np.floor((z_angstrom - low) / span * count), count - 1)
    return low + (index + 0.5) * (span / count)


def _step_angstrom(distances_angstrom: NDArray[np.float64]) -> float:
    """The one that goes most nearly a whole number of times into each of these distances."""
    least, most = _STEPS_ANGSTROM
    steps = [most]
    for distance in distances_angstrom[distances_angstrom < _LONG_ANGSTROM].tolist():
        steps += [distance / count for count in range(max(1, ceil(distance / most)), int(distance / least) + 1)]
    tried = np.array(steps)[:, None]
    times = distances_angstrom / tried
    rests = np.round((np.abs(times - np.rint(times)) * tried).max(axis=1, initial=0.0), _SAME_REST_DECIMALS)
    return steps[int(np.argmin(rests))]
