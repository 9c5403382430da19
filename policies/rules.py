"""A policy from one function: from what was seen to the next point. Its neighbour `policy` is the whole protocol.

The rest of what a policy owes (survey and prelude first, ids, costs, the budget, batches, snapshot and restore) is done
here; the laws of `conformance` hold as long as the rule is a pure function of what it is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from policies.baselines.raster import default_step_nm
from policies.baselines.sequence import Sequence as Plan
from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, grid_positions
from policies.observation import Observation
from policies.policy import Policy
from policies.space import SearchSpace
from policies.survey import survey_tiles
from policies.windows import square_means

_GRID = ("survey", "grid_x_nm", "grid_y_nm")
_CLEAN_MAP = ("clean_map", "clean_map_x_nm", "clean_map_y_nm")
_NO_FIELDS = ("survey", "focus")

Proposal = tuple[Mapping[str, Any], Mapping[str, Any]]
Rule = Callable[..., Proposal | None]


class PolicyFactory(Protocol):
    """What makes a policy: a class of the protocol, or a rule."""

    def __call__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **options: Any) -> Policy:
        """A new policy over `space`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a rule decides from; everything a rule needs at random comes from `rng`, which is new for every decision.

    `observations` are in order, survey and prelude included; `pending` holds the points of this batch proposed before;
    `fixed` the settings that the rule need not choose.
    """

    space: SearchSpace
    context: Context
    fixed: Point
    observations: tuple[Observation, ...]
    pending: tuple[Point, ...]
    rng: np.random.Generator

    @property
    def fields(self) -> list[Observation]:
        """Fields measured so far; surveys, focus frames and failures are none."""
        return [o for o in self.observations if o.status == "done" and _is_field(o.point)]

    @property
    def fields_nm(self) -> np.ndarray:
        """(f, 2) x and y of `fields`."""
        return _positions([o.point for o in self.fields])

    @property
    def field_width_nm(self) -> float:
        """Field of view of the fields to come; a tenth of the area where none is set."""
        return default_step_nm(self.fixed, self.space)

    def outcomes(self, *beginnings: str) -> list[str]:
        """Names of the outcomes of the fields so far that begin like one of these, sorted."""
        names = {name for o in self.fields for name in o.outcomes}
        return sorted(name for name in names if name.startswith(beginnings))

    def values(self, name: str, missing_value: float = 0.0) -> np.ndarray:
        """(f,) values of one outcome in `fields`; `missing_value` where it was not measured."""
        found = [o.value(name) for o in self.fields]
        return np.array([missing_value if value is None else value for value in found], dtype=np.float64)

    def survey(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The newest survey image with its columns and rows: (image, x_nm, y_nm); None before there is one."""
        found = self._image()
        return None if found is None else found[1:]

    def places_nm(self, step_nm: float | None = None) -> np.ndarray:
        """(n, 2) x and y of the fields that can be taken.

        The cells of the map where the question has told of its grid. Otherwise tiles that cover the area, or, with
        `step_nm`, positions that far apart whose fields lie inside it.
        """
        found = self._image()
        if found is None or found[0] != _GRID:
            return self._tiles_nm() if step_nm is None else self._inside(grid_positions(self.space, step_nm))
        axes = [
            axis[(axis >= low) & (axis <= high)]
            for axis, (low, high) in zip(found[2:], (bounds_of(self.space, n) for n in ("x_nm", "y_nm")), strict=True)
        ]
        return np.stack([values.ravel() for values in np.meshgrid(*axes)], axis=1)

    def _tiles_nm(self) -> np.ndarray:
        return grid_positions(self.space, self.field_width_nm)

    def _inside(self, places_nm: np.ndarray) -> np.ndarray:
        """Those whose whole field lies in the area; the tiles where none does."""
        bounds = np.array([bounds_of(self.space, name) for name in ("x_nm", "y_nm")])
        half = self.field_width_nm / 2 - 1e-9
        fits = ((places_nm >= bounds[:, 0] + half) & (places_nm <= bounds[:, 1] - half)).all(axis=1)
        return places_nm[fits] if np.any(fits) else self._tiles_nm()

    def survey_at(self, places_nm: np.ndarray) -> np.ndarray:
        """(n,) mean of the survey image over a field at each place; 0 where nothing is known."""
        surveyed = self.survey()
        if surveyed is None:
            return np.zeros(len(places_nm))
        image, x_nm, y_nm = surveyed
        return square_means(np.nan_to_num(image.astype(np.float64)), x_nm, y_nm, places_nm, self.field_width_nm)

    def taken(self, places_nm: np.ndarray, overlap_fraction: float = 0.25) -> np.ndarray:
        """(n,) whether a field there would share more than this with one asked for before, whatever came of that."""
        asked = [o.point for o in self.observations if _is_field(o.point)] + list(self.pending)
        apart = np.abs(places_nm[:, None, :] - _positions(asked)[None, :, :]) / self.field_width_nm
        shared = np.prod(np.clip(1 - apart, 0, None), axis=2)
        return shared.max(axis=1, initial=0.0) > overlap_fraction

    def _image(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray] | None:
        """The newest survey under the names it came with."""
        for observation in reversed([*self.context.prior_observations, *self.observations]):
            for names in (_GRID, _CLEAN_MAP):
                if set(names) <= set(observation.arrays):
                    image, x_nm, y_nm = (observation.arrays[name] for name in names)
                    return names, image, x_nm, y_nm
        context = self.context
        if context.survey is None or context.grid_x_nm is None or context.grid_y_nm is None:
            return None
        return _GRID, context.survey, context.grid_x_nm, context.grid_y_nm


