"""What an instrument made of Tango devices is configured with; `tango_devices` opens it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.models import Record


class AttributeConfig(Record):
    """An attribute that is an axis: house value = factor * (attribute - zero).

    Limits are in house units. Those that the device itself gives its attribute hold besides: the narrower ones count.
    """

    device: str = Field(min_length=1, description="as Tango names it, with TANGO_HOST or tango://host:port/...")
    attribute: str = Field(min_length=1)
    factor: float = Field(default=1.0, allow_inf_nan=False)
    zero: float = Field(default=0.0, allow_inf_nan=False)
    minimum: float | None = None
    maximum: float | None = None
    tolerance: float = Field(ge=0, description="how far the value read back may be off")
    settle_s: float = Field(default=0.0, ge=0, le=600)
    rate_per_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _invertible(self) -> Self:
        if self.factor == 0:
            raise ValueError("factor 0 loses the value; give what one unit of the attribute is")
        return self


class BlankerConfig(Record):
    """The attribute that takes the beam off the specimen, and its value then."""

    device: str = Field(min_length=1)
    attribute: str = Field(min_length=1)
    blanked: bool | int | float | str = True
    unblanked: bool | int | float | str = False


class CameraDevice(Record):
    """A camera: exposure is set, a command starts it, its State says when it is done, then the image is read."""

    device: str = Field(min_length=1)
    exposure: str = Field(min_length=1, description="attribute")
    exposure_unit_s: float = Field(default=1.0, gt=0)
    start: str = Field(min_length=1, description="command")
    stop: str = Field(min_length=1, description="command that ends an exposure")
    image: str = Field(min_length=1, description="attribute, (rows, columns) of unsigned integers")
    counter: str = Field(default="", description="attribute that counts images; empty: an old one cannot be told apart")
    shape_px: tuple[int, int]
    pixel_size_nm: float = Field(gt=0, le=1e6)
    min_exposure_s: float = Field(default=0.001, gt=0)
    max_exposure_s: float = Field(default=1.0, gt=0, le=3600)
    readout_s: float = Field(default=1.0, gt=0, le=600, description="at most, after the exposure")
    gain_counts_per_electron: float | None = Field(default=None, gt=0)


class TangoConfig(AdapterConfig):
    """Devices, what they are here, and what the facility allows."""

    adapter_name = "tango"

    axes: dict[str, AttributeConfig] = Field(default_factory=dict, description="by the house's name")
    blanker: BlankerConfig
    cameras: dict[str, CameraDevice] = Field(default_factory=dict, description="by mode")
    stop_commands: dict[str, str] = Field(default_factory=dict, description="device -> command that ends its motion")
    probe_current_pa: float = Field(ge=0, le=1e6, description="declared: doses follow from it")
    beam_energy_ev: float = Field(gt=0, le=5e6)
    semi_convergence_angle_mrad: float = Field(default=0.0, ge=0, le=200)
    beam_overhead_s: float = Field(
        default=0.2, ge=0, le=60, description="beam on beyond the exposure, at most: measure"
    )
    answer_s: float = Field(default=2.0, gt=0, le=60, description="for any answer but an image")
    simulated: bool = False
