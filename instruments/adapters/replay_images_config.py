"""What a replay of recorded images is configured with; `replay_images` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.adapter_config import AdapterConfig


class ReplayImagesConfig(AdapterConfig):
    """Which record, where its frames may be asked for, and what the file does not say and somebody else knows.

    `within`: the field asked for must lie in one recorded image, and is cut out of it at the nearest recorded pixel.
    `nearest`: the whole recorded image whose middle lies nearest is given, if that is no further than `reach_nm`; where
    it was taken is what is read back.
    """

    adapter_name = "replay"

    file: Path | None = Field(default=None, description=".dm3, .dm4, .emd or .hspy")
    image: str = Field(default="", description="which image of a file of several: the end of its name, such as :1")
    folder: Path | None = Field(default=None, description="a data folder, with `experiment`")
    experiment: str = ""
    placing: Literal["within", "nearest"] = "within"
    reach_nm: float = Field(default=0.0, ge=0, le=1e6, description="of `nearest`")
    pixel_size_nm: float | None = Field(default=None, gt=0, le=1e6)
    dwell_time_us: float | None = Field(default=None, gt=0, le=1e9, description="exposure of a pixel, all passes")
    current_pa: float | None = Field(default=None, gt=0, le=1e6)
    beam_energy_ev: float | None = Field(default=None, gt=0, le=5e6)
    gain_counts_per_electron: float | None = Field(
        default=None, gt=0, description="of values that are no counts: how much of it one electron is"
    )
    counted: bool | None = Field(default=None, description="whether a value is a number of electrons or X-rays")
    settle_s: float = Field(default=0.05, ge=0, le=1e3, description="after each move")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.folder is None):
            raise ValueError("give either `file`, or `folder` and `experiment`")
        if self.folder is not None and not self.experiment:
            raise ValueError("`folder` needs `experiment`: an experiment's id")
        if self.placing == "nearest" and self.reach_nm == 0:
            raise ValueError("`nearest` needs `reach_nm`: how far off a recorded image may lie")
        return self
