"""From a frame that is asked for to a call of our server in DigitalMicrograph, or a refusal; nothing is sent here.

Neighbour: `digitalmicrograph` sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from instruments.adapters.digitalmicrograph_config import (
    CAMERA,
    FIELD_TOLERANCE,
    SCAN,
    CameraConfig,
    DigitalMicrographConfig,
    ScanConfig,
)
from instruments.commands import AcquireFrame
from instruments.errors import AcquisitionFailed, CommandRefused


class Shot(Protocol):
    """How one mode exposes."""

    def check(self, command: AcquireFrame) -> None:
        """Raise CommandRefused for a shape or a time that it has not."""
        ...

    def magnification_index(self, command: AcquireFrame, present: int) -> int:
        """The index that gives this field, the present one where it does. Raises CommandRefused."""
        ...

    def call(self, command: AcquireFrame) -> tuple[str, dict[str, Any]]:
        """The server's call, and what goes with it."""
        ...

    def counts(self, array: np.ndarray, command: AcquireFrame) -> np.ndarray:
        """Unsigned integers, rows and columns as ours. Raises AcquisitionFailed."""
        ...


def shots_of(config: DigitalMicrographConfig) -> dict[str, Shot]:
    """Those that are configured, by mode."""
    shots: dict[str, Shot] = {}
    if config.scan is not None:
        shots[SCAN] = Scanned(config.scan)
    if config.camera is not None:
        shots[CAMERA] = Imaged(config.camera)
    return shots


@dataclass(frozen=True, slots=True)
class Scanned:
    """By DigiScan: any shape, fields by magnification."""

    config: ScanConfig

    def check(self, command: AcquireFrame) -> None:
        """Sides, dwell, and one pass no longer than allowed."""
        scan, config = command.scan, self.config
        if not (min(scan.shape_px) >= 1 and max(scan.shape_px) <= config.max_px):
            raise CommandRefused(f"{scan.shape_px} px cannot be scanned; a side has 1 to {config.max_px}")
        _within("dwell_time_us", scan.dwell_time_us, config.min_dwell_us, config.max_dwell_us, "us of a scan")
        if scan.duration_s() > config.max_frame_s:
            raise CommandRefused(
                f"one pass of {scan.duration_s():.3g} s cannot be interrupted; {config.max_frame_s:g} s are allowed"
            )

    def magnification_index(self, command: AcquireFrame, present: int) -> int:
        """By the longer side: a square frame has the whole field."""
        longest_px = max(command.scan.shape_px)
        return _index(command, {index: nm / longest_px for index, nm in self.config.fields_nm.items()}, present)

    def call(self, command: AcquireFrame) -> tuple[str, dict[str, Any]]:
        """All signals in the order of the configuration."""
        scan, config = command.scan, self.config
        return "scan", {
            "width_px": scan.shape_px[1], "height_px": scan.shape_px[0], "pixel_time_us": scan.dwell_time_us,
            "rotation_deg": config.rotation_offset_deg, "line_sync": config.line_sync,
            "signals": list(config.signals.values()),
        }  # fmt: skip

    def counts(self, array: np.ndarray, command: AcquireFrame) -> np.ndarray:
        """Rows and columns turned round as configured."""
        return _turned(_unsigned(array, command), self.config)


@dataclass(frozen=True, slots=True)
class Imaged:
    """By the camera: its whole chip."""

    config: CameraConfig

    def check(self, command: AcquireFrame) -> None:
        """Shape, exposure, and no beam shift."""
        scan, config = command.scan, self.config
        if scan.shape_px != config.shape_px:
            raise CommandRefused(f"the camera has {config.shape_px} px, not {scan.shape_px}; ask for those")
        exposure_s = scan.dwell_time_us * 1e-6
        _within("an exposure of", exposure_s, config.min_exposure_s, config.max_exposure_s, "s of the camera")
        if scan.beam_shift_x_nm or scan.beam_shift_y_nm:
            raise CommandRefused("a beam shift moves the light, not the camera's field: leave it at 0, move the stage")

    def magnification_index(self, command: AcquireFrame, present: int) -> int:
        """By the pixel."""
        return _index(command, self.config.pixels_nm, present)

    def call(self, command: AcquireFrame) -> tuple[str, dict[str, Any]]:
        """Without binning."""
        rows, columns = command.scan.shape_px
        exposure_s = command.scan.dwell_time_us * 1e-6
        return "camera", {"exposure_s": exposure_s, "binning": 1, "area_px": [0, 0, rows, columns]}

    def counts(self, array: np.ndarray, command: AcquireFrame) -> np.ndarray:
        """Rows and columns turned round as configured."""
        return _turned(_unsigned(array, command), self.config)


def _index(command: AcquireFrame, pixels_nm: Mapping[int, float], present: int) -> int:
    scan = command.scan
    fitting = [index for index, nm in pixels_nm.items() if abs(scan.pixel_size_nm / nm - 1) <= FIELD_TOLERANCE]
    if not fitting:
        known = ", ".join(f"{nm * scan.shape_px[1]:g} nm" for nm in pixels_nm.values())
        raise CommandRefused(
            f"no magnification gives a field of {scan.field_of_view_nm:g} nm at {scan.shape_px} px; there are {known}"
        )
    return present if present in fitting else fitting[0]


def _unsigned(array: np.ndarray, command: AcquireFrame) -> np.ndarray:
    is_whole = array.dtype.kind in "iu" or bool(np.all(array == np.rint(array)))
    if array.shape != command.scan.shape_px or not is_whole or array.min() < 0:
        raise AcquisitionFailed(
            f"{array.dtype} {array.shape} from {array.min()} came, not {command.scan.shape_px} counts from 0; is it "
            "processed?"
        )
    return array if array.dtype.kind == "u" else array.astype(np.uint32)


def _turned(counts: np.ndarray, config: ScanConfig | CameraConfig) -> np.ndarray:
    return counts[:: -1 if config.flip_rows else 1, :: -1 if config.flip_columns else 1]


def _within(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise CommandRefused(f"{name} {value:g} is outside {low:g} to {high:g} {unit}; stay inside")
