"""What a light microscope under Micro-Manager is configured with; `micromanager` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from instruments.errors import ConfigurationError
from instruments.models import Record


class MicroManagerConfig(Record):
    """A Python with pymmcore-plus in it, a configuration file of Micro-Manager, and how far things may go.

    Micro-Manager reports no limits of stages, so those here are what the adapter refuses by; the facility sets them.
    """

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

    @classmethod
    def checked(cls, config: dict[str, Any]) -> Self:
        """The configuration. Raises ConfigurationError with every fault at once, each with its key and value."""
        try:
            checked = cls.model_validate(config)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc']))} = {one.get('input')!r}: {one['msg']}" for one in error.errors()
            )
            raise ConfigurationError(f"micromanager configuration: {faults}") from error
        if checked.demo == (checked.file is not None):
            raise ConfigurationError("micromanager configuration: give `file`, or `demo = true`, and not both")
        return checked
