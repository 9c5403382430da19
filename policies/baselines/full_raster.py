"""Full-dose raster: every field gets the dose that decides, for as long as the budget lasts."""

from __future__ import annotations

from typing import Any

from policies.baselines.raster import grid_point
from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import dwell_for_dose_us, fixed_point, grid_positions
from policies.space import SearchSpace


class FullRaster(Sequence):
    """Raster whose dwell time gives `dose_e_per_a2` (2700 e/A2 in the first world); part of the area is never seen."""

    name = "full_raster"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        dose_e_per_a2: float = 2700.0,
        order: str = "serpentine",
        fixed: dict[str, Any] | None = None,
        prelude: Any = (),
        **settings: Any,
    ) -> None:
        values = {**(fixed or {}), **settings}
        for needed in ("field_of_view_nm", "pixel_size_nm", "probe_current_pa"):
            if needed not in values:
                raise InvalidOption(f"{self.name} needs the option {needed} to turn a dose into a dwell time")
        dwell = dwell_for_dose_us(dose_e_per_a2, values["probe_current_pa"], values["pixel_size_nm"])
        values["dwell_time_us"] = dwell
        fixed_point(space, values, self.free)
        super().__init__(space, seed=seed, context=context, prelude=prelude, **values)
        self.positions_nm = grid_positions(space, float(values["field_of_view_nm"]), order)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        return grid_point(self.fixed, self.positions_nm, ordinal)
