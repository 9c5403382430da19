"""The two maps of the whole specimen: where it looked and what it found; and native, beam-made, undetermined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from instruments import Frame
from orchestrator.report.census_view import CensusView, species_style
from orchestrator.report.pictures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    WIDTH_INCHES,
    Picture,
    as_png,
    bare,
    canvas,
    scale_bar,
)
from orchestrator.report.report_data import ReportData, ReportFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Extent = tuple[float, float, float, float]
_CELL_NM = 0.8
_MANY_FRAMES, _SMALL_NM = 60, 5.0


def extent_of(maps: Mapping[str, np.ndarray], frames: Sequence[ReportFrame]) -> Extent | None:
    """(x low, x high, y low, y high) of the map, or of all frames, in nm."""
    if "x_nm" in maps and len(maps["x_nm"]):
        x, y = maps["x_nm"], maps["y_nm"]
        half_x, half_y = (np.diff(axis[:2]).item() / 2 if len(axis) > 1 else 0.5 for axis in (x, y))
        return float(x[0] - half_x), float(x[-1] + half_x), float(y[0] - half_y), float(y[-1] + half_y)
    if not frames:
        return None
    return (
        min(frame.x_nm - frame.width_nm / 2 for frame in frames),
        max(frame.x_nm + frame.width_nm / 2 for frame in frames),
        min(frame.y_nm - frame.height_nm / 2 for frame in frames),
        max(frame.y_nm + frame.height_nm / 2 for frame in frames),
    )


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Mean signal per pixel of all survey frames on cells of `cell_nm`, (rows, columns), NaN where none lies."""

    image: np.ndarray
    detector: str
    cell_nm: float
    is_counts: bool


def survey_mosaic(frames: Sequence[ReportFrame], load_frame: Callable[[str], Frame], extent: Extent) -> Mosaic | None:
    """The survey frames laid together, on cells of 0.8 nm or of their own pixel where that is larger."""
    surveys = [frame for frame in frames if frame.purpose == "survey"]
    if not surveys:
        return None
    cell_nm = max(_CELL_NM, *(frame.pixel_size_nm for frame in surveys))
    shape = (round((extent[3] - extent[2]) / cell_nm), round((extent[1] - extent[0]) / cell_nm))
    total, pixels = np.zeros(shape[0] * shape[1]), np.zeros(shape[0] * shape[1])
    detector, is_counts = "", True
    for entry in surveys:
        frame = load_frame(entry.id)
        detector = detector or next(iter(frame.counts))
        is_counts &= all(known.raw_counts for known in frame.mode.detectors if known.name == detector)
        if detector not in frame.counts:
            continue
        counts = frame.total(detector)
        rows, columns = counts.shape
        x = entry.x_nm + (np.arange(columns) - (columns - 1) / 2) * frame.pixel_size_nm
        y = entry.y_nm + (np.arange(rows) - (rows - 1) / 2) * frame.pixel_size_nm
        column = np.floor((x - extent[0]) / cell_nm + 1e-6).astype(int)
        row = np.floor((y - extent[2]) / cell_nm + 1e-6).astype(int)
        kept = counts[np.ix_((row >= 0) & (row < shape[0]), (column >= 0) & (column < shape[1]))]
        column, row = column[(column >= 0) & (column < shape[1])], row[(row >= 0) & (row < shape[0])]
        cells = (row[:, None] * shape[1] + column[None, :]).ravel()
        total += np.bincount(cells, kept.ravel(), len(total))
        pixels += np.bincount(cells, minlength=len(total))
    mean = np.full(len(total), np.nan)
    np.divide(total, pixels, out=mean, where=pixels > 0)
    return Mosaic(mean.reshape(shape), detector, cell_nm, is_counts)


def overview(data: ReportData, view: CensusView | None) -> Picture | None:
    """Survey mosaic with every visited field to scale, coloured by dose, and the confirmed defects by species."""
    extent = extent_of(data.maps, data.frames)
    if extent is None:
        return None
    visited = [frame for frame in data.frames if frame.purpose != "survey"]
    with canvas(WIDTH_INCHES, 9.6) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(42, 1))
        axes = figure.add_subplot(grid[:, 0])
        ground = _ground(axes, figure.add_subplot(grid[1, 1]), data, extent)
        _fields(axes, figure.add_subplot(grid[0, 1]), visited)
        if view is not None:
            for number, name in enumerate(view.species):
                colour, marker = species_style(number)
                mask = view.of_species(number)
                axes.plot(
                    view.x_nm[mask], view.y_nm[mask], marker, color=colour, markersize=5.5, markeredgecolor="white",
                    markeredgewidth=0.7, label=f"{name} ({int(mask.sum())})", linestyle="none",
                )  # fmt: skip
            if view.wrong.any():
                axes.plot(
                    view.x_nm[view.wrong], view.y_nm[view.wrong], "o", markersize=11, markerfacecolor="none",
                    markeredgecolor="#ff2020", markeredgewidth=1.4, linestyle="none",
                    label=f"wrong, by the hidden truth ({int(view.wrong.sum())})",
                )  # fmt: skip
            figure.legend(loc="outside lower center", ncols=6, title="confirmed as", title_fontsize=8.5)
        _finish(axes, extent)
        scale_bar(axes, extent[1] - extent[0])
        alt = (
            f"Map of {extent[1] - extent[0]:.0f} by {extent[3] - extent[2]:.0f} nm with {len(visited)} visited fields."
        )
        markup = as_png(figure, alt)
    caption = (
        f"{ground} Rectangles are the {len(visited)} frames other than the survey, to scale and at their nominal "
        "positions (stage plus beam shift), coloured by the dose of that frame; x to the right, y up."
    )
    if view is not None:
        caption += (
            " The small ones are focus frames and second looks. Contamination is brighter than the clean specimen. "
            "Markers are confirmed native defects by species; the number is in brackets."
        )
    return Picture(markup=markup, caption=caption)


