"""A light microscope under Micro-Manager's core, in a worker of its own: camera, XY stage, focus drive, no electrons.

Mode `camera`: every pixel exposed at once (`scan.at_once`), a region around the middle of the chip, `dwell_time_us` its
exposure. Nothing here burns a specimen (`has_beam` is false), so there is no dose; the shutter stands for the blanker.
Neighbours: `micromanager_config`, `devices.micromanager_device` (runs there), `far_device` (its process), `driven`
(refusals, read-back, action ids).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments.adapters.driven import READ_S, DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.far_device import FarDevice
from instruments.adapters.micromanager_config import MicroManagerConfig
from instruments.adapters.understood import understood
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused, ConfigurationError, InstrumentFault
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import MicroscopeState
from instruments.workers import Program

DEVICE: Final = Path(__file__).parent / "devices" / "micromanager_device.py"
CAMERA: Final = "camera"
_SAME: Final = 1e-6
_NO_ELECTRONS: Final = Optics(beam_energy_ev=1.0, semi_convergence_angle_mrad=0.0)
_UNKNOWN: Final = {
    "optics": "a light microscope has no electrons: these values mean nothing",
    "measured_current_pa": "a light microscope has no electrons",
    "coherence": "a light microscope has no electrons",
    "mode": "nothing was exposed yet",
}


def open_micromanager(**config: Any) -> DrivenMicroscope:
    """Open it; the keys are those of `MicroManagerConfig`. Raises ConfigurationError, InstrumentFault."""
    return DrivenMicroscope(MicroManagerDriver(MicroManagerConfig.checked(config)))


class MicroManagerDriver:
    """Driver over Micro-Manager's core in a worker."""

    def __init__(self, config: MicroManagerConfig) -> None:
        self._config = config
        opening = {
            "file": str(config.file or ""),
            "properties": config.properties,
            "timeout_ms": round(config.motion_s * 1000),
        }
        self._device = FarDevice(
            Program(name="micromanager", python=config.python, file=DEVICE, config=opening, start_s=config.start_s),
            READ_S,
        )
        self._prepared_us: float | None = None  # the exposure that this camera was found to make
        try:
            with understood("what Micro-Manager says of itself"):
                self._about: dict[str, Any] = self._device.read("describe")
                self._pixel_nm = self._calibrated_nm()
                self._capabilities = _capabilities(config, self._about, self._pixel_nm)
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """Fixed while it is open."""
        return self._capabilities

    @property
    def worker(self) -> FarDevice:
        """The library in its process."""
        return self._device

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Positions and shutter as the core reads them."""
        found: dict[str, float | None] = self._device.read("read", deadline_s)
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(
                x_nm=self._place(found, "x_nm", "stage"),
                y_nm=self._place(found, "y_nm", "stage"),
                z_nm=self._place(found, "z_nm", "focus"),
            ),
            optics=_NO_ELECTRONS,
            beam_blanked=found["shutter_open"] == 0.0 or not self._about["shutter"],
            undetermined=_UNKNOWN,
        )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Move the stage and the focus drive, and wait."""
        wanted = {name: float(values[name]) if name in values else None for name in ("x_nm", "y_nm", "z_nm")}
        self._device.put("move", deadline_s, **wanted)

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """By the shutter."""
        self._device.put("shutter", deadline_s, is_open=not is_blanked)

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """A region of whole pixels of the calibrated size, within the chip, exposed as long as the camera can."""
        scan, (rows, columns) = command.scan, self._about["shape_px"]
        if not (1 <= scan.shape_px[0] <= rows and 1 <= scan.shape_px[1] <= columns):
            raise CommandRefused(f"{scan.shape_px} px are not within the camera's {rows} x {columns} px")
        if abs(scan.pixel_size_nm - self._pixel_nm) > _SAME * self._pixel_nm:
            raise CommandRefused(
                f"pixel size {scan.pixel_size_nm:g} nm is not the camera's {self._pixel_nm:g} nm; set field_of_view_nm "
                f"to {self._pixel_nm * scan.shape_px[1]:g} nm for {scan.shape_px[1]} px"
            )
        if scan.dwell_time_us != self._prepared_us:
            self._device.put("prepare", exposure_s=scan.dwell_time_us * 1e-6)
            self._prepared_us = scan.dwell_time_us

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Images of a region around the middle of the chip, one after another."""
        (rows, columns), (all_rows, all_columns) = command.scan.shape_px, self._about["shape_px"]
        reply = self._device.do(
            "snap",
            until_s - time.monotonic() + READ_S,
            exposure_s=command.scan.dwell_time_us * 1e-6,
            region=[(all_columns - columns) // 2, (all_rows - rows) // 2, columns, rows],
            count=command.subframe_count,
            is_lit=is_lit,
        )
        images: np.ndarray = reply["images"]
        if images.dtype.kind != "u" or images.shape != (command.subframe_count, rows, columns):
            raise AcquisitionFailed(f"{images.dtype} {images.shape} came, not {rows} x {columns} unsigned integers")
        return Exposed(
            {CAMERA: images}, self._pixel_nm, {"software": self._about["versions"], "exposure_s": reply["exposure_s"]}
        )

    def interrupt(self) -> None:
        """After the image that is taken; a worker that does not say so is killed, and a new one closes the shutter."""
        self._device.stop(self._config.max_exposure_s + 1.0)

    def release(self) -> None:
        """Expose again."""
        self._device.put("release")

    def close(self) -> None:
        """End the worker; the core's own end, which aborts, is not waited for."""
        self._device.close()

    def _place(self, found: Mapping[str, float | None], name: str, device: str) -> float:
        """Where it is; 0 where there is no such device."""
        place = found[name]
        if not self._about[device]:
            return 0.0
        if place is None:
            raise InstrumentFault(f"Micro-Manager has a {device} device that does not tell {name}; see its port")
        return place

    def _calibrated_nm(self) -> float:
        told_nm: float = self._device.read("read")["pixel_size_nm"]
        pixel_nm = self._config.pixel_size_nm or told_nm
        if not pixel_nm:
            raise ConfigurationError(
                "Micro-Manager has no pixel size for this configuration; calibrate it there, or set pixel_size_nm"
            )
        return pixel_nm


