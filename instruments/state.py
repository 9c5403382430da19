"""What a microscope reports of itself: the state recorded with every frame, never set by a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import AwareDatetime, Field, ValidationError

from instruments.capabilities import Capabilities
from instruments.commands import AxisValue
from instruments.errors import InstrumentFault
from instruments.models import Record
from instruments.optics import Aberrations, Coherence, Optics
from instruments.scans import StagePosition

_GROUPS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("beam_shift_x_nm", "beam_shift_y_nm"), ""),
    **dict.fromkeys(StagePosition.model_fields, "stage"),
    **dict.fromkeys(Optics.model_fields.keys() - {"aberrations"} | Aberrations.model_fields.keys(), "optics"),
}  # fmt: skip
"""Axis -> the field of a state that holds it; an empty one: the state itself."""


class AxisReading(Record):
    """One axis after a command: what was asked for, what was read back, and how far they may differ."""

    requested: AxisValue | None = Field(default=None, description="None: read back, not asked for")
    read_back: AxisValue | None = Field(default=None, description="None: this instrument cannot read it back")
    tolerance: float = Field(default=0.0, ge=0)

    @property
    def is_reached(self) -> bool | None:
        """Whether it stands where it was sent; None where nobody can tell."""
        if self.requested is None or self.read_back is None:
            return None
        if isinstance(self.requested, str) or isinstance(self.read_back, str):
            return self.requested == self.read_back
        return abs(self.requested - self.read_back) <= self.tolerance


class ClockOffset(Record):
    """The clock of a device minus that of this computer."""

    offset_s: float
    uncertainty_s: float = Field(ge=0)
    measured_at: AwareDatetime


class ColumnState(Record):
    """What else made an image, as far as the instrument tells; None: it does not."""

    extraction_v: float | None = None
    emission_ua: float | None = None
    since_flash_s: float | None = Field(default=None, ge=0)
    monochromator: str | None = Field(default=None, description="its state, in the maker's words")
    energy_spread_ev: float | None = Field(default=None, ge=0, description="full width at half maximum")
    vacuum_mbar: dict[str, float] = Field(default_factory=dict, description="by gauge")
    holder: str | None = None
    eucentric_z_nm: float | None = Field(default=None, description="stage height at which tilting does not shift")
    current_method: str | None = Field(default=None, description="how the current was measured: screen, Faraday cup")
    current_measured_at: AwareDatetime | None = None
    current_uncertainty_fraction: float | None = Field(default=None, ge=0)
    clocks: dict[str, ClockOffset] = Field(default_factory=dict, description="by device")


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
    axes: dict[str, AxisReading] = Field(default_factory=dict, description="those no other field holds, or just set")
    column: ColumnState | None = Field(default=None, description="None: this instrument tells nothing of its column")
    calibrations: tuple[str, ...] = Field(default=(), description="ids of the calibrations in use")

    @property
    def is_dark(self) -> bool:
        """Whether the beam was read back as blanked; an instrument that cannot tell counts as lit."""
        return self.beam_blanked and "beam_blanked" not in self.undetermined

    def with_readings(self, values: Mapping[str, AxisValue], capabilities: Capabilities) -> MicroscopeState:
        """This state with the axes that were just set: asked for, read back, and how far these may differ."""
        readings = dict(self.axes)
        for name, value in values.items():
            axis = capabilities.axis(name)
            tolerance = axis.allowed_error if axis else 0.0
            readings[name] = AxisReading(requested=value, read_back=self.axis_value(name), tolerance=tolerance)
        return self.model_copy(update={"axes": readings})

    def axis_value(self, name: str) -> AxisValue | None:
        """What this axis was read back at; None where it is not known."""
        if (reading := self.axes.get(name)) is not None:
            return reading.read_back
        group = _GROUPS.get(name)
        if group is None or any(field.rpartition(".")[2] in (name, group) for field in self.undetermined):
            return None
        if group == "stage":
            return getattr(self.stage, name)
        if group == "":
            return getattr(self, name)
        return getattr(self.optics if name in Optics.model_fields else self.optics.aberrations, name)

    def all_axes(self) -> dict[str, AxisValue | None]:
        """Every axis that was read back, by name; None where the instrument cannot tell."""
        unknown = {field.rpartition(".")[2] for field in self.undetermined}
        values: dict[str, AxisValue | None] = {
            "beam_shift_x_nm": self.beam_shift_x_nm,
            "beam_shift_y_nm": self.beam_shift_y_nm,
        }
        for group, numbers in (("stage", self.stage), ("optics", self.optics), ("optics", self.optics.aberrations)):
            values |= {name: None if group in unknown else value for name, value in numbers if name != "aberrations"}
        values |= {name: None for name in values if name in unknown}
        return values | {name: reading.read_back for name, reading in self.axes.items()}


def unsound(error: ValidationError) -> InstrumentFault:
    """The fault of an instrument that reads back what is no state, such as a stage at no finite number."""
    faults = (f"{'.'.join(map(str, one['loc']))} {one['input']!r:.40}" for one in error.errors())
    return InstrumentFault(f"what was read back is no state: {', '.join(faults)}; look at the instrument")
