"""Listed: points that somebody else has chosen, one after another."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.space import SearchSpace


class Listed(Sequence):
    """The `points` as they are, in their order."""

    name = "listed"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        points: SequenceOf[dict[str, Any]] = (),
    ) -> None:
        if not points:
            raise InvalidOption("listed needs the option points: a list of at least one point")
        self.free = space.names
        super().__init__(space, seed=seed, context=context)
        self.points = [dict(point) for point in points]

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        if ordinal >= len(self.points):
            return None
        return self.points[ordinal], {"why": f"point {ordinal + 1} of {len(self.points)} listed"}
