"""What a microscope reports of itself: the state recorded with every frame, never set by a policy."""

from __future__ import annotations

from pydantic import Field

from instruments.models import Record
from instruments.optics import Coherence, Optics
from instruments.scans import StagePosition


class MicroscopeState(Record):
    """Read-back values; None where the instrument cannot tell (`reason` in `undetermined`)."""

    time_s: float = Field(description="the instrument's clock, since it was opened")
    stage: StagePosition
    beam_shift_x_nm: float = 0.0
    beam_shift_y_nm: float = 0.0
    optics: Optics
    coherence: Coherence | None = None
    measured_current_pa: float | None = None
    mode: str | None = None
    beam_blanked: bool = True
    undetermined: dict[str, str] = Field(default_factory=dict, description="field -> why it is not known")
