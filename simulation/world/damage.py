"""Vacancies the beam makes: which atoms leave, when and where; rates come from `cross_sections`."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, exp, pi, radians, sin

import numpy as np

from instruments.units import ANGSTROM2_PER_NM2
from simulation.world.crystal import Crystal, Site
from simulation.world.tilt import UPRIGHT, Tilt

_REACH_NM = 0.1  # a parked beam hits columns this near
_SPOT_ANGSTROM2 = 1.0
_STRIPS = 32  # of a lit disc


@dataclass(frozen=True, slots=True)
class Birth:
    """One atom lost: the column is `species` from sub-frame `subframe` of that action on (the count: afterwards)."""

    site: Site
    species: str
    time_s: float
    action_id: str
    subframe: int


@dataclass(frozen=True, slots=True)
class Raster:
    """An exposed rectangle in the specimen frame and the electrons per square angstrom across the beam that it got."""

    x_nm: float
    y_nm: float
    width_nm: float
    height_nm: float
    rotation_deg: float
    flux_e_per_a2: float

    def contains(self, x_nm: np.ndarray, y_nm: np.ndarray, margin_nm: float = 0.0) -> np.ndarray:
        """Whether points lie in the rectangle widened by the margin."""
        c, s = cos(radians(self.rotation_deg)), sin(radians(self.rotation_deg))
        dx, dy = np.asarray(x_nm) - self.x_nm, np.asarray(y_nm) - self.y_nm
        along, across = np.abs(c * dx + s * dy), np.abs(c * dy - s * dx)
        return (along <= self.width_nm / 2 + margin_nm) & (across <= self.height_nm / 2 + margin_nm)


@dataclass(frozen=True, slots=True)
class LitDisc:
    """What a parallel beam lights: its middle in the specimen frame, its diameter across the beam."""

    x_nm: float
    y_nm: float
    diameter_nm: float
    tilt: Tilt = UPRIGHT

    def rasters(self, electrons: float) -> list[Raster]:
        """The disc as rectangles of one height that have its area together, evenly lit."""
        edges = np.linspace(-self.diameter_nm / 2, self.diameter_nm / 2, _STRIPS + 1)
        height, middle = self.diameter_nm / _STRIPS, (edges[1:] + edges[:-1]) / 2
        area_nm2 = pi / 4 * self.diameter_nm**2
        widths = 2 * np.sqrt((self.diameter_nm / 2) ** 2 - middle**2)
        widths *= area_nm2 / (widths.sum() * height)
        flux = electrons / (area_nm2 * ANGSTROM2_PER_NM2)
        return [
            self._strip(dy, width, height, flux) for dy, width in zip(middle.tolist(), widths.tolist(), strict=True)
        ]

    def _strip(self, dy_nm: float, width_nm: float, height_nm: float, flux_e_per_a2: float) -> Raster:
        if self.tilt.is_upright:
            return Raster(self.x_nm, self.y_nm + dy_nm, width_nm, height_nm, 0.0, flux_e_per_a2)
        u_nm, v_nm = self.tilt.on_sheet(0.0, dy_nm)
        return Raster(self.x_nm + u_nm, self.y_nm + v_nm, *self.tilt.rectangle(width_nm, height_nm, 0.0), flux_e_per_a2)


@dataclass
class Columns:
    """What each column holds now: natives and births over the perfect crystal. Grows, never shrinks.

    An atom leaves only if what remains is a declared species; loss from V_Se makes V_Se2, loss of the Se beside an
    O is not followed. Contamination protects nothing here (assumption).
    """

    crystal: Crystal
    contents: dict[str, tuple[str, ...]]  # species -> atoms left
    columns_of: dict[str, str]  # species -> column name
    natives: dict[Site, str]
    barn_by_symbol: dict[str, float]
    neighbour_factor: float
    births: list[Birth] = field(default_factory=list[Birth])

    def __post_init__(self) -> None:
        self._now: dict[Site, str] = dict(self.natives)
        self._after = self._losses()
        self._vacancies = [site for site in self._now if self._is_vacancy(site)]
        self._vacancy_xy = np.array([self.crystal.position_nm(site) for site in self._vacancies]).reshape(-1, 2)
        self._fragile = sorted({name for name, _ in self._after})
        self._atoms = {name: self._most_atoms(name) for name in self._fragile}

    def species_at(self, site: Site) -> str | None:
        """Species of a column now; None for a perfect one."""
        return self._now.get(site)

    def expose_raster(
        self, raster: Raster, time_s: float, action_id: str, subframe: int, rng: np.random.Generator
    ) -> None:
        """Expose a rectangle once and record what left, sub-frame `subframe` being the first to show it.

        Events are thinned from a bound: everywhere at the plain rate, and around each vacancy (it and its neighbours)
        at the extra one, shared where vacancies share a neighbour.
        """
        for name in self._fragile:
            hazard = self._hazard(name, raster.flux_e_per_a2)
            atoms = self._atoms[name]
            area_nm2 = raster.width_nm * raster.height_nm
            count = rng.poisson(area_nm2 * self.crystal.sites_per_nm2(name) * atoms * hazard)
            sites = self._drawn(name, raster, count, rng) + self._drawn_beside(name, raster, atoms * hazard, rng)
            for site in sites:
                if rng.random() * atoms < self._fragile_atoms(name, self._now.get(site)):
                    self._lose(site, time_s, action_id, subframe)

    def expose_spot(
        self, x_nm: float, y_nm: float, electrons: float, time_s: float, action_id: str, subframe: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Expose about 1 square angstrom under a resting beam; columns within 0.1 nm may lose atoms."""
        for name in self._fragile:
            (site,) = self.crystal.nearest(name, np.array([x_nm]), np.array([y_nm]))
            sx, sy = self.crystal.position_nm(site)
            if (sx - x_nm) ** 2 + (sy - y_nm) ** 2 > _REACH_NM**2:
                continue
            factor = self.neighbour_factor if self._vacancies_beside(site) else 1.0
            leaving = 1 - exp(-self._hazard(name, electrons / _SPOT_ANGSTROM2) * factor)
            for _ in range(rng.binomial(self._fragile_atoms(name, self._now.get(site)), leaving)):
                self._lose(site, time_s, action_id, subframe)

    def _losses(self) -> dict[tuple[str, str | None], str]:
        """(column name, species or None) -> species after losing one fragile atom."""
        known = {(self.columns_of[name], tuple(sorted(atoms))): name for name, atoms in self.contents.items()}
        states: list[tuple[str, str | None, tuple[str, ...]]] = [
            (column.name, None, column.symbols) for column in self.crystal.columns
        ]
        states += [(self.columns_of[name], name, atoms) for name, atoms in self.contents.items()]
        after: dict[tuple[str, str | None], str] = {}
        for column, species, atoms in states:
            symbol = next((symbol for symbol in atoms if self.barn_by_symbol.get(symbol, 0) > 0), None)
            if symbol is None:
                continue
            left = list(atoms)
            left.remove(symbol)
            if (column, tuple(sorted(left))) in known:
                after[column, species] = known[column, tuple(sorted(left))]
        return after

    def _perfect(self, name: str) -> tuple[str, ...]:
        return next(column.symbols for column in self.crystal.columns if column.name == name)

    def _atoms_of(self, name: str, species: str | None) -> tuple[str, ...]:
        return self._perfect(name) if species is None else self.contents[species]

    def _fragile_atoms(self, name: str, species: str | None) -> int:
        if (name, species) not in self._after:
            return 0
        return sum(self.barn_by_symbol.get(symbol, 0) > 0 for symbol in self._atoms_of(name, species))

    def _most_atoms(self, name: str) -> int:
        species = [None, *(key for key, column in self.columns_of.items() if column == name)]
        return max(self._fragile_atoms(name, key) for key in species)

    def _hazard(self, name: str, flux_e_per_a2: float) -> float:
        """Expected losses per atom: cross-section times electrons per area (1 barn = 1e-8 square angstrom)."""
        barn = max(self.barn_by_symbol.get(symbol, 0.0) for symbol in self._perfect(name))
        return barn * 1e-8 * flux_e_per_a2

    def _is_vacancy(self, site: Site) -> bool:
        species = self._now.get(site)
        return species is not None and len(self.contents[species]) < len(self.crystal.columns[site.column].symbols)

    def _vacancies_beside(self, site: Site) -> int:
        """Vacancies that make this column easier to damage: itself and its neighbours."""
        return sum(self._is_vacancy(other) for other in (site, *self.crystal.neighbours(site)))

    def _drawn(self, name: str, raster: Raster, count: int, rng: np.random.Generator) -> list[Site]:
        if count == 0:
            return []
        u, v = rng.uniform(-0.5, 0.5, count) * raster.width_nm, rng.uniform(-0.5, 0.5, count) * raster.height_nm
        c, s = cos(radians(raster.rotation_deg)), sin(radians(raster.rotation_deg))
        return self.crystal.nearest(name, raster.x_nm + c * u - s * v, raster.y_nm + s * u + c * v)

    def _drawn_beside(self, name: str, raster: Raster, column_hazard: float, rng: np.random.Generator) -> list[Site]:
        near = np.flatnonzero(raster.contains(self._vacancy_xy[:, 0], self._vacancy_xy[:, 1], margin_nm=1.0))
        near = [n for n in near if self.crystal.columns[self._vacancies[n].column].name == name]
        if not near:
            return []
        partners = 1 + len(self.crystal.neighbours(self._vacancies[near[0]]))
        count = rng.poisson(len(near) * partners * column_hazard * (self.neighbour_factor - 1))
        drawn: list[Site] = []
        for pick, member, share in zip(
            rng.choice(near, count), rng.integers(0, partners, count), rng.random(count), strict=True
        ):
            centre = self._vacancies[pick]
            site = (centre, *self.crystal.neighbours(centre))[member]
            x_nm, y_nm = self.crystal.position_nm(site)
            if share * self._vacancies_beside(site) < 1 and raster.contains(np.array(x_nm), np.array(y_nm)):
                drawn.append(site)
        return drawn

    def _lose(self, site: Site, time_s: float, action_id: str, subframe: int) -> None:
        after = self._after.get((self.crystal.columns[site.column].name, self._now.get(site)))
        if after is None:
            return
        was_vacancy = self._is_vacancy(site)
        self._now[site] = after
        self.births.append(Birth(site, after, time_s, action_id, subframe))
        if not was_vacancy and self._is_vacancy(site):
            self._vacancies.append(site)
            self._vacancy_xy = np.vstack([self._vacancy_xy, self.crystal.position_nm(site)])
