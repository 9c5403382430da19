"""What all baselines share: the n-th point follows from a plan, n being the number of observations so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from typing import Any

from policies.context import Context
from policies.cost import Cost
from policies.dimensions import Point
from policies.fields import cost_of, fixed_point, placed
from policies.history import History
from policies.observation import Observation
from policies.space import SearchSpace
from policies.suggestion import Suggestion, suggestion_id


class Sequence(ABC):
    """A policy given by `_point(ordinal)`; stops at the end of the plan or when the budget cannot pay the next point.

    `fixed` and further keywords set what the plan does not vary: dimensions of the space or keys of the census form.
    `prelude` is a list of points to take first as they are (survey tiles, focus frames).
    """

    name: str
    free: tuple[str, ...] = ("x_nm", "y_nm")

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        fixed: dict[str, Any] | None = None,
        prelude: SequenceOf[dict[str, Any]] = (),
        **settings: Any,
    ) -> None:
        self.space = space
        self.context = context or Context()
        self.history = History(self.name, space, seed, latest_arrays_only=True)
        self.prelude = [dict(point) for point in prelude]
        self.fixed = fixed_point(space, {**(fixed or {}), **settings}, self.free)

    @abstractmethod
    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        """Point number `ordinal` of the plan (the prelude not counted) and its reason; None at the end."""

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """The next points of the plan."""
        suggestions: list[Suggestion] = []
        previous = self.history.observations[-1].point if len(self.history) else None
        for place in range(count):
            made = self._suggestion(place, previous)
            if made is None:
                break
            suggestions.append(made)
            previous = made.point
        return suggestions

    def ingest(self, observations: SequenceOf[Observation]) -> None:
        """Count what was done."""
        self.history.append(observations)

    def should_stop(self) -> str | None:
        """End of the plan, or a budget that cannot pay the next point."""
        upcoming = self.suggest()
        if not upcoming:
            return f"the plan of {self.name} is finished after {len(self.history)} points"
        if self.context.budget is None:
            return None
        left, price = self.context.budget.minus(self.history.spent), upcoming[0].cost
        if left.pays(price):
            return None
        return f"the budget left ({_words(left)}) cannot pay the next point ({_words(price)})"

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return self.history.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self.history.restore(state)

    def _suggestion(self, place: int, previous: Point | None) -> Suggestion | None:
        ordinal = len(self.history) + place
        if ordinal < len(self.prelude):
            planned = (self.prelude[ordinal], {"why": f"point {ordinal + 1} of the prelude of {len(self.prelude)}"})
        else:
            planned = self._point(ordinal - len(self.prelude))
        if planned is None:
            return None
        point = placed(self.space, planned[0])
        return Suggestion(
            id=suggestion_id(self.name, self.history.seed, len(self.history), place),
            policy=self.name,
            ordinal=ordinal,
            point=point,
            cost=cost_of(point, previous, self.context),
            reason=planned[1],
        )


def _words(cost: Cost) -> str:
    return f"{cost.electrons:.3g} electrons, {cost.seconds:.3g} s"
