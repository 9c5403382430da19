"""What a microscope behind a temscript server is configured with; `temscript` opens it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.models import Record
from instruments.transforms import Matrix

VectorName = Literal["beam_shift", "image_shift", "beam_tilt", "diffraction_shift"]


class CameraConfig(Record):
    """A camera as calibrated: the mode of its name exposes it, NAME_diffraction a pattern.

    `pixel_size_nm` is at the specimen, without binning.
    """

    pixel_size_nm: dict[int, float] = Field(min_length=1, description="magnification index -> nm")
    camera_lengths_mm: dict[int, float] = Field(
        default_factory=dict, description="magnification index in diffraction -> mm; empty: no diffraction patterns"
    )
    selected_area_nm: float | None = Field(default=None, gt=0, description="width of the area that diffracts")
    gain_counts_per_electron: float | None = Field(default=None, gt=0, description="None: not known")
    added_counts: int = Field(default=0, ge=0, le=65_535, description="added where it gives counts below zero")
    dark_reference: str = ""
    gain_reference: str = ""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for key, table in (("pixel_size_nm", self.pixel_size_nm), ("camera_lengths_mm", self.camera_lengths_mm)):
            wrong = {index: size for index, size in table.items() if size <= 0 or index < 0}
            if wrong:
                raise ValueError(f"{key} {wrong} must be positive, for indices from 0")
        if bool(self.camera_lengths_mm) != (self.selected_area_nm is not None):
            raise ValueError("camera_lengths_mm and selected_area_nm belong together; give both or neither")
        return self


class StemConfig(Record):
    """The scan as calibrated: width of the full raster times the magnification it is indicated at."""

    field_at_magnification_one_nm: float = Field(gt=0)
    full_px: int = Field(default=2048, ge=1, description="pixels a side without binning")
    binnings: tuple[int, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    detectors: tuple[str, ...] = Field(default=(), description="read together; empty: all the server has")
    min_field_nm: float = Field(default=1.0, gt=0)
    max_field_nm: float = Field(default=10_000.0, gt=0)
    max_dwell_us: float = Field(default=100.0, gt=0)
    flyback_time_us: float = Field(default=0.0, ge=0)
    added_counts: int = Field(default=0, ge=0, le=65_535)


class TemscriptConfig(AdapterConfig):
    """Where the server is, what the facility allows, what was calibrated.

    An axis outside `limits` cannot be set, but for the stage, whose limits the server reports: those given here narrow
    them. `probe_current_pa` is declared, for the server cannot set a current: doses follow from it.
    """

    adapter_name = "temscript"

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65_535)
    probe_current_pa: float = Field(gt=0, le=1e6)
    current_uncertainty_fraction: float = Field(default=0.1, ge=0, le=10)
    limits: dict[str, tuple[float, float]] = Field(default_factory=dict)
    tolerances: dict[str, float] = Field(default_factory=dict, description="how far a read-back may be off, by axis")
    cameras: dict[str, CameraConfig] = Field(default_factory=dict)
    stem: StemConfig | None = None
    matrices: dict[VectorName, Matrix] = Field(
        default_factory=dict, description="what the server calls a vector -> the same along +x and +y of the stage"
    )
    calibration_id: str = Field(default="", description="of the matrices and pixel sizes")
    defocus_of: Literal["defocus", "probe_defocus"] = "defocus"
    min_exposure_s: float = Field(default=0.001, gt=0)
    max_exposure_s: float = Field(default=1.0, gt=0, le=3600, description="of one sub-frame: it cannot be interrupted")
    readout_s: float = Field(default=2.0, gt=0, description="after an exposure until its counts are here, at most")
    beam_overhead_s: float = Field(
        default=2.0, ge=0, description="for which the beam is on beyond the exposure, at most: blanker, read-out"
    )
    stage_settle_s: float = Field(default=0.0, ge=0)
    stage_move_s: float = Field(default=60.0, gt=0, description="for the longest move")
    answer_s: float = Field(default=5.0, gt=0, description="for any other answer")
    may_open_valves: bool = Field(default=False, description="the facility's envelope must permit it as well")
    frames_kept: int = Field(default=4, ge=1, le=64, description="given again for the same action")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        wrong = [f"{name} {low:g} to {high:g}" for name, (low, high) in self.limits.items() if low >= high]
        if wrong:
            raise ValueError(f"limits {', '.join(wrong)} are not in order; swap them")
        if self.min_exposure_s >= self.max_exposure_s:
            raise ValueError(f"min_exposure_s {self.min_exposure_s:g} is not below max_exposure_s")
        return self

    @property
    def stop_latency_s(self) -> float:
        """The server does one thing after another: a blank waits for the exposure before it."""
        return self.max_exposure_s + self.readout_s
