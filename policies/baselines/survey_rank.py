"""Survey then rank: what a competent operator does. Tiles first, then the cleanest field not yet visited."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import bounds_of
from policies.space import SearchSpace
from policies.survey import survey_tiles
from policies.windows import cells_inside, window_centres_nm, window_sums

_CLEAN_MAP = ("clean_map", "clean_map_x_nm", "clean_map_y_nm")


class SurveyRank(Sequence):
    """Survey tiles (`survey={...}` overrides their settings), then fields in falling order of their clean area.

    The map comes from the latest observation that carries `clean_map`; area already visited counts as empty. Stops
    when the best field left is less than `least_clean_fraction` clean.
    """

    name = "survey_rank"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        survey: dict[str, Any] | None = None,
        least_clean_fraction: float = 0.05,
        prelude: Any = (),
        **settings: Any,
    ) -> None:
        values = {**(settings.pop("fixed", None) or {}), **settings}
        if "field_of_view_nm" not in values:
            raise InvalidOption(f"{self.name} needs the option field_of_view_nm (nm)")
        tiles = survey_tiles(space, context or Context(), values, survey or {})
        super().__init__(space, seed=seed, context=context, prelude=[*tiles, *prelude], **values)
        self.least_clean_fraction = least_clean_fraction

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        taken = [(o.point["x_nm"], o.point["y_nm"]) for o in self.history.observations[len(self.prelude) :]]
        chosen = None
        for _ in range(ordinal + 1 - len(taken)):
            chosen = self._cleanest(taken)
            if chosen is None:
                return None
            taken.append(chosen[:2])
        assert chosen is not None
        x_nm, y_nm, fraction = chosen
        why = f"cleanest field not yet visited: {fraction:.0%} clean"
        return {**self.fixed, "x_nm": x_nm, "y_nm": y_nm}, {"why": why, "clean_fraction": fraction}

    def _cleanest(self, taken: list[Any]) -> tuple[float, float, float] | None:
        """x, y and clean fraction of the best field, None if nothing worth visiting is left."""
        latest = next((o for o in reversed(self.history.observations) if set(_CLEAN_MAP) <= set(o.arrays)), None)
        if latest is None:
            return None
        clean, x_nm, y_nm = (latest.arrays[name] for name in _CLEAN_MAP)
        clean = np.nan_to_num(clean.astype(np.float64))
        width_nm = float(self.fixed["field_of_view_nm"])
        for taken_x, taken_y in taken:
            clean[cells_inside(x_nm, y_nm, float(taken_x), float(taken_y), width_nm)] = 0.0
        cells = max(min(round(width_nm / float(x_nm[1] - x_nm[0])), *clean.shape), 1)
        fractions = window_sums(clean, cells) / cells**2
        centres_x, centres_y = window_centres_nm(x_nm, cells), window_centres_nm(y_nm, cells)
        fractions[~_inside(centres_y, bounds_of(self.space, "y_nm")), :] = 0.0
        fractions[:, ~_inside(centres_x, bounds_of(self.space, "x_nm"))] = 0.0
        row, column = np.unravel_index(int(np.argmax(fractions)), fractions.shape)
        best = float(fractions[row, column])
        if best < self.least_clean_fraction:
            return None
        return float(centres_x[column]), float(centres_y[row]), best


def _inside(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (values >= bounds[0] - 1e-9) & (values <= bounds[1] + 1e-9)
