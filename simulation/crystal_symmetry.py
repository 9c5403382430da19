"""How a specimen repeats across the beam, and which mirrors and rotations leave it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from simulation.atom_places import SAME_PLACE_ANGSTROM, AtomPlaces
from simulation.coherence import is_period
from simulation.slices import owners
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_SQUARE_WITHIN_FRACTION = 1e-6
_FIRST_LOOKED_AT_COUNT = 8
_AXIS_X, _AXIS_Y = 0, 1
KINDS_PER_SLICE = 1000
"""Atoms of unlike slices are unlike: their kind is the atomic number plus this times the slice's."""


@dataclass(frozen=True, slots=True)
class Symmetry:
    """r -> matrix r + shift in the plane, (x, y), leaves the specimen as it is; the matrix holds 0, 1 and -1."""

    matrix: tuple[tuple[int, int], tuple[int, int]]
    shift_angstrom: tuple[float, float]

    @property
    def exchanges_axes(self) -> bool:
        """Whether x becomes y."""
        return self.matrix[0][0] == 0

    def turned(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """Reciprocal lattice vectors (n, 2) as (iy, ix), turned; the lattice must be square if axes are exchanged."""
        (xx, xy), (yx, yy) = self.matrix
        y, x = vectors[:, 0], vectors[:, 1]
        return np.column_stack([yx * x + yy * y, xx * x + xy * y])

    @property
    def transposed(self) -> Symmetry:
        """What turns vectors back; without the shift."""
        (xx, xy), (yx, yy) = self.matrix
        return Symmetry(((xx, yx), (xy, yy)), (0.0, 0.0))


IDENTITY = Symmetry(((1, 0), (0, 1)), (0.0, 0.0))
_OPERATIONS = (
    ((1, 0), (0, 1)), ((-1, 0), (0, -1)), ((1, 0), (0, -1)), ((-1, 0), (0, 1)),
    ((0, 1), (1, 0)), ((0, -1), (-1, 0)), ((0, 1), (-1, 0)), ((0, -1), (1, 0)),
)  # fmt: skip


def lateral_repeats(specimen: Specimen) -> tuple[int, int]:
    """Into how many equal parts the cell can be cut along (y, x); 1 where nothing repeats."""
    counts = np.unique(specimen.numbers, return_counts=True)[1].tolist()
    common = gcd(*counts) if counts else 1
    return _repeats(specimen, _AXIS_Y, common), _repeats(specimen, _AXIS_X, common)


def _repeats(specimen: Specimen, axis: int, largest: int) -> int:
    """Built up prime by prime: if the specimen repeats n times, it does so for every divisor of n."""
    repeats, rest, prime = 1, largest, 2
    while rest > 1:
        if prime * prime > rest:
            prime = rest
        if rest % prime:
            prime += 1
        elif is_period(specimen, axis, specimen.cell_angstrom[axis] / (repeats * prime)):
            rest //= prime
            repeats *= prime
        else:
            while rest % prime == 0:
                rest //= prime
    return repeats


def part_of(specimen: Specimen, parts: tuple[int, int]) -> Specimen:
    """One of parts (y, x) equal parts of a specimen that repeats so."""
    width, height, depth = specimen.cell_angstrom
    box = np.array([width / parts[1], height / parts[0], depth])
    folded = np.mod(np.mod(specimen.positions_angstrom, box), box)
    kept = np.zeros(len(folded), dtype=bool)
    for number in np.unique(specimen.numbers):
        own = np.flatnonzero(specimen.numbers == number)
        kept[own[_distinct(folded[own], box)]] = True
    return Specimen(specimen.numbers[kept], folded[kept], (float(box[0]), float(box[1]), depth))


def _distinct(points: NDArray[np.float64], box: NDArray[np.float64]) -> list[int]:
    """The first point at each place; pairs are not listed, for thousands of units have millions of them."""
    tree = KDTree(points, boxsize=box)
    taken = np.zeros(len(points), dtype=bool)
    first: list[int] = []
    for index in range(len(points)):
        if not taken[index]:
            taken[tree.query_ball_point(points[index], SAME_PLACE_ANGSTROM)] = True
            first.append(index)
    return first


def symmetries(specimen: Specimen) -> tuple[Symmetry, ...]:
    """Operations of the rectangle (of the square, if the cell is one) with shifts; the identity comes first."""
    width, height, _ = specimen.cell_angstrom
    places = AtomPlaces.of(specimen.positions_angstrom, specimen.numbers, specimen.cell_angstrom)
    found = [IDENTITY]
    for matrix in _OPERATIONS[1 : 8 if is_square(width, height) else 4]:
        shift = _shift_for(specimen, places, np.array(matrix, dtype=float))
        if shift is not None:
            found.append(Symmetry(matrix, shift))
    return tuple(found)


def is_square(width_angstrom: float, height_angstrom: float) -> bool:
    """Whether axes can be exchanged: sides so equal that plane waves of high order stay in phase across the cell."""
    return abs(width_angstrom - height_angstrom) < _SQUARE_WITHIN_FRACTION * width_angstrom


def _shift_for(specimen: Specimen, places: AtomPlaces, matrix: NDArray[np.float64]) -> tuple[float, float] | None:
    """A shift with which the turned specimen falls onto itself.

    It brings one atom of the rarest kind onto another; most such shifts fail for the first few atoms.
    """
    count = len(specimen.numbers)
    if count == 0:
        return (0.0, 0.0)
    turned = specimen.positions_angstrom.copy()
    turned[:, :2] = turned[:, :2] @ matrix.T
    numbers, counts = np.unique(specimen.numbers, return_counts=True)
    rarest = np.flatnonzero(specimen.numbers == numbers[np.argmin(counts)])
    shifts = np.zeros((len(rarest), 3))
    shifts[:, :2] = specimen.positions_angstrom[rarest, :2] - turned[rarest[0], :2]
    for index in np.unique(np.linspace(0, count - 1, _FIRST_LOOKED_AT_COUNT).astype(int)).tolist():
        shifts = shifts[places.hold(turned[index] + shifts, np.full(len(shifts), specimen.numbers[index]))]
    for shift in shifts:
        if places.hold(turned + shift, specimen.numbers).all():
            return float(shift[0]), float(shift[1])
    return None


@dataclass(frozen=True, slots=True)
class Crystal:
    """A specimen that repeats: how often along (y, x), one unit of it, its grid and its symmetries.

    `deviation_angstrom`: how far, at most, an atom is from where the unit and its symmetries put it.
    """

    repeats: tuple[int, int]
    unit: Specimen
    unit_grid: WaveGrid
    operations: tuple[Symmetry, ...]
    deviation_angstrom: float = 0.0

    @classmethod
    def of(
        cls, specimen: Specimen, grid: WaveGrid, slice_thickness_nm: float, *, same_pixels: bool = False
    ) -> Crystal | None:
        """The smallest unit, None where nothing repeats; atoms of unlike slices are unlike.

        `same_pixels`: atoms are put on pixels, so that parts divide the pixels, and no mirror holds between them.
        """
        kinds = specimen.numbers + KINDS_PER_SLICE * owners(specimen, slice_thickness_nm)
        sorted_out = Specimen(kinds, specimen.positions_angstrom, specimen.cell_angstrom)
        repeats = lateral_repeats(sorted_out)
        if same_pixels:
            repeats = _dividing(repeats, grid.shape_px)
        if repeats == (1, 1):
            return None
        part = part_of(sorted_out, repeats)
        if len(part.numbers) * repeats[0] * repeats[1] != len(specimen.numbers):
            return None  # atoms that lie on one another: places repeat, numbers of atoms at them need not
        unit = Specimen(part.numbers % KINDS_PER_SLICE, part.positions_angstrom, part.cell_angstrom)
        found = (IDENTITY,) if same_pixels else symmetries(part)
        operations = tuple(each for each in found if repeats[0] == repeats[1] or not each.exchanges_axes)
        deviation = _deviation_angstrom(sorted_out, part, operations)
        return cls(repeats, unit, grid.part(repeats, same_pixels=same_pixels), operations, deviation)


def _deviation_angstrom(specimen: Specimen, unit: Specimen, operations: tuple[Symmetry, ...]) -> float:
    """The largest distance of an atom from its copy in the unit, and of the unit's from those they are turned into."""
    places = AtomPlaces.of(unit.positions_angstrom, unit.numbers, unit.cell_angstrom)
    repeating = _largest_distance(places, specimen.numbers, specimen.positions_angstrom)
    turning = 0.0
    for operation in operations:
        turned = unit.positions_angstrom.copy()
        turned[:, :2] = turned[:, :2] @ np.array(operation.matrix, dtype=float).T + operation.shift_angstrom
        turning = max(turning, _largest_distance(places, unit.numbers, turned))
    return repeating + turning


def _largest_distance(places: AtomPlaces, numbers: NDArray[np.int64], points_angstrom: NDArray[np.float64]) -> float:
    distances = places.distances(points_angstrom, numbers)
    return float(np.minimum(distances, SAME_PLACE_ANGSTROM).max(initial=0.0))


def _dividing(repeats: tuple[int, int], shape_px: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (int(np.gcd(repeat, count)) for repeat, count in zip(repeats, shape_px, strict=True))
    return rows, columns
