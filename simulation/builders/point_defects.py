"""Point defects in any structure, at sites named or drawn at random, with the list of what was done: the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.builders.limits import atomic_number, checked, known, positive, within
from simulation.errors import InvalidParameter, InvalidSpecimen

KINDS = ("vacancy", "double_vacancy", "column_vacancy", "substitution", "antisite", "adatom")
_SAME_COLUMN_ANGSTROM = 0.3
_MODE_COUNT = 64
_LEAST_BOND_FRACTION = 0.8
"""Of the sum of covalent radii: nearer to an adatom is no room."""


@dataclass(frozen=True, slots=True)
class PointDefect:
    """A kind of defect on atoms of one species.

    vacancy: the atom is missing. double_vacancy: so is its nearest neighbour (of `partner`, or of any species).
    column_vacancy: all atoms of the species in its column along the beam are missing. substitution: it is `becomes`.
    antisite: the same, and `becomes` must be a species of the structure. adatom: an atom `becomes` sits `height_nm`
    straight before it, against the beam: by default at the sum of their covalent radii, and, drawn at random, only
    before atoms where it has that room. Nothing is relaxed.
    """

    kind: str
    species: str
    becomes: str | None = None
    partner: str | None = None
    height_nm: float | None = None

    def __post_init__(self) -> None:
        """Refuse unknown kinds and species, and a missing new species."""
        check_fields(self)
        known("kind of defect", self.kind, KINDS)
        for symbol in (self.species, self.becomes, self.partner):
            if symbol is not None:
                atomic_number(symbol)
        if self.height_nm is not None:
            positive("height_nm", self.height_nm, "nm")
        if self.kind in ("substitution", "antisite", "adatom") and self.becomes is None:
            raise InvalidParameter(f"a defect of kind {self.kind!r} needs `becomes`, the new species; give its symbol")
        if self.kind in ("substitution", "antisite") and self.becomes == self.species:
            raise InvalidParameter(f"{self.species} cannot become {self.species}; give another species")

    @property
    def adatom_height_nm(self) -> float:
        """How far before its atom an adatom stands: as asked, else one bond by the covalent radii of ase."""
        if self.height_nm is not None:
            return self.height_nm
        from ase.data import covalent_radii

        return sum(float(covalent_radii[atomic_number(str(one))]) for one in (self.species, self.becomes)) / 10

    @property
    def name(self) -> str:
        """A short name in the manner of Kroeger and Vink, such as `V_S`, `W_Mo` or `ad-C_Mo`."""
        if self.kind in ("substitution", "antisite"):
            return f"{self.becomes}_{self.species}"
        if self.kind == "adatom":
            return f"ad-{self.becomes}_{self.species}"
        return {"vacancy": "V", "double_vacancy": "VV", "column_vacancy": "Vcol"}[self.kind] + f"_{self.species}"


@dataclass(frozen=True, slots=True)
class DefectSite:
    """One defect that is there: its name, where, and the species removed and added."""

    name: str
    x_nm: float
    y_nm: float
    z_nm: float
    removed: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Defective:
    """A structure (`ase.Atoms`) and the truth about its defects."""

    atoms: Any
    sites: tuple[DefectSite, ...]


@kinds_checked
def with_defects(atoms: Any, placements: Sequence[tuple[PointDefect, int]]) -> Defective:
    """Defects at given atoms (indices into `atoms`); no atom may take part in two of them."""
    plan = _Plan(atoms)
    for placement in placements:
        defect, index = _placement(placement)
        if not 0 <= index < len(atoms):
            raise InvalidParameter(f"atom {index} does not exist; the structure has atoms 0 to {len(atoms) - 1}")
        if atoms.symbols[index] != defect.species:
            raise InvalidParameter(
                f"atom {index} is {atoms.symbols[index]}, not {defect.species}; choose an atom of that species"
            )
        if not plan.add(defect, index):
            raise InvalidParameter(f"atom {index} takes part in another defect already; choose an atom further away")
    return plan.result()


@kinds_checked
def with_random_defects(
    atoms: Any,
    densities_per_nm2: Mapping[PointDefect, float],
    *,
    seed: int,
    clustering_sigma: float = 0.0,
    clustering_length_nm: float = 2.0,
    depth_nm: tuple[float, float] | None = None,
) -> Defective:
    """Defects at random sites: Poisson numbers of the given mean per area of the cell, each on a site of its own.

    With `clustering_sigma` the local density varies as exp(sigma g), g a periodic Gaussian field of unit variance and
    correlation exp(-r^2 / (2 length^2)), here a sum of 64 random waves. `depth_nm` restricts the sites to
    a range of depths below the entrance. Raises `InvalidParameter` if a density asks for more sites than there are.
    """
    within("clustering_sigma", clustering_sigma, 0.0, 5.0, "(no unit)")
    positive("clustering_length_nm", clustering_length_nm, "nm")
    rng = np.random.default_rng([seed, 1])
    width, height, _ = atoms.cell.lengths()
    area_nm2 = width * height / 100.0
    weights = _relative_density(atoms, clustering_sigma, clustering_length_nm, rng)
    plan = _Plan(atoms)
    for defect, per_nm2 in densities_per_nm2.items():
        candidates = plan.candidates(defect, depth_nm)
        within(f"density of {defect.name}", per_nm2, 0.0, len(candidates) / area_nm2, "1/nm2 (sites there are)")
        wanted = min(int(rng.poisson(per_nm2 * area_nm2)), len(candidates))
        plan.add_some(defect, candidates, weights[candidates], wanted, rng)
    return plan.result()


@kinds_checked
def with_fraction_replaced(atoms: Any, species: str, becomes: str, fraction: float, *, seed: int) -> Defective:
    """A given fraction of the atoms of one species, rounded to whole atoms, replaced at random sites."""
    defect = PointDefect("substitution", species, becomes)
    within("fraction", fraction, 0.0, 1.0, "(of the sites)")
    plan = _Plan(atoms)
    candidates = plan.candidates(defect, None)
    rng = np.random.default_rng([seed, 2])
    plan.add_some(defect, candidates, np.ones(len(candidates)), round(fraction * len(candidates)), rng)
    return plan.result()


@kinds_checked
def dopant_at_depth(atoms: Any, species: str, becomes: str, *, x_nm: float, y_nm: float, depth_nm: float) -> Defective:
    """The atom of `species` nearest to a point below the entrance (periodic in x and y) is `becomes` instead."""
    defect = PointDefect("substitution", species, becomes)
    candidates = _Plan(atoms).candidates(defect, None)
    width, height, depth = atoms.cell.lengths()
    within("depth_nm", depth_nm, 0.0, depth / 10.0, "nm")
    away = atoms.positions[candidates] - 10.0 * np.array([x_nm, y_nm, depth_nm])
    away[:, :2] -= np.round(away[:, :2] / (width, height)) * (width, height)
    return with_defects(atoms, [(defect, int(candidates[np.argmin((away**2).sum(axis=1))]))])


def _placement(given: Any) -> tuple[PointDefect, int]:
    is_pair = isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], PointDefect)
    if not is_pair or not isinstance(given[1], int | np.integer):
        raise InvalidParameter(
            f"a placement is {short(given)}; give (PointDefect, index of the atom in atoms); of a place in nm take the"
            " atom nearest to it"
        )
    return given[0], int(given[1])


class _Plan:
    """What will be removed, changed and added; atoms already spoken for are not taken again."""

    def __init__(self, atoms: Any) -> None:
        self._atoms = atoms
        self._numbers = np.array(atoms.numbers)
        self._free = np.ones(len(atoms), dtype=bool)
        self._kept = np.ones(len(atoms), dtype=bool)
        self._added: list[tuple[str, NDArray[np.float64]]] = []
        self._sites: list[DefectSite] = []

    def candidates(self, defect: PointDefect, depth_nm: tuple[float, float] | None) -> NDArray[np.int64]:
        """Atoms of the species that are free and within the depths."""
        if defect.kind == "antisite" and atomic_number(str(defect.becomes)) not in self._atoms.numbers:
            raise InvalidParameter(f"antisite {defect.name}: the structure has no {defect.becomes}; use a substitution")
        right = (self._atoms.numbers == atomic_number(defect.species)) & self._free
        if depth_nm is not None:
            z_nm = self._atoms.positions[:, 2] / 10.0
            right &= (z_nm >= depth_nm[0]) & (z_nm <= depth_nm[1])
        if defect.kind == "adatom" and defect.height_nm is None:
            right[right] = self._has_room(defect, np.flatnonzero(right))
        if not right.any():
            raise InvalidSpecimen(
                f"no {defect.species} is left for {defect.name} in {self._atoms.get_chemical_formula()}; choose another"
                " species, depth or density"
            )
        return np.flatnonzero(right)

    def _has_room(self, defect: PointDefect, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether an adatom before each of these atoms would be nearer than a bond to none."""
        from ase.data import covalent_radii

        numbers, lengths = self._atoms.numbers, self._atoms.cell.lengths() * (1, 1, 0)  # periodic across the beam
        radii = covalent_radii[numbers] + covalent_radii[atomic_number(str(defect.becomes))]
        places = np.array(self._atoms.positions)
        places[:, :2] %= lengths[:2]
        sites = places[indices] - (0, 0, 10 * defect.adatom_height_nm)
        reach = _LEAST_BOND_FRACTION * float(radii.max())
        trees = KDTree(sites, boxsize=lengths), KDTree(places, boxsize=lengths)
        near = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
        has_room = np.ones(len(indices), dtype=bool)
        has_room[near["i"][near["v"] < _LEAST_BOND_FRACTION * radii[near["j"]]]] = False
        return has_room

    def add_some(
        self, defect: PointDefect, candidates: NDArray[np.int64], weights: NDArray[np.float64], count: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """`count` defects on candidates drawn by weight without replacement (fewer if they get in each other's way)."""
        keys = rng.exponential(size=len(candidates)) / weights  # the smallest are a weighted sample (Efraimidis 2006)
        done = 0
        for index in candidates[np.argsort(keys, kind="stable")]:
            if done == count:
                break
            done += self.add(defect, int(index))

    def add(self, defect: PointDefect, index: int) -> bool:
        """One defect, unless an atom it needs is taken."""
        members = [index, *self._others(defect, index)]
        if not self._free[members].all():
            return False
        self._free[members] = False
        symbols = tuple(str(self._atoms.symbols[member]) for member in members)
        removed: tuple[str, ...] = symbols
        added: tuple[str, ...] = ()
        if defect.becomes is not None and defect.kind != "adatom":
            self._numbers[index] = atomic_number(defect.becomes)
            added = (defect.becomes,)
        elif defect.kind == "adatom":
            removed, added = (), (str(defect.becomes),)
            self._added.append((added[0], self._atoms.positions[index] - (0, 0, 10 * defect.adatom_height_nm)))
        else:
            self._kept[members] = False
        x, y, z = (float(value) / 10.0 for value in self._atoms.positions[index])
        self._sites.append(DefectSite(defect.name, x, y, z, removed, added))
        return True

    def result(self) -> Defective:
        """The new structure, checked, and the sites in the order they were made."""
        from ase import Atoms

        atoms = self._atoms.copy()
        atoms.numbers[:] = self._numbers
        atoms = atoms[self._kept]
        if self._added:
            atoms += Atoms([symbol for symbol, _ in self._added], positions=[place for _, place in self._added])
        outside = (atoms.positions[:, 2] < 0) | (atoms.positions[:, 2] > atoms.cell.lengths()[2])
        if outside.any():
            raise InvalidSpecimen(
                f"{int(outside.sum())} adatoms would lie outside the cell in z; add vacuum or lower height_nm"
            )
        return Defective(checked(atoms), tuple(self._sites))

    def _others(self, defect: PointDefect, index: int) -> list[int]:
        if defect.kind not in ("double_vacancy", "column_vacancy"):
            return []
        lengths = np.asarray(self._atoms.cell.lengths())
        away = self._atoms.positions - self._atoms.positions[index]
        away -= np.round(away / lengths) * lengths
        if defect.kind == "column_vacancy":
            same = self._atoms.numbers == self._atoms.numbers[index]
            near = np.hypot(away[:, 0], away[:, 1]) < _SAME_COLUMN_ANGSTROM
            return [int(other) for other in np.flatnonzero(same & near) if other != index]
        distances = np.linalg.norm(away, axis=1)
        distances[index] = np.inf
        if defect.partner is not None:
            distances[self._atoms.numbers != atomic_number(defect.partner)] = np.inf
        if not np.isfinite(distances.min()):
            raise InvalidSpecimen(f"{defect.name}: there is no {defect.partner} beside it; choose another partner")
        return [int(np.argmin(distances))]


def _relative_density(atoms: Any, sigma: float, length_nm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """exp(sigma g) at every atom, g a periodic Gaussian field: random waves of the cell, weighted by its spectrum."""
    if sigma == 0:
        return np.ones(len(atoms))
    lengths_nm = np.asarray(atoms.cell.lengths())[:2] / 10.0
    waves = np.round(rng.normal(0.0, lengths_nm / (2 * np.pi * length_nm), (_MODE_COUNT, 2)))
    phases = 2 * np.pi * (atoms.positions[:, :2] / 10.0 / lengths_nm) @ waves.T
    amplitudes = rng.standard_normal((2, _MODE_COUNT)) / np.sqrt(_MODE_COUNT)
    field = np.cos(phases) @ amplitudes[0] + np.sin(phases) @ amplitudes[1]
    return np.exp(sigma * field)
