"""The `mapping` policy: maps of several lines to a given error, from as few points of a grid as it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.context import Context
from policies.dimensions import Choice, Point
from policies.errors import InvalidOption, MissingContext
from policies.field_kernel import FieldPlaces
from policies.field_model import FieldData, FieldModel
from policies.fields import bounds_of, cost_of, placed
from policies.history import History
from policies.observation import Observation
from policies.schedule import last_refit
from policies.space import SearchSpace
from policies.suggestion import Suggestion, suggestion_id

_PREFIX = "counts_"
_CANDIDATES = 48
_SAMPLE = 512
_GRID = ("grid_x_nm", "grid_y_nm")


class Mapping:
    """A survey (if the grid is not known yet), a few spread points, then the largest fall of the error per cost.

    Grid and survey image come from the context or from the arrays `survey`, `grid_x_nm`, `grid_y_nm` of an
    observation. Outcomes `counts_<line>` are Poisson counts of `dwell_time_us`. Each line is a Gaussian process on the
    square root of its rate; position and survey kernels are chosen by evidence as the points grow. Stops when the
    predicted relative error (rms standard deviation over mean rate) of every line is at most `target_error`.

    `settings` and further keywords fix dimensions; by default the largest dwell, the smallest field, and any mode or
    purpose that is not `survey`. `survey` overrides the survey point (largest field, shortest dwell, centre).
    """

    name = "mapping"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        target_error: float | None = None,
        initial_count: int = 16,
        survey: dict[str, Any] | None = None,
        fixed: dict[str, Any] | None = None,
        point_count: int | None = None,
        **settings: Any,
    ) -> None:
        if initial_count < 4:
            raise InvalidOption(f"initial_count = {initial_count} is too few for a map; give at least 4")
        if target_error is not None and not target_error > 0:
            raise InvalidOption(f"target_error = {target_error} must be above 0")
        self.space = space
        self.context = context or Context()
        self.history = History(self.name, space, seed)
        self.target_error = target_error
        self.initial_count = initial_count
        self.point_count = point_count
        self.fixed = {**_default_settings(space), **(fixed or {}), **settings}
        self.survey = {**_survey_settings(space), **(survey or {})}
        for name in ("x_nm", "y_nm"):
            bounds_of(space, name)
        self._places: FieldPlaces | None = None
        self._models: dict[str, FieldModel] = {}
        self._models_count = -1
        self._cells: list[int] = []
        self._values: dict[str, FieldData] = {}

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Next points; within a batch each is taken to fall in another cell."""
        grid = self._grid()
        if grid is None:
            return [self._survey_suggestion()]
        pending: list[int] = []
        suggestions: list[Suggestion] = []
        for place in range(count):
            suggestion = self._next(grid, pending, place)
            suggestions.append(suggestion)
            pending.append(_cell(grid, suggestion.point))
        return suggestions

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Append observations."""
        self.history.append(observations)

    def should_stop(self) -> str | None:
        """Every line at the target error, as many points as asked for, or a budget that cannot pay the next."""
        if self.point_count is not None and len(self.history) >= self.point_count:
            return f"{len(self.history)} points measured, as many as asked for"
        errors = self.relative_errors()
        if self.target_error is not None and errors and max(errors.values()) <= self.target_error:
            words = ", ".join(f"{line} {error:.3f}" for line, error in errors.items())
            return f"every map reached a predicted relative error of {self.target_error:g}: {words}"
        if self.context.budget is not None:
            left = self.context.budget.minus(self.history.spent)
            if not left.pays(self.suggest()[0].cost):
                return (
                    f"the budget left ({left.electrons:.3g} electrons, {left.seconds:.3g} s) cannot pay the next point"
                )
        return None

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return self.history.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot; the models are rebuilt in the order in which they grew."""
        self.history.restore(state)
        self._places, self._models, self._models_count = None, {}, -1
        self._cells, self._values = [], {}

    def relative_errors(self) -> dict[str, float]:
        """Predicted relative error of each line; empty before the initial points."""
        grid = self._grid()
        return {} if grid is None else {line: model.relative_error() for line, model in self._fitted(grid).items()}

    def posterior(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """line -> (rows, columns) mean and standard deviation of its counts per full exposure."""
        grid = self._grid()
        if grid is None:
            return {}
        shape = (len(grid[1]), len(grid[0]))
        return {
            line: (model.rate()[0].reshape(shape), model.rate()[1].reshape(shape))
            for line, model in self._fitted(grid).items()
        }

    def _grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
        """(x, y, survey) from the context or the first observation that carries them."""
        if self.context.grid_x_nm is not None and self.context.grid_y_nm is not None:
            return self.context.grid_x_nm, self.context.grid_y_nm, self.context.survey
        for observation in [*self.context.prior_observations, *self.history.observations]:
            if set(_GRID) <= set(observation.arrays):
                x_nm, y_nm = (observation.arrays[name] for name in _GRID)
                return x_nm, y_nm, observation.arrays.get("survey")
        return None

    def _measured(self) -> list[Observation]:
        return [o for o in self.history.observations if any(name.startswith(_PREFIX) for name in o.outcomes)]

    def _fitted(self, grid: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> dict[str, FieldModel]:
        """Model of each line from all measured points; a cache that grows with the history."""
        measured = self._measured()
        due = last_refit(len(measured), self.initial_count, 1.5)
        if due == 0 or self._models_count == len(measured):
            return self._models if due else {}
        if self._places is None:
            self._places = FieldPlaces(*grid)
        self._cells += [_cell(grid, o.point) for o in measured[len(self._cells) :]]
        for line in self._lines(measured):
            data = self._data(measured, line)
            model = self._models.get(line)
            if model is None or model.refit_count != due:
                self._models[line] = model = FieldModel(self._places, data, due)
            model.extend(data, len(measured))
        self._models_count = len(measured)
        return self._models

    def _lines(self, measured: list[Observation]) -> list[str]:
        known = self.context.lines or tuple(
            name.removeprefix(_PREFIX) for name in measured[0].outcomes if name.startswith(_PREFIX)
        )
        return list(known)

    def _data(self, measured: list[Observation], line: str) -> FieldData:
        """Values of a line, grown with the history."""
        data = self._values.setdefault(line, FieldData())
        for i in range(len(data.cells), len(measured)):
            counts = measured[i].value(f"{_PREFIX}{line}")
            if counts is None:
                raise MissingContext(f"{measured[i].suggestion_id} has no outcome {_PREFIX}{line}; measure every line")
            data.add_counts(self._cells[i], counts, self._exposure_ratio(measured[i].point))
        return data

    def _exposure_ratio(self, point: Point) -> float:
        full = self.fixed.get("dwell_time_us")
        return float(point["dwell_time_us"]) / float(full) if full and "dwell_time_us" in point else 1.0

    def _next(
        self, grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], pending: list[int], place: int
    ) -> Suggestion:
        measured = self._measured()
        refused = [_cell(grid, o.point) for o in self.history.observations if o.status != "done" and _in(grid, o.point)]
        if len(measured) < self.initial_count:
            number = len([o for o in self.history.observations if _in(grid, o.point)]) + place
            cell = spread_cell(grid, number, self.history.seed)
            reason = {"why": f"spread point {number + 1}: {len(measured)} of {self.initial_count} to start from"}
            return self._suggestion(grid, cell, place, {}, reason)
        models = self._fitted(grid)
        candidates, worth = self._worth(grid, models, pending, refused)
        order = np.argsort(-worth, kind="stable")
        cell = int(candidates[order[0]])
        errors = self.relative_errors()
        worst = max(errors, key=lambda line: errors[line])
        prediction = {}
        for line, model in models.items():
            rate, std = model.rate()
            prediction[f"{_PREFIX}{line}"] = (float(rate[cell]), float(np.hypot(std[cell], np.sqrt(rate[cell]))))
        reason = {
            "why": f"largest expected fall of the map error per cost; worst line {worst} at {errors[worst]:.3f}",
            "acquisition_value": float(worth[order[0]]),
            "relative_errors": errors,
            "alternatives": [
                {"point": _position(grid, int(candidates[i])), "acquisition_value": float(worth[i])} for i in order[1:4]
            ],
            "hyperparameters": {line: model.shape.to_dict() for line, model in models.items()},
        }
        return self._suggestion(grid, cell, place, prediction, reason)

    def _worth(
        self,
        grid: tuple[np.ndarray, np.ndarray, np.ndarray | None],
        models: dict[str, FieldModel],
        pending: list[int],
        refused: list[int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidate cells and their relative error reduction, summed over the lines not yet at the target."""
        size = len(grid[0]) * len(grid[1])
        rng = np.random.default_rng([self.history.seed, len(self.history), len(pending)])
        sample = np.sort(rng.choice(size, min(_SAMPLE, size), replace=False))
        barred = np.zeros(size, dtype=bool)
        barred[[*pending, *refused, *self._exhausted()]] = True
        if barred.all():
            barred[:] = False
        urgency = np.zeros(size)
        weights: dict[str, float] = {}
        for line, model in models.items():
            rate, std = model.rate()
            reached = self.target_error is not None and model.relative_error() <= self.target_error
            weights[line] = (0.01 if reached else 1.0) / max(float(rate.mean()), 1e-6) ** 2
            urgency += weights[line] * std**2
        urgency[barred] = -1.0
        by_urgency = np.argsort(-urgency, kind="stable")[: _CANDIDATES // 2]
        free = np.flatnonzero(~barred)
        at_random = rng.choice(free, min(_CANDIDATES // 2, len(free)), replace=False, p=_shares(urgency[free]))
        candidates = np.unique(np.concatenate([by_urgency, at_random]))
        candidates = candidates[~barred[candidates]]
        worth = np.zeros(len(candidates))
        for line, model in models.items():
            worth += weights[line] * model.error_reduction(candidates, sample, 1.0)
        if self.context.cost is not None and self.context.budget is not None:
            previous = self.history.observations[-1].point
            costs = [self.context.cost(self._point(grid, int(c)), previous) for c in candidates]
            worth /= np.array([max(cost.share_of(self.context.budget), 1e-12) for cost in costs])
        return candidates, worth

    def _exhausted(self) -> list[int]:
        """Cells whose full exposure is taken: looking again costs as much as a new cell and may be refused."""
        taken = zip(self._cells, self._measured(), strict=True)
        return [cell for cell, o in taken if self._exposure_ratio(o.point) >= 1 - 1e-9]

    def _point(self, grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], cell: int) -> Point:
        return placed(self.space, {**self.fixed, **_position(grid, cell)})

    def _suggestion(
        self,
        grid: tuple[np.ndarray, np.ndarray, np.ndarray | None],
        cell: int,
        place: int,
        prediction: dict[str, tuple[float, float]],
        reason: dict[str, Any],
    ) -> Suggestion:
        return self._made(self._point(grid, cell), place, prediction, reason)

    def _survey_suggestion(self) -> Suggestion:
        if not self.survey:
            raise MissingContext(
                "policy mapping needs context.grid_x_nm and context.grid_y_nm, or a search space with purpose or mode "
                "'survey' whose observation carries grid_x_nm and grid_y_nm"
            )
        if any(o.point.get("purpose") == "survey" or o.point.get("mode") == "survey" for o in self.history.done):
            raise MissingContext("the survey was taken, but its observation carried no grid_x_nm and grid_y_nm")
        return self._made(placed(self.space, self.survey), 0, {}, {"why": "survey image of the whole field"})

    def _made(
        self, point: Point, place: int, prediction: dict[str, tuple[float, float]], reason: dict[str, Any]
    ) -> Suggestion:
        previous = self.history.observations[-1].point if len(self.history) else None
        return Suggestion(
            id=suggestion_id(self.name, self.history.seed, len(self.history), place),
            policy=self.name,
            ordinal=len(self.history) + place,
            point=point,
            prediction=prediction,
            cost=cost_of(point, previous, self.context),
            reason=reason,
        )


def spread_cell(grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], number: int, seed: int) -> int:
    """Grid cell of point `number` of a scrambled Sobol sequence."""
    from scipy.stats import qmc  # takes half a second, which every process would pay

    points = qmc.Sobol(2, rng=np.random.default_rng(seed)).random_base2(max(6, int(np.ceil(np.log2(number + 1)))))
    column = min(int(points[number, 0] * len(grid[0])), len(grid[0]) - 1)
    row = min(int(points[number, 1] * len(grid[1])), len(grid[1]) - 1)
    return row * len(grid[0]) + column


def _cell(grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], point: Point) -> int:
    column = int(np.argmin(np.abs(grid[0] - float(point["x_nm"]))))
    row = int(np.argmin(np.abs(grid[1] - float(point["y_nm"]))))
    return row * len(grid[0]) + column


def _in(grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], point: Point) -> bool:
    """Whether an observation is of one position, not of the whole field."""
    return "x_nm" in point and "survey" not in (point.get("purpose"), point.get("mode"))


def _position(grid: tuple[np.ndarray, np.ndarray, np.ndarray | None], cell: int) -> Point:
    row, column = divmod(cell, len(grid[0]))
    return {"x_nm": float(grid[0][column]), "y_nm": float(grid[1][row])}


def _shares(urgency: np.ndarray) -> np.ndarray:
    positive = np.maximum(urgency, 1e-12)
    return positive / positive.sum()


def _choice(space: SearchSpace, name: str, wanted: bool) -> dict[str, Any]:
    """{name: value} where the value is 'survey' (wanted) or the first that is not."""
    dimension = space.dimensions.get(name)
    if not isinstance(dimension, Choice):
        return {}
    fitting = [value for value in dimension.choices if (value == "survey") == wanted]
    return {name: fitting[0]} if fitting else {}


def _default_settings(space: SearchSpace) -> dict[str, Any]:
    settings = {**_choice(space, "purpose", False), **_choice(space, "mode", False)}
    for name, end in (("dwell_time_us", 1), ("field_of_view_nm", 0)):
        if name in space.dimensions and not isinstance(space.dimensions[name], Choice):
            settings[name] = bounds_of(space, name)[end]
    return settings


def _survey_settings(space: SearchSpace) -> dict[str, Any]:
    marks = {**_choice(space, "purpose", True), **_choice(space, "mode", True)}
    if not marks:
        return {}
    settings = {**_default_settings(space), **marks}
    for name, end in (("dwell_time_us", 0), ("field_of_view_nm", 1)):
        if name in settings:
            settings[name] = bounds_of(space, name)[end]
    centre = {name: sum(bounds_of(space, name)) / 2 for name in ("x_nm", "y_nm")}
    return {**settings, **centre}
