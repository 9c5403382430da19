"""Nanoparticles cut from a crystal or grown as multiple twins, turned to the beam, bare or on an amorphous film."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.builders.amorphous import CARBON_DENSITY_G_PER_CM3, amorphous_film
from simulation.builders.crystals import crystal
from simulation.builders.lattice_filling import Lattice, placed, turn_z
from simulation.builders.limits import checked, known, positive, within
from simulation.errors import InvalidParameter

CUT_SHAPES = ("sphere", "cube", "octahedron", "cuboctahedron", "truncated_octahedron", "twin")
GROWN_SHAPES = ("decahedron", "icosahedron")
SHAPES = CUT_SHAPES + GROWN_SHAPES
WULFF_RATIO = 1.15
"""Surface energies of {100} over {111} for the truncated octahedron: an assumption typical of fcc metals."""
_FACETS: dict[str, tuple[tuple[tuple[int, int, int], float], ...]] = {
    "cube": (((1, 0, 0), 1.0),),
    "octahedron": (((1, 1, 1), 1.0),),
    "cuboctahedron": (((1, 0, 0), 1.0), ((1, 1, 1), 2 / np.sqrt(3))),
    "truncated_octahedron": (((1, 0, 0), WULFF_RATIO), ((1, 1, 1), 1.0)),
    "twin": (((1, 0, 0), WULFF_RATIO), ((1, 1, 1), 1.0)),
}
_GAP_NM = 0.2
_MOST_GROWN_LAYERS = 40


@kinds_checked
def nanoparticle(
    material: Any,
    shape: str = "sphere",
    *,
    diameter_nm: float,
    axis: ArrayLike = (0, 0, 1),
    azimuth_deg: float = 0.0,
    vacuum_nm: float = 0.5,
) -> Any:
    """A free particle, its crystal direction `axis` along the beam, then turned about it; in the middle of its cell.

    `material` is a name of `CRYSTALS` or an `ase.Atoms` cell; the diameter is that of the sphere of the same volume.
    Decahedra and icosahedra (fcc elements only) have a whole number of shells, the nearest to that volume, and their
    five-fold axis along [0 0 1]. A twin is a truncated octahedron whose halves mirror each other in a (1 1 1) plane.
    """
    known("shape", shape, SHAPES)
    positive("diameter_nm", diameter_nm, "nm")
    within("vacuum_nm", vacuum_nm, 0.1, 1e3, "nm")
    unit = crystal(material) if isinstance(material, str) else material
    if shape in GROWN_SHAPES:
        numbers, positions = _grown(unit, shape, diameter_nm)
        toward = np.asarray(axis, dtype=np.float64)
    else:
        numbers, positions = _cut(unit, shape, diameter_nm)
        toward = np.asarray(axis, dtype=np.float64) @ np.asarray(unit.cell[:])
    turned = positions @ orientation(toward, azimuth_deg).T
    return _boxed(numbers, turned, vacuum_nm, shape=shape, **unit.info)


@kinds_checked
def core_shell(
    core: str, shell: str, shape: str = "truncated_octahedron", *, core_diameter_nm: float, diameter_nm: float,
    axis: ArrayLike = (0, 0, 1), azimuth_deg: float = 0.0, vacuum_nm: float = 0.5,
) -> Any:  # fmt: skip
    """A core in a shell of another element of the same structure, coherent: the shell takes the lattice of the core.

    Real shells keep the lattice of the core up to a few atomic layers; `info["mismatch_fraction"]` says by how much
    the shell is strained, and more than 0.08 is refused.
    """
    inner, outer = crystal(core), crystal(shell)
    mismatch = float(inner.cell.lengths()[0] / outer.cell.lengths()[0] - 1.0)
    within(f"mismatch of {core} and {shell}", mismatch, -0.08, 0.08, "(no unit)")
    within("core_diameter_nm", core_diameter_nm, 0.1, diameter_nm, "nm")
    if len(inner) != len(outer) or len(set(outer.numbers)) != 1 or len(set(inner.numbers)) != 1:
        raise InvalidParameter(f"{core} and {shell} are not elements of one structure; choose two fcc or two bcc ones")
    known("shape", shape, CUT_SHAPES)
    numbers, positions = _cut(inner, shape, diameter_nm)
    is_core = _inside(shape, core_diameter_nm * 5)(positions)
    numbers = np.where(is_core, inner.numbers[0], outer.numbers[0])
    turned = positions @ orientation(np.asarray(axis, dtype=np.float64), azimuth_deg).T
    return _boxed(numbers, turned, vacuum_nm, name=f"{core}@{shell}", shape=shape, mismatch_fraction=mismatch)


@kinds_checked
def on_film(
    particle: Any,
    *,
    film_thickness_nm: float,
    margin_nm: float = 1.0,
    film_density_g_per_cm3: float = CARBON_DENSITY_G_PER_CM3,
    seed: int = 0,
) -> Any:
    """The particle on the entrance side of an amorphous carbon film that reaches `margin_nm` beyond it."""
    positive("margin_nm", margin_nm, "nm")
    positions = particle.positions - particle.positions.min(axis=0)
    extent = positions.max(axis=0)
    width, height = extent[:2] + 20 * margin_nm
    film = amorphous_film(
        width_nm=width / 10, height_nm=height / 10, thickness_nm=film_thickness_nm, seed=seed,
        density_g_per_cm3=film_density_g_per_cm3, vacuum_nm=0.0,
    )  # fmt: skip
    top = extent[2] + 10 * (_GAP_NM + 0.1)
    above = positions + np.array([10 * margin_nm, 10 * margin_nm, 1.0])
    numbers = np.concatenate([particle.numbers, film.numbers])
    together = np.concatenate([above, film.positions + np.array([0, 0, top])])
    depth = top + 10 * film_thickness_nm + 1.0
    return checked(placed(numbers, together, (width, height, depth), **particle.info, film="amorphous C"))


def orientation(toward: NDArray[np.float64], azimuth_deg: float = 0.0) -> NDArray[np.float64]:
    """The rotation that brings a direction onto +z by the shortest way, then turns about z from +x towards +y."""
    length = float(np.linalg.norm(toward))
    if toward.shape != (3,) or length == 0:
        raise InvalidParameter(f"axis {toward} must be a direction of three numbers, not all 0")
    u = toward / length
    turn = turn_z(np.deg2rad(azimuth_deg))
    if u[2] < -1 + 1e-12:
        return turn @ np.diag([1.0, -1.0, -1.0])
    cross = np.cross(u, (0.0, 0.0, 1.0))
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return turn @ (np.eye(3) + skew + skew @ skew / (1 + u[2]))  # Rodrigues' formula, cos = u_z


def random_orientation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation drawn evenly from all (Shoemake, Graphics Gems III (1992) 124: a random unit quaternion)."""
    w, x, y, z = _unit(rng.standard_normal(4))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _boxed(numbers: Any, positions: NDArray[np.float64], vacuum_nm: float, **info: Any) -> Any:
    low, high = positions.min(axis=0), positions.max(axis=0)
    lengths = high - low + 20 * vacuum_nm
    return checked(placed(numbers, positions - low + 10 * vacuum_nm, lengths, **info))


