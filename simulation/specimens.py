"""A structure fit to be simulated: read from a file, checked, made orthogonal. Slicing is in `slices`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidSpecimen
from simulation.scattering_factors import symbol_of

CELL_TOLERANCE_ANGSTROM = 1e-4
"""Cell vectors that differ by less are equal."""
_BELOW_EXIT_ANGSTROM = 1e-5
_FACE_TOLERANCE_ANGSTROM = 1e-3
_SAME_PLACE_ANGSTROM = 0.1
_OCCUPANCY_TOLERANCE = 1e-3
_FORMATS = "a CIF, an extended XYZ (.xyz, .extxyz), a VASP file (POSCAR, .vasp), or another that ase knows by its name"


@runtime_checkable
class Atoms(Protocol):
    """What a structure must have: as `ase.Atoms`, angstrom."""

    @property
    def numbers(self) -> Any:
        """Atomic numbers, (n,)."""

    @property
    def positions(self) -> Any:
        """Cartesian positions in angstrom, (n, 3)."""

    @property
    def cell(self) -> Any:
        """Three cell vectors in angstrom, (3, 3), or three lengths."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A copy of checked atoms, as they were."""

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]

    @classmethod
    def of(cls, atoms: Atoms) -> Structure:
        """From what `Specimen.of` has accepted."""
        return cls(np.array(atoms.numbers), np.array(atoms.positions, dtype=np.float64), _table("cell", atoms.cell))


@dataclass(frozen=True, slots=True)
class Specimen:
    """Checked atoms in an orthogonal periodic cell, beam along +z; angstrom, float64."""

    numbers: NDArray[np.int64]
    positions_angstrom: NDArray[np.float64]
    cell_angstrom: tuple[float, float, float]

    @classmethod
    def of(cls, atoms: Atoms) -> Specimen:
        """Check `atoms`; x and y are wrapped into the cell, and z must lie in it: the beam enters at 0."""
        found = cls.wrapped(atoms)
        _check_depth(np.asarray(atoms.positions, dtype=np.float64)[:, 2], found.cell_angstrom[2])
        return found

    @classmethod
    def wrapped(cls, atoms: Atoms) -> Specimen:
        """The same without a look at z, which is wrapped too: for structures whose atoms may have moved out."""
        if not isinstance(atoms, Atoms):
            raise InvalidSpecimen(
                f"atoms is a {type(atoms).__name__}; give ase.Atoms, or anything with its numbers, positions and cell"
            )
        cell = _orthogonal_lengths(atoms)
        numbers, positions = _checked_atoms(atoms)
        _check_occupancy("atoms have", atoms)
        z = positions[:, 2]
        z = np.where((z < 0) & (z > -_FACE_TOLERANCE_ANGSTROM), 0.0, z)  # rounding, which would wrap it to the exit
        positions = np.column_stack([positions[:, :2], z])
        return cls(numbers, np.mod(positions, np.asarray(cell)), cell)

    def check_distances(self) -> None:
        """Refuse atoms on top of each other, which would scatter as one twice as strong."""
        cell = np.asarray(self.cell_angstrom)
        inside = np.mod(np.mod(self.positions_angstrom, cell), cell)
        pairs = KDTree(inside, boxsize=cell).query_pairs(_SAME_PLACE_ANGSTROM, output_type="ndarray")
        if len(pairs) == 0:
            return
        first, second = pairs[np.lexsort(pairs.T[::-1])[0]].tolist()
        raise InvalidSpecimen(
            f"{len(pairs)} pairs of atoms are nearer than {_SAME_PLACE_ANGSTROM / 10:g} nm, the first"
            f" {symbol_of(int(self.numbers[first]))} {first} and {symbol_of(int(self.numbers[second]))} {second}; atoms"
            " are simulated whole: delete one of each (partly occupied sites are not known here), or move them"
        )

    def displaced(self, displacements_angstrom: NDArray[np.float64]) -> Specimen:
        """Every atom moved; x and y wrap, z stays inside the cell, so no surface atom changes sides."""
        positions = self.positions_angstrom + displacements_angstrom
        width, height, depth = self.cell_angstrom
        wrapped = np.mod(positions[:, :2], (width, height))
        z = np.clip(positions[:, 2], 0.0, depth - _BELOW_EXIT_ANGSTROM)
        return Specimen(self.numbers, np.column_stack([wrapped, z]), self.cell_angstrom)


