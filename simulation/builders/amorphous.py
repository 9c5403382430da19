"""Amorphous matter: random atoms of a given density that keep a least distance; in a film, or anywhere by place.

The rule is random sequential addition (Widom, J. Chem. Phys. 44 (1966) 3888) in the order of random marks, cut after a
few rounds. A round keeps each point whose mark is the least among its undecided neighbours and drops the neighbours of
what is kept. After `ROUNDS` rounds a point's fate depends on points within 2 * ROUNDS * distance only, so the same
atoms come out wherever a field is cut. There is no short-range order but the least distance: rings, bond angles and
the first peak of a real glass are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.argument_kinds import kinds_checked
from simulation.builders.lattice_filling import placed
from simulation.builders.limits import (
    GRAM_PER_CM3_FROM_DALTON_PER_ANGSTROM3,
    atomic_number,
    checked,
    positive,
    within,
)
from simulation.errors import InvalidParameter

ROUNDS = 4
CARBON_DENSITY_G_PER_CM3 = 2.0
"""Evaporated amorphous carbon: an assumption, between the 1.8 and 2.2 that are usual for such films."""
CARBON_DISTANCE_NM = 0.13
MOST_PACKED_FRACTION = 0.25
"""Share of the volume in spheres of the least distance; random addition saturates at 0.384 and slows down before."""
_OVERSAMPLING, _SPARE, _STEP = 1.4, 1.05, 1.2


def spaced(
    points: NDArray[np.float64], marks: NDArray[np.float64], distance_nm: float, box: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """Which of the points are kept so that no two are nearer than the distance; periodic in `box` if one is given."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(points, boxsize=box).query_pairs(distance_nm, output_type="ndarray")
    later = np.where(marks[pairs[:, 0]] < marks[pairs[:, 1]], pairs[:, 1], pairs[:, 0])
    earlier = pairs.sum(axis=1) - later
    kept, undecided = np.zeros(len(points), dtype=bool), np.ones(len(points), dtype=bool)
    for _ in range(ROUNDS):
        beaten = np.zeros(len(points), dtype=bool)
        beaten[later] = True
        first = undecided & ~beaten
        kept |= first
        dropped = np.zeros(len(points), dtype=bool)
        dropped[later[first[earlier]]] = True
        undecided &= ~(first | dropped)
        alive = undecided[earlier] & undecided[later]
        earlier, later = earlier[alive], later[alive]
        if not undecided.any():
            break
    return kept


@lru_cache(maxsize=64)
def kept_fraction(candidate_count: float) -> float:
    """Share of random candidates that `spaced` keeps, their number being per cube of the least distance; measured.

    A periodic cube of about 20,000 candidates from a fixed seed: the same number on every machine, good to 1 %.
    """
    side = (20_000 / candidate_count) ** (1 / 3)
    rng = np.random.default_rng([20, 26])
    points = rng.random((20_000, 3)) * side
    return float(spaced(points, rng.random(20_000), 1.0, np.full(3, side)).mean())


def candidates_for(atoms_per_nm3: float, distance_nm: float) -> tuple[float, float]:
    """How many random candidates per nm3 it takes to keep more than `atoms_per_nm3`, and the share that is kept."""
    packed = atoms_per_nm3 * np.pi / 6 * distance_nm**3
    if packed > MOST_PACKED_FRACTION:
        most = MOST_PACKED_FRACTION / (np.pi / 6 * distance_nm**3)
        raise InvalidParameter(
            f"{atoms_per_nm3:.1f} atoms per nm3 cannot keep {distance_nm} nm from each other (at most {most:.1f} per"
            " nm3); lower the density or the least distance"
        )
    wanted = atoms_per_nm3 * distance_nm**3
    step = ceil(log(_OVERSAMPLING * wanted, _STEP))  # a ladder of rates, so that each is measured once
    while _STEP**step * kept_fraction(_STEP**step) < _SPARE * wanted:
        step += 1
    return _STEP**step / distance_nm**3, kept_fraction(_STEP**step)


