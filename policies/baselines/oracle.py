"""Oracle: positions in the order of the true value; an upper bound, not a policy anyone could run."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.baselines.ranked import by_value, table_point
from policies.baselines.raster import default_step_nm
from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.fields import grid_positions
from policies.space import SearchSpace


class Oracle(Sequence):
    """Visits positions by `context.known_value`: a table of x_nm, y_nm, value, or a callable asked on a grid."""

    name = "oracle"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        step_nm: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(space, seed=seed, context=context, **settings)
        self.context.need(self.name, "known_value")
        known = self.context.known_value
        if callable(known):
            positions = grid_positions(space, step_nm or default_step_nm(self.fixed, space))
            known = np.array([[x, y, known(float(x), float(y))] for x, y in positions])
        self.table = by_value(known)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        return table_point(self.fixed, self.table, ordinal)
