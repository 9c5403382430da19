"""Ranked: positions in the order of a value known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.space import SearchSpace


class Ranked(Sequence):
    """Visits the rows of `context.survey_rank`, an (n, 3) table of x_nm, y_nm, value, from the largest value down."""

    name = "ranked"

    def __init__(self, space: SearchSpace, *, seed: int, context: Context | None = None, **settings: Any) -> None:
        super().__init__(space, seed=seed, context=context, **settings)
        self.context.need(self.name, "survey_rank")
        self.table = by_value(self.context.survey_rank)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        return table_point(self.fixed, self.table, ordinal)


def by_value(table: Any) -> np.ndarray:
    """(n, 3) table sorted by falling value, ties in their given order."""
    rows = np.asarray(table, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3 or not np.isfinite(rows).all():
        raise InvalidOption(f"a ranking is an (n, 3) table of finite x_nm, y_nm, value, not of shape {rows.shape}")
    return rows[np.argsort(-rows[:, 2], kind="stable")]


def table_point(fixed: Point, table: np.ndarray, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
    """Point of row `ordinal` of a sorted table."""
    if ordinal >= len(table):
        return None
    x_nm, y_nm, value = (float(entry) for entry in table[ordinal])
    why = f"rank {ordinal + 1} of {len(table)}, value {value:.4g}"
    return {**fixed, "x_nm": x_nm, "y_nm": y_nm}, {"why": why, "value": value}
