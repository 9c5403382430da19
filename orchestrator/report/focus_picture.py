"""The defocus series in one picture: its frames from under- to overfocus, and the curve whose top is the focus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.report.pictures import BLUE, INK, MUTED, ORANGE, Picture, as_png, bare, canvas, scale_bar
from orchestrator.report.report_data import ReportData, ReportFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_FRAMES = 8


def focus_picture(data: ReportData) -> Picture | None:
    """Frames of the series above, sharpness over defocus with errors below; None for an experiment without one."""
    focus = data.summary.get("focus")
    if not focus or "focus_tried_nm" not in data.maps:
        return None
    shown = _chosen(data, focus["action_ids"])
    with canvas(11.0, 5.6) as figure:
        grid = figure.add_gridspec(2, max(len(shown), 1), height_ratios=(1.0, 1.6))
        for column, (frame, defocus_nm) in enumerate(shown):
            _frame(figure.add_subplot(grid[0, column]), data, frame, defocus_nm, is_first=column == 0)
        _curve(figure.add_subplot(grid[1, :]), data, focus)
        markup = as_png(figure, "Sharpness of the defocus series, and its frames")
    return Picture(markup=markup, caption=_caption(focus))


def _chosen(data: ReportData, action_ids: Sequence[str]) -> list[tuple[ReportFrame, float]]:
    """At most eight frames of the series with the defocus they were taken at, evenly spread, in order of defocus."""
    by_action = {frame.action_id: frame for frame in data.frames}
    pairs = [
        (by_action[action], float(value))
        for action, value in zip(action_ids, data.maps["focus_tried_nm"], strict=True)
        if action in by_action
    ]
    pairs.sort(key=lambda pair: pair[1])
    if len(pairs) <= _MOST_FRAMES:
        return pairs
    return [pairs[int(place)] for place in np.linspace(0, len(pairs) - 1, _MOST_FRAMES).round()]


def _frame(axes: Axes, data: ReportData, frame: ReportFrame, defocus_nm: float, *, is_first: bool) -> None:
    loaded = data.load_frame(frame.id)
    detector = next((found for found in loaded.mode.detectors if (found.inner_mrad or 0) > 0), loaded.mode.detectors[0])
    image = loaded.total(detector.name).astype(float)
    middle = tuple(slice(length // 4, length - length // 4) for length in image.shape)  # columns are seen better
    low, high = np.percentile(image[middle], (1, 99.5))
    width_nm = frame.width_nm / 2
    axes.imshow(image[middle], cmap="gray", vmin=low, vmax=max(high, low + 1), extent=(0, width_nm, 0, width_nm))
    axes.set_title(f"{defocus_nm:+.1f} nm", fontsize=8.5)
    bare(axes)
    if is_first:
        scale_bar(axes, width_nm)


def _curve(axes: Axes, data: ReportData, focus: dict[str, Any]) -> None:
    maps = data.maps
    axes.axhline(0.0, color=MUTED, linewidth=0.6)
    axes.errorbar(
        maps["focus_tried_nm"], maps["focus_sharpness"], yerr=maps["focus_sharpness_std"], fmt="o", color=INK,
        markersize=4.5, capsize=2.5, linewidth=1.0, label="frames, with standard error",
    )  # fmt: skip
    if "focus_curve" in maps:
        axes.plot(maps["focus_curve_nm"], maps["focus_curve"], color=BLUE, label="fitted curve")
    if focus["defocus_nm"] is not None and focus["std_nm"] is not None:
        best, std = focus["defocus_nm"], focus["std_nm"]
        axes.axvspan(best - std, best + std, color=ORANGE, alpha=0.3, linewidth=0)
        axes.axvline(best, color=ORANGE, label=f"best contrast {best:+.2f} ± {std:.2f} nm")
    axes.set_xlabel("commanded defocus, nm (positive: underfocus)")
    axes.set_ylabel("sharpness" if "focus_curve" not in maps else "sharpness over its highest")
    axes.legend(loc="upper right")


def _caption(focus: dict[str, Any]) -> str:
    sharpness = (
        "Sharpness is the variance that structure adds to Poisson noise, in the rings of spatial frequency where this "
        "specimen has any; it is zero on average where there is none."
    )
    if focus["defocus_nm"] is None:
        return f"Frames of the series (middle halves, each in its own grey scale). No focus was found. {sharpness}"
    return (
        "Frames of the series (middle halves, each in its own grey scale), and the defocus of best contrast with its "
        f"standard error: counting noise, the lens's step, and the curve's skew. {sharpness}"
    )
