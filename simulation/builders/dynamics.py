"""Specimens that change in time: a moving front, nuclei that grow, reduction that leaves vacancies behind.

Each is a pure function of its seed and the time: `atoms_at(t_s)` may be asked for any times in any order. Sites keep
their moment of change, drawn once, so that what has changed stays changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.builders.limits import atomic_number, checked, close_pairs, positive, within
from simulation.errors import InvalidParameter, InvalidSpecimen

OXIDATION_STATE = "oxidation_state"
"""Name of the per-atom array, whole charges in units of e, that `ReductionFront` adds to its atoms."""
_WAVE_COUNT = 12
_SAME_CELL_ANGSTROM = 1e-3
_SEAM_ANGSTROM = 1.6
_MOST_NUCLEI = 1e5


class Evolving(Protocol):
    """A specimen with a clock."""

    def atoms_at(self, t_s: float) -> Any:
        """The structure at a time, as `ase.Atoms`; one cell for all times."""


@dataclass(frozen=True)
class ReactionFront:
    """`before` becomes `after` behind a rough front that moves along +x; both structures have the same cell.

    Where the structures meet, atoms of `after` nearer than 0.16 nm to one of `before` are left out. The front is
    where x = start + speed * t + roughness * g(y), g a periodic Gaussian field of mean 0 along y and unit variance.
    """

    before: Any
    after: Any
    speed_nm_per_s: float
    start_nm: float = 0.0
    roughness_nm: float = 0.5
    correlation_nm: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse cells that differ and a front that does not move."""
        check_fields(self)
        _same_cell(self.before, self.after)
        positive("speed_nm_per_s", self.speed_nm_per_s, "nm/s")
        positive("correlation_nm", self.correlation_nm, "nm")
        within("roughness_nm", self.roughness_nm, 0.0, 1e3, "nm")

    def arrival_s(self, positions_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
        """When the front passes each of (n, 3) positions; negative where it had passed at the start."""
        height_nm = float(self.before.cell.lengths()[1]) / 10
        rough = self.roughness_nm * _periodic_field(
            positions_angstrom[:, 1] / 10, height_nm, self.correlation_nm, self.seed
        )
        return (positions_angstrom[:, 0] / 10 - self.start_nm - rough) / self.speed_nm_per_s

    @kinds_checked
    def atoms_at(self, t_s: float) -> Any:
        """The structure at a time."""
        time_s = _time(t_s)
        return _joined(
            self.before[self.arrival_s(self.before.positions) > time_s],
            self.after[self.arrival_s(self.after.positions) <= time_s],
        )

    @kinds_checked
    def transformed_fraction(self, t_s: float) -> float:
        """Share of the atoms of `before` that the front has passed."""
        return float(np.mean(self.arrival_s(self.before.positions) <= _time(t_s)))


@dataclass(frozen=True)
class NucleationAndGrowth:
    """`after` nucleates at random in `before` and grows in discs seen along the beam; both have the same cell.

    Nuclei appear at a constant rate per area, everywhere, and grow at a constant speed; those that appear inside a
    disc add nothing. The transformed share is 1 - exp(-pi/3 I v^2 t^3) on the average (Avrami, J. Chem. Phys. 8 (1940)
    212, plate-like case), as long as discs are small against the cell.
    """

    before: Any
    after: Any
    nuclei_per_nm2_s: float
    growth_nm_per_s: float
    duration_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse cells that differ, and rates or durations that are not positive."""
        check_fields(self)
        _same_cell(self.before, self.after)
        positive("nuclei_per_nm2_s", self.nuclei_per_nm2_s, "1/(nm2 s)")
        positive("growth_nm_per_s", self.growth_nm_per_s, "nm/s")
        positive("duration_s", self.duration_s, "s")

    def nuclei(self) -> NDArray[np.float64]:
        """(n, 3) of x and y in nm and the time of appearance in s, by time, up to the duration."""
        width, height = np.asarray(self.before.cell.lengths())[:2] / 10
        rng = np.random.default_rng([self.seed, 11])
        expected = self.nuclei_per_nm2_s * width * height * self.duration_s
        if expected > _MOST_NUCLEI:
            raise InvalidParameter(
                f"nuclei_per_nm2_s = {self.nuclei_per_nm2_s:g} makes {expected:.3g} nuclei in {self.duration_s:g} s,"
                f" more than {_MOST_NUCLEI:g}; give a lower rate, or a shorter duration_s"
            )
        count = rng.poisson(expected)
        drawn = rng.random((count, 3)) * (width, height, self.duration_s)
        return drawn[np.argsort(drawn[:, 2])]

    def arrival_s(self, positions_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
        """When the first disc reaches each of (n, 3) positions; infinite if there is no nucleus."""
        box = np.asarray(self.before.cell.lengths())[:2] / 10
        points = positions_angstrom[:, :2] / 10
        first = np.full(len(points), np.inf)
        for x_nm, y_nm, born_s in self.nuclei():
            away = points - (x_nm, y_nm)
            away -= np.round(away / box) * box
            first = np.minimum(first, born_s + np.hypot(away[:, 0], away[:, 1]) / self.growth_nm_per_s)
        return first

    @kinds_checked
    def atoms_at(self, t_s: float) -> Any:
        """The structure at a time between 0 and the duration."""
        time_s = within("t_s", t_s, 0.0, self.duration_s, "s")
        return _joined(
            self.before[self.arrival_s(self.before.positions) > time_s],
            self.after[self.arrival_s(self.after.positions) <= time_s],
        )

    @kinds_checked
    def transformed_fraction(self, t_s: float) -> float:
        """Share of the atoms of `before` that have been reached."""
        time_s = within("t_s", t_s, 0.0, self.duration_s, "s")
        return float(np.mean(self.arrival_s(self.before.positions) <= time_s))


@dataclass(frozen=True)
class ReductionFront:
    """Oxygen leaves behind a front along +x, and two cations nearest to each vacancy take up one electron each.

    Of the oxygen atoms behind the front the share `vacancy_fraction` is missing, at most what the cations can bear.
    Oxidation states (whole charges) are in the array `oxidation_state`; they sum to 0 at all times. The lattice does
    not expand, and vacancies do not order.
    """

    oxide: Any
    cation: str
    states: tuple[int, int]
    vacancy_fraction: float
    speed_nm_per_s: float
    start_nm: float = 0.0
    width_nm: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse fractions the cations cannot bear, and states that are not one electron apart."""
        check_fields(self)
        positive("speed_nm_per_s", self.speed_nm_per_s, "nm/s")
        within("width_nm", self.width_nm, 0.0, 1e3, "nm")
        if self.states[0] - self.states[1] != 1:
            raise InvalidParameter(f"states {self.states} must be one electron apart, the oxidised one first: (4, 3)")
        cations = int((self.oxide.numbers == atomic_number(self.cation)).sum())
        oxygens = int((self.oxide.numbers == atomic_number("O")).sum())
        if not cations or not oxygens:
            raise InvalidSpecimen(f"{self.oxide.get_chemical_formula()} has no {self.cation} or no O; name its cation")
        if self._other_charge() != 2 * oxygens - cations * self.states[0]:
            raise InvalidSpecimen(
                f"{self.oxide.get_chemical_formula()} is not neutral with {self.cation} {self.states[0]}+ and O 2-: the"
                f" rest cannot carry {2 * oxygens - cations * self.states[0]} e; use an oxide of {self.cation} and O,"
                " or set the array initial_charges of the other atoms"
            )
        within("vacancy_fraction", self.vacancy_fraction, 0.0, min(1.0, cations / (2 * oxygens)), "(of the oxygen)")

    @kinds_checked
    def atoms_at(self, t_s: float) -> Any:
        """The structure at a time, with the array `oxidation_state`."""
        leaving_s, cations = self._history
        gone = leaving_s <= _time(t_s)
        atoms = self.oxide.copy()
        states = np.round(atoms.get_initial_charges()).astype(np.int64)
        states[atoms.numbers == atomic_number("O")] = -2
        states[atoms.numbers == atomic_number(self.cation)] = self.states[0]
        states[cations[gone].ravel()] = self.states[1]
        atoms.set_array(OXIDATION_STATE, states)
        oxygens = np.flatnonzero(atoms.numbers == atomic_number("O"))
        kept = np.ones(len(atoms), dtype=bool)
        kept[oxygens[gone]] = False
        return atoms[kept]

    @cached_property
    def _history(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For every oxygen the time it leaves (infinite if never) and the two cations it reduces, all different."""
        from scipy.spatial import cKDTree

        lengths = np.asarray(self.oxide.cell.lengths())
        wrapped = np.mod(self.oxide.positions, lengths)
        wrapped = np.where(wrapped >= lengths, 0.0, wrapped)
        oxygens = np.flatnonzero(self.oxide.numbers == atomic_number("O"))
        cations = np.flatnonzero(self.oxide.numbers == atomic_number(self.cation))
        rng = np.random.default_rng([self.seed, 12])
        lag_nm = np.abs(rng.standard_normal(len(oxygens))) * self.width_nm
        passed_s = (wrapped[oxygens, 0] / 10 - self.start_nm + lag_nm) / self.speed_nm_per_s
        count = round(self.vacancy_fraction * len(oxygens))
        chosen = rng.permutation(len(oxygens))[:count]
        tree = cKDTree(wrapped[cations], boxsize=lengths)
        free = np.ones(len(cations), dtype=bool)
        pairs = np.zeros((len(oxygens), 2), dtype=np.int64)
        for oxygen in chosen[np.argsort(passed_s[chosen], kind="stable")]:
            pairs[oxygen] = cations[_two_free(tree, wrapped[oxygens[oxygen]], free)]
        leaving_s = np.full(len(oxygens), np.inf)
        leaving_s[chosen] = passed_s[chosen]
        return leaving_s, pairs

    def _other_charge(self) -> int:
        others = (self.oxide.numbers != atomic_number("O")) & (self.oxide.numbers != atomic_number(self.cation))
        return int(np.round(self.oxide.get_initial_charges()[others].sum()))


def _two_free(tree: Any, place: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The two nearest cations that are not reduced yet, now taken."""
    reach = 8
    while True:
        _, nearest = tree.query(place, k=min(reach, len(free)))
        usable = np.atleast_1d(nearest)[free[np.atleast_1d(nearest)]][:2]
        if len(usable) == 2 or reach >= len(free):
            free[usable] = False
            return usable
        reach *= 4


def _periodic_field(at_nm: NDArray[np.float64], period_nm: float, length_nm: float, seed: int) -> NDArray[np.float64]:
    """A Gaussian field of mean 0 and unit variance along a line of that period; correlation exp(-d^2 / (2 length^2)).

    In a period shorter than some ten lengths it varies faster: the longest wave is the period.
    """
    rng = np.random.default_rng([seed, 10])
    waves = np.round(rng.normal(0.0, period_nm / (2 * np.pi * length_nm), _WAVE_COUNT))
    waves = np.where(waves == 0, 1.0, waves)  # no constant: the front as a whole is where it is said to be
    phases = 2 * np.pi * at_nm[:, None] / period_nm * waves
    amplitudes = rng.standard_normal((2, _WAVE_COUNT)) / np.sqrt(_WAVE_COUNT)
    return np.cos(phases) @ amplitudes[0] + np.sin(phases) @ amplitudes[1]


def _time(t_s: float) -> float:
    return within("t_s", t_s, 0.0, 1e9, "s")


def _same_cell(before: Any, after: Any) -> None:
    difference = np.abs(before.cell.lengths() - after.cell.lengths())
    if difference.max() > _SAME_CELL_ANGSTROM:
        raise InvalidSpecimen(
            f"cells of {np.round(before.cell.lengths(), 3).tolist()} and {np.round(after.cell.lengths(), 3).tolist()}"
            " angstrom differ; build both structures in one cell"
        )


def _joined(before: Any, after: Any) -> Any:
    """Both parts in one cell; atoms of the second that come too close to the first are left out."""
    together = before + after
    pairs = close_pairs(together.positions, np.asarray(together.cell.lengths()), _SEAM_ANGSTROM)
    across = pairs[(pairs.min(axis=1) < len(before)) & (pairs.max(axis=1) >= len(before))]
    kept = np.ones(len(together), dtype=bool)
    kept[across.max(axis=1)] = False
    return checked(together[kept])