@kinds_checked
def read_structure(path: str | Path) -> Any:
    """The structure of a CIF, extended XYZ or VASP file, or another that ase knows, as `ase.Atoms` (the last frame).

    Raises `InvalidSpecimen` if the file is missing, unreadable, empty, has no cell, or sites that are partly occupied.
    """
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidSpecimen(f"structure file {path} {what}; give {_FORMATS}")
    if path.stat().st_size == 0:
        raise InvalidSpecimen(f"structure file {path} is empty; give {_FORMATS}")
    file_format = {".cif": "cif", ".xyz": "extxyz", ".extxyz": "extxyz"}.get(path.suffix.lower())
    unreadable = (UnknownFileTypeError, OSError, ValueError, KeyError, IndexError, StopIteration, AssertionError)
    try:
        atoms = ase.io.read(path, format=file_format)
    except (*unreadable, RuntimeError, TypeError, AttributeError) as error:
        raise InvalidSpecimen(f"structure file {path} cannot be read{_because(error)}; give {_FORMATS}") from error
    if isinstance(atoms, list):
        atoms = atoms[-1]
    if len(atoms) == 0:
        raise InvalidSpecimen(f"structure file {path} holds no atoms")
    _check_occupancy(f"structure file {path} has", atoms)
    if abs(atoms.cell.volume) < 1e-6:
        raise InvalidSpecimen(
            f"structure file {path} has no three-dimensional cell; write Lattice=... (extended XYZ) or a CIF cell,"
            " in angstrom"
        )
    _checked_atoms(atoms)
    return atoms


def _because(error: Exception) -> str:
    """What the reader says of the file; nothing where it only stumbled over it."""
    is_of_the_file = isinstance(error, OSError | ValueError | RuntimeError)
    said = " ".join(str(error).split()) if is_of_the_file else ""
    return said and f" ({said})"


def _check_occupancy(holder: str, atoms: Any) -> None:
    """ase takes the element with most of a site for the whole site."""
    import ase

    if not isinstance(atoms, ase.Atoms):
        return
    kinds = {str(kind) for kind in atoms.arrays.get("spacegroup_kinds", np.empty(0)).tolist()}
    for kind, shares in atoms.info.get("occupancy", {}).items():
        if kinds and str(kind) not in kinds:
            continue
        if len(shares) != 1 or abs(sum(shares.values()) - 1) > _OCCUPANCY_TOLERANCE:
            site = " + ".join(f"{symbol} {share:g}" for symbol, share in shares.items())
            raise InvalidSpecimen(
                f"{holder} a site that is partly occupied ({site}); atoms are simulated whole: choose which are there,"
                " in a supercell if need be, and give them occupancy 1 (in Python, delete atoms.info['occupancy'])"
            )


@kinds_checked
def orthogonal_cell(atoms: Any, *, repeat_limit: int = 6) -> Any:
    """The smallest orthogonal supercell of an `ase.Atoms` whose c axis is perpendicular to a and b.

    Hexagonal monolayers give the rectangular cell a x sqrt(3) a with twice the atoms; orthogonal cells come back
    rotated onto x, y, z. Raises `InvalidSpecimen` if no supercell up to `repeat_limit` repeats a side is orthogonal.
    """
    from ase.build import make_supercell

    lattice = np.asarray(atoms.cell[:], dtype=np.float64)
    sides = np.linalg.norm(lattice, axis=1)
    if not sides.all():
        raise InvalidSpecimen(
            f"cell vectors of {np.round(sides, 4).tolist()} angstrom: one has no length; give a layer room along the"
            " beam with atoms.center(vacuum=3, axis=2), other structures their cell"
        )
    a, b, c = lattice
    leaning = max(abs(a @ c), abs(b @ c)) / (sides[2] * max(sides[:2]))
    if leaning > CELL_TOLERANCE_ANGSTROM:
        raise InvalidSpecimen("the third cell vector is not perpendicular to the first two; beam along c needs that")
    first, second = _orthogonal_pair(a, b, repeat_limit)
    matrix = np.array([[*first, 0], [*second, 0], [0, 0, 1]])
    supercell = make_supercell(atoms, matrix)
    if np.linalg.det(np.asarray(supercell.cell)) < 0:
        raise InvalidSpecimen("the cell vectors are left-handed; exchange a and b")
    lengths = supercell.cell.lengths()
    scaled = supercell.get_scaled_positions(wrap=True)
    scaled = np.where(np.isclose(scaled, 1.0, atol=1e-9), 0.0, scaled)
    supercell.set_cell(np.diag(lengths))
    supercell.set_scaled_positions(scaled)
    return supercell


