"""Survey tiles: large fields of coarse pixels at a low dose that cover the area before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, dwell_for_dose_us, grid_positions, placed
from policies.space import SearchSpace

_DEFAULT_BUDGET_FRACTION = 0.02
_LARGEST_TILE_NM = 50.0
_PIXEL_NM = 0.4


def survey_tiles(
    space: SearchSpace, context: Context, settings: Mapping[str, Any], survey: Mapping[str, Any]
) -> list[Point]:
    """Points with `purpose="survey"` whose tiles cover x_nm and y_nm.

    `settings` are those of ordinary fields; `survey` overrides: field_of_view_nm (default: 50 nm or what the space
    allows), pixel_size_nm (0.4 nm), dwell_time_us, or budget_fraction (2 % of the electrons for all tiles together).
    """
    chosen = {**settings, **survey}
    fraction = float(chosen.pop("budget_fraction", _DEFAULT_BUDGET_FRACTION))
    view = float(survey.get("field_of_view_nm", _within(space, "field_of_view_nm", _LARGEST_TILE_NM)))
    pixel = float(survey.get("pixel_size_nm", _within(space, "pixel_size_nm", _PIXEL_NM)))
    positions = grid_positions(space, view)
    chosen |= {"purpose": "survey", "field_of_view_nm": view, "pixel_size_nm": pixel}
    if "dwell_time_us" not in survey:
        chosen["dwell_time_us"] = _dwell_us(space, context, chosen, len(positions), fraction)
    return [placed(space, {**chosen, "x_nm": float(x), "y_nm": float(y)}) for x, y in positions]


def _dwell_us(space: SearchSpace, context: Context, chosen: Mapping[str, Any], count: int, fraction: float) -> float:
    if "probe_current_pa" not in chosen or context.budget is None:
        raise InvalidOption("a survey needs probe_current_pa and context.budget, or survey={'dwell_time_us': ...}")
    dose = fraction * context.budget.electrons / (count * 100.0 * float(chosen["field_of_view_nm"]) ** 2)
    dwell = dwell_for_dose_us(dose, float(chosen["probe_current_pa"]), float(chosen["pixel_size_nm"]))
    return _within(space, "dwell_time_us", dwell)


def _within(space: SearchSpace, name: str, value: float) -> float:
    """A default brought into the bounds that the space gives this name; the user never asked for it exactly."""
    if name not in space.dimensions:
        return value
    low, high = bounds_of(space, name)
    return min(max(value, low), high)
