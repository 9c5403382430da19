"""Drift, focus and contrast as the frames themselves show them: the check that calls rest on a lattice rightly laid."""

from __future__ import annotations

import numpy as np

from orchestrator.report.census_view import CensusView
from orchestrator.report.pictures import BLUE, INK, MUTED, ORANGE, VERMILLION, WIDTH_INCHES, Picture, as_svg, canvas
from orchestrator.report.report_data import ReportData

_SHOWN = (
    ("defocus_offset_nm", "fitted minus commanded defocus, nm"),
    ("contrast_ratio", "lattice contrast over prediction"),
)


def frame_health(data: ReportData, view: CensusView) -> Picture | None:
    """Three small plots against microscope time; None where fewer than two frames show a lattice."""
    values: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in _SHOWN}
    for frame in data.frames:
        features = data.load_features(frame.action_id) if frame.purpose != "survey" else None
        for name in values:
            found = features.values.get(name) if features is not None else None
            if found is not None:
                values[name].append((frame.started_s, found.value))
    if len(view.drift_nm) < 2 or any(len(points) < 2 for points in values.values()):
        return None
    with canvas(WIDTH_INCHES, 2.7) as figure:
        first, *others = figure.subplots(1, 3)
        first.plot(view.drift_nm[:, 0], view.drift_nm[:, 1], ".-", color=BLUE, label="x")
        first.plot(view.drift_nm[:, 0], view.drift_nm[:, 2], ".-", color=ORANGE, label="y")
        first.set_title("specimen drift since the first frame, nm")
        first.legend()
        for axes, (name, title) in zip(others, _SHOWN, strict=True):
            points = np.array(values[name])
            axes.plot(points[:, 0], points[:, 1], "o", color=VERMILLION, markersize=3.5)
            axes.axhline(1.0 if name == "contrast_ratio" else 0.0, color=MUTED, linewidth=0.8, linestyle=":")
            axes.set_title(title, color=INK)
        for axes in (first, *others):
            axes.set_xlabel("microscope time, s")
        markup = as_svg(
            figure, "health", "Drift, fitted focus and lattice contrast of every frame against microscope time."
        )
    caption = (
        "One point a frame. Contrast is the lattice's over the forward model's in focus: near 1 "
        "in clean, focused frames, lower where contamination or defocus takes it; "
        "below 0 the lattice was laid on the wrong sites."
    )
    return Picture(markup=markup, caption=caption)
