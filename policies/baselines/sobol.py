"""Sobol: a scrambled low-discrepancy sequence over the space."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.baselines.random_points import merged
from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.space import SearchSpace


class Sobol(Sequence):
    """Point n of a Sobol sequence scrambled by the seed, over every dimension that is not fixed."""

    name = "sobol"

    def __init__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **settings: Any) -> None:
        self.free = space.names
        super().__init__(space, seed=seed, context=context, **settings)
        self._rows = np.empty((0, len(space.names)))

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        if ordinal >= len(self._rows):
            self._rows = sobol_rows(len(self.space.names), max(64, 2 * ordinal), self.history.seed)
        drawn = self.space.from_unit_cube(self._rows[ordinal])
        return merged(self.space, drawn, self.fixed), {"why": f"point {ordinal + 1} of the Sobol sequence"}


def sobol_rows(dimension_count: int, count: int, seed: int) -> np.ndarray:
    """(2^m >= count, d) first points of the scrambled sequence; longer requests extend shorter ones."""
    from scipy.stats import qmc  # takes half a second, which every process would pay

    exponent = max(int(np.ceil(np.log2(max(count, 1)))), 0)
    generator = qmc.Sobol(dimension_count, scramble=True, rng=np.random.default_rng(seed))
    return generator.random_base2(exponent)
