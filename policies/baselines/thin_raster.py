"""Thin raster: the whole area once, with the dwell time that just spends the electrons."""

from __future__ import annotations

from typing import Any

from policies.baselines.raster import grid_point
from policies.baselines.sequence import Sequence
from policies.context import Context
from policies.cost import ELECTRONS_PER_PA_US
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, dwell_for_dose_us, electrons_of, grid_positions, is_scan, line_px
from policies.space import SearchSpace


class ThinRaster(Sequence):
    """Raster over everything; dose = `budget_fraction` of the budget's electrons over the fields.

    Where that asks for a dwell time below the space's shortest, the pixels are made larger instead.
    `budget_fraction` leaves room for flyback and settling, which expose too.
    """

    name = "thin_raster"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        budget_fraction: float = 0.95,
        order: str = "serpentine",
        fixed: dict[str, Any] | None = None,
        prelude: Any = (),
        **settings: Any,
    ) -> None:
        context = context or Context()
        context.need(self.name, "budget")
        values = {**(fixed or {}), **settings}
        for needed in ("field_of_view_nm", "pixel_size_nm", "probe_current_pa"):
            if needed not in values:
                raise InvalidOption(f"{self.name} needs the option {needed} to turn electrons into a dwell time")
        self.positions_nm = grid_positions(space, float(values["field_of_view_nm"]), order)
        assert context.budget is not None
        before = sum(electrons_of(point) for point in prelude if is_scan(point))
        share = (context.budget.electrons * budget_fraction - before) / len(self.positions_nm)
        values |= thin_scan(space, values, share)
        super().__init__(space, seed=seed, context=context, prelude=prelude, **values)

    def _point(self, ordinal: int) -> tuple[Point, dict[str, Any]] | None:
        return grid_point(self.fixed, self.positions_nm, ordinal)


def thin_scan(space: SearchSpace, values: dict[str, Any], electrons: float) -> dict[str, float]:
    """Dwell time and pixel size that spend `electrons` on one field.

    Raises InvalidOption where even the coarsest pixel and shortest dwell spend more.
    """
    low, high = bounds_of(space, "dwell_time_us")
    view, pixel, current = (float(values[k]) for k in ("field_of_view_nm", "pixel_size_nm", "probe_current_pa"))
    dose = electrons / (100.0 * view**2)
    dwell = dwell_for_dose_us(dose, current, pixel)
    if dwell >= low:
        return {"dwell_time_us": min(dwell, high), "pixel_size_nm": pixel}
    pixel_count = int((max(electrons, 0.0) / (ELECTRONS_PER_PA_US * current * low)) ** 0.5)
    coarsest = bounds_of(space, "pixel_size_nm")[1] if "pixel_size_nm" in space.dimensions else 0.2
    if pixel_count < line_px(view, coarsest):
        raise InvalidOption(
            f"{electrons:.3g} electrons a field are too few at {current:g} pA: lower probe_current_pa, or the shortest "
            f"dwell time of {low:g} us"
        )
    return {"dwell_time_us": low, "pixel_size_nm": view / pixel_count}
