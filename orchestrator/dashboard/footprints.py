"""Where frames lie on the specimen and under which conditions, as the commands in the journal say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.dashboard.chronicle import Step
from orchestrator.report.report_data import ReportFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The field of one exposure, nominal: stage plus beam shift."""

    x_nm: float
    y_nm: float
    width_nm: float
    height_nm: float
    rotation_deg: float


def footprint_of(step: Step) -> Footprint:
    """The field a decision asks for."""
    stage, scan = step.command["stage"], step.command["scan"]
    rows, columns = scan["shape_px"]
    width_nm = float(scan["field_of_view_nm"])
    return Footprint(
        x_nm=stage["x_nm"] + scan["beam_shift_x_nm"],
        y_nm=stage["y_nm"] + scan["beam_shift_y_nm"],
        width_nm=width_nm,
        height_nm=width_nm * rows / columns,
        rotation_deg=float(scan["rotation_deg"]),
    )


def report_frame(step: Step) -> ReportFrame:
    """A stored frame as the report's pictures take it; the checksum stays in the catalogue."""
    place, scan = footprint_of(step), step.command["scan"]
    return ReportFrame(
        id=step.frame_id, decision_seq=step.seq, action_id=step.command["action_id"], path=step.path, sha256="",
        purpose=step.command["purpose"], mode=step.command["mode"],
        dose_e_per_a2=step.dose_e_per_a2 or 0.0, electrons=step.electrons or 0.0,
        x_nm=place.x_nm, y_nm=place.y_nm, width_nm=place.width_nm, height_nm=place.height_nm,
        pixel_size_nm=place.width_nm / scan["shape_px"][1], dwell_time_us=scan["dwell_time_us"],
        subframe_count=step.command["subframe_count"], started_s=step.started_s or 0.0, ended_s=step.ended_s or 0.0,
    )  # fmt: skip


def where(step: Step) -> str:
    """Purpose, size and place in words.

    A focus frame of 4 nm at (12.0, 2.0) nm reads "focus, 4 nm at (12.0, 2.0) nm".
    """
    place = footprint_of(step)
    return f"{step.command['purpose']}, {place.width_nm:.3g} nm at ({place.x_nm:.1f}, {place.y_nm:.1f}) nm"


def conditions(step: Step) -> list[tuple[str, str]]:
    """(what, value) of one frame: dose, pixel, mode and beam."""
    frame, optics = report_frame(step), step.command["optics"]
    rows, columns = step.command["scan"]["shape_px"]
    dose = "not known yet" if step.dose_e_per_a2 is None else f"{step.dose_e_per_a2:,.0f} e/Å²"
    return [
        ("dose", dose),
        ("field", f"{frame.width_nm:.4g} × {frame.height_nm:.4g} nm at ({frame.x_nm:.1f}, {frame.y_nm:.1f}) nm"),
        ("pixel", f"{frame.pixel_size_nm:.3g} nm, {columns} × {rows}"),
        ("dwell", _dwell(frame.subframe_count, frame.dwell_time_us)),
        ("mode", frame.mode),
        ("defocus", _signed(optics, "defocus_nm", "nm")),
        ("current", f"{optics['probe_current_pa']:g} pA"),
        ("energy", f"{optics['beam_energy_ev'] / 1e3:g} keV"),
    ]


def _dwell(subframe_count: int, dwell_time_us: float) -> str:
    return f"{dwell_time_us:.3g} µs" if subframe_count == 1 else f"{subframe_count} × {dwell_time_us:.3g} µs"


def _signed(values: dict[str, Any], name: str, unit: str) -> str:
    return f"{values[name]:+g} {unit}"
