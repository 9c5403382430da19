"""From frames to columns that can be searched, and from database rows to values. Neighbours: `schema`, `rows`."""

from __future__ import annotations

from math import floor, log10
from typing import Any

from sqlalchemy import RowMapping

from instruments import AcquireFrame, Frame
from orchestrator.catalogue.rows import DecisionRow, ExperimentRow, Intent, StoredFrame
from orchestrator.decisions import Decision
from orchestrator.events import Event
from orchestrator.plain_json import plain

SCALE_BAR_FRACTION = 0.1  # of the field of view, as in the audits of lost data


def frame_columns(frame: Frame) -> dict[str, Any]:
    """The promoted columns of a frame: stage, shift and optics as read back, scan as requested."""
    scan, state = frame.requested.scan, frame.state
    optics, stage = state.optics, state.stage
    return {
        "purpose": frame.requested.purpose,
        "mode": frame.requested.mode,
        "instrument": frame.instrument,
        "is_simulation": frame.simulated,
        "started_s": frame.started_s,
        "ended_s": frame.ended_s,
        "beam_energy_ev": optics.beam_energy_ev,
        "semi_convergence_angle_mrad": optics.semi_convergence_angle_mrad,
        "probe_current_pa": optics.probe_current_pa,
        "measured_current_pa": state.measured_current_pa,
        "defocus_nm": optics.defocus_nm,
        "camera_length_mm": optics.camera_length_mm,
        "dwell_time_us": scan.dwell_time_us,
        "flyback_time_us": scan.flyback_time_us,
        "rotation_deg": scan.rotation_deg,
        "subframe_count": frame.requested.subframe_count,
        "rows_px": scan.shape_px[0],
        "columns_px": scan.shape_px[1],
        "pixel_size_nm": frame.pixel_size_nm,
        "field_of_view_nm": scan.field_of_view_nm,
        "scale_bar_nm": SCALE_BAR_FRACTION * scan.field_of_view_nm,
        "field_of_view_decade": floor(log10(scan.field_of_view_nm)),
        "dose_e_per_a2": frame.dose_e_per_a2,
        "electrons": frame.electrons,
        "stage_x_nm": stage.x_nm,
        "stage_y_nm": stage.y_nm,
        "stage_z_nm": stage.z_nm,
        "stage_alpha_deg": stage.alpha_deg,
        "stage_beta_deg": stage.beta_deg,
        "beam_shift_x_nm": state.beam_shift_x_nm,
        "beam_shift_y_nm": state.beam_shift_y_nm,
        "context": plain(frame.context),
    }


def experiment_row(row: RowMapping) -> ExperimentRow:
    """A row of `experiment`."""
    return ExperimentRow(**{name: row[name] for name in ExperimentRow.__dataclass_fields__})


def event_row(row: RowMapping) -> Event:
    """A row of `event`, with its arrays where they were selected."""
    arrays = row.get("arrays")
    return Event(
        experiment_id=row["experiment_id"],
        seq=row["seq"],
        kind=row["kind"],
        recorded_at=row["recorded_at"],
        payload=row["payload"],
        arrays=None if arrays is None else bytes(arrays),
    )


def frame_row(row: RowMapping) -> StoredFrame:
    """A row of `acquisition` whose frame is stored."""
    return StoredFrame(**{name: row[name] for name in StoredFrame.__dataclass_fields__})


def decision_row(row: RowMapping) -> DecisionRow:
    """A row of `decision` joined with `stored_id`, the id of its stored frame or None."""
    return DecisionRow(
        decision=Decision.model_validate(row["body"]),
        status=row["status"],
        status_reason=row["status_reason"],
        action_id=row["action_id"],
        frame_id=row["stored_id"],
        intended_at=row["intended_at"],
    )


def intent_row(row: RowMapping) -> Intent:
    """A row of `decision` joined with `acquisition_id` and `path`."""
    status = row["status"]
    return Intent(
        decision=Decision.model_validate(row["body"]),
        command=AcquireFrame.model_validate(row["command"]),
        frame_id=row["acquisition_id"],
        path=row["path"],
        intended_at=row["intended_at"],
        stage="acquiring" if status == "intended" else status,
    )
