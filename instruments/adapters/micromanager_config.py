"""What a light microscope under Micro-Manager is configured with; `micromanager` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig


class MicroManagerConfig(AdapterConfig):
    """A Python with pymmcore-plus in it, a configuration file of Micro-Manager, and how far things may go.

    Micro-Manager reports no limits of stages, so those here are what the adapter refuses by; the facility sets them.
    """

    adapter_name = "micromanager"

    python: Path
    demo: bool = Field(default=False, description="Micro-Manager's demonstration devices instead of a file")
    file: Path | None = Field(default=None, description="Micro-Manager's configuration file (.cfg)")
    properties: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="device -> property -> value, set once, whenever it is opened"
    )
    pixel_size_nm: float | None = Field(
        default=None, gt=0, le=1e6, description="in the specimen's plane; None: what Micro-Manager is calibrated for"
    )
    max_stage_nm: float = Field(default=1e6, gt=0, le=1e8)
    max_height_nm: float = Field(default=1e5, gt=0, le=1e7)
    stage_resolution_nm: float = Field(default=15.0, ge=0, le=1e5, description="its step")
    min_exposure_s: float = Field(default=1e-3, gt=0, le=60)
    max_exposure_s: float = Field(default=1.0, gt=0, le=60, description="of one image; it cannot be interrupted")
    motion_s: float = Field(default=10.0, gt=0, le=600, description="the longest a move may take")
    start_s: float = Field(default=120.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.demo == (self.file is not None):
            raise ValueError("give `file`, or `demo = true`, and not both")
        return self
