"""What a Nion instrument is configured with; `nion` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from instruments.adapters.adapter_config import AdapterConfig
from instruments.models import Record

Sign = Literal[-1, 1]


class CameraConfig(Record):
    """A camera of Nion Swift, and what its frames look like with its own settings (binning)."""

    source: str = Field(min_length=1, description="hardware source id in Nion Swift")
    kind: Literal["ronchigram", "eels"]
    shape_px: tuple[int, int] = Field(description="(rows, columns) as it delivers them")
    counts_per_electron: float | None = Field(default=None, gt=0)
    max_exposure_s: float = Field(default=10.0, gt=0, le=600)


_USIM_CAMERAS = {
    "ronchigram": CameraConfig(
        source="usim_ronchigram_camera", kind="ronchigram", shape_px=(1024, 1024), counts_per_electron=40
    ),
    "eels": CameraConfig(source="usim_eels_camera", kind="eels", shape_px=(128, 512), counts_per_electron=40),
}


class NionConfig(AdapterConfig):
    """A Python with Nion Swift in it, what of its hardware is used, and how far it may go.

    Nion Swift reports no limits, so those here are what the adapter refuses by; the facility sets them. The signs say
    which way an axis of Nion's goes against the house's: a stage move and a beam shift of +x both bring a point further
    along +x under the beam. Those given hold for the simulator; at a microscope they are measured.
    """

    adapter_name = "nion"

    python: Path
    usim: bool = Field(default=False, description="start nionswift-usim's simulated instrument there")
    sample_index: int = Field(default=0, ge=0, le=2, description="of the simulated samples")
    plugins: tuple[str, ...] = Field(
        default=(), description="modules there whose run() registers the instrument, scan and cameras"
    )
    scan: str = "usim_scan_device"
    channels: dict[str, str] = Field(
        default={"haadf": "HAADF", "maadf": "MAADF"}, min_length=1, description="detector -> channel of the scan"
    )
    scan_mode: str = "haadf"
    cameras: dict[str, CameraConfig] = Field(default=_USIM_CAMERAS, description="mode and detector -> camera")
    controls: dict[str, float] = Field(
        default_factory=dict, description="Nion's controls (SI) set once, whenever it is opened, as EHT"
    )
    max_stage_nm: float = Field(default=450.0, gt=0, le=1e6)
    max_beam_shift_nm: float = Field(default=100.0, gt=0, le=1e5)
    max_defocus_nm: float = Field(default=2000.0, gt=0, le=1e5)
    max_c12_nm: float = Field(default=500.0, ge=0, le=1e5)
    max_c30_nm: float = Field(default=1e5, ge=0, le=1e7)
    max_current_pa: float = Field(default=200.0, gt=0, le=1e5)
    min_field_of_view_nm: float = Field(default=2.0, gt=0)
    max_field_of_view_nm: float = Field(default=1000.0, gt=0, le=1e6)
    max_dwell_us: float = Field(default=1000.0, gt=0, le=5000)
    max_shape_px: int = Field(default=2048, ge=16, le=8192)
    stage_signs: tuple[Sign, Sign] = (-1, -1)
    beam_shift_signs: tuple[Sign, Sign] = (1, 1)
    settle_s: float = Field(default=0.0, ge=0, le=60, description="after a stage move")
    stop_latency_s: float = Field(default=2.0, gt=0, le=60)
    start_s: float = Field(default=120.0, gt=0, le=3600)
