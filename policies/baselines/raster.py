"""Raster: position after position on a regular grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.fields import bounds_of, grid_positions
from policies.space import SearchSpace


class Raster(Sequence):
    """Serpentine (or row by row) over x_nm and y_nm; the step is `step_nm`, by default the field of view."""

    name = "raster"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        step_nm: float | None = None,
        order: str = "serpentine",
        **settings: Any,
    ) -> None:
        super().__init__(space, seed=seed, context=context, **settings)
        self.positions_nm = grid_positions(space, step_nm or default_step_nm(self.fixed, space), order)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        return grid_point(self.fixed, self.positions_nm, ordinal)


def default_step_nm(fixed: Mapping[str, Any], space: SearchSpace) -> float:
    """The field of view where one is set, otherwise a tenth of the longer side of the area."""
    if "field_of_view_nm" in fixed:
        return float(fixed["field_of_view_nm"])
    return max(high - low for low, high in (bounds_of(space, name) for name in ("x_nm", "y_nm"))) / 10


def grid_point(fixed: Mapping[str, Any], positions_nm: np.ndarray, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
    """The fixed settings at position number `ordinal`, None beyond the last."""
    if ordinal >= len(positions_nm):
        return None
    x_nm, y_nm = positions_nm[ordinal]
    why = f"position {ordinal + 1} of {len(positions_nm)} of the raster"
    return {**fixed, "x_nm": float(x_nm), "y_nm": float(y_nm)}, {"why": why}
