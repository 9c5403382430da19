"""What a Merlin is configured with: where it is, who scans, how it is triggered, how its pixels were calibrated."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.models import Record
from instruments.patterns import PatternGeometry

DETECTOR: Final = "merlin"
PIXEL_BYTES: Final = {1: 1, 6: 1, 12: 2, 24: 4}
"""Of the counts that are sent, by counter depth in bits."""
Trigger = Literal["internal", "rising", "falling", "software"]
TRIGGER_CODES: Final[dict[Trigger, int]] = {"internal": 0, "rising": 1, "falling": 2, "software": 5}


class ColumnConfig(Record):
    """The instrument that moves the beam: any adapter, and the scanning mode of it that runs beside the Merlin."""

    adapter: str = Field(min_length=1)
    mode: str = Field(min_length=1, description="its detectors are read as well")
    config: dict[str, Any] = Field(default_factory=dict)


class RingConfig(Record):
    """A virtual annular detector: counts of all pixels at inner <= angle < outer."""

    inner_mrad: float = Field(ge=0)
    outer_mrad: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.inner_mrad >= self.outer_mrad:
            raise ValueError(f"inner_mrad {self.inner_mrad:g} is not below outer_mrad {self.outer_mrad:g}")
        return self


class MerlinConfig(AdapterConfig):
    """Without `column`, whoever sits at the microscope scans: nothing here moves, blanks or counts its beam."""

    adapter_name = "merlin"

    host: str = "127.0.0.1"
    control_port: int = Field(default=6341, ge=1, le=65_535)
    data_port: int = Field(default=6342, ge=1, le=65_535)
    column: ColumnConfig | None = None
    simulated: bool = False
    shape_px: tuple[int, int] = Field(default=(256, 256), description="(rows, columns) of the detector")
    counter_depth: Literal[1, 6, 12, 24] = Field(default=12, description="bits")
    thresholds_ev: tuple[float, ...] = Field(default=(), max_length=8, description="empty: as they are")
    trigger: Trigger = Field(default="rising", description="what starts frames")
    frames_per_trigger: Literal["frame", "line", "scan"] = "line"
    gap_us: float = Field(default=0.0, ge=0, description="of a dwell, in which nothing is counted; 0: continuous")
    min_dwell_us: float = Field(default=50.0, gt=0)
    max_dwell_us: float = Field(default=1e6, gt=0)
    exposure_tolerance_fraction: float = Field(default=0.01, ge=0, le=1, description="of what a frame's header says")
    geometry: PatternGeometry | None = Field(default=None, description="calibrated at the camera length in use")
    calibration_id: str = ""
    camera_length_mm: float | None = Field(default=None, gt=0)
    rings: dict[str, RingConfig] = Field(default_factory=dict, description="virtual detectors of mode `virtual`")
    gain_counts_per_electron: float | None = Field(default=None, gt=0, description="None: not known")
    first_frame_s: float = Field(default=10.0, gt=0, description="from armed to the first frame, at most")
    settle_s: float = Field(
        default=0.5, ge=0, description="from a new data line until it is known that nobody else's is left"
    )
    answer_s: float = Field(default=2.0, gt=0, description="for any answer, and for a frame beyond its time")
    max_bytes: int = Field(default=4 << 30, gt=0, description="of one exposure's patterns in memory")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.rings and self.geometry is None:
            raise ValueError("rings are angles: give the geometry as calibrated")
        if self.geometry is not None and self.geometry.shape_px != self.shape_px:
            raise ValueError(f"geometry is of {self.geometry.shape_px} px, the detector of {self.shape_px}")
        if self.gap_us >= self.min_dwell_us:
            raise ValueError(f"gap_us {self.gap_us:g} leaves nothing of min_dwell_us {self.min_dwell_us:g}")
        if DETECTOR in self.rings:
            raise ValueError(f"a ring called {DETECTOR!r} would hide the detector itself; choose another name")
        if min(self.shape_px) < 1 or self.min_dwell_us > self.max_dwell_us:
            raise ValueError("shape_px must be positive, and min_dwell_us not above max_dwell_us")
        if self.geometry is not None:
            empty = [
                name for name, one in self.rings.items() if not self.geometry.ring(one.inner_mrad, one.outer_mrad).any()
            ]
            if empty:
                raise ValueError(f"no pixel lies in {', '.join(empty)}; see mrad_per_px and the centre")
        return self
