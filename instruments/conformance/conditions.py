"""What the kit may ask of an instrument: one small frame, how far to move, how long to wait. `frames` builds on it."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from instruments.capabilities import Capabilities
from instruments.errors import ConfigurationError
from instruments.models import Record

_LIMITED_BY: Final = {
    "field_of_view_nm": "field_of_view_nm",
    "dwell_time_us": "dwell_time_us",
    "probe_current_pa": "probe_current_pa",
    "stage_x_nm": "x_nm",
    "stage_y_nm": "y_nm",
}  # a condition -> the axis that must be able to take it


class Conditions(Record):
    """Where and how the kit exposes. None: taken from what the instrument says of itself.

    The frames are small and lie around the stage position at which the instrument stands when it is opened (or the
    one given). The image must show something that does not repeat within a move.
    """

    mode: str | None = Field(default=None, description="None: the first of the instrument's")
    field_of_view_nm: float | None = Field(default=None, gt=0, description="None: 100 nm, or the nearest it can")
    shape_px: tuple[int, int] = Field(default=(96, 96), description="(rows, columns)")
    dwell_time_us: float | None = Field(default=None, gt=0, description="None: 4 us, or the nearest it can")
    subframe_count: int = Field(default=2, ge=1, le=16)
    probe_current_pa: float | None = Field(default=None, gt=0, description="None: as it is")
    stage_x_nm: float | None = None
    stage_y_nm: float | None = None
    move_fraction: float = Field(default=0.2, ge=0.05, le=0.4, description="moves, as a part of the field of view")
    motion_tolerance_fraction: float = Field(default=0.05, gt=0, le=0.5, description="of a move; at least half a pixel")
    stop_exposure_s: float = Field(default=10.0, gt=0, le=600, description="exposure that is stopped after its start")
    stop_margin_s: float = Field(default=2.0, ge=0, description="beyond the declared stop latency, for this computer")
    patience_s: float = Field(default=30.0, gt=0, description="the longest anything may take to answer or say no")
    client_count: int = Field(default=4, ge=2, le=32)
    client_call_count: int = Field(default=50, ge=1, description="of each client")

    def refuse_beyond(self, capabilities: Capabilities) -> None:
        """Raise ConfigurationError where these ask for what the instrument says it cannot: that is not its fault."""
        if self.mode is not None and capabilities.modes and capabilities.mode(self.mode) is None:
            known = ", ".join(mode.name for mode in capabilities.modes)
            raise ConfigurationError(f"conditions.mode = {self.mode!r}: the instrument has {known}; choose one")
        for field, name in _LIMITED_BY.items():
            axis, value = capabilities.axis(name), getattr(self, field)
            if value is None or axis is None or axis.read_only:
                continue
            if (refusal := axis.refusal(value)) is not None:
                raise ConfigurationError(f"conditions.{field} = {value:g}: {refusal}")
