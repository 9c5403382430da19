"""Single sites, close up: the surest of every class, and beam-made vacancies sub-frame by sub-frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.report.census_view import CensusView, species_style
from orchestrator.report.pictures import INK, ORANGE, WIDTH_INCHES, Picture, as_png, bare, canvas, scale_bar
from orchestrator.report.report_data import ReportData, ReportFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROP_NM = 1.3
SMOOTHING_NM = 0.04
_SITES_EACH = 3
_BIRTHS, _MOST_SUBFRAMES = 3, 6


@dataclass(frozen=True, slots=True)
class Crop:
    """Counts about one site: `image` with the site at the centre of a square of `width_nm`."""

    image: np.ndarray
    width_nm: float


def crop_about(image: np.ndarray, entry: ReportFrame, x_nm: float, y_nm: float) -> Crop:
    """The pixels whose centres lie within half of 1.3 nm of a nominal position; rows upwards in y.

    The centre is the nearest pixel's: up to half a pixel from the site.
    """
    pixel = entry.pixel_size_nm
    rows, columns = image.shape
    column = round((x_nm - entry.x_nm) / pixel + (columns - 1) / 2)
    row = round((y_nm - entry.y_nm) / pixel + (rows - 1) / 2)
    reach = round(CROP_NM / 2 / pixel)
    cut = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
    top, left = max(row - reach, 0), max(column - reach, 0)
    found = image[top : row + reach + 1, left : column + reach + 1]
    cut[top - row + reach :, left - column + reach :][: found.shape[0], : found.shape[1]] = found
    return Crop(cut, (2 * reach + 1) * pixel)


def close_ups(data: ReportData, view: CensusView) -> Picture | None:
    """Raw and smoothed counts at the surest sites of each species, the surest beam-made and the most doubtful."""
    classes = [(name, view.of_species(number), species_style(number)[0]) for number, name in enumerate(view.species)]
    classes += [("beam-made", view.beam_made, ORANGE), ("undetermined", view.undetermined, INK)]
    picked = [(name, _pick(data, view, mask, surest=name != "undetermined"), colour) for name, mask, colour in classes]
    picked = [entry for entry in picked if entry[1]]
    if not picked:
        return None
    with canvas(WIDTH_INCHES, 1.98 * len(picked)) as figure:
        grid = figure.subplots(len(picked), 2 * _SITES_EACH, squeeze=False)
        for line, (name, sites, colour) in zip(grid, picked, strict=True):
            for number in range(_SITES_EACH):
                pair = line[2 * number : 2 * number + 2]
                if number < len(sites):
                    _draw_pair(pair, data, view, sites[number], colour)
                else:
                    for axes in pair:
                        axes.set_axis_off()
            line[0].set_ylabel(name, fontsize=10, fontweight="bold", color=INK)
        markup = as_png(figure, "Close-ups of single sites: " + ", ".join(f"{len(s)} {n}" for n, s, _ in picked))
    caption = (
        f"Each site twice, {CROP_NM:g} nm a side, from the frame of highest dose and its first "
        "detector: raw counts, and the "
        f"same counts under a Gaussian of {SMOOTHING_NM * 1e3:.0f} pm (standard deviation) for "
        "the eye; the calls use raw counts "
        "only. The site is in the middle of the circle (0.2 nm radius). Above: the best call "
        "with its posterior probability "
        "from all frames and detectors, and the dose summed over frames. The surest three of "
        "each class; of the undetermined "
        "the most doubtful."
    )
    return Picture(markup=markup, caption=caption)


def births(data: ReportData, view: CensusView) -> Picture | None:
    """Confirmed beam-made vacancies by sub-frames of the frame they appeared in; None where there are none."""
    frames = {frame.action_id: frame for frame in data.frames}
    rows = np.nonzero(view.beam_made)[0]
    rows = rows[np.argsort(view.error_probability[rows], kind="stable")]
    shown: list[tuple[int, ReportFrame, int]] = []
    for row in rows:
        action_id, _, subframe = str(view.birth[row]).rpartition("#")
        entry = frames.get(action_id)
        if entry is not None and 1 < entry.subframe_count <= _MOST_SUBFRAMES and view.inside(entry, CROP_NM / 2)[row]:
            shown.append((int(row), entry, int(subframe)))
    shown = shown[:_BIRTHS]
    if not shown:
        return None
    most = max(entry.subframe_count for _, entry, _ in shown)
    in_a_row = max(1, _MOST_SUBFRAMES // most)
    lines = -(-len(shown) // in_a_row)
    columns = most * min(in_a_row, len(shown))
    with canvas(WIDTH_INCHES * columns / _MOST_SUBFRAMES, 2.1 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for place, (row, entry, born) in enumerate(shown):
            strip = grid[place // in_a_row, place % in_a_row * most :]
            _draw_birth(strip[: entry.subframe_count], data, view, (row, entry), born)
        markup = as_png(figure, f"{len(shown)} beam-made vacancies, sub-frame by sub-frame.")
    caption = (
        "Beam-made, not native: the column is whole at first and has lost an atom at the end. One strip a site, "
        "one image a sub-frame, each by itself: counts of the first detector "
        f"under a Gaussian of {SMOOTHING_NM * 1e3:.0f} pm."
    )
    return Picture(markup=markup, caption=caption)


def _draw_birth(
    strip: np.ndarray, data: ReportData, view: CensusView, site: tuple[int, ReportFrame], born: int
) -> None:
    row, entry = site
    counts = next(iter(data.load_frame(entry.id).counts.values()))
    for number, axes in enumerate(strip):
        axes.set_axis_on()
        _draw(axes, _crop(view, entry, row, counts[number]), ORANGE, smoothed=True)
        when = f"decision {entry.decision_seq}, sub-frame {number + 1}" if number == 0 else f"sub-frame {number + 1}"
        axes.set_title(when + (": lost here" if number == born else ""), fontsize=8)


def _pick(data: ReportData, view: CensusView, mask: np.ndarray, *, surest: bool) -> list[tuple[int, ReportFrame]]:
    rows = np.nonzero(mask)[0]
    order = rows[np.argsort(view.error_probability[rows] * (1 if surest else -1), kind="stable")]
    sharp = [frame for frame in data.frames if frame.purpose in ("field", "revisit")]
    picked: list[tuple[int, ReportFrame]] = []
    for row in order:
        covering = [frame for frame in sharp if view.inside(frame, CROP_NM / 2)[row]]
        if covering:
            picked.append((int(row), max(covering, key=lambda frame: frame.dose_e_per_a2)))
        if len(picked) == _SITES_EACH:
            break
    return picked


def _crop(view: CensusView, entry: ReportFrame, row: int, image: np.ndarray) -> Crop:
    drift_x, drift_y = view.drift_of(entry)
    return crop_about(image, entry, float(view.x_nm[row]) + drift_x, float(view.y_nm[row]) + drift_y)


def _draw_pair(
    pair: np.ndarray, data: ReportData, view: CensusView, site: tuple[int, ReportFrame], colour: str
) -> None:
    row, entry = site
    frame = data.load_frame(entry.id)
    crop = _crop(view, entry, row, frame.total(next(iter(frame.counts))))
    _draw(pair[0], crop, colour, smoothed=False)
    _draw(pair[1], crop, colour, smoothed=True)
    pair[0].set_title(f"{view.words(row)}   {view.dose_e_per_a2[row]:,.0f} e/Å²", fontsize=8)


def _draw(axes: Axes, crop: Crop, colour: str, *, smoothed: bool) -> None:
    from matplotlib.patches import Circle
    from scipy.ndimage import gaussian_filter

    half = crop.width_nm / 2
    pixel_nm = crop.width_nm / len(crop.image)
    filled = np.nan_to_num(crop.image, nan=float(np.nanmean(crop.image)))
    image = gaussian_filter(filled, SMOOTHING_NM / pixel_nm, mode="nearest") if smoothed else filled
    low, high = np.percentile(image, [1, 99.5])
    axes.imshow(image, extent=(-half, half, -half, half), cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    axes.add_patch(Circle((0, 0), 0.2, fill=False, edgecolor="white" if colour == INK else colour, linewidth=1.6))
    bare(axes)
    if smoothed:
        scale_bar(axes, crop.width_nm)
