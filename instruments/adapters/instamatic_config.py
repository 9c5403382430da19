"""What a microscope behind an instamatic server is configured with; `instamatic` opens it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.models import Record
from instruments.transforms import Matrix

DeflectorName = Literal["beam_shift", "image_shift", "tilt", "descan"]
LARGEST_COUNT = 65_535


class Deflector(Record):
    """A pair of coils as calibrated: (x, y) in nm (tilt and descan: mrad) = matrix @ (counts - zero)."""

    matrix: Matrix
    zero_count: tuple[float, float] = (32_768.0, 32_768.0)

    @model_validator(mode="after")
    def _invertible(self) -> Self:
        (a, b), (c, d) = self.matrix
        if a * d == b * c:
            raise ValueError(f"matrix {self.matrix} loses a direction; calibrate it again")
        return self


class InstamaticConfig(AdapterConfig):
    """Where the server is, what the facility allows, what was calibrated.

    The server has no limits of its own: an axis that `limits` does not name cannot be set. Deflectors are set in counts
    there, so one needs its calibration as well.
    """

    adapter_name = "instamatic"

    host: str = "127.0.0.1"
    port: int = Field(default=8088, ge=1, le=65_535)
    limits: dict[str, tuple[float, float]] = Field(default_factory=dict)
    tolerances: dict[str, float] = Field(default_factory=dict, description="how far a read-back may be off, by axis")
    deflectors: dict[DeflectorName, Deflector] = Field(default_factory=dict)
    stage_rate_nm_per_s: float = Field(default=1e5, gt=0, description="the slowest of x, y and z")
    tilt_rate_deg_per_s: float = Field(default=1.0, gt=0)
    answer_s: float = Field(default=2.0, gt=0, description="for any answer: no call waits for a move")
    simulated: bool = Field(default=False, description="instamatic's simulator; its server does not say")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        wrong = [f"{name} {low:g} to {high:g}" for name, (low, high) in self.limits.items() if low >= high]
        if wrong:
            raise ValueError(f"limits {', '.join(wrong)} are not in order; swap them")
        return self
