"""What the history says, gathered once for each decision: maps, undecided sites, money left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.census.density import mean_densities
from policies.census.detection import columns_of
from policies.context import Context
from policies.cost import Cost, total
from policies.dimensions import Point
from policies.fields import dose_of, is_scan
from policies.observation import Observation
from policies.windows import cells_inside

_ARRAYS = ("clean_map", "clean_map_x_nm", "clean_map_y_nm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """Everything a decision reads.

    Maps are (rows, columns) on `y_nm`, `x_nm`: `clean` probability (0 where not surveyed), `dose_e_per_a2` everything
    exposed there so far, `taken_dose_e_per_a2` the same for fields and second looks, asked for ones included.
    `undecided_posterior` (n, 1 + S) with host first.
    """

    left: Cost
    budget_left_fraction: float
    previous: Point | None
    observations: Sequence[Observation]
    x_nm: np.ndarray
    y_nm: np.ndarray
    clean: np.ndarray
    dose_e_per_a2: np.ndarray
    taken_dose_e_per_a2: np.ndarray
    undecided_x_nm: np.ndarray
    undecided_y_nm: np.ndarray
    undecided_posterior: np.ndarray
    density_per_nm2: np.ndarray

    @property
    def cell_nm(self) -> float:
        """Side of a cell of the maps."""
        return float(self.x_nm[1] - self.x_nm[0])

    @property
    def fields(self) -> list[Observation]:
        """Fields that were imaged."""
        return [o for o in self.observations if o.point.get("purpose") == "field" and o.status == "done"]

    def at(self, values: np.ndarray, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
        """Map values at positions (the nearest cell)."""
        column = np.clip(np.rint((x_nm - self.x_nm[0]) / self.cell_nm).astype(int), 0, len(self.x_nm) - 1)
        row = np.clip(np.rint((y_nm - self.y_nm[0]) / self.cell_nm).astype(int), 0, len(self.y_nm) - 1)
        return values[row, column]


class Exposures:
    """Exposure maps of a growing history: remembers how far it has summed, always in the order of the history."""

    def __init__(self) -> None:
        self._count = 0
        self._grid: tuple[bytes, bytes] | None = None
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    def of(
        self, observations: Sequence[Observation], believed: Sequence[Observation], x_nm: np.ndarray, y_nm: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maps of the history and of what is believed; the caller may not change the history but append to it."""
        grid = (x_nm.tobytes(), y_nm.tobytes())
        if self._maps is None or self._grid != grid or self._count > len(observations):
            shape = (len(y_nm), len(x_nm))
            self._count, self._grid, self._maps = 0, grid, (np.zeros(shape), np.zeros(shape))
        add_exposures(self._maps, observations[self._count :], x_nm, y_nm)
        self._count = len(observations)
        if not believed:
            return self._maps
        dose, taken = (values.copy() for values in self._maps)
        add_exposures((dose, taken), believed, x_nm, y_nm)
        return dose, taken


def gather(
    context: Context, observations: Sequence[Observation], believed: Sequence[Observation], exposures: Exposures
) -> Knowledge | None:
    """Knowledge from the history and believed (pending) observations; None before any clean map."""
    everything = [*context.prior_observations, *observations, *believed]
    latest = next((o for o in reversed(everything) if set(_ARRAYS) <= set(o.arrays)), None)
    if latest is None or context.budget is None:
        return None
    clean, x_nm, y_nm = (np.asarray(latest.arrays[name], dtype=np.float64) for name in _ARRAYS)
    spent = total([o.cost for o in [*observations, *believed]])
    left = context.budget.minus(spent)
    dose, taken = exposures.of(observations, believed, x_nm, y_nm)
    if "visited_dose_e_per_a2" in latest.arrays:
        visited = np.nan_to_num(np.asarray(latest.arrays["visited_dose_e_per_a2"], dtype=np.float64))
        dose, taken = np.maximum(dose, visited), np.maximum(taken, visited)
    sites = next((o for o in reversed(everything) if "undecided_posterior" in o.arrays), None)
    posterior = _posterior(sites, len(context.species))
    fractions = (left.electrons / max(context.budget.electrons, 1.0), left.seconds / max(context.budget.seconds, 1e-9))
    return Knowledge(
        left=left,
        budget_left_fraction=min(fractions),
        previous=next((o.point for o in reversed(everything) if o.status != "refused"), None),
        observations=everything,
        x_nm=x_nm,
        y_nm=y_nm,
        clean=np.nan_to_num(clean),
        dose_e_per_a2=dose,
        taken_dose_e_per_a2=taken,
        undecided_x_nm=sites.arrays["undecided_x_nm"].astype(np.float64) if sites else np.zeros(0),
        undecided_y_nm=sites.arrays["undecided_y_nm"].astype(np.float64) if sites else np.zeros(0),
        undecided_posterior=posterior,
        density_per_nm2=_densities(context, everything, sites, posterior),
    )


def add_exposures(
    maps: tuple[np.ndarray, np.ndarray], observations: Sequence[Observation], x_nm: np.ndarray, y_nm: np.ndarray
) -> None:
    """Add to (dose of everything exposed, dose of fields and second looks asked for), e/A2, from the points alone.

    A refused field counts as taken, so that it is not proposed for ever; it exposed nothing.
    """
    dose, taken = maps
    for observation in observations:
        point = observation.point
        if not is_scan(point) or "x_nm" not in point:
            continue
        cells = cells_inside(x_nm, y_nm, float(point["x_nm"]), float(point["y_nm"]), float(point["field_of_view_nm"]))
        amount = dose_of(point)
        if observation.status != "refused":
            dose[cells] += amount
        if point.get("purpose") in ("field", "revisit", "focus"):
            taken[cells] += amount


def _posterior(sites: Observation | None, species_count: int) -> np.ndarray:
    if sites is None:
        return np.zeros((0, 1 + species_count))
    return np.asarray(sites.arrays["undecided_posterior"], dtype=np.float64).reshape(-1, 1 + species_count)


def _densities(
    context: Context, everything: Sequence[Observation], sites: Observation | None, posterior: np.ndarray
) -> np.ndarray:
    prior = np.array([float(context.prior_density_per_nm2[name]) for name in context.species])
    fields = [o for o in everything if o.point.get("purpose") == "field" and "found" in o.outcomes]
    found = sum(max(o.outcomes["found"][0], 0.0) for o in fields)
    area = sum(o.value("clean_area_nm2") or 0.0 for o in fields)
    counts = posterior[:, 1:].sum(axis=0)
    if sites is not None and "confirmed_species" in sites.arrays:
        confirmed = np.asarray(sites.arrays["confirmed_species"]).astype(int)
        counts = counts + np.bincount(confirmed[confirmed >= 0], minlength=len(prior))[: len(prior)]
    wanted = wanted_mask(context)
    total_found = found + float(counts[~wanted].sum())
    return np.maximum(mean_densities(prior, total_found, area, counts), 1e-3 * prior)


def wanted_mask(context: Context) -> np.ndarray:
    """(S,) whether confirming a species counts."""
    wanted = context.wanted_species or context.species
    return np.array([name in wanted for name in context.species])


def column_numbers(context: Context) -> np.ndarray:
    """(S,) number of the column of each species."""
    columns = columns_of(context)
    return np.array([sorted(set(columns)).index(column) for column in columns])


def site_densities(context: Context) -> np.ndarray:
    """(S,) sites per nm2 of the column of each species; 10.7 (one column kind of WSe2) where the context is silent."""
    return np.array([float(context.site_density_per_nm2.get(column, 10.7)) for column in columns_of(context)])
