"""What a facility writes about its ophyd devices: which signal is which axis, in which unit, between which limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.capabilities import Detector, Mode
from instruments.errors import ConfigurationError
from instruments.models import Record

DeviceValue = float | int | str


class AxisConfig(Record):
    """One axis: `device value = house value * scale + offset`, or `fixed` for what no signal sets.

    Paths lead from the root of the device tree: `stage.x`, `detectors.0.exposure`.
    """

    signal: str | None = Field(default=None, description="path of what is set; None: see `fixed`, or only read")
    readback: str | None = Field(default=None, description="path of what is read; None: the signal itself")
    fixed: float | None = Field(default=None, description="declared by the facility, neither set nor read")
    scale: float = Field(default=1.0, description="device units in one unit of the axis' name; negative turns it round")
    offset: float = Field(default=0.0, description="device value at 0")
    minimum: float | None = Field(default=None, description="the facility's limit; the device's own holds besides")
    maximum: float | None = None
    resolution: float = Field(default=0.0, ge=0)
    tolerance: float | None = Field(default=None, ge=0, description="how far the read-back may be off")
    settle_s: float = Field(default=0.0, ge=0, description="waited after each setting")
    rate_per_s: float | None = Field(default=None, gt=0)
    choices: dict[str, DeviceValue] = Field(default_factory=dict, description="word -> value of the device")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.fixed is None) == (self.signal is None and self.readback is None):
            raise ValueError("give either fixed, or signal (and readback), or readback alone for what is only read")
        if self.scale == 0:
            raise ValueError("scale 0 would send the same value for everything; give device units per unit of the name")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is not below maximum {self.maximum:g}; swap them")
        return self

    @property
    def read_path(self) -> str | None:
        """Where the axis is read."""
        return self.readback or self.signal

    def to_device(self, value: float | str) -> DeviceValue:
        """What is sent for a house value (one of the choices, or a number)."""
        if isinstance(value, str):
            return self.choices[value]
        return value * self.scale + self.offset

    def to_house(self, value: DeviceValue) -> float | str:
        """What the axis stands at when the device says this. Raises ConfigurationError for what is no choice."""
        if self.choices:
            for word, device_value in self.choices.items():
                if value == device_value:
                    return word
            raise ConfigurationError(f"the device says {value!r}, which is none of the choices {self.choices}; add it")
        return (float(value) - self.offset) / self.scale


class BlankerConfig(Record):
    """The signal that takes the beam off the specimen, and its two values."""

    signal: str
    readback: str | None = None
    blanked: DeviceValue = 1
    unblanked: DeviceValue = 0


class StopAction(Record):
    """Done by `stop` after blanking: `value` is put to `signal`, or the device there is told to stop."""

    signal: str
    value: DeviceValue | None = Field(default=None, description="None: a device with a stop of its own, as a motor")


class ScanAxis(AxisConfig):
    """Rows or columns of a frame: set through a signal, or `fixed`."""


class ModeConfig(Record):
    """How one mode is exposed: what is triggered, and where each detector's counts are read after it."""

    kind: Literal["stem", "4d_stem", "eels", "eds", "ronchigram", "tem_image", "tem_diffraction", "camera"] = "stem"
    camera_length_mm: float | None = None
    trigger: str = Field(description="path of a detector device, or of a signal that `trigger_value` is put to")
    trigger_value: DeviceValue | None = None
    frame_counter: str | None = Field(default=None, description="path of a number that changes with each new image")
    images: dict[str, str] = Field(min_length=1, description="detector -> path of its counts")
    detectors: tuple[Detector, ...]
    dtype: Literal["uint8", "uint16", "uint32", "uint64"] = "uint32"

    @model_validator(mode="after")
    def _each_has_its_image(self) -> Self:
        names = [detector.name for detector in self.detectors]
        if sorted(names) != sorted(self.images):
            raise ValueError(f"detectors {', '.join(names)} and images {', '.join(self.images)} name different things")
        return self

    def as_mode(self, name: str) -> Mode:
        """As capabilities list it."""
        return Mode(name=name, kind=self.kind, camera_length_mm=self.camera_length_mm, detectors=self.detectors)


class OphydConfig(AdapterConfig):
    """An ophyd or ophyd-async device tree as an instrument."""

    adapter_name = "ophyd"

    devices: str = Field(pattern=r"^[\w.]+:\w+$", description="`module:function`; the function returns the tree's root")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keywords of that function")
    path: tuple[Path, ...] = Field(default=(), description="folders from which the devices' process imports besides")
    python: Path | None = Field(default=None, description="interpreter of that process; None: this one")
    environment: dict[str, str] = Field(default_factory=dict, description="of that process, as EPICS_CA_ADDR_LIST")
    label: str = Field(default="ophyd", min_length=1, description="what frames and messages call it")
    simulated: bool = False
    has_beam: bool = True
    axes: dict[str, AxisConfig] = Field(default_factory=dict)
    rows: ScanAxis = ScanAxis(fixed=1)
    columns: ScanAxis = ScanAxis(fixed=1)
    measured_current_pa: AxisConfig | None = Field(default=None, description="read during an exposure's end")
    blanker: BlankerConfig | None = None
    stop: tuple[StopAction, ...] = ()
    stop_line: Literal["own", "shared"] = Field(
        default="own", description="own: a second process with its own connections; shared: devices that live in one"
    )
    modes: dict[str, ModeConfig] = Field(min_length=1)
    connect_s: float = Field(default=15.0, gt=0, description="from the start of a process until all is connected")
    answer_s: float = Field(default=5.0, gt=0, description="longest wait for a device to answer a read")
    set_s: float = Field(default=60.0, gt=0, description="longest wait for axes to arrive")
    stop_latency_s: float = Field(default=1.0, gt=0)
    can_interrupt: bool = True
    blanker_settle_s: float = Field(default=0.05, ge=0, description="beam on before and after the scan, at most")
    current_uncertainty_fraction: float = Field(default=0.1, ge=0)
    flyback_exposes: bool = True
    quirks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_made_dark(self) -> Self:
        if self.has_beam and self.blanker is None:
            raise ValueError("an instrument with a beam needs a blanker; name its signal, or say has_beam = false")
        if self.has_beam:
            needed = ("beam_energy_ev", "semi_convergence_angle_mrad", "probe_current_pa")
            if missing := [name for name in needed if name not in self.axes]:
                raise ValueError(f"axes lacks {', '.join(missing)}; give a signal, or fixed with the facility's value")
        for name in ("field_of_view_nm", "dwell_time_us"):
            if name not in self.axes:
                raise ValueError(f"axes lacks {name}; give a signal, or fixed")
        return self

    def paths(self) -> set[str]:
        """Every path of the tree that is used."""
        parts = [*self.axes.values(), self.rows, self.columns]
        parts += [self.measured_current_pa] if self.measured_current_pa else []
        found = {path for part in parts for path in (part.signal, part.read_path) if path}
        found |= {action.signal for action in self.stop}
        if self.blanker:
            found |= {self.blanker.signal, self.blanker.readback or self.blanker.signal}
        for mode in self.modes.values():
            found |= {mode.trigger, *mode.images.values()} | ({mode.frame_counter} if mode.frame_counter else set())
        return found

    def stop_paths(self) -> set[str]:
        """Those that a stop needs."""
        return {self.blanker.signal, self.blanker.readback or self.blanker.signal} if self.blanker else set()
