"""How a specimen repeats across the beam, and which mirrors and rotations leave it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from simulation.coherence import is_period
from simulation.specimens import Specimen

_SAME_PLACE_ANGSTROM = 1e-3
_AXIS_X, _AXIS_Y = 0, 1


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
            continue
        rest //= prime
        if is_period(specimen, axis, specimen.cell_angstrom[axis] / (repeats * prime)):
            repeats *= prime
    return repeats


def part_of(specimen: Specimen, parts: tuple[int, int]) -> Specimen:
    """One of parts (y, x) equal parts of a specimen that repeats so."""
    width, height, depth = specimen.cell_angstrom
    box = np.array([width / parts[1], height / parts[0], depth])
    folded = np.mod(np.mod(specimen.positions_angstrom, box), box)
    pairs = KDTree(folded, boxsize=box).query_pairs(_SAME_PLACE_ANGSTROM, output_type="ndarray")
    kept = np.ones(len(folded), dtype=bool)
    same = specimen.numbers[pairs[:, 0]] == specimen.numbers[pairs[:, 1]]
    kept[pairs[same].max(axis=1)] = False
    return Specimen(specimen.numbers[kept], folded[kept], (float(box[0]), float(box[1]), depth))


def symmetries(specimen: Specimen) -> tuple[Symmetry, ...]:
    """Operations of the rectangle (of the square, if the cell is one) with shifts; the identity comes first."""
    width, height, _ = specimen.cell_angstrom
    is_square = abs(width - height) < _SAME_PLACE_ANGSTROM
    found = [IDENTITY]
    for matrix in _OPERATIONS[1 : 8 if is_square else 4]:
        shift = _shift_for(specimen, np.array(matrix, dtype=float))
        if shift is not None:
            found.append(Symmetry(matrix, shift))
    return tuple(found)


def _shift_for(specimen: Specimen, matrix: NDArray[np.float64]) -> tuple[float, float] | None:
    """A shift with which the turned specimen falls onto itself."""
    if len(specimen.numbers) == 0:
        return (0.0, 0.0)
    turned = specimen.positions_angstrom.copy()
    turned[:, :2] = turned[:, :2] @ matrix.T
    numbers, counts = np.unique(specimen.numbers, return_counts=True)
    rarest = np.flatnonzero(specimen.numbers == numbers[np.argmin(counts)])
    for other in rarest:
        shift = specimen.positions_angstrom[other, :2] - turned[rarest[0], :2]
        if _coincide(specimen, turned + np.append(shift, 0.0)):
            return float(shift[0]), float(shift[1])
    return None


def _coincide(specimen: Specimen, moved: NDArray[np.float64]) -> bool:
    box = np.asarray(specimen.cell_angstrom)
    for number in np.unique(specimen.numbers):
        own = specimen.numbers == number
        places = np.mod(np.mod(specimen.positions_angstrom[own], box), box)
        tree = KDTree(places, boxsize=box)
        wanted = np.mod(np.mod(moved[own], box), box)
        if not np.isfinite(tree.query(wanted, distance_upper_bound=_SAME_PLACE_ANGSTROM)[0]).all():
            return False
    return True