def _capabilities(config: MicroManagerConfig, about: Mapping[str, Any], pixel_nm: float) -> Capabilities:
    rows, columns = about["shape_px"]
    step_nm = config.stage_resolution_nm
    reach = {"x_nm": config.max_stage_nm, "y_nm": config.max_stage_nm} if about["stage"] else {}
    reach |= {"z_nm": config.max_height_nm} if about["focus"] else {}
    stage = [
        Axis(name=name, minimum=-limit, maximum=limit, resolution=step_nm, tolerance=step_nm, frame="stage")
        for name, limit in reach.items()
    ]
    scan = {
        "field_of_view_nm": (pixel_nm, pixel_nm * columns),
        "pixel_size_nm": (pixel_nm * (1 - _SAME), pixel_nm * (1 + _SAME)),
        "dwell_time_us": (config.min_exposure_s * 1e6, config.max_exposure_s * 1e6),
        "subframe_count": (1.0, 64.0),
    }
    camera = Detector(
        name=CAMERA,
        shape_px=(rows, columns),
        without_references="Micro-Manager knows neither gain nor dark image of a camera",
    )
    return Capabilities(
        name=f"micromanager {'demo' if config.demo else about['camera']}",
        simulated=config.demo,
        has_beam=False,
        axes=(
            *stage,
            *(Axis(name=name, minimum=low, maximum=high, frame="scan") for name, (low, high) in scan.items()),
        ),
        modes=(Mode(name=CAMERA, kind="camera", detectors=(camera,)),),
        can_interrupt=False,
        stop_latency_s=config.max_exposure_s + 0.5,
        reports_dose=False,
        reports_limits=False,
        quirks=_quirks(config),
    )


def _quirks(config: MicroManagerConfig) -> tuple[str, ...]:
    always = (
        "Micro-Manager's stages have no limits: the axes' are the configuration's, and the adapter refuses by them",
        "an image that is being taken cannot be interrupted: a stop takes effect after it",
    )
    if not config.demo:
        return always
    return (
        *always,
        "blank: the demonstration camera does not darken when the shutter is closed",
        "dwell: the demonstration's bead images are the same whatever the exposure, and without noise",
    )
