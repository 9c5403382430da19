"""The `census` policy: find and identify as many rare objects as electrons, seconds and the local dose limit allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.census.candidates import Action, field_actions, field_plan, local_limit, revisit_actions
from policies.census.density import DensityMap
from policies.census.focus import Focus, best_defocus
from policies.census.imaging import Imaging
from policies.census.knowledge import Exposures, Knowledge, gather, wanted_mask
from policies.census.settings import CensusSettings
from policies.context import Context
from policies.cost import Cost
from policies.dimensions import Choice, Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, cost_of
from policies.history import History
from policies.observation import Observation
from policies.space import SearchSpace
from policies.suggestion import Suggestion, suggestion_id
from policies.survey import survey_tiles
from policies.windows import window_centres_nm, window_sums

_FOCUS_SPAN_FRACTION = 0.7  # of the defocus bounds, covered by the first focus frames
_EXPLORE_STDS = 0.5
_GRID_NM = 10.0


class Census:
    """Survey tiles, then focus frames, then whatever gains most confirmed objects per cost: field, second look, stop.

    Every action is priced by its electrons and seconds as shares of what is left. See the decision record on the
    census policy for the model, and `CensusSettings` for the options.
    """

    name = "census"

    def __init__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **options: Any) -> None:
        self.space = space
        self.context = context or Context()
        self.settings = CensusSettings.of(options)
        self.context.need(self.name, "budget", "information", "species")
        unguessed = [name for name in self.context.species if name not in self.context.prior_density_per_nm2]
        if unguessed:
            raise InvalidOption(f"context.prior_density_per_nm2 has no guess for {', '.join(unguessed)} (1/nm2)")
        self.history = History(self.name, space, seed, latest_arrays_only=True)
        self.imaging = Imaging(space, self.context, self.settings)
        self.defocus_options_nm = defocus_options_nm(space)
        self.tiles = self._tiles() if self.settings.survey_is_needed else []
        self._density = DensityMap()
        self._exposures = Exposures()
        self._decided: dict[tuple[int, int], Suggestion | str] = {}

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """The best next actions; within a batch, earlier ones are believed to be done. Empty when it should stop."""
        believed: list[Observation] = []
        suggestions: list[Suggestion] = []
        for place in range(count):
            made = self._decide(believed, place)
            if isinstance(made, str):
                break
            suggestions.append(made)
            believed.append(Observation(suggestion_id=made.id, point=made.point, cost=made.cost))
        return suggestions

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Append observations."""
        self.history.append(observations)
        self._decided.clear()

    def should_stop(self) -> str | None:
        """Why nothing more is worth doing, or None."""
        made = self._decide([], 0)
        return made if isinstance(made, str) else None

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return self.history.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self.history.restore(state)
        self._decided.clear()
        self._density.forget()
        self._exposures = Exposures()

    def _decide(self, believed: list[Observation], place: int) -> Suggestion | str:
        key = (len(self.history), place)
        if key not in self._decided:
            self._decided[key] = self._affordable(self._next(believed, place))
        return self._decided[key]

    def _next(self, believed: list[Observation], place: int) -> Suggestion | str:
        everything = [*self.history.observations, *believed]
        surveyed = sum(o.point.get("purpose") == "survey" for o in everything)
        if surveyed < len(self.tiles):
            reason = {"why": f"survey tile {surveyed + 1} of {len(self.tiles)}: where is the specimen clean?"}
            return self._suggestion(place, self.tiles[surveyed], everything, {}, reason)
        knowledge = gather(self.context, self.history.observations, believed, self._exposures)
        if knowledge is None:
            return "no observation carried a clean map, so there is nowhere to look"
        focus = best_defocus(knowledge.observations, self.defocus_options_nm, _EXPLORE_STDS)
        focused = sum(o.point.get("purpose") == "focus" for o in everything)
        if focused < self.settings.focus_count and len(self.defocus_options_nm) > 1:
            made = self._focus(knowledge, focus, focused, place, everything)
            if made is not None:
                return made
        return self._best(knowledge, focus or Focus(self._default_defocus_nm(), 1.0, 0.0), place, everything)

    def _best(self, knowledge: Knowledge, focus: Focus, place: int, everything: list[Observation]) -> Suggestion | str:
        contrast = focus.contrast
        plan = field_plan(knowledge, self.imaging, contrast)
        actions = revisit_actions(knowledge, self.imaging, contrast)
        actions += field_actions(knowledge, self.imaging, plan, *self._relative_density(knowledge))
        actions = [action for action in actions if knowledge.left.pays(action.cost)]
        if not actions:
            return "nothing more can be paid, or is allowed by the local dose limit"
        most = max(action.gain_count for action in actions)
        if most < self.settings.least_gain_count:
            return (
                f"no action left would confirm more than {most:.3f} objects, below the "
                f"{self.settings.least_gain_count:g} worth another frame"
            )
        actions = [action for action in actions if action.gain_count >= self.settings.least_gain_count]
        actions.sort(key=lambda action: -action.value_ratio)
        best = actions[0]
        point = self.imaging.point(best.way, best.purpose, best.x_nm, best.y_nm, best.view_nm, focus.defocus_nm)
        reason = {
            "why": _sentence(best, knowledge),
            "purpose": best.purpose,
            "acquisition_value": best.value_ratio,
            "gain_count": best.gain_count,
            "share_of_budget_left": best.share,
            "dose_e_per_a2": best.way.dose_e_per_a2,
            **best.details,
            "alternatives": [_summary(action) for action in _others(actions)],
            "plan": {
                "objects_per_nm2": plan.value_per_nm2,
                "share_per_nm2": plan.share_per_nm2 + plan.revisit_share_per_nm2,
                "dose_e_per_a2": self.imaging.field_ways[plan.chosen].dose_e_per_a2,
                "mode": self.imaging.field_ways[plan.chosen].mode,
                "is_area_limited": plan.is_area_limited,
            },
            "hyperparameters": {
                "density_per_nm2": dict(zip(self.context.species, knowledge.density_per_nm2.tolist(), strict=True)),
                "contrast": focus.contrast,
            },
            "budget_left_fraction": knowledge.budget_left_fraction,
        }
        prediction = {**best.prediction, "contrast_ratio": (focus.contrast, max(focus.contrast_std, 0.02))}
        return self._suggestion(place, point, everything, prediction, reason)

    def _focus(
        self, knowledge: Knowledge, focus: Focus | None, number: int, place: int, everything: list[Observation]
    ) -> Suggestion | None:
        """Next focus frame on the clean spot whose loss costs least; None where there is no such spot."""
        views = self.imaging.views_nm((self.settings.focus_view_nm, *self.settings.revisit_view_options_nm))
        best = self.imaging.field_ways[field_plan(knowledge, self.imaging, 1.0).chosen]
        way = self.imaging.way_for(best.mode, best.probe_current_pa, self.settings.focus_dose_e_per_a2)
        used = [o.point for o in everything if o.point.get("purpose") == "focus"]
        if not views or way is None:
            return None
        spot = (
            (float(used[0]["x_nm"]), float(used[0]["y_nm"]))
            if used
            else sacrificial_spot(knowledge, self.space, views[0])
        )
        dose_there = knowledge.at(knowledge.dose_e_per_a2, np.array([spot[0]]), np.array([spot[1]]))[0] if spot else 0
        if spot is None or dose_there + way.dose_e_per_a2 > local_limit(self.context):
            return None
        tried = focus_series_nm(self.defocus_options_nm, max(self.settings.focus_count - 1, 1))
        if number < len(tried):
            defocus, why = tried[number], f"focus frame {number + 1}: defocus {tried[number]:g} nm of the first series"
        elif focus is not None:
            defocus = focus.defocus_nm
            why = f"focus frame {number + 1}: best so far near {defocus:g} nm, contrast {focus.contrast:.2f}"
        else:
            return None
        point = self.imaging.point(way, "focus", *spot, views[0], float(defocus))
        prediction = {} if focus is None else {"contrast_ratio": (focus.contrast, max(focus.contrast_std, 0.02))}
        reason = {"why": f"{why}, on {views[0]:g} nm of clean specimen that is worth least", "purpose": "focus"}
        return self._suggestion(place, point, everything, prediction, reason)

    def _relative_density(self, knowledge: Knowledge) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) density over its mean, and standard deviation of its logarithm, interpolated from 10 nm."""
        shape = knowledge.clean.shape
        density = float(knowledge.density_per_nm2[wanted_mask(self.context)].sum())
        x = np.arange(knowledge.x_nm[0], knowledge.x_nm[-1] + _GRID_NM, _GRID_NM)
        y = np.arange(knowledge.y_nm[0], knowledge.y_nm[-1] + _GRID_NM, _GRID_NM)
        grid = np.column_stack([np.tile(x, len(y)), np.repeat(y, len(x))])
        mean, std = self._density.relative(knowledge.fields, density, grid)
        if not mean.any():
            return np.ones(shape), np.zeros(shape)
        return tuple(  # pyright: ignore[reportReturnType]  two of them
            _bilinear(values.reshape(len(y), len(x)), knowledge, x, y) for values in (np.exp(mean), std)
        )

    def _tiles(self) -> list[Point]:
        first = self.imaging.field_ways[0]
        settings = {
            "mode": first.mode,
            "probe_current_pa": first.probe_current_pa,
            "defocus_nm": self._default_defocus_nm(),
        }
        return survey_tiles(self.space, self.context, settings, self.settings.survey)

    def _default_defocus_nm(self) -> float:
        """In focus as far as anyone knows: the option nearest to 0."""
        return float(self.defocus_options_nm[np.argmin(np.abs(self.defocus_options_nm))])

    def _affordable(self, made: Suggestion | str) -> Suggestion | str:
        if isinstance(made, str) or self.context.budget is None:
            return made
        left = self.context.budget.minus(self.history.spent)
        if left.pays(made.cost):
            return made
        return f"the budget left ({left.electrons:.3g} electrons, {left.seconds:.3g} s) cannot pay the next frame"

    def _suggestion(
        self,
        place: int,
        point: Point,
        everything: list[Observation],
        prediction: dict[str, tuple[float, float]],
        reason: dict[str, Any],
    ) -> Suggestion:
        previous = next((o.point for o in reversed(everything) if o.status != "refused"), None)
        cost: Cost = cost_of(point, previous, self.context)
        return Suggestion(
            id=suggestion_id(self.name, self.history.seed, len(self.history), place),
            policy=self.name,
            ordinal=len(self.history) + place,
            point=point,
            prediction=prediction,
            cost=cost,
            reason=reason,
        )


def defocus_options_nm(space: SearchSpace) -> np.ndarray:
    """Defocus values to choose from: the steps of the actuator (at least 0.5 nm); 0 where the space has none."""
    dimension = space.dimensions.get("defocus_nm")
    if dimension is None:
        return np.zeros(1)
    if isinstance(dimension, Choice):
        return np.array([float(value) for value in dimension.choices])
    low, high = bounds_of(space, "defocus_nm")
    step = max(getattr(dimension, "resolution", None) or 0.5, 0.5)
    values = [float(dimension.round(v)) for v in np.arange(low, high + 1e-9, step)]
    return np.unique(np.array(values))


def focus_series_nm(options_nm: np.ndarray, count: int) -> list[float]:
    """`count` values spread over the middle of the options, from the middle outwards.

    >>> focus_series_nm(np.arange(-15, 15.5, 0.5), 5)
    [0.0, 5.0, -5.5, 10.5, -10.5]
    """
    middle = (options_nm[0] + options_nm[-1]) / 2
    half = _FOCUS_SPAN_FRACTION * (options_nm[-1] - options_nm[0]) / 2
    wanted = middle + np.linspace(-half, half, count)
    nearest = [float(options_nm[np.argmin(np.abs(options_nm - value))]) for value in wanted]
    return sorted(dict.fromkeys(nearest), key=lambda value: (abs(value - middle), -value))


def sacrificial_spot(knowledge: Knowledge, space: SearchSpace, view_nm: float) -> tuple[float, float] | None:
    """Centre of a clean square with the least clean specimen around it: its loss costs least. None without one."""
    cells = max(round(view_nm / knowledge.cell_nm), 1)
    wide = cells + 8
    if wide > min(knowledge.clean.shape):
        return None
    around = window_sums(knowledge.clean, wide)
    inside = window_sums(knowledge.clean, cells)[4:-4, 4:-4] / cells**2
    x_nm, y_nm = window_centres_nm(knowledge.x_nm, wide), window_centres_nm(knowledge.y_nm, wide)
    reachable = np.ones(inside.shape, dtype=bool)
    for values, name, axis in ((x_nm, "x_nm", 1), (y_nm, "y_nm", 0)):
        low, high = bounds_of(space, name)
        kept = (values >= low) & (values <= high)
        reachable &= kept[None, :] if axis == 1 else kept[:, None]
    inside = np.where(reachable, inside, 0.0)
    if inside.max() < 0.5:
        return None
    loss = np.where(inside >= min(0.9, float(inside.max())), around, np.inf)
    row, column = np.unravel_index(int(np.argmin(loss)), loss.shape)
    return float(x_nm[column]), float(y_nm[row])


def _bilinear(values: np.ndarray, knowledge: Knowledge, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
    along_x = np.array([np.interp(knowledge.x_nm, x_nm, row) for row in values])
    return np.array([np.interp(knowledge.y_nm, y_nm, column) for column in along_x.T]).T


def _others(actions: list[Action]) -> list[Action]:
    """The runner-up, and the best of the other purpose."""
    rest = actions[1:]
    other = [action for action in rest if action.purpose != actions[0].purpose]
    return [*rest[:2], *[action for action in other[:1] if action not in rest[:2]]]


def _summary(action: Action) -> dict[str, Any]:
    return {
        "purpose": action.purpose,
        "x_nm": round(action.x_nm, 2),
        "y_nm": round(action.y_nm, 2),
        "field_of_view_nm": action.view_nm,
        "mode": action.way.mode,
        "dose_e_per_a2": round(action.way.dose_e_per_a2, 1),
        "acquisition_value": action.value_ratio,
        "gain_count": action.gain_count,
    }


def _sentence(action: Action, knowledge: Knowledge) -> str:
    price = f"{action.share:.2%} of the budget left"
    if action.purpose == "field":
        return (
            f"new field of {action.view_nm:g} nm with {action.details['clean_area_nm2']:.0f} nm2 clean and unseen: "
            f"{action.gain_count:.2f} confirmed in the end for {price}, second looks included"
        )
    return (
        f"second look at {action.details['site_count']} undecided site(s), {action.way.dose_e_per_a2:.0f} e/A2 in "
        f"{action.way.mode}: {action.gain_count:.2f} expected to be confirmed for {price}"
    )
