"""What the catalogue answers with: rows as values. Their neighbour `schema` is how they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from instruments import AcquireFrame
from orchestrator.decisions import Decision

AcquisitionStatus = Literal["acquiring", "stored", "refused", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRow:
    """One experiment. `options` are those of the run (policy, instrument, flags), remembered for `resume`."""

    id: str
    parent_id: str | None
    name: str
    status: str
    reason: str | None
    spec: dict[str, Any]
    seed: int
    engine: str
    options: dict[str, Any]
    context: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.experiment_card(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What will be, or was, asked of the microscope; `path` is reserved for the frame, relative to the data folder.

    `stage` says how far it went: `acquiring` (no frame yet), `stored` (frame there, not observed), or how it ended.
    """

    decision: Decision
    command: AcquireFrame
    frame_id: str
    path: str
    intended_at: datetime
    stage: Literal["acquiring", "stored", "done", "refused", "failed", "unknown"] = "acquiring"

    @property
    def experiment_id(self) -> str:
        """The experiment it belongs to."""
        return self.decision.experiment_id

    @property
    def action_id(self) -> str:
        """The id under which the microscope knows it."""
        return self.command.action_id


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrame:
    """A frame in the catalogue; `path` is relative to the data folder; stage, shift and optics as read back."""

    id: str
    experiment_id: str
    decision_id: str
    action_id: str
    ordinal: int
    path: str
    sha256: str
    size_bytes: int
    acquired_at: datetime
    started_s: float
    ended_s: float
    purpose: str
    mode: str
    dose_e_per_a2: float
    electrons: float
    is_simulation: bool
    instrument: str
    beam_energy_ev: float
    probe_current_pa: float
    defocus_nm: float
    camera_length_mm: float | None
    dwell_time_us: float
    subframe_count: int
    pixel_size_nm: float
    field_of_view_nm: float
    stage_x_nm: float
    stage_y_nm: float
    stage_z_nm: float
    stage_alpha_deg: float
    stage_beta_deg: float
    beam_shift_x_nm: float
    beam_shift_y_nm: float

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.frame_card(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision with what became of it; `frame_id` is None until its frame is stored."""

    decision: Decision
    status: str
    status_reason: str | None
    action_id: str
    frame_id: str | None
    intended_at: datetime

    @property
    def id(self) -> str:
        """The decision's id."""
        return self.decision.id

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.decision_card(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What `recover` found and did; every list is empty after an undisturbed run."""

    adopted: list[StoredFrame] = field(default_factory=list[StoredFrame])
    deleted_temporary_files: list[str] = field(default_factory=list[str])
    set_aside: list[str] = field(default_factory=list[str])
    missing_files: list[str] = field(default_factory=list[str])
    unknown_files: list[str] = field(default_factory=list[str])

    @property
    def is_clean(self) -> bool:
        """Whether there was nothing to do and nothing is amiss."""
        return not (
            self.adopted or self.deleted_temporary_files or self.set_aside or self.missing_files or self.unknown_files
        )
