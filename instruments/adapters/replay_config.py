"""What a replay is configured with; `replay` opens it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from instruments.adapters.adapter_config import AdapterConfig


class ReplayConfig(AdapterConfig):
    """A recorded spectrum image and how it is given back.

    `full_dwell_time_us` is the dwell of one recorded point: to ask for it is to get every count of the measured part.
    `survey_dwell_time_us` is that of a point of the survey image, which is given for this dwell and no other; what the
    file says must agree, and 1 us is assumed where nobody says it. `nominal_current_pa` is declared, the file does not
    hold it; electrons and doses of a replay follow from it.
    """

    adapter_name = "replay"

    file: Path
    lines: tuple[str, ...] = Field(default=(), description="X-ray lines to read, such as Fe_Ka; empty: all of the file")
    full_dwell_time_us: float = Field(gt=0, le=1e9)
    survey_dwell_time_us: float | None = Field(default=None, gt=0, le=1e9, description="None: the file's, else 1 us")
    nominal_current_pa: float = Field(gt=0, le=1e6)
    beam_energy_ev: float = Field(default=200e3, gt=0, le=5e6)
    bin_px: int = Field(default=1, ge=1, le=4096, description="recorded points summed a side when the file is opened")
    measured_fraction: float = Field(default=0.5, gt=0, lt=1, description="of every count; the rest is held out")
    settle_s: float = Field(default=0.05, ge=0, le=1e3, description="after each change of the beam shift")
    seed: int = Field(default=0, ge=0)

    @field_validator("lines")
    @classmethod
    def _distinct(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({line for line in lines if lines.count(line) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}; name each line once")
        return lines
