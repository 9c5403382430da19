"""Drawing for notebooks: an area and the points taken in it; loads matplotlib only when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from policies.fields import bounds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from policies.space import SearchSpace

# Okabe and Ito's colours (Color Universal Design, 2008), by what a frame was for.
PURPOSE_COLOURS = {"survey": "#999999", "focus": "#E69F00", "field": "#0072B2", "revisit": "#D55E00"}
_OTHER = "#0072B2"
_LEGIBLE = 0.03  # of the area's side: a smaller field has no room for its number


def draw_points(space: SearchSpace, points: Sequence[Mapping[str, Any]], axes: Axes | None = None) -> Axes:
    """Fields as squares of their own size in the area of the search space, in the order they were taken.

    Raises InvalidOption for a space without x_nm and y_nm.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    bounds = [bounds_of(space, name) for name in ("x_nm", "y_nm")]
    if axes is None:
        axes = plt.subplots(figsize=(5.8, 5.2), layout="constrained")[1]
    margin = 0.08 * max(high - low for low, high in bounds)
    axes.set_xlim(bounds[0][0] - margin, bounds[0][1] + margin)
    axes.set_ylim(bounds[1][0] - margin, bounds[1][1] + margin)
    axes.set_aspect("equal")
    _outline(axes, bounds)
    legible_nm = _LEGIBLE * max(high - low for low, high in bounds)
    for number, point in enumerate(points, start=1):
        _mark(axes, point, number, legible_nm)
    axes.set_xlabel("x (nm)")
    axes.set_ylabel("y (nm)")
    purposes = [name for name in PURPOSE_COLOURS if any(point.get("purpose") == name for point in points)]
    handles = [
        Line2D([], [], marker="s", linestyle="none", markerfacecolor="none", color=PURPOSE_COLOURS[name])
        for name in purposes
    ]
    if purposes:
        counted = [f"{name} ({sum(point.get('purpose') == name for point in points)})" for name in purposes]
        axes.legend(
            handles,
            counted,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=4,
            frameon=False,
            fontsize=8.5,
            handletextpad=0.1,
            columnspacing=1.2,
        )
    return axes


def _outline(axes: Axes, bounds: list[tuple[float, float]]) -> None:
    (x_low, x_high), (y_low, y_high) = bounds
    axes.plot(
        [x_low, x_high, x_high, x_low, x_low], [y_low, y_low, y_high, y_high, y_low], color="#6b6b6b", linewidth=0.8
    )


def _mark(axes: Axes, point: Mapping[str, Any], number: int, legible_nm: float) -> None:
    from matplotlib.patches import Rectangle

    if "x_nm" not in point or "y_nm" not in point:
        return
    x_nm, y_nm = float(point["x_nm"]), float(point["y_nm"])
    purpose = str(point.get("purpose", "field"))
    colour = PURPOSE_COLOURS.get(purpose, _OTHER)
    width_nm = float(point.get("field_of_view_nm", 0.0))
    if width_nm:
        corner = (x_nm - width_nm / 2, y_nm - width_nm / 2)
        axes.add_patch(Rectangle(corner, width_nm, width_nm, fill=False, edgecolor=colour, linewidth=1.2))
    else:
        axes.plot(x_nm, y_nm, "s", color=colour, markersize=4)
    if purpose in ("field", "revisit") and not 0 < width_nm < legible_nm:
        axes.annotate(str(number), (x_nm, y_nm), color=colour, fontsize=7, ha="center", va="center")