def atoms_per_nm3(density_g_per_cm3: float, composition: Mapping[str, float]) -> float:
    """Number density of a substance of that mass density; the shares of its elements in any unit."""
    from ase.data import atomic_masses

    positive("density_g_per_cm3", density_g_per_cm3, "g/cm3")
    if not all(0 <= share < inf for share in composition.values()) or sum(composition.values()) <= 0:
        raise InvalidParameter(f"composition {dict(composition)} must give at least one element a share above 0")
    total = sum(composition.values())
    mean_mass = sum(atomic_masses[atomic_number(symbol)] * share / total for symbol, share in composition.items())
    return 1000.0 * density_g_per_cm3 / (mean_mass * GRAM_PER_CM3_FROM_DALTON_PER_ANGSTROM3)


@kinds_checked
def amorphous_film(
    composition: str | Mapping[str, float] = "C",
    *,
    width_nm: float,
    height_nm: float,
    thickness_nm: float,
    density_g_per_cm3: float = CARBON_DENSITY_G_PER_CM3,
    least_distance_nm: float = CARBON_DISTANCE_NM,
    vacuum_nm: float = 0.1,
    seed: int = 0,
) -> Any:
    """Random atoms in a slab in a periodic cell, of exactly the density asked for (to one atom).

    `composition` is an element or shares by element, such as `{"Si": 1, "O": 2}`; species are drawn to these shares.
    """
    sides = np.array(
        [positive(name, value, "nm") for name, value in (("width_nm", width_nm), ("height_nm", height_nm))]
        + [positive("thickness_nm", thickness_nm, "nm")]
    )
    within("vacuum_nm", vacuum_nm, 0.0, 1e3, "nm")
    positive("least_distance_nm", least_distance_nm, "nm")
    shares = {composition: 1.0} if isinstance(composition, str) else dict(composition)
    per_nm3 = atoms_per_nm3(density_g_per_cm3, shares)
    wanted = round(per_nm3 * float(np.prod(sides)))
    rng = np.random.default_rng([seed, 3])
    box = sides + np.array([0.0, 0.0, 2 * vacuum_nm])
    rate, _ = candidates_for(per_nm3, least_distance_nm)
    points = _points(sides, box, rate, wanted, least_distance_nm, rng)
    numbers = _species(shares, len(points), rng)
    depth = 10 * (thickness_nm + 2 * vacuum_nm)
    positions = 10 * points + (0, 0, 10 * vacuum_nm)
    info = {"name": "amorphous", "density_g_per_cm3": density_g_per_cm3, "least_distance_nm": least_distance_nm}
    return checked(placed(numbers, positions, (10 * width_nm, 10 * height_nm, depth), **info))


def _points(
    sides: NDArray[np.float64], box: NDArray[np.float64], rate: float, wanted: int, distance_nm: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    for _ in range(8):
        count = int(np.ceil(rate * np.prod(sides)))
        points = rng.random((count, 3)) * sides
        chosen = np.flatnonzero(spaced(points, rng.random(count), distance_nm, box))
        if len(chosen) >= wanted:
            return points[np.sort(rng.permutation(chosen)[:wanted])]
        rate *= 1.5
    raise InvalidParameter(
        f"{wanted} atoms {distance_nm} nm apart do not fit into {sides.tolist()} nm; lower the density or the distance"
    )


def _species(shares: Mapping[str, float], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    total = sum(shares.values())
    bounds = np.round(np.cumsum([share / total for share in shares.values()]) * count).astype(int)
    numbers = np.empty(count, dtype=np.int64)
    for symbol, first, last in zip(shares, [0, *bounds[:-1]], bounds, strict=True):
        numbers[first:last] = atomic_number(symbol)
    return rng.permutation(numbers)