def _orthogonal_pair(
    a: NDArray[np.float64], b: NDArray[np.float64], repeat_limit: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two integer combinations of a and b, perpendicular, of least area; the first as close to a as can be."""
    span = range(-repeat_limit, repeat_limit + 1)
    steps = np.array([(i, j) for i in span for j in span if i or j])
    firsts = np.concatenate([[(1, 0), (0, 1)], steps])  # the first of equals is taken
    u, v = (indices @ np.stack([a, b]) for indices in (firsts, steps))
    areas = np.outer(firsts[:, 0], steps[:, 1]) - np.outer(firsts[:, 1], steps[:, 0])
    lengths = np.outer(np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1))
    is_cell = (areas > 0) & (np.abs(u @ v.T) <= 1e-5 * lengths)
    if not is_cell.any():
        raise InvalidSpecimen(
            f"no orthogonal supercell within {repeat_limit} repeats of the cell; build one and give that structure"
        )
    row, column = np.unravel_index(np.argmin(np.where(is_cell, areas, areas.max() + 1)), areas.shape)
    first, second = firsts[row].tolist(), steps[column].tolist()
    return (first[0], first[1]), (second[0], second[1])


def _orthogonal_lengths(atoms: Atoms) -> tuple[float, float, float]:
    cell = _table("cell", atoms.cell)
    if cell.shape == (3,):
        cell = np.diag(cell)
    if cell.shape != (3, 3) or not np.all(np.isfinite(cell)):
        raise InvalidSpecimen("the cell must be three finite vectors in angstrom")
    leaning = float(np.max(np.abs(cell - np.diag(np.diagonal(cell)))))
    if leaning > CELL_TOLERANCE_ANGSTROM:
        raise InvalidSpecimen(
            f"a cell vector leans by {leaning:g} angstrom, more than {CELL_TOLERANCE_ANGSTROM:g}: the cell must be"
            " orthogonal with its vectors along x, y, z (beam along +z); make it so with"
            " simulation.specimens.orthogonal_cell(atoms)"
        )
    lengths = tuple(float(value) for value in np.diagonal(cell))
    if min(lengths) <= 0:
        raise InvalidSpecimen(f"cell lengths {lengths} angstrom must all be positive; give the structure a cell")
    return lengths[0], lengths[1], lengths[2]


def _checked_atoms(atoms: Atoms) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    given = _table("numbers", atoms.numbers)
    numbers = np.where(np.isfinite(given), given, 0).astype(np.int64)
    if numbers.ndim != 1 or not np.array_equal(numbers, given):
        raise InvalidSpecimen(f"atomic numbers must be whole, and are {given[:4]} ...; round them")
    positions = _table("positions", atoms.positions)
    if positions.shape != (len(numbers), 3):
        raise InvalidSpecimen(f"positions have shape {positions.shape}; {len(numbers)} atoms need ({len(numbers)}, 3)")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise InvalidSpecimen(
            f"atom {bad[0]} has a position that is not finite: {positions[bad[0]]} angstrom; delete it"
        )
    for number in np.unique(numbers):
        symbol_of(int(number))
    return numbers, positions


def _check_depth(z_angstrom: NDArray[np.float64], depth_angstrom: float) -> None:
    beyond = np.maximum(-z_angstrom, z_angstrom - depth_angstrom)
    outside = np.flatnonzero(beyond > _FACE_TOLERANCE_ANGSTROM)
    if len(outside):
        raise InvalidSpecimen(
            f"{len(outside)} atoms lie outside the cell along the beam, the first, atom {outside[0]}, at z ="
            f" {z_angstrom[outside[0]]:.4g} angstrom, and the cell reaches from 0 to {depth_angstrom:.4g}; of a crystal"
            " wrap them (atoms.wrap()), of a particle or film shift them or make the cell deeper"
        )


def _table(name: str, given: Any) -> NDArray[np.float64]:
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidSpecimen(f"the {name} of atoms are no numbers ({error}); give what ase.Atoms has") from error
