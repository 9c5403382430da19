"""One exposure as it came back: raw counts and the complete context that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instruments.capabilities import Mode
from instruments.commands import AcquireFrame
from instruments.state import MicroscopeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Raw counts by detector, (sub-frames, rows, columns) unsigned integers, and what made them.

    For spectrum points the arrays are (sub-frames, rows, columns) counts of one line each. `requested` is the command,
    `state` what was read back at the end of the exposure; `dose_e_per_a2` is the mean dose of the scanned area in this
    frame, `electrons` everything that left the gun on to the specimen for it (flyback and blanker settling included).
    """

    action_id: str
    requested: AcquireFrame
    state: MicroscopeState
    mode: Mode
    counts: dict[str, np.ndarray]
    pixel_size_nm: float
    dose_e_per_a2: float
    electrons: float
    started_s: float
    ended_s: float
    instrument: str
    simulated: bool
    context: dict[str, Any] = field(default_factory=dict)

    def total(self, detector: str) -> np.ndarray:
        """Counts of all sub-frames together, (rows, columns), int64."""
        return self.counts[detector].sum(axis=0, dtype=np.int64)

    @property
    def instrument_time_s(self) -> float:
        """Microscope time this frame took, moves and settling included."""
        return self.ended_s - self.started_s
