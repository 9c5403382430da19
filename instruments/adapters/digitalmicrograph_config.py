"""What a microscope behind DigitalMicrograph is configured with, and the capabilities that follow.

Neighbour: `digitalmicrograph` opens it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.errors import ConfigurationError
from instruments.models import Record
from instruments.transforms import Matrix

AxisName = Literal[
    "x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg", "defocus_nm", "beam_shift_x_nm", "beam_shift_y_nm"
]  # fmt: skip
SCAN, CAMERA = "scan", "camera"
FIELD_TOLERANCE: Final = 0.005
_TOLERANCES: Final = {"_deg": 0.1, "_nm": 50.0}
_WITHOUT: Final = "DigitalMicrograph keeps its references to itself"


class ScanConfig(Record):
    """DigiScan: its signals, and the width of a square frame at each magnification index."""

    signals: dict[str, int] = Field(min_length=1, description="detector -> DigiScan's number of the signal, from 0")
    fields_nm: dict[int, float] = Field(min_length=1, description="magnification index -> width of a square frame")
    max_px: int = Field(default=4096, ge=1, le=32_768)
    min_dwell_us: float = Field(default=0.5, gt=0)
    max_dwell_us: float = Field(default=1000.0, gt=0)
    flyback_time_us: float = Field(default=0.0, ge=0, description="as it is set in DigiScan")
    max_frame_s: float = Field(default=10.0, gt=0, le=600, description="of one pass: it cannot be interrupted")
    rotation_offset_deg: float = Field(default=0.0, description="sent with every frame, so that scan +x is ours")
    line_sync: bool = False
    flip_rows: bool = Field(default=False, description="measured by registration: the kit says if it is wrong")
    flip_columns: bool = False


class CameraConfig(Record):
    """The active camera, unprocessed, its whole chip without binning."""

    shape_px: tuple[int, int]
    pixels_nm: dict[int, float] = Field(min_length=1, description="magnification index -> pixel in the specimen")
    min_exposure_s: float = Field(default=0.01, gt=0)
    max_exposure_s: float = Field(default=1.0, gt=0, le=600, description="it cannot be interrupted")
    flip_rows: bool = False
    flip_columns: bool = False


class FocusConfig(Record):
    """The maker's focus in our defocus: where it is zero, and how much a unit is."""

    zero: float = 0.0
    scale: float = Field(description="nm of defocus a unit; positive where a larger value is more underfocus")

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0:
            raise ValueError("a unit of focus cannot be 0 nm; measure it")
        return value


class BeamShiftConfig(Record):
    """The maker's beam shift in nm on the specimen: displacement = matrix @ (units - zero)."""

    zero: tuple[float, float] = (0.0, 0.0)
    matrix: Matrix

    @field_validator("matrix")
    @classmethod
    def _can_be_inverted(cls, matrix: Matrix) -> Matrix:
        if abs(np.linalg.det(np.array(matrix))) < 1e-12 * float(np.abs(matrix).max()) ** 2 or not np.any(matrix):
            raise ValueError(f"{matrix} loses a direction; measure it again")
        return matrix


class DigitalMicrographConfig(AdapterConfig):
    """Where our server in DigitalMicrograph listens, what the facility allows, and how it is calibrated."""

    adapter_name = "digitalmicrograph"

    host: str = "127.0.0.1"
    port: int = Field(default=9431, ge=1, le=65_535)
    secret_file: Path = Field(description="the same line as at the server's end, 32 characters or more")
    takes_over: bool = Field(default=False, description="hang up on an idle client: one whose computer died")
    limits: dict[AxisName, tuple[float, float]] = Field(default_factory=dict)
    tolerances: dict[AxisName, float] = Field(default_factory=dict)
    scan: ScanConfig | None = None
    camera: CameraConfig | None = None
    focus: FocusConfig | None = None
    beam_shift: BeamShiftConfig | None = None
    probe_current_pa: float = Field(ge=0, le=1e6, description="declared: doses follow from it")
    beam_energy_ev: float = Field(gt=0, le=5e6)
    semi_convergence_angle_mrad: float = Field(default=0.0, ge=0, le=200)
    beam_overhead_s: float = Field(default=0.5, ge=0, le=60, description="beam on beyond the exposure: measure")
    readout_s: float = Field(default=5.0, gt=0, le=600)
    answer_s: float = Field(default=5.0, gt=0, le=60)
    settle_s: float = Field(default=1.0, ge=0, le=600, description="the slowest move over the whole range")

    @field_validator("limits")
    @classmethod
    def _ordered(cls, limits: dict[AxisName, tuple[float, float]]) -> dict[AxisName, tuple[float, float]]:
        if wrong := [name for name, (low, high) in limits.items() if low >= high]:
            raise ValueError(f"limits of {', '.join(wrong)} are not in order; swap them")
        return limits

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.scan is None and self.camera is None:
            raise ValueError("neither scan nor camera; describe one of them")
        shifts = [name for name in self.limits if name.startswith("beam_shift")]
        if ("defocus_nm" in self.limits) != (self.focus is not None):
            raise ValueError("defocus_nm needs both its limits and a focus calibration")
        if len(shifts) != (0 if self.beam_shift is None else 2):
            raise ValueError("beam shift needs limits of both its axes and a calibration")
        return self

    def secret(self) -> str:
        """What the file holds. Raises ConfigurationError."""
        try:
            secret = self.secret_file.expanduser().read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"secret_file {self.secret_file}: {error}") from error
        if len(secret) < 32:
            raise ConfigurationError(
                f"secret_file {self.secret_file} holds {len(secret)} characters; 32 or more are needed"
            )
        return secret


