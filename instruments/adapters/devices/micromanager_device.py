"""A light microscope under Micro-Manager's core as the device of a worker.

Runs in the Python in which pymmcore-plus is installed; loads nothing of stempilot. Neighbour:
`instruments.adapters.micromanager` is the other end.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

NM_PER_UM = 1000.0
EXPOSURE_TOLERANCE = 0.01


class CommandRefused(Exception):
    """Nothing moved."""


class AcquisitionFailed(Exception):
    """Stopped between two images."""


class ConfigurationError(Exception):
    """What is wanted is not there."""


def open_device(file: str, properties: dict[str, dict[str, str]], timeout_ms: int) -> MicroManagerDevice:
    """The microscope of that configuration file (Micro-Manager's demonstration where it is empty), shutter closed."""
    try:
        from pymmcore_plus import CMMCorePlus  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigurationError(f"{error}; install pymmcore-plus there") from error
    core = CMMCorePlus()
    if file:
        core.loadSystemConfiguration(file)
    else:
        core.loadSystemConfiguration()  # needs mm-test-adapters, or an installed Micro-Manager
    core.setTimeoutMs(timeout_ms)
    for label, values in properties.items():
        for name, value in values.items():
            core.setProperty(label, name, value)
    return MicroManagerDevice(core)


class MicroManagerDevice:
    """One camera, an XY stage, a focus drive, a shutter: those the core calls its own."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._stopped = threading.Event()
        core.setAutoShutter(False)
        self.shutter(False)

    def describe(self) -> dict[str, Any]:
        """Which devices there are, the size of the camera's images, versions."""
        core = self._core
        return {
            "camera": core.getCameraDevice(),
            "stage": core.getXYStageDevice(),
            "focus": core.getFocusDevice(),
            "shutter": core.getShutterDevice(),
            "shape_px": [core.getImageHeight(), core.getImageWidth()],
            "bytes_per_pixel": core.getBytesPerPixel(),
            "versions": {"micromanager": core.getVersionInfo(), "micromanager_api": core.getAPIVersionInfo()},
        }

    def read(self) -> dict[str, float | None]:
        """Positions, None for a device there is none of; whether the shutter is open."""
        core = self._core
        has_stage = bool(core.getXYStageDevice())
        return {
            "x_nm": core.getXPosition() * NM_PER_UM if has_stage else None,
            "y_nm": core.getYPosition() * NM_PER_UM if has_stage else None,
            "z_nm": core.getPosition() * NM_PER_UM if core.getFocusDevice() else None,
            "shutter_open": float(core.getShutterOpen()) if core.getShutterDevice() else None,
            "pixel_size_nm": core.getPixelSizeUm() * NM_PER_UM,
        }

    def move(self, x_nm: float | None, y_nm: float | None, z_nm: float | None) -> dict[str, float | None]:
        """Move what is given, and wait until it is there; what is read then."""
        core = self._core
        if x_nm is not None or y_nm is not None:
            x_um = core.getXPosition() if x_nm is None else x_nm / NM_PER_UM
            y_um = core.getYPosition() if y_nm is None else y_nm / NM_PER_UM
            core.setXYPosition(x_um, y_um)
            core.waitForDevice(core.getXYStageDevice())
        if z_nm is not None:
            core.setPosition(z_nm / NM_PER_UM)
            core.waitForDevice(core.getFocusDevice())
        return self.read()

    def shutter(self, is_open: bool) -> bool:
        """Open or close the shutter, where there is one; what was read back."""
        core = self._core
        if is_open and self._stopped.is_set():
            raise CommandRefused("stopped: the shutter stays closed until it is released")
        if not core.getShutterDevice():
            return True
        core.setShutterOpen(is_open)
        if core.getShutterOpen() != is_open:
            raise RuntimeError("the shutter did not {}".format("open" if is_open else "close"))
        return is_open

    def prepare(self, exposure_s: float) -> float:
        """Set the camera to this exposure; the one it will make. Refused where that is another one."""
        self._core.setExposure(exposure_s * 1e3)
        taken_s = self._core.getExposure() * 1e-3
        if not abs(taken_s - exposure_s) <= EXPOSURE_TOLERANCE * exposure_s:  # nor NaN
            raise CommandRefused(
                f"this camera would expose for {taken_s:g} s, {exposure_s:g} s were asked for; nothing was exposed"
            )
        return taken_s

    def snap(self, exposure_s: float, region: list[int], count: int, is_lit: bool) -> dict[str, Any]:
        """So many images of a region (x, y, width, height in px), the shutter open meanwhile if `is_lit`."""
        core = self._core
        if self._stopped.is_set():
            raise CommandRefused("stopped: nothing is exposed until it is released")
        core.setROI(*region)
        taken_s = self.prepare(exposure_s)
        images: list[np.ndarray] = []
        try:
            self.shutter(is_lit)
            for _ in range(count):
                if self._stopped.is_set():
                    raise AcquisitionFailed(f"stopped after {len(images)} of {count} images")
                core.snapImage()
                images.append(np.array(core.getImage()))
        finally:
            self.shutter(False)
        return {"images": np.stack(images), "exposure_s": taken_s}

    def release(self) -> None:
        """Expose again after `stop`."""
        self._stopped.clear()

    def stop(self) -> None:
        """Take no further image; wait for the one that is taken, halt the stage, close the shutter."""
        self._stopped.set()
        if self._core.getXYStageDevice():
            self._core.stop(self._core.getXYStageDevice())
        self.shutter(False)
