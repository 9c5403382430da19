"""Random: uniform draws over the space, one generator per point."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.space import SearchSpace


class RandomPoints(Sequence):
    """Every dimension that is not fixed is drawn uniformly; draw n depends on (seed, n) alone."""

    name = "random"

    def __init__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **settings: Any) -> None:
        self.free = space.names
        super().__init__(space, seed=seed, context=context, **settings)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        rng = np.random.default_rng([self.history.seed, ordinal])
        return merged(self.space, self.space.sample(rng), self.fixed), {"why": f"uniform draw number {ordinal + 1}"}


def merged(space: SearchSpace, drawn: Point, fixed: Point) -> Point:
    """A drawn point with the fixed values put in, and only what then applies; what a fixed choice adds is centred."""
    point: Point = {**drawn, **fixed}
    active = space.active(point)
    neutral = {
        name: space.dimensions[name].decode(np.array(space.dimensions[name].neutral))
        for name in active
        if name not in point
    }
    return {name: value for name, value in {**point, **neutral}.items() if name in active or name not in space.names}
