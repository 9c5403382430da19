"""A Tango device server of this test: a stage that takes its time, a blanker, and a camera that sees a specimen.

`python tango_server.py PORT`: pytango's own server, without a database.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
from tango import AttrWriteType, DevState
from tango.server import Device, attribute, command, run

SIDE_PX = 64
SPEED_UM_PER_S = 1.0
_rng = np.random.default_rng(8)
_places = _rng.uniform(-250, 250, (2000, 2))
_world = {"x_um": 0.0, "y_um": 0.0, "is_blanked": True}


def counts(exposure_s: float) -> np.ndarray:
    """Electrons on each pixel of 1 nm around where the stage stands."""
    offsets = np.arange(SIDE_PX) - (SIDE_PX - 1) / 2
    x, y = offsets[None, :] + 1e3 * _world["x_um"], offsets[:, None] + 1e3 * _world["y_um"]
    bright = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 20) for px, py in _places)
    rate = 0.0 if _world["is_blanked"] else 2e4
    return _rng.poisson(rate * exposure_s * (0.1 + bright)).astype(np.uint16)


class Stage(Device):
    """Two axes in um; the device refuses what is outside 0.2 um."""

    def init_device(self) -> None:
        super().init_device()
        self._until_s = 0.0

    def _read(self, name: str) -> float:
        return _world[name]

    def _write(self, name: str, value: float) -> None:
        self._until_s = time.monotonic() + abs(value - _world[name]) / SPEED_UM_PER_S
        _world[name] = value

    @attribute(dtype=float, access=AttrWriteType.READ_WRITE, min_value=-0.2, max_value=0.2, unit="um")
    def x(self) -> float:
        return self._read("x_um")

    @x.write
    def x(self, value: float) -> None:
        self._write("x_um", value)

    @attribute(dtype=float, access=AttrWriteType.READ_WRITE, min_value=-0.2, max_value=0.2, unit="um")
    def y(self) -> float:
        return self._read("y_um")

    @y.write
    def y(self, value: float) -> None:
        self._write("y_um", 0.0 if value == 0.199 else value)  # one place at which it lies

    def dev_state(self) -> DevState:
        return DevState.MOVING if time.monotonic() < self._until_s else DevState.ON

    @command
    def Stop(self) -> None:
        self._until_s = 0.0


class Blanker(Device):
    """On, off."""

    @attribute(dtype=bool, access=AttrWriteType.READ_WRITE)
    def blanked(self) -> bool:
        return bool(_world["is_blanked"])

    @blanked.write
    def blanked(self, value: bool) -> None:
        _world["is_blanked"] = value


class Camera(Device):
    """Exposes in a thread of its own; what the blanker does meanwhile counts."""

    def init_device(self) -> None:
        super().init_device()
        self._exposure_s, self._count = 0.1, 0
        self._image = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
        self._stopping = threading.Event()
        self._is_exposing = False

    @attribute(dtype=float, access=AttrWriteType.READ_WRITE, unit="s")
    def exposure(self) -> float:
        return self._exposure_s

    @exposure.write
    def exposure(self, value: float) -> None:
        self._exposure_s = value

    @attribute(dtype=int)
    def images(self) -> int:
        return self._count

    @attribute(dtype=((np.uint16,),), max_dim_x=4096, max_dim_y=4096)
    def image(self) -> np.ndarray:
        return self._image

    def dev_state(self) -> DevState:
        return DevState.RUNNING if self._is_exposing else DevState.ON

    @command
    def Start(self) -> None:
        self._stopping.clear()
        self._is_exposing = True
        threading.Thread(target=self._expose, daemon=True).start()

    @command
    def Stop(self) -> None:
        self._stopping.set()

    def _expose(self) -> None:
        image = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
        until_s = time.monotonic() + self._exposure_s
        image += counts(self._exposure_s)
        while time.monotonic() < until_s:
            if self._stopping.wait(0.005):
                self._is_exposing = False
                return
        self._image, self._is_exposing = image, False  # who sees the new count may begin the next
        self._count += 1


def main() -> None:
    """Serve on the port that is given."""
    devices = "Stage::test/stage/1,Blanker::test/blanker/1,Camera::test/camera/1"
    listening = ["-ORBendPoint", f"giop:tcp:127.0.0.1:{sys.argv[1]}"]
    run([Stage, Blanker, Camera], ["bench", "test", "-nodb", "-dlist", devices, *listening])


if __name__ == "__main__":
    main()
