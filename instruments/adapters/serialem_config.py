"""What a microscope behind SerialEM is configured with, and the capabilities that follow; `serialem` opens it."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis, Capabilities, Detector, Mode

CommandName = Literal[
    "TiltTo", "Record", "MoveStageTo", "ReportStageXYZ", "ReportTiltAngle", "ReportHighVoltage", "SetExposure",
    "SetBeamBlank",
]  # fmt: skip
AxisName = Literal["x_nm", "y_nm", "z_nm", "alpha_deg"]


class SerialEMConfig(AdapterConfig):
    """Where SerialEM listens, what the facility allows, and its camera as the Record set is arranged there."""

    adapter_name = "serialem"

    host: str = "127.0.0.1"
    port: int = Field(default=48_888, ge=1, le=65_535)
    command_numbers: dict[CommandName, int] = Field(description="place in this SerialEM's MacroMasterList.h, from 0")
    limits: dict[AxisName, tuple[float, float]] = Field(default_factory=dict)
    tolerances: dict[AxisName, float] = Field(default_factory=dict)
    shape_px: tuple[int, int]
    pixel_size_nm: float = Field(gt=0, le=1e6)
    first_row_is_top: bool = Field(default=True, description="measured by registration: the kit says if it is wrong")
    min_exposure_s: float = Field(default=0.01, gt=0)
    max_exposure_s: float = Field(default=1.0, gt=0, le=600, description="it cannot be interrupted")
    readout_s: float = Field(default=5.0, gt=0, le=600)
    beam_overhead_s: float = Field(
        default=1.0, ge=0, le=60, description="beam on beyond the exposure, at most: measure"
    )
    probe_current_pa: float = Field(ge=0, le=1e6, description="declared: doses follow from it")
    beam_energy_ev: float = Field(gt=0, le=5e6)
    semi_convergence_angle_mrad: float = Field(default=0.0, ge=0, le=200)
    answer_s: float = Field(default=5.0, gt=0, le=60)
    settle_s: float = Field(default=1.0, ge=0, le=600, description="the slowest move over the whole range")

    @field_validator("command_numbers")
    @classmethod
    def _all_of_them(cls, numbers: dict[CommandName, int]) -> dict[CommandName, int]:
        if missing := [name for name in get_args(CommandName) if name not in numbers]:
            raise ValueError(f"no number of {', '.join(missing)}; count it in MacroMasterList.h")
        if len(set(numbers.values())) < len(numbers) or min(numbers.values()) < 0:
            raise ValueError("two commands cannot have one number, and none is below 0")
        return numbers

    @field_validator("limits")
    @classmethod
    def _ordered(cls, limits: dict[AxisName, tuple[float, float]]) -> dict[AxisName, tuple[float, float]]:
        if wrong := [name for name, (low, high) in limits.items() if low >= high]:
            raise ValueError(f"limits of {', '.join(wrong)} are not in order; swap them")
        return limits


def capabilities_of(config: SerialEMConfig) -> Capabilities:
    """The card: an axis without limits cannot be set."""
    stage = [
        Axis(
            name=name,
            minimum=low,
            maximum=high,
            settle_s=config.settle_s,
            tolerance=config.tolerances.get(name, 0.1 if name == "alpha_deg" else 50.0),
            frame=KNOWN_AXES[name].frame,
        )
        for name, (low, high) in config.limits.items()
    ]
    width_nm = config.pixel_size_nm * config.shape_px[1]
    ranges = {
        "beam_energy_ev": (config.beam_energy_ev, config.beam_energy_ev),
        "semi_convergence_angle_mrad": (config.semi_convergence_angle_mrad, config.semi_convergence_angle_mrad),
        "probe_current_pa": (config.probe_current_pa, config.probe_current_pa),
        "field_of_view_nm": (width_nm * 0.999, width_nm * 1.001),
        "pixel_size_nm": (config.pixel_size_nm * 0.999, config.pixel_size_nm * 1.001),
        "dwell_time_us": (config.min_exposure_s * 1e6, config.max_exposure_s * 1e6),
        "subframe_count": (1.0, 64.0),
    }
    camera = Detector(
        name="record", shape_px=config.shape_px, without_references="SerialEM keeps its references to itself"
    )
    return Capabilities(
        name="serialem",
        simulated=False,
        axes=(*stage, *(Axis(name=name, minimum=low, maximum=high) for name, (low, high) in ranges.items())),
        modes=(Mode(name="record", kind="tem_image", detectors=(camera,)),),
        can_interrupt=False,
        stop_latency_s=config.max_exposure_s + config.readout_s + 2 * config.answer_s,
        blanker_settle_s=config.beam_overhead_s,
        reports_dose=False,
        reports_limits=False,
        quirks=(
            "commands go by numbers of a version's list: only those that read are tried at opening",
            "SerialEM serves one client and cannot be interrupted in a command: a stop waits for it",
            "SerialEM does not report its blanker: what is said of it was sent",
            "current and convergence are declared, so doses are nominal",
        ),
    )
