"""Dose and geometry of scanned fields, and the census form of a point: the keys every imaging policy writes."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np

from policies.context import Context
from policies.cost import ELECTRONS_PER_PA_US, Cost
from policies.dimensions import Choice, Point
from policies.errors import InvalidOption
from policies.space import SearchSpace

FIELD_KEYS = (
    "purpose", "x_nm", "y_nm", "field_of_view_nm", "pixel_size_nm", "mode", "dwell_time_us", "probe_current_pa",
    "defocus_nm",
)  # fmt: skip
_SCAN_KEYS = ("field_of_view_nm", "pixel_size_nm", "dwell_time_us", "probe_current_pa")


def is_scan(point: Mapping[str, Any]) -> bool:
    """Whether a point says enough to count the electrons of a raster."""
    return all(key in point for key in _SCAN_KEYS)


def line_px(field_of_view_nm: float, pixel_size_nm: float) -> int:
    """Pixels on one side of a square field."""
    return max(round(field_of_view_nm / pixel_size_nm), 1)


def electrons_of(point: Mapping[str, Any]) -> float:
    """Electrons of a square raster; flyback not included."""
    pixels = line_px(point["field_of_view_nm"], point["pixel_size_nm"]) ** 2
    return ELECTRONS_PER_PA_US * point["probe_current_pa"] * point["dwell_time_us"] * pixels


def dose_of(point: Mapping[str, Any]) -> float:
    """Dose of a raster in e/A2: electrons of one pixel over its area.

    >>> round(dose_of({"probe_current_pa": 30, "dwell_time_us": 1, "pixel_size_nm": 0.039}))
    1231
    """
    return (
        ELECTRONS_PER_PA_US
        * point["probe_current_pa"]
        * point["dwell_time_us"]
        / (100.0 * float(point["pixel_size_nm"]) ** 2)
    )


def dwell_for_dose_us(dose_e_per_a2: float, probe_current_pa: float, pixel_size_nm: float) -> float:
    """Dwell time that gives a dose, all sub-frames together."""
    return dose_e_per_a2 * 100.0 * pixel_size_nm**2 / (ELECTRONS_PER_PA_US * probe_current_pa)


def cost_of(point: Point, previous_point: Point | None, context: Context) -> Cost:
    """Cost by the context's model; without one, the electrons and seconds of the bare raster."""
    if context.cost is not None:
        return context.cost(point, previous_point)
    if not is_scan(point):
        return Cost()
    pixels = line_px(float(point["field_of_view_nm"]), float(point["pixel_size_nm"])) ** 2
    return Cost(electrons_of(point), float(point["dwell_time_us"]) * 1e-6 * pixels)


def bounds_of(space: SearchSpace, name: str) -> tuple[float, float]:
    """(low, high) of a numeric dimension. Raises InvalidOption where the space has none."""
    dimension = space.dimensions.get(name)
    if dimension is None or isinstance(dimension, Choice):
        raise InvalidOption(f"this policy moves over {name}, but the search space has no number of that name")
    return float(dimension.low), float(dimension.high)


def grid_positions(space: SearchSpace, step_nm: float, order: str = "serpentine") -> np.ndarray:
    """(n, 2) array of x, y: the centres of the fewest equal tiles not larger than `step_nm` that cover the area.

    `order` is `serpentine` (every second row backwards) or `rows`. The last row and column touch the bounds.
    """
    if not step_nm > 0:
        raise InvalidOption(f"step_nm = {step_nm} must be above 0 nm")
    if order not in ("serpentine", "rows"):
        raise InvalidOption(f"order {order!r} is neither 'serpentine' nor 'rows'")
    x_nm, y_nm = (_centres(*bounds_of(space, name), step_nm) for name in ("x_nm", "y_nm"))
    rows = [x_nm[::-1] if order == "serpentine" and r % 2 else x_nm for r in range(len(y_nm))]
    return np.column_stack([np.concatenate(rows), np.repeat(y_nm, len(x_nm))])


def _centres(low: float, high: float, step: float) -> np.ndarray:
    count = max(ceil((high - low) / step - 1e-9), 1)
    return low + (np.arange(count) + 0.5) * (high - low) / count


def fixed_point(space: SearchSpace, settings: Mapping[str, Any], free: tuple[str, ...]) -> Point:
    """Values of everything that a policy does not move, checked against the space.

    `settings` may hold dimensions of the space and the keys of the census form; a choice of one value needs no
    setting. Raises InvalidOption for an unknown name, a value out of bounds, or a dimension nobody set.
    """
    unknown = [name for name in settings if name not in space.dimensions and name not in FIELD_KEYS]
    if unknown:
        raise InvalidOption(f"options {unknown} are neither options of this policy nor dimensions {list(space.names)}")
    point: Point = dict(settings)
    for name, dimension in space.dimensions.items():
        if name in point:
            wrong = dimension.violation(point[name])
            if wrong:
                raise InvalidOption(f"{name}: {wrong}; choose a value of the search space")
        elif isinstance(dimension, Choice) and len(dimension.choices) == 1:
            point[name] = dimension.choices[0]
        elif name == "purpose" and isinstance(dimension, Choice) and "field" in dimension.choices:
            point[name] = "field"
    missing = [name for name in space.active({**point}) if name not in point and name not in free]
    if missing:
        raise InvalidOption(f"say what {', '.join(missing)} should be (fixed={{...}}); this policy does not vary them")
    if "field_of_view_nm" in point:
        point.setdefault("purpose", "field")
    return point


def placed(space: SearchSpace, point: Mapping[str, Any]) -> Point:
    """A point on the actuators' steps; keys that the space does not name are kept."""
    inside = {name: point[name] for name in space.active(point)}
    others = {name: value for name, value in point.items() if name not in space.dimensions}
    return {**others, **space.round(inside)}
