"""Bayesian optimisation of one outcome over a mixed space, weighing expected improvement against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.acquisition_functions import log_augmented_improvement, per_cost
from policies.baselines.sobol import sobol_rows
from policies.context import Context
from policies.cost import Cost
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import cost_of
from policies.history import History
from policies.observation import Observation
from policies.schedule import last_refit
from policies.space import SearchSpace
from policies.suggestion import Suggestion, suggestion_id
from policies.surrogate import State, Surrogate

_POOL_COUNT = 512
_POLISH_ROUNDS = 4
_SAME = 1e-6


class Bayesian:
    """Maximises `outcome`: a Sobol survey of `initial_count` points, then the largest log(augmented EI / cost^eta).

    The Gaussian process is refitted when the number of observations has grown by a quarter; between refits its
    hyperparameters stay. The incumbent is the largest posterior mean at a measured point (noise does not fool it).
    Failed and refused points count as poor outcomes, so they are left alone; unknown ones say nothing. Costs come
    from `context.cost`, as shares of the budget; without it every point costs the same.
    """

    name = "bayesian"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        outcome: str = "score",
        initial_count: int | None = None,
        cost_exponent: float = 1.0,
        point_count: int | None = None,
    ) -> None:
        self.space = space
        self.context = context or Context()
        self.history = History(self.name, space, seed)
        self.outcome = outcome
        self.initial_count = 2 * len(space.names) + 1 if initial_count is None else initial_count
        if self.initial_count < 2:
            raise InvalidOption(f"initial_count = {self.initial_count} is too few for a model; give at least 2")
        self.cost_exponent = cost_exponent
        self.point_count = point_count
        self._states: dict[int, State] = {}

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Next points; within a batch, earlier ones are believed to give their predicted mean."""
        believed: list[Observation] = []
        suggestions: list[Suggestion] = []
        for place in range(count):
            suggestion = self._one(believed, place)
            suggestions.append(suggestion)
            mean, std = suggestion.prediction.get(self.outcome, (0.0, 0.0))
            outcomes = {self.outcome: (mean, std)} if suggestion.prediction else {}
            believed.append(Observation(suggestion_id=suggestion.id, point=suggestion.point, outcomes=outcomes))
        return suggestions

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Append observations."""
        self.history.append(observations)

    def should_stop(self) -> str | None:
        """The number of points asked for, or a budget that cannot pay the next."""
        if self.point_count is not None and len(self.history) >= self.point_count:
            return f"{len(self.history)} points measured, as many as asked for"
        if self.context.budget is None:
            return None
        left = self.context.budget.minus(self.history.spent)
        price = self.suggest()[0].cost
        if left.pays(price):
            return None
        return f"the budget left ({left.electrons:.3g} electrons, {left.seconds:.3g} s) cannot pay the next point"

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return self.history.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self.history.restore(state)
        self._states.clear()

    def _measured(self, observations: Sequence[Observation]) -> list[Observation]:
        usable = [o for o in observations if self.outcome in o.outcomes]
        return [*self._prior(), *usable]

    def _prior(self) -> list[Observation]:
        return [o for o in self.context.prior_observations if self.outcome in o.outcomes]

    def _one(self, believed: list[Observation], place: int) -> Suggestion:
        ordinal = len(self.history) + place
        everything = [*self.history.observations, *believed]
        measured = self._measured(everything)
        previous = everything[-1].point if everything else None
        if len(measured) < self.initial_count or len({tuple(o.point.items()) for o in measured}) < 2:
            row = sobol_rows(len(self.space.names), max(64, ordinal + 1), self.history.seed)[ordinal]
            point = self.space.from_unit_cube(row)
            reason = {"why": f"space-filling survey: {len(measured)} of {self.initial_count} outcomes so far"}
            return self._suggestion(place, point, {}, previous, reason)
        codes, values, stds = self._data(measured, everything)
        surrogate = Surrogate(codes, values, stds, self._state(len(measured)))
        best = float(np.max(surrogate.predict(self.space.encode([o.point for o in measured]))[0]))
        points, worth, mean, std = self._search(surrogate, best, everything, previous, ordinal)
        order = np.argsort(-worth, kind="stable")
        chosen = int(order[0])
        expected = (float(mean[chosen]), float(std[chosen]))
        reason = {
            "why": (
                f"largest expected improvement per cost: {self.outcome} {expected[0]:.4g} +/- {expected[1]:.2g} "
                f"against the best so far, {best:.4g}"
            ),
            "acquisition_value": float(worth[chosen]),
            "incumbent": best,
            "alternatives": [
                {"point": points[i], "acquisition_value": float(worth[i]), "mean": float(mean[i]), "std": float(std[i])}
                for i in order[1:4]
            ],
            "candidate_count": len(points),
            "hyperparameters": surrogate.hyperparameters(),
        }
        return self._suggestion(place, points[chosen], {self.outcome: expected}, previous, reason)

    def _data(
        self, measured: list[Observation], everything: list[Observation]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = np.array([o.outcomes[self.outcome][0] for o in measured])
        stds = np.array([o.outcomes[self.outcome][1] for o in measured])
        poor = [o.point for o in everything if o.status in ("failed", "refused") and self.space.contains(o.point)]
        codes = self.space.encode([*(self.space.project(o.point) for o in measured), *poor])
        low = float(np.quantile(values, 0.1)) if poor else 0.0
        spread = float(np.std(values)) if np.all(stds > 0) else 0.0
        return (
            codes,
            np.concatenate([values, np.full(len(poor), low)]),
            np.concatenate([stds, np.full(len(poor), spread)]),
        )

    def _state(self, count: int) -> State:
        """Hyperparameters fitted to the first observations, as many as the schedule says: a cache, not a memory."""
        due = last_refit(count, self.initial_count)
        if due not in self._states:
            measured = self._measured(self.history.observations)[:due]
            if len(measured) < due:
                due = last_refit(len(measured), self.initial_count)
            if due not in self._states:
                data = self._data(measured[:due], [])
                self._states[due] = Surrogate(*data).fitted_state() if due else {}
        return self._states[due]

    def _search(
        self,
        surrogate: Surrogate,
        best: float,
        everything: list[Observation],
        previous: Point | None,
        ordinal: int,
    ) -> tuple[list[Point], np.ndarray, np.ndarray, np.ndarray]:
        """Candidates with their worth, mean and std: a random pool, then rounds of smaller steps around the best."""
        rng = np.random.default_rng([self.history.seed, ordinal, 1])
        points = [self.space.sample(rng) for _ in range(_POOL_COUNT)]
        found = self._worth(surrogate, best, points, everything, previous)
        step = 0.2
        for _ in range(_POLISH_ROUNDS):
            leaders = np.argsort(-found[0], kind="stable")[:6]
            near = self.space.encode([points[i] for i in leaders])
            moved = np.repeat(near, 16, axis=0) + step * rng.standard_normal((16 * len(leaders), near.shape[1]))
            fresh = self.space.decode(moved)
            more = self._worth(surrogate, best, fresh, everything, previous)
            points += fresh
            found = (
                np.concatenate([found[0], more[0]]),
                np.concatenate([found[1], more[1]]),
                np.concatenate([found[2], more[2]]),
            )
            step /= 3
        return points, *found

    def _worth(
        self,
        surrogate: Surrogate,
        best: float,
        points: list[Point],
        everything: list[Observation],
        previous: Point | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        codes = self.space.encode(points)
        mean, std = surrogate.predict(codes)
        worth = log_augmented_improvement(mean, std, best, surrogate.noise)
        if self.context.cost is not None:
            budget = self.context.budget or Cost(1.0, 1.0)
            shares = [self.context.cost(point, previous).share_of(budget) for point in points]
            worth = per_cost(worth, np.array(shares), self.cost_exponent)
        barred = [self.space.project(o.point) for o in everything if o.status in ("failed", "refused")]
        barred = [point for point in barred if self.space.contains(point)]
        if barred:
            gaps = np.abs(codes[:, None, :] - self.space.encode(barred)[None]).max(axis=2).min(axis=1)
            worth = np.where(gaps < _SAME, -1e300, worth)
        return worth, mean, std

    def _suggestion(
        self,
        place: int,
        point: Point,
        prediction: dict[str, tuple[float, float]],
        previous: Point | None,
        reason: dict[str, Any],
    ) -> Suggestion:
        return Suggestion(
            id=suggestion_id(self.name, self.history.seed, len(self.history), place),
            policy=self.name,
            ordinal=len(self.history) + place,
            point=point,
            prediction=prediction,
            cost=cost_of(point, previous, self.context),
            reason=reason,
        )