def _cut(unit: Any, shape: str, diameter_nm: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atoms of the crystal inside the shape, which is centred on an atom."""
    lattice = Lattice.of(unit)
    centre = lattice.scaled[0] @ lattice.cell_angstrom
    reach = np.full(3, diameter_nm * 10 * 1.2)
    numbers, positions = lattice.inside(-reach, reach, -centre)
    kept = _inside(shape, diameter_nm * 5)(positions)
    numbers, positions = numbers[kept], positions[kept]
    if shape == "twin":
        return _mirrored(unit, numbers, positions)
    return numbers, positions


def _mirrored(
    unit: Any, numbers: NDArray[np.int64], positions: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if len(unit) != 4 or len(set(unit.numbers)) != 1:
        raise InvalidParameter("twins are built of fcc elements; choose another shape for this crystal")
    normal = _unit(np.ones(3))
    height = positions @ normal
    upper = height > 0.1
    half, middle = positions[upper], np.abs(height) <= 0.1
    mirrored = half - 2 * (half @ normal)[:, None] * normal
    together = np.concatenate([positions[middle], half, mirrored])
    return np.full(len(together), numbers[0]), together


def _inside(shape: str, radius_angstrom: float) -> Any:
    """A function that says which of (n, 3) points lie inside; the sphere of equal volume has that radius."""
    if shape == "sphere":
        return lambda points: (points**2).sum(axis=1) <= radius_angstrom**2
    normals, distances = _facets(shape)
    scale = radius_angstrom * (4 * np.pi / 3 / _volume(shape)) ** (1 / 3)
    return lambda points: np.all(points @ normals.T <= distances * scale + 1e-6, axis=1)


def _facets(shape: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit normals and distances of all faces."""
    planes = {
        (tuple(np.multiply(miller, signs)), distance)
        for family, distance in _FACETS[shape]
        for miller in {family, family[1:] + family[:1], family[2:] + family[:2]}
        for signs in product((1, -1), repeat=3)
    }
    ordered = sorted(planes)
    normals = np.array([miller for miller, _ in ordered], dtype=np.float64)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True), np.array([distance for _, distance in ordered])


@lru_cache(maxsize=8)
def _volume(shape: str) -> float:
    from scipy.spatial import ConvexHull, HalfspaceIntersection

    normals, distances = _facets(shape)
    corners = HalfspaceIntersection(np.column_stack([normals, -distances]), np.zeros(3)).intersections
    return float(ConvexHull(corners).volume)


def _grown(unit: Any, shape: str, diameter_nm: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The multiply twinned particle whose number of atoms is nearest to that of the sphere."""
    from ase.cluster import Decahedron, Icosahedron

    if len(unit) != 4 or len(set(unit.numbers)) != 1:
        raise InvalidParameter(f"a {shape} is built of fcc elements; choose another shape for this crystal")
    symbol, a = str(unit.symbols[0]), float(unit.cell.lengths()[0])
    wanted = np.pi / 6 * (diameter_nm * 10) ** 3 / (a**3 / 4)
    layers = min(range(1, _MOST_GROWN_LAYERS), key=lambda count: abs(_grown_count(shape, count) - wanted))
    if shape == "icosahedron":
        grown = Icosahedron(symbol, layers, latticeconstant=a)
        positions = grown.positions @ orientation(_five_fold_axis(grown.positions)).T
    else:
        grown = Decahedron(symbol, layers, layers, 0, latticeconstant=a)
        positions = np.asarray(grown.positions)
    positions = positions - positions.mean(axis=0)
    return np.asarray(grown.numbers), positions


def _grown_count(shape: str, layers: int) -> float:
    """Atoms of an icosahedron of that many shells (Mackay, Acta Cryst. 15 (1962) 916), or of the decahedron (p = q)."""
    if shape == "icosahedron":
        return (10 * layers**3 - 15 * layers**2 + 11 * layers - 3) / 3
    return sum((2 * layers - 1 - ring) * (5 * ring if ring else 1) for ring in range(layers))


def _five_fold_axis(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    away = positions - positions.mean(axis=0)
    corner = away[np.argmax((away**2).sum(axis=1).round(3))]
    return corner if np.linalg.norm(corner) > 0 else np.array([0.0, 0.0, 1.0])
