"""What is configured alike of a maker's library that moves a stage and scans: `pyjem_config` and `autoscript_config`.

Where its process runs, how far the stage may go and which way its numbers go, how long the beam is on, how long answers
take. Neighbour: `far_device`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from instruments.adapters.adapter_config import AdapterConfig
from instruments.adapters.far_device import DeviceServer, place_of
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis
from instruments.workers import Program

StageAxis = Literal["x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg"]
_TOLERANCES: Final[dict[str, float]] = {"x_nm": 50.0, "y_nm": 50.0, "z_nm": 100.0, "alpha_deg": 0.1, "beta_deg": 0.1}


class MakersConfig(AdapterConfig):
    """Base of both; the signs say which way the stage goes against the house's, as measured at the microscope."""

    python: Path | None = Field(default=None, description="on this computer, with the library; or `device_server`")
    device_server: DeviceServer | None = Field(default=None, description="on the microscope's computer")
    path: tuple[str, ...] = Field(default=(), description="folders in which that Python looks for the library besides")
    limits: dict[StageAxis, tuple[float, float]] = Field(default_factory=dict)
    tolerances: dict[StageAxis, float] = Field(default_factory=dict)
    stage_signs: tuple[Literal[-1, 1], Literal[-1, 1]] = (1, 1)
    max_scan_s: float = Field(default=10.0, gt=0, le=600, description="of one scan, or one camera's exposure")
    beam_overhead_s: float = Field(default=1.0, ge=0, le=60, description="beam on beyond the dwell times, at most")
    least_duration_fraction: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="an image sooner than this part of its dwell times is none; 0: not asked",
    )
    stops_a_scan: bool = Field(default=False, description="it was seen that a blank in a scan takes effect at once")
    beam_energy_ev: float = Field(gt=0, le=5e6)
    semi_convergence_angle_mrad: float = Field(ge=0, le=200)
    settle_s: float = Field(default=1.0, ge=0, le=600, description="the slowest move over the whole range")
    answer_s: float = Field(default=5.0, gt=0, le=60)
    start_s: float = Field(default=60.0, gt=0, le=3600)

    def program(self, device: Path, opening: dict[str, Any]) -> Program:
        """What its worker runs, here or on the microscope's computer. Raises ConfigurationError for both or neither."""
        name, place = self.adapter_name, place_of(self.adapter_name, self.python, self.device_server)
        return Program(name=name, python=place, file=device, config=opening, start_s=self.start_s)

    def sign(self, axis: str) -> int:
        """Ours for the library's +, of the stage's axes."""
        return {"x_nm": self.stage_signs[0], "y_nm": self.stage_signs[1]}.get(axis, 1)

    def tolerance(self, axis: str) -> float:
        """How far a stage axis may be read beside where it was sent."""
        return {str(name): value for name, value in self.tolerances.items()}.get(axis, _TOLERANCES[axis])

    def stage_axis(self, name: str, low: float, high: float) -> Axis:
        """An axis of the stage that may go so far."""
        return Axis(
            name=name,
            minimum=low,
            maximum=high,
            settle_s=self.settle_s,
            tolerance=self.tolerance(name),
            frame=KNOWN_AXES[name].frame,
        )

    @property
    def stop_latency_s(self) -> float:
        """For a stop to take effect: at once where that was seen, else after the scan."""
        return self.answer_s if self.stops_a_scan else self.max_scan_s + self.beam_overhead_s + self.answer_s