def three_colours(data: ReportData, view: CensusView) -> Picture | None:
    """Native, beam-made and undetermined, and how much clean specimen was looked at."""
    extent = extent_of(data.maps, data.frames)
    if extent is None or "clean" not in data.maps:
        return None
    from matplotlib.colors import ListedColormap

    clean, seen = data.maps["clean"], data.maps["visited_dose_e_per_a2"] > 0
    kind = np.where(np.isnan(clean), 0, np.where(clean > 0.5, np.where(seen, 3, 2), 1))
    with canvas(9.2, 9.0) as figure:
        axes = figure.add_subplot()
        tones = ListedColormap(["#ffffff", "#b9b2a4", "#e9e4da", "#fbfaf6"])
        axes.imshow(kind, extent=extent, cmap=tones, vmin=0, vmax=3)
        for mask, colour, marker, size, label in (
            (view.undetermined, MUTED, "x", 4.0, "undetermined"),
            (view.native, BLUE, "o", 4.5, "native"),
            (view.beam_made, ORANGE, "^", 6.0, "beam-made"),
        ):
            axes.plot(
                view.x_nm[mask], view.y_nm[mask], marker, color=colour, markersize=size, linestyle="none",
                markeredgewidth=1.0 if marker == "x" else 0.4, markeredgecolor=colour if marker == "x" else INK,
                label=f"{label} ({int(mask.sum())})",
            )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=3)
        _finish(axes, extent)
        scale_bar(axes, extent[1] - extent[0], dark=True)
        counts = [int(mask.sum()) for mask in (view.native, view.beam_made, view.undetermined)]
        markup = as_png(figure, "Map of {} native, {} beam-made and {} undetermined sites.".format(*counts))
    caption = (
        "Every site at which something may differ from the perfect lattice. Native: confirmed at the stated false "
        "discovery rate. Beam-made: confirmed to have appeared between sub-frames or frames. Undetermined: more than "
        "2 % probable to be a defect, neither confirmed nor cleared. Ground, light to dark: clean and analysed, clean "
        "and not analysed, contaminated; white was not surveyed."
    )
    return Picture(markup=markup, caption=caption)


def _ground(axes: Axes, bar: Axes, data: ReportData, extent: Extent) -> str:
    mosaic = survey_mosaic(data.frames, data.load_frame, extent)
    if mosaic is None:
        bar.set_axis_off()
        ground = data.maps.get("clean", data.maps.get("survey"))
        if ground is not None:
            axes.imshow(ground, extent=extent, cmap="gray")
        return "There are no survey frames; the ground is the objective's own map."
    low, high = np.nanpercentile(mosaic.image, [0.5, 99.5])
    shown = axes.imshow(mosaic.image, extent=extent, cmap="gray", vmin=low, vmax=high)
    unit = "raw counts" if mosaic.is_counts else "signal in the instrument's own unit"
    axes.figure.colorbar(shown, cax=bar, label=f"{mosaic.detector}, {unit} per survey pixel")
    return f"Survey mosaic: {unit} of {mosaic.detector}, mean per pixel on {mosaic.cell_nm:.3g} nm cells."


def _fields(axes: Axes, bar: Axes, visited: Sequence[ReportFrame]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    if not visited:
        bar.set_axis_off()
        return
    doses = [frame.dose_e_per_a2 for frame in visited]
    norm = Normalize(0.0, max(doses))
    mapped = ScalarMappable(norm, "plasma")
    thick = 1.8 if len(visited) <= _MANY_FRAMES else 0.9
    for frame in sorted(visited, key=lambda frame: -frame.width_nm * frame.height_nm):
        colour = mapped.cmap(norm(frame.dose_e_per_a2))
        corner = (frame.x_nm - frame.width_nm / 2, frame.y_nm - frame.height_nm / 2)
        axes.add_patch(
            Rectangle(
                corner,
                frame.width_nm,
                frame.height_nm,
                facecolor=(*colour[:3], 0.13),
                edgecolor=colour,
                linewidth=thick if frame.width_nm > _SMALL_NM else 0.6,
            )
        )
    axes.figure.colorbar(mapped, cax=bar, label="dose of the frame, e/Å²")


def _finish(axes: Axes, extent: Extent) -> None:
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_aspect("equal")
    bare(axes)
