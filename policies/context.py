"""What the caller knows and a policy may use: forward models, prices, survey images. All optional, all static."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np

from policies import cards
from policies.cost import Cost
from policies.dimensions import Point
from policies.errors import MissingContext
from policies.observation import Observation


class CostModel(Protocol):
    """Forecast of what a point costs."""

    def __call__(self, point: Point, previous_point: Point | None) -> Cost:
        """Cost of `point` after `previous_point` (None: the first)."""
        ...


class InformationModel(Protocol):
    """Squared detectability per dose between two species on one column."""

    def __call__(self, species_a: str, species_b: str | None, mode: str, point: Point) -> float:
        """d'^2 per e/A2 with the settings of `point`; `species_b` None is the perfect column."""
        ...


class ValueModel(Protocol):
    """Known value of a position; only the `oracle` baseline, after the run, is given one."""

    def __call__(self, x_nm: float, y_nm: float) -> float:
        """Value of a measurement there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Static knowledge of one experiment; it must not change between suggestions.

    budget                     everything that may be spent; local_dose_limit_e_per_a2 the most in any 1 nm2
    cost, information          forward models (see the protocols)
    species                    names in a fixed order (that of `undecided_posterior` after the host)
    wanted_species             species whose confirmation counts; empty: all
    prior_density_per_nm2      species -> guess of its density on clean specimen
    species_column             species -> column it sits on; species of one column can be confused
    site_density_per_nm2       column -> sites per nm2
    modes                      modes that may be used; empty: those of the search space
    survey                     (rows, columns) image on the grid (grid_y_nm, grid_x_nm)
    survey_rank                (n, 3) table of x_nm, y_nm, value, for the `ranked` baseline
    known_value                the same as table or callable, for the `oracle` baseline
    prior_observations         observations made before this run
    """

    budget: Cost | None = None
    local_dose_limit_e_per_a2: float | None = None
    cost: CostModel | None = None
    information: InformationModel | None = None
    species: tuple[str, ...] = ()
    wanted_species: tuple[str, ...] = ()
    prior_density_per_nm2: Mapping[str, float] = field(default_factory=dict)
    species_column: Mapping[str, str] = field(default_factory=dict)
    site_density_per_nm2: Mapping[str, float] = field(default_factory=dict)
    modes: tuple[str, ...] = ()
    false_discovery_rate: float = 0.05
    survey: np.ndarray | None = None
    grid_x_nm: np.ndarray | None = None
    grid_y_nm: np.ndarray | None = None
    lines: tuple[str, ...] = ()
    survey_rank: np.ndarray | None = None
    known_value: ValueModel | np.ndarray | None = None
    prior_observations: tuple[Observation, ...] = ()

    def need(self, policy: str, *names: str) -> None:
        """Raise MissingContext unless every named entry was handed in."""
        given = {name: getattr(self, name) for name in names}
        missing = [name for name, value in given.items() if value is None or (isinstance(value, tuple) and not value)]
        if missing:
            raise MissingContext(f"policy {policy} needs context.{', context.'.join(missing)}; hand it to create()")

    def _repr_html_(self) -> str:
        known = [(field.name, getattr(self, field.name)) for field in fields(self)]
        rows = [(name, _words(value)) for name, value in known if not _is_nothing(value)]
        left_out = ", ".join(name for name, value in known if _is_nothing(value))
        rows.append(("not given", left_out))
        return cards.card("Context", "what a policy of this experiment may know", cards.table(("", ""), rows))


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, tuple | Mapping) and not value)


def _words(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array of {' x '.join(map(str, value.shape))}"
    return "a function" if callable(value) else cards.words(value)
