"""Symmetric tilt boundaries of cubic crystals and of hexagonal layers: coincidence-site lattices, mirrored and closed.

The crystal is cut at the boundary plane and mirrored in it. Of the rigid displacements that a real boundary may take,
a few are tried, and the one is kept that leaves most atoms with the number of neighbours they have in the crystal;
atoms that come too close are merged. Nothing is relaxed: distances at the boundary are right to some tenths of an
angstrom, which is enough to find it and to count its units, not to measure it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, degrees, gcd, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.builders.crystals import crystal
from simulation.builders.lattice_filling import EDGE_ANGSTROM, Lattice, placed, turn_z, with_vacuum
from simulation.builders.layers import DEFAULT_VACUUM_NM, LAYERS, layer_lattice, layer_thickness_angstrom
from simulation.builders.limits import checked, close_pairs, known, positive, within
from simulation.builders.zone_axes import oriented_cell
from simulation.errors import InvalidParameter

_LARGEST_M = 100
_TOO_CLOSE = 0.72
_NEIGHBOUR_REACH = 1.2
_OFFSETS = (0.0, 0.25, 0.5, 0.75)
_SHIFTS = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Bicrystal:
    """Two grains in a periodic cell and what is known of them: boundaries at y = 0 and at half the height.

    `odd_atom_count` is the number of atoms whose neighbours differ in number from those of the perfect crystal.
    """

    atoms: Any
    sigma: int
    misorientation_deg: float
    boundaries_y_nm: tuple[float, float]
    odd_atom_count: int


@kinds_checked
def tilt_boundary(
    material: str,
    plane: ArrayLike,
    *,
    axis: ArrayLike = (0, 0, 1),
    grain_height_nm: float = 1.5,
    thickness_nm: float,
    width_nm: float = 0.1,
    vacuum_nm: float = 0.0,
) -> Bicrystal:
    """A symmetric tilt boundary on a plane (h k l) of a cubic crystal, the tilt axis [u v w] in it and along the beam.

    Sigma is h^2 + k^2 + l^2, or half of it where that is even (reflection in (h k l): Grimmer, Bollmann and Warrington,
    Acta Cryst. A30 (1974) 197): (2 1 0) and (3 1 0) along [0 0 1] are sigma 5, (1 1 1) along [1 -1 0] is the twin.
    """
    for name, value in (("grain_height_nm", grain_height_nm), ("thickness_nm", thickness_nm), ("width_nm", width_nm)):
        positive(name, value, "nm")
    within("vacuum_nm", vacuum_nm, 0.0, 1e3, "nm")
    unit = crystal(material)
    if np.ptp(unit.cell.lengths()) > 1e-6:
        raise InvalidParameter(f"{material} is not cubic; choose a cubic crystal")
    h, along = np.asarray(plane, dtype=int), np.asarray(axis, dtype=int)
    if h.shape != (3,) or not h.any() or int(h @ along) != 0:
        raise InvalidParameter(f"plane {plane} must hold the tilt axis {axis}: their scalar product must be 0")
    h = h // gcd(*(int(index) for index in h))
    cell = oriented_cell(unit, along, across=np.cross(h, along) // gcd(*(int(i) for i in np.cross(h, along))))
    grain = _Grain(
        Lattice.of(cell), np.asarray(cell.cell.lengths()), ceil(grain_height_nm * 10 / cell.cell.lengths()[1])
    )
    made, odd = _closed(grain)
    square = int(h @ h)
    sigma = square if square % 2 else square // 2
    repeats = (ceil(width_nm * 10 / grain.lengths[0] - 1e-9), 1, max(1, round(thickness_nm * 10 / grain.lengths[2])))
    made.info.update(unit.info)
    reference = np.asarray(_reference(along), dtype=np.float64)
    return _finished(made, repeats, vacuum_nm, sigma, _fold(2 * _angle_deg(reference, h), along), odd)


@kinds_checked
def layer_tilt_boundary(
    name: str,
    m: int,
    n: int,
    *,
    grain_height_nm: float = 1.5,
    width_nm: float = 0.1,
    vacuum_nm: float = DEFAULT_VACUUM_NM,
) -> Bicrystal:
    """A symmetric tilt boundary of a hexagonal monolayer along its lattice vector m a1 + n a2 (60 degrees apart).

    Sigma is m^2 + m n + n^2, a third of it where m - n is a multiple of 3: (2, 1) is sigma 7, 21.8 degrees, and (3, 2)
    is sigma 19, 13.2 degrees.
    """
    known("layer", name, LAYERS)
    positive("grain_height_nm", grain_height_nm, "nm")
    positive("width_nm", width_nm, "nm")
    within("vacuum_nm", vacuum_nm, 0.05, 100.0, "nm")
    if not (1 <= m <= _LARGEST_M and 1 <= n <= _LARGEST_M) or gcd(m, n) != 1 or m == n:
        raise InvalidParameter(
            f"(m, n) = ({m}, {n}) must be different whole numbers, 1 to {_LARGEST_M}, without a common factor"
        )
    lattice = layer_lattice(name)
    a1, a2, depth = lattice.cell_angstrom[0], lattice.cell_angstrom.sum(axis=0), lattice.cell_angstrom[2]
    along = m * a1 + n * (a2 - depth)
    turned = lattice.turned(turn_z(-float(np.arctan2(along[1], along[0]))))
    square = m * m + m * n + n * n
    third = 3 if (m - n) % 3 == 0 else 1
    a = LAYERS[name].a_angstrom
    lengths = np.array([a * sqrt(square), a * sqrt(3 * square) / third, float(depth[2])])
    made, odd = _closed(_Grain(turned, lengths, ceil(grain_height_nm * 10 / lengths[1])))
    made.positions[:, 2] -= 1.0
    made.set_cell([*made.cell.lengths()[:2], layer_thickness_angstrom(name)])
    made.info.update(name=name, source=LAYERS[name].source)
    angle = degrees(np.arccos((m * m + n * n + 4 * m * n) / (2 * square)))
    repeats = (ceil(width_nm * 10 / lengths[0] - 1e-9), 1, 1)
    return _finished(made, repeats, vacuum_nm, square // third, angle, odd)


@dataclass(frozen=True, slots=True)
class _Grain:
    """A lattice, its orthogonal period, and how many periods high one grain is."""

    lattice: Lattice
    lengths: NDArray[np.float64]
    rows: int

    @property
    def height(self) -> float:
        return self.rows * float(self.lengths[1])


def _finished(
    made: Any, repeats: tuple[int, int, int], vacuum_nm: float, sigma: int, angle_deg: float, odd: int
) -> Bicrystal:
    half_nm = float(made.cell.lengths()[1]) / 20.0
    atoms = checked(with_vacuum(made * repeats, vacuum_nm))
    atoms.info.update(sigma=sigma, misorientation_deg=angle_deg)
    return Bicrystal(atoms, sigma, angle_deg, (0.0, half_nm), odd * int(np.prod(repeats)))


def _closed(grain: _Grain) -> tuple[Any, int]:
    """The bicrystal of least odd neighbours among the displacements tried; the first of equals."""
    spacing = _nearest_angstrom(grain)
    usual = _neighbour_counts(*_perfect(grain), spacing)
    wanted = {number: float(np.median(counts)) for number, counts in usual.items()}
    tried = [_merged(grain, offset, shift, spacing) for offset in _OFFSETS for shift in _SHIFTS]
    odd = []
    for atoms in tried:
        found = _neighbour_counts(np.asarray(atoms.numbers), atoms.positions, atoms.cell.lengths(), spacing)
        odd.append(sum(int((counts != wanted[number]).sum()) for number, counts in found.items()))
    best = int(np.argmin(odd))
    return tried[best], odd[best]


def _perfect(grain: _Grain) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    repeats = np.maximum(1, np.ceil(8.0 / grain.lengths))
    lengths = grain.lengths * repeats
    numbers, positions = grain.lattice.inside(np.full(3, -EDGE_ANGSTROM), lengths - EDGE_ANGSTROM)
    return numbers, positions, lengths


def _nearest_angstrom(grain: _Grain) -> float:
    from scipy.spatial import cKDTree

    _, positions, _ = _perfect(grain)
    middle = positions.mean(axis=0)
    start = positions[np.argmin(((positions - middle) ** 2).sum(axis=1))]
    return float(cKDTree(positions).query(start, k=2)[0][1])


def _neighbour_counts(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], lengths: Any, spacing: float
) -> dict[int, NDArray[np.int64]]:
    """By species, for every atom, how many others are within 1.2 nearest-neighbour distances (periodic)."""
    repeats = np.maximum(1, np.ceil(2.5 * _NEIGHBOUR_REACH * spacing / np.asarray(lengths))).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(count) for count in repeats), indexing="ij"), axis=-1).reshape(-1, 3)
    tiled = np.concatenate([positions + shift * lengths for shift in shifts])
    pairs = close_pairs(tiled, np.asarray(lengths) * repeats, _NEIGHBOUR_REACH * spacing)
    counts = np.bincount(pairs.ravel(), minlength=len(tiled))[: len(positions)]
    return {int(number): counts[numbers == number] for number in np.unique(numbers)}


def _merged(grain: _Grain, offset: float, shift: float, spacing: float) -> Any:
    """Lower grain in 0 <= y <= height, its mirror image above; what is too close becomes one atom in between."""
    width, period, depth = grain.lengths
    low = np.full(3, -EDGE_ANGSTROM)
    high = np.array([width - EDGE_ANGSTROM, grain.height + EDGE_ANGSTROM, depth - EDGE_ANGSTROM])
    numbers, below = grain.lattice.inside(low, high, (0.0, offset * period, 0.0))
    above = below * (1, -1, 1) + (shift * width, 2 * grain.height, 0)
    lengths = np.array([width, 2 * grain.height, depth])
    positions = np.mod(np.concatenate([below, above]) + 1e-9, lengths) - 1e-9
    numbers = np.concatenate([numbers, numbers])
    kept = np.ones(len(numbers), dtype=bool)
    for first, second in _closest_first(positions, lengths, _TOO_CLOSE * spacing):
        if kept[first] and kept[second]:
            kept[second] = False
            if numbers[first] == numbers[second]:
                away = positions[second] - positions[first]
                positions[first] += 0.5 * (away - np.round(away / lengths) * lengths)
    return placed(numbers[kept], np.mod(positions[kept], lengths), lengths)


def _closest_first(positions: NDArray[np.float64], lengths: NDArray[np.float64], reach: float) -> list[tuple[int, int]]:
    pairs = close_pairs(positions, lengths, min(reach, 0.49 * float(lengths.min())))
    away = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    away -= np.round(away / lengths) * lengths
    order = np.lexsort((pairs[:, 1], pairs[:, 0], np.linalg.norm(away, axis=1).round(6)))
    return [(int(min(pair)), int(max(pair))) for pair in pairs[order]]


def _reference(axis: NDArray[np.int64]) -> NDArray[np.int64]:
    """The mirror plane of the crystal, holding the axis, from which the tilt is counted."""
    if not axis[:2].any():
        return np.array([1, 0, 0])
    return np.array([0, 0, 1]) if axis[2] == 0 else np.cross(axis, (axis[1], -axis[0], 0))


def _angle_deg(one: ArrayLike, other: ArrayLike) -> float:
    u, v = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return degrees(np.arccos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1)))


def _fold(angle_deg: float, axis: NDArray[np.int64]) -> float:
    """The angle within what symmetry about the axis leaves: below 90 degrees about <1 0 0>, up to 60 about <1 1 1>."""
    if int(np.count_nonzero(axis)) == 1:
        return angle_deg % 90.0
    period = 120.0 if len(set(np.abs(axis).tolist())) == 1 else 360.0
    return min(angle_deg % period, -angle_deg % period)
