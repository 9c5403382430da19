"""Any crystal seen along any of its lattice directions, in the smallest orthogonal cell."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.builders.crystals import crystal
from simulation.builders.lattice_filling import Lattice, periodic_box, with_vacuum
from simulation.builders.limits import checked, positive, within
from simulation.errors import InvalidParameter, InvalidSpecimen

_PARALLEL = 1e-5
_SAME_SITE = 1e-4


@kinds_checked
def zone_axis(
    material: Any,
    axis: ArrayLike,
    *,
    thickness_nm: float,
    width_nm: float = 0.1,
    height_nm: float = 0.1,
    vacuum_nm: float = 0.0,
    repeat_limit: int = 6,
) -> Any:
    """A crystal with its lattice direction [u v w] along the beam, in an orthogonal periodic cell.

    `material` is a name of `CRYSTALS` or an `ase.Atoms` cell. The thickness is that of the nearest whole number of
    periods along the beam, at least one; width and height are rounded up. `vacuum_nm` goes before and after. Raises
    `InvalidSpecimen` where no orthogonal cell exists within `repeat_limit` repeats.
    """
    positive("thickness_nm", thickness_nm, "nm")
    positive("width_nm", width_nm, "nm")
    positive("height_nm", height_nm, "nm")
    within("vacuum_nm", vacuum_nm, 0.0, 1e3, "nm")
    unit = crystal(material) if isinstance(material, str) else material
    cell = oriented_cell(unit, axis, repeat_limit=repeat_limit)
    across, down, along = cell.cell.lengths() / 10.0
    repeats = (ceil(width_nm / across - 1e-9), ceil(height_nm / down - 1e-9), max(1, round(thickness_nm / along)))
    return checked(with_vacuum(cell * repeats, vacuum_nm))


def oriented_cell(unit: Any, axis: ArrayLike, *, across: ArrayLike | None = None, repeat_limit: int = 6) -> Any:
    """The smallest orthogonal cell of the crystal `unit` with [u v w] along z, and `across` (a direction too) along x.

    Centring translations of the crystal count as lattice vectors: fcc along [110] has the depth a / sqrt(2).
    """
    lattice = Lattice.of(unit)
    vectors = _lattice_vectors(unit, repeat_limit)
    beam = _shortest_along(vectors, _direction(axis, "axis") @ lattice.cell_angstrom, axis)
    first, second = _orthogonal_pair(vectors, beam, None if across is None else _direction(across, "across"), lattice)
    lengths = np.array([np.linalg.norm(vector) for vector in (first, second, beam)])
    frame = np.stack([first, second, beam]) / lengths[:, None]
    info = {**unit.info, "zone_axis": tuple(int(index) for index in np.asarray(axis))}
    return periodic_box(lattice.turned(frame), lengths, **info)


def _direction(indices: ArrayLike, name: str) -> NDArray[np.float64]:
    found = np.asarray(indices, dtype=np.float64)
    if found.shape != (3,) or not np.any(found) or np.any(found != np.round(found)):
        raise InvalidParameter(f"{name} = {indices} must be three whole numbers [u v w], not all 0")
    return found


def _lattice_vectors(unit: Any, repeat_limit: int) -> NDArray[np.float64]:
    """All translations that leave the crystal unchanged, up to `repeat_limit` cells, angstrom."""
    span = np.arange(-repeat_limit, repeat_limit + 1)
    whole = np.array(list(product(span, span, span)), dtype=np.float64)
    shifts = np.concatenate([whole + centring for centring in centrings(unit)])
    vectors = shifts @ np.asarray(unit.cell[:], dtype=np.float64)
    return vectors[np.linalg.norm(vectors, axis=1) > 1e-6]


def centrings(unit: Any) -> NDArray[np.float64]:
    """(n, 3) fractional translations, among them 0, that map the crystal onto itself."""
    from scipy.spatial import cKDTree

    scaled = np.mod(unit.get_scaled_positions(wrap=True) + 0.5 * _SAME_SITE, 1.0)
    numbers = np.asarray(unit.numbers)
    tree = cKDTree(scaled, boxsize=1.0)
    rarest = min(np.unique(numbers), key=lambda number: int((numbers == number).sum()))
    starts = scaled[numbers == rarest]
    found = []
    for shift in starts - starts[0]:
        if tree.query(np.mod(scaled[:4] + shift, 1.0))[0].max() > _SAME_SITE:
            continue  # most fail at once
        distances, images = tree.query(np.mod(scaled + shift, 1.0))
        if np.all(distances < _SAME_SITE) and np.array_equal(numbers[images], numbers):
            found.append(np.mod(np.round(shift * 24) / 24, 1.0))
    return np.array(found)


def _shortest_along(vectors: NDArray[np.float64], wanted: NDArray[np.float64], axis: ArrayLike) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = vectors @ wanted / (lengths * np.linalg.norm(wanted))
    along = np.flatnonzero(cosines > 1 - _PARALLEL**2 * 10)
    if len(along) == 0:
        raise InvalidSpecimen(
            f"no lattice vector along {axis} within reach; lower the indices (in Python, repeat_limit searches further)"
        )
    return vectors[along[np.argmin(lengths[along])]]


def _orthogonal_pair(
    vectors: NDArray[np.float64],
    beam: NDArray[np.float64],
    across: NDArray[np.float64] | None,
    lattice: Lattice,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two lattice vectors perpendicular to the beam and to each other, of least area, right-handed with the beam."""
    lengths = np.linalg.norm(vectors, axis=1)
    flat = vectors[np.abs(vectors @ beam) < _PARALLEL * lengths * np.linalg.norm(beam)]
    flat = flat[np.argsort(np.linalg.norm(flat, axis=1).round(6), kind="stable")][:400]
    firsts = flat
    if across is not None:
        firsts = _shortest_along(vectors, across @ lattice.cell_angstrom, across)[None, :]
    norms = np.linalg.norm(flat, axis=1) if len(flat) else np.empty(0)
    areas = np.outer(np.linalg.norm(firsts, axis=1), norms)
    handed = np.cross(firsts[:, None, :], flat[None, :, :]) @ beam > 0
    fits = (np.abs(firsts @ flat.T) < _PARALLEL * areas) & handed
    if not fits.any():
        raise InvalidSpecimen(
            "no orthogonal cell with this axis along the beam within the repeats searched; choose another axis, or"
            " give an orthogonal supercell of your own (in Python, repeat_limit searches further)"
        )
    best = int(np.argmin(np.where(fits, areas, np.inf)))
    row, column = np.unravel_index(best, areas.shape)
    return firsts[row], flat[column]
