"""Pictures of trials and comparisons; loads matplotlib only when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from instruments.plotting import MUTED, SERIES_COLOURS, new_axes, plain_frame, scale_bar
from orchestrator.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from workflows.notebook.comparison import Comparison
    from workflows.notebook.trial import Trial

LABELS = {
    "electrons": "electrons on the specimen",
    "instrument_time_s": "microscope time (s)",
    "recall": "recall: native defects found and confirmed",
    "explained": "explained share of the held-out counts' deviance",
    "false_discovery_rate": "false discovery rate",
    "score": "score of the objective",
}
UNKNOWN = "#bdbdbd"  # a place without a value; the one grey that a colour map used here has is much darker
_TAN = "#cfa972"  # least of what is wanted (contamination); light enough for what is written over it
_BACKGROUNDS = {"clean": "probability of being clean", "survey": "survey signal"}


def draw_progress(trials: Sequence[Trial], measure: str, against: str, axes: Axes | None) -> Axes:
    """The measure of each trial while it went on, as a staircase: an answer stands until the next."""
    axes = new_axes(5.6, 3.8) if axes is None else axes
    for number, trial in enumerate(trials):
        spent, values = progress(trial, measure, against)
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        axes.step(spent, values, where="post", color=colour, label=f"{trial.policy}, seed {trial.seed}")
    _finish(axes, measure, against)
    return axes


def draw_comparison(comparison: Comparison, measure: str, against: str, axes: Axes | None) -> Axes:
    """Every run thin, the median of each policy thick and named at its end."""
    axes = new_axes(6.4, 4.2) if axes is None else axes
    for number, (name, trials) in enumerate(comparison.trials.items()):
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        runs = [progress(trial, measure, against) for trial in trials]
        for spent, values in runs:
            axes.step(spent, values, where="post", color=colour, alpha=0.3, linewidth=0.9)
        grid, median = median_of(runs)
        axes.step(grid, median, where="post", color=colour, linewidth=2.4, label=name)
    _finish(axes, measure, against)
    axes.legend(frameon=False, fontsize=9, title=f"thick: median of {len(comparison.seeds)} seeds", title_fontsize=8.5)
    return axes


def progress(trial: Trial, measure: str, against: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) spent and (n,) measure of a trial; answers that could not be judged are left out."""
    table = trial.progress(measure)
    if measure not in table.columns or against not in table.columns:
        raise SpecError(f"{measure} against {against} was not taken; there are {', '.join(table.columns)}")
    spent, values = table[against], table[measure]
    known = np.isfinite(values)
    return spent[known], values[known]


def median_of(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Median staircase over the stretch that all runs cover."""
    low = max(float(spent[0]) for spent, _ in runs)
    high = max(float(spent[-1]) for spent, _ in runs)
    grid = np.unique(np.concatenate([spent for spent, _ in runs]))
    grid = grid[(grid >= low) & (grid <= high)]
    rows = [values[np.searchsorted(spent, grid, side="right") - 1] for spent, values in runs]
    return grid, np.median(rows, axis=0)


def draw_points(trial: Trial, axes: Axes | None) -> Axes:
    """Fields in their order over what the survey showed, white where most is; grey where it did not look."""
    from matplotlib.colors import LinearSegmentedColormap

    axes = trial.space.plot(trial.points, axes)
    known = [name for name, values in trial.maps.items() if values.ndim == 2 and np.isfinite(values).any()]
    name = next((name for name in _BACKGROUNDS if name in known), None)
    if name is not None:
        tan_to_white = LinearSegmentedColormap.from_list("tan to white", [_TAN, "white"])
        _show_map(axes, trial, name, tan_to_white, _BACKGROUNDS[name])
    axes.set_title(f"Where {trial.policy} looked, in order (seed {trial.seed})", loc="left", fontsize=10)
    return axes


def draw_map(trial: Trial, name: str, axes: Axes | None) -> Axes:
    """One map of the objective on its own grid, grey where it has no value."""
    from matplotlib import colormaps

    names = [known for known, values in trial.maps.items() if values.ndim == 2]
    if name not in names:
        raise KeyError(f"no map {name!r}; there are {', '.join(names) or 'none yet'}")
    axes = new_axes() if axes is None else axes
    label = "counts of one cell, full exposure" if name.startswith("rate_") else name.replace("_", " ")
    _show_map(axes, trial, name, colormaps["cividis"], label)
    axes.set_xlabel("x (nm)")
    axes.set_ylabel("y (nm)")
    x_nm = trial.maps["x_nm"]
    scale_bar(axes, float(np.ptp(x_nm)))
    axes.set_title(f"{name} after {len(trial.steps)} decisions of {trial.policy}", loc="left", fontsize=10)
    return axes


def _show_map(axes: Axes, trial: Trial, name: str, cmap: Colormap, label: str) -> None:
    values, x_nm, y_nm = (trial.maps[key] for key in (name, "x_nm", "y_nm"))
    half_x, half_y = (float(axis[1] - axis[0]) / 2 for axis in (x_nm, y_nm))
    low, high = np.nanpercentile(values, [0.5, 99.5]) if np.isfinite(values).any() else (0.0, 1.0)
    shown = axes.imshow(
        values,
        origin="lower",
        interpolation="nearest",
        cmap=cmap.with_extremes(bad=UNKNOWN),
        vmin=float(low),
        vmax=float(max(high, low + 1e-9)),
        extent=(x_nm[0] - half_x, x_nm[-1] + half_x, y_nm[0] - half_y, y_nm[-1] + half_y),
        aspect="equal",
        zorder=0,
    )
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    if not np.isfinite(values).all():
        _explain_grey(axes, "not surveyed" if name in _BACKGROUNDS else "nothing known")


def _explain_grey(axes: Axes, label: str) -> None:
    """One more entry in the legend below the axes, which it begins where there is none."""
    from matplotlib.patches import Patch

    known = axes.get_legend()
    handles = [] if known is None else [handle for handle in known.legend_handles if handle is not None]
    labels = [] if known is None else [text.get_text() for text in known.get_texts()]
    axes.legend(
        [*handles, Patch(facecolor=UNKNOWN)], [*labels, label],
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False, fontsize=8.5, handletextpad=0.4,
        columnspacing=1.2,
    )  # fmt: skip


def _finish(axes: Axes, measure: str, against: str) -> None:
    axes.set_xlabel(LABELS.get(against, against))
    axes.set_ylabel(LABELS.get(measure, measure))
    axes.grid(visible=True, color=MUTED, alpha=0.2, linewidth=0.6)
    plain_frame(axes)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=9)
