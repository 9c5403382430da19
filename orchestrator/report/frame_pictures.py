"""The best frames as recorded, with the calls on them. Neighbour: `close_ups` shows single sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from instruments import Frame
from orchestrator.report.census_view import CensusView, species_style
from orchestrator.report.pictures import INK, ORANGE, WIDTH_INCHES, YELLOW, Picture, as_png, bare, canvas, scale_bar
from orchestrator.report.report_data import ReportData, ReportFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIELD_COUNT, REVISIT_COUNT = 3, 2
_FEWEST_PX = 16


def chosen_frames(frames: Sequence[ReportFrame], view: CensusView | None) -> list[ReportFrame]:
    """Fields with the most confirmed sites (then dose), one of every mode at least, then revisits of highest dose.

    Spectra and other frames below 16 pixels a side are no pictures; where nothing else is left, the first survey frame,
    or frames of one point of highest dose: a camera may have seen something there.
    """

    def rank(frame: ReportFrame) -> tuple[int, float]:
        confirmed = int((view.inside(frame) & (view.native | view.beam_made)).sum()) if view is not None else 0
        return confirmed, frame.dose_e_per_a2

    sharp = [frame for frame in frames if frame.width_nm / frame.pixel_size_nm >= _FEWEST_PX]
    fields = sorted((frame for frame in sharp if frame.purpose == "field"), key=rank, reverse=True)
    first_of_mode = {frame.mode: frame for frame in reversed(fields)}
    chosen = fields[:FIELD_COUNT]
    chosen += [frame for frame in first_of_mode.values() if frame.mode not in {other.mode for other in chosen}]
    revisits = sorted((f for f in sharp if f.purpose == "revisit"), key=lambda frame: frame.dose_e_per_a2, reverse=True)
    points = sorted((f for f in frames if f.width_nm == f.pixel_size_nm), key=lambda f: f.dose_e_per_a2, reverse=True)
    return (chosen + revisits[:REVISIT_COUNT]) or sharp[:1] or points[:FIELD_COUNT]


def frame_picture(data: ReportData, entry: ReportFrame, view: CensusView | None) -> Picture:
    """Every detector of one frame, raw counts of all sub-frames together, with the calls in it."""
    frame = data.load_frame(entry.id)
    images = {name: frame.picture(name) for name in frame.counts}
    with canvas(min(WIDTH_INCHES, 5.5 * len(images)), 5.6) as figure:
        for place, (name, image) in enumerate(images.items()):
            axes = figure.add_subplot(1, len(images), place + 1)
            low, high = np.percentile(image, [0.5, 99.8])
            is_pattern = frame.is_one_pattern(name)
            half_x, half_y = entry.width_nm / 2, entry.height_nm / 2
            extent = None if is_pattern else (-half_x, half_x, -half_y, half_y)
            shown = axes.imshow(image, extent=extent, cmap="gray", vmin=low, vmax=max(high, low + 1))
            figure.colorbar(
                shown,
                ax=axes,
                orientation="horizontal",
                shrink=0.62,
                aspect=30,
                pad=0.02,
                label=_unit(frame, name),
            )
            axes.set_title(_title(frame, name))
            bare(axes)
            if is_pattern:
                continue
            scale_bar(axes, entry.width_nm)
            if view is not None:
                _overlay(axes, entry, view, with_legend=place == 0)
        markup = as_png(figure, f"Frame {entry.id}: {', '.join(images)} images of {entry.width_nm:.1f} nm with calls.")
    command = frame.requested
    caption = (
        f"Decision {entry.decision_seq}, {entry.purpose} in mode {entry.mode}: "
        f"{entry.width_nm:.1f} x {entry.height_nm:.1f} nm "
        f"at ({entry.x_nm:.1f}, {entry.y_nm:.1f}) nm, {entry.pixel_size_nm:.3g} nm pixels, "
        f"{entry.subframe_count} sub-frames of {entry.dwell_time_us:.3g} µs, {command.optics.probe_current_pa:g} pA, "
        f"defocus {command.optics.defocus_nm:+g} nm, {entry.dose_e_per_a2:,.0f} e/Å² in this frame."
    )
    return Picture(markup=markup, caption=caption)


def _unit(frame: Frame, detector: str) -> str:
    normalised = any(not known.raw_counts for known in frame.mode.detectors if known.name == detector)
    return "signal in the instrument's own unit" if normalised else "raw counts per pixel, all sub-frames"


def _title(frame: Frame, detector: str) -> str:
    known = {item.name: item for item in frame.mode.detectors}
    found = known.get(detector)
    if found is None or found.outer_mrad is None:
        return detector.upper()
    return f"{detector.upper()}, {found.inner_mrad or 0:g} to {found.outer_mrad:g} mrad"


def _overlay(axes: Axes, entry: ReportFrame, view: CensusView, *, with_legend: bool) -> None:
    drift_x, drift_y = view.drift_of(entry)
    inside = view.inside(entry)
    size = max(7.0, 110.0 / entry.width_nm)
    groups = [(view.of_species(n) & inside, *species_style(n), name) for n, name in enumerate(view.species)]
    groups += [
        (view.beam_made & inside, ORANGE, "v", "beam-made"),
        (view.undetermined & inside, YELLOW, "x", "undetermined"),
    ]
    for mask, colour, marker, name in groups:
        if not mask.any():
            continue
        axes.plot(
            view.x_nm[mask] + drift_x - entry.x_nm, view.y_nm[mask] + drift_y - entry.y_nm, marker, linestyle="none",
            markersize=size if marker != "x" else 0.5 * size, markerfacecolor="none", markeredgecolor=colour,
            markeredgewidth=1.5, label=f"{name} ({int(mask.sum())})",
        )  # fmt: skip
    if with_legend and axes.lines:
        axes.legend(
            loc="upper right",
            frameon=True,
            framealpha=0.85,
            facecolor="white",
            edgecolor="none",
            fontsize=8,
            labelcolor=INK,
        )