def _is_field(point: Point) -> bool:
    return "x_nm" in point and point.get("purpose") not in _NO_FIELDS and point.get("mode") not in _NO_FIELDS


def _positions(points: Sequence[Point]) -> np.ndarray:
    return np.array([(point["x_nm"], point["y_nm"]) for point in points], dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class RuleFactory:
    """Makes policies of one rule; what `rule` returns, and what an entry point of `stempilot.policies` can name."""

    decide: Rule
    chooses: tuple[str, ...] = ("x_nm", "y_nm")

    @property
    def name(self) -> str:
        """The rule's own name."""
        return str(inspect.unwrap(self.decide).__name__)

    @property
    def option_names(self) -> tuple[str, ...]:
        """Keywords of the rule: its options; all others are settings of the fields."""
        parameters = inspect.signature(self.decide).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    def __call__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **options: Any) -> Policy:
        """A new policy. Raises InvalidOption for an option that neither the rule nor the search space knows."""
        return RulePolicy(self, space, seed=seed, context=context, **options)


def rule(decide: Rule) -> RuleFactory:
    """A policy from a function, as a decorator: what it makes is used wherever a policy class is.

    >>> from policies import Choice, Continuous
    >>> @rule
    ... def leftmost(seen):
    ...     places = seen.places_nm()
    ...     free = places[~seen.taken(places)]
    ...     if not len(free):
    ...         return None
    ...     x_nm, y_nm = free[free[:, 0].argmin()]
    ...     return {"x_nm": x_nm, "y_nm": y_nm}, {"why": "nothing lies further left"}
    >>> space = SearchSpace({"x_nm": Continuous(0, 30), "y_nm": Continuous(0, 10)})
    >>> [suggestion.point["x_nm"] for suggestion in leftmost(space, seed=0, field_of_view_nm=10).suggest(3)]
    [5.0, 15.0, 25.0]
    """
    return RuleFactory(decide)


class RulePolicy(Plan):
    """The policy of a rule: survey tiles where `survey` gives their settings, then `prelude`, then what the rule says.

    `fixed` and further keywords set what the rule does not choose.
    """

    def __init__(
        self,
        factory: RuleFactory,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        survey: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
        prelude: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> None:
        self.name, self.free = factory.name, factory.chooses
        own = {name: options.pop(name) for name in factory.option_names if name in options}
        settings = {**(fixed or {}), **options}
        tiles = [] if survey is None else survey_tiles(space, context or Context(), settings, survey)
        first = [*tiles, *(dict(point) for point in prelude)]
        super().__init__(space, seed=seed, context=context, prelude=first, **settings)
        self._decide, self._options = factory.decide, own

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        """What the rule says, asked once for every place of the batch up to this one."""
        pending: list[Point] = []
        ahead_count = ordinal + len(self.prelude) - max(len(self.history), len(self.prelude))
        for _ in range(ahead_count):
            proposal = self._ask(pending)
            if proposal is None:
                return None
            pending.append(proposal[0])
        return self._ask(pending)

    def _ask(self, pending: Sequence[Point]) -> tuple[Point, dict[str, Any]] | None:
        proposal = self._decide(self._seen(tuple(pending)), **self._options)
        if proposal is None:
            return None
        chosen, reason = ({name: _plain(value) for name, value in part.items()} for part in proposal)
        if not isinstance(reason.get("why"), str) or not reason["why"]:
            raise InvalidOption(f'rule {self.name} gave no reason; return (values, {{"why": "a sentence", ...}})')
        return {**self.fixed, **chosen}, reason

    def _seen(self, pending: tuple[Point, ...]) -> Seen:
        return Seen(
            space=self.space,
            context=self.context,
            fixed=self.fixed,
            observations=tuple(self.history.observations),
            pending=pending,
            rng=np.random.default_rng([self.history.seed, len(self.history), len(pending)]),
        )


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's own, so that a reason is JSON."""
    return value.item() if isinstance(value, np.generic) else value