def capabilities_of(config: DigitalMicrographConfig) -> Capabilities:
    """The card: an axis without limits cannot be set."""
    scan, camera = config.scan, config.camera
    longest_s = max(scan.max_frame_s if scan else 0.0, camera.max_exposure_s if camera else 0.0)
    return Capabilities(
        name="digitalmicrograph",
        simulated=False,
        axes=(*_set_axes(config), *_frame_axes(config)),
        modes=tuple(_modes(config)),
        can_interrupt=False,
        stop_latency_s=longest_s + config.readout_s + config.answer_s,
        blanker_settle_s=config.beam_overhead_s,
        reports_dose=False,
        reports_limits=False,
        quirks=(
            "whether DigitalMicrograph answers a stop during an exposure depends on it: a stop may wait for its end",
            "a stage on its way cannot be stopped by script: a stop blanks, and it goes on",
            "magnifications, current and convergence are declared, so fields and doses are nominal",
        ),
    )


def _set_axes(config: DigitalMicrographConfig) -> list[Axis]:
    return [
        Axis(
            name=name,
            minimum=low,
            maximum=high,
            settle_s=config.settle_s if KNOWN_AXES[name].frame == "stage" else 0.0,
            tolerance=config.tolerances.get(name, _tolerance(name)),
            frame=KNOWN_AXES[name].frame,
        )
        for name, (low, high) in config.limits.items()
    ]


def _tolerance(name: str) -> float:
    if KNOWN_AXES[name].frame != "stage":
        return 0.1
    return next(value for ending, value in _TOLERANCES.items() if name.endswith(ending))


def _frame_axes(config: DigitalMicrographConfig) -> list[Axis]:
    """What comes with a frame, over both modes; the driver refuses what only the other one could."""
    fields: list[float] = []
    pixels: list[float] = []
    dwells_us: list[float] = []
    flyback_us = 0.0
    if (scan := config.scan) is not None:
        fields += scan.fields_nm.values()
        fields.append(min(scan.fields_nm.values()) / scan.max_px)  # one column of a tall frame
        pixels += (min(scan.fields_nm.values()) / scan.max_px, max(scan.fields_nm.values()))
        dwells_us += (scan.min_dwell_us, scan.max_dwell_us)
        flyback_us = scan.flyback_time_us
    if (camera := config.camera) is not None:
        fields += (pixel_nm * camera.shape_px[1] for pixel_nm in camera.pixels_nm.values())
        pixels += camera.pixels_nm.values()
        dwells_us += (camera.min_exposure_s * 1e6, camera.max_exposure_s * 1e6)
    around = (1 - FIELD_TOLERANCE, 1 + FIELD_TOLERANCE)
    ranges = {
        "beam_energy_ev": (config.beam_energy_ev, config.beam_energy_ev),
        "semi_convergence_angle_mrad": (config.semi_convergence_angle_mrad, config.semi_convergence_angle_mrad),
        "probe_current_pa": (config.probe_current_pa, config.probe_current_pa),
        "field_of_view_nm": (min(fields) * around[0], max(fields) * around[1]),
        "pixel_size_nm": (min(pixels) * around[0], max(pixels) * around[1]),
        "dwell_time_us": (min(dwells_us), max(dwells_us)),
        "flyback_time_us": (flyback_us, flyback_us),
        "subframe_count": (1.0, 64.0),
    }
    return [
        Axis(name=name, minimum=low, maximum=high, frame=KNOWN_AXES[name].frame) for name, (low, high) in ranges.items()
    ]


def _modes(config: DigitalMicrographConfig) -> list[Mode]:
    modes: list[Mode] = []
    if config.scan is not None:
        detectors = tuple(Detector(name=name, without_references=_WITHOUT) for name in config.scan.signals)
        modes.append(Mode(name=SCAN, detectors=detectors))
    if config.camera is not None:
        chip = Detector(name=CAMERA, shape_px=config.camera.shape_px, without_references=_WITHOUT)
        modes.append(Mode(name=CAMERA, kind="tem_image", detectors=(chip,)))
    return modes
