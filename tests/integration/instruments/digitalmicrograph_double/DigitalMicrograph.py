"""DigitalMicrograph's Python module as public scripts use it, written for these tests: not Gatan's.

Only what `digitalmicrograph_server` calls, over a small specimen of bright points. Stage in um, moved in a thread of
its own; pictures as DigiScan draws them. The file DM_DOUBLE names a fault for the next calls; calls are added to
DM_CALLS.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

FIELDS_NM = {5: 128.0, 7: 64.0}
NM_PER_SHIFT = np.array([[0.5, 0.1], [-0.1, 0.5]])
CAMERA_PX, CAMERA_PIXEL_NM = (48, 64), 1.0
REACH_UM = 0.15  # how far the stage goes with the fault "clamp"
_MOVE_S = 0.06
_rng = np.random.default_rng(3)
_points_nm = np.random.default_rng(8).uniform(-250, 250, (1500, 2))
_images: dict[int, Py_Image] = {}
_parameters: dict[int, dict[str, Any]] = {}


def _fault() -> str:
    return Path(os.environ["DM_DOUBLE"]).read_text()


def _called(name: str) -> None:
    with Path(os.environ["DM_CALLS"]).open("a") as file:
        file.write(f"{name}\n")


class Py_Image:  # noqa: N801
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.number = len(_images) + 1
        _images[self.number] = self

    def GetID(self) -> int:
        return self.number

    def GetNumArray(self) -> np.ndarray:
        return self.array


class _Column:
    def __init__(self) -> None:
        self.stage = [0.0] * 5
        self.shift, self.focus, self.magnification, self.is_blanked = (0.0, 0.0), 100.0, 5, False

    def picture(self, shape: tuple[int, int], pixel_nm: float, counts: float) -> np.ndarray:
        rows, columns = shape
        shift_nm = NM_PER_SHIFT @ self.shift
        x = (np.arange(columns) - (columns - 1) / 2) * pixel_nm + 1e3 * self.stage[0] + shift_nm[0]
        y = (np.arange(rows) - (rows - 1) / 2) * pixel_nm + 1e3 * self.stage[1] + shift_nm[1]
        along = np.exp(-((x[:, None] - _points_nm[:, 0]) ** 2) / 20)
        down = np.exp(-((y[:, None] - _points_nm[:, 1]) ** 2) / 20)
        return _rng.poisson(0.0 if self.is_blanked else counts * (0.05 + down @ along.T))


_column = _Column()


class Py_Microscope:  # noqa: N801
    def GetMicroscopeName(self) -> str:
        return "double"

    def GetHighTension(self) -> float:
        return 60e3

    def GetStageX(self) -> float:
        return _column.stage[0]

    def GetStageY(self) -> float:
        return _column.stage[1]

    def GetStageZ(self) -> float:
        return _column.stage[2]

    def GetStageAlpha(self) -> float:
        return _column.stage[3]

    def GetStageBeta(self) -> float:
        if _fault() == "no beta":
            raise RuntimeError("not supported by this holder")
        return _column.stage[4]

    def SetStagePositions(self, flags: int, *places: float) -> None:
        _called(f"SetStagePositions {flags}")
        reach = REACH_UM if _fault() == "clamp" else 1e3

        def arrive() -> None:
            time.sleep(_MOVE_S)
            for axis in range(5):
                if flags & 1 << axis:
                    _column.stage[axis] = min(max(places[axis], -reach), reach)

        threading.Thread(target=arrive, daemon=True).start()

    def GetFocus(self) -> float:
        return _column.focus

    def SetFocus(self, value: float) -> None:
        _column.focus = value

    def GetBeamShift(self) -> tuple[float, float]:
        return _column.shift

    def SetBeamShift(self, x: float, y: float) -> None:
        _column.shift = (x, y)

    def GetMagIndex(self) -> int:
        return _column.magnification

    def SetMagIndex(self, index: int) -> None:
        _called(f"SetMagIndex {index}")
        _column.magnification = index

    def GetBeamBlanked(self) -> bool:
        return _column.is_blanked

    def SetBeamBlanked(self, is_blanked: bool) -> None:
        _called(f"SetBeamBlanked {is_blanked}")
        if not (is_blanked and _fault() == "blanker stuck"):
            _column.is_blanked = is_blanked


class Py_Camera:  # noqa: N801
    def PrepareForAcquire(self) -> None:
        pass

    def AcquireImage(
        self, exposure: float, bin_x: int, bin_y: int, processing: int, top: int, left: int, bottom: int, right: int
    ) -> Py_Image:
        _called(f"AcquireImage {exposure} lit {not _column.is_blanked}")
        assert (bin_x, bin_y, processing) == (1, 1, GetCameraUnprocessedEnum())
        time.sleep(exposure)
        shape = (bottom - top, right - left)
        return Py_Image(_column.picture(shape, CAMERA_PIXEL_NM, 2e3 * exposure).astype(np.float32))


def GetActiveCamera() -> Py_Camera:
    return Py_Camera()


def GetCameraUnprocessedEnum() -> int:
    return 1


def CreateImage(array: np.ndarray) -> Py_Image:
    return Py_Image(array)


def DS_CreateParameters(width: int, height: int, rotation: float, pixel_time: float, line_sync: bool) -> int:
    number = len(_parameters) + 1
    _parameters[number] = {"shape": (height, width), "pixel_time": pixel_time, "signals": []}
    assert isinstance(rotation, float)
    assert isinstance(line_sync, bool)
    return number


def DS_SetParametersSignal(number: int, signal: int, data_type: int, selected: bool, image: int) -> None:
    assert (data_type, selected) == (4, True)
    _parameters[number]["signals"].append((signal, _images[image]))


def DS_StartAcquisition(number: int, continuous: bool, synchronous: bool) -> None:
    assert (continuous, synchronous) == (False, True)
    ask = _parameters[number]
    rows, columns = ask["shape"]
    _called(f"DS_StartAcquisition lit {not _column.is_blanked}")
    match _fault():
        case "scan raises":
            raise RuntimeError("DigiScan is not available")
        case "scan hangs":
            while _fault() == "scan hangs":
                time.sleep(0.01)
        case "other shape":
            ask["signals"][0][1].array = np.zeros((rows, columns + 1), np.uint32)
            return
        case _:
            pass
    until_s = time.monotonic() + ask["pixel_time"] * 1e-6 * rows * columns
    pixel_nm = FIELDS_NM[_column.magnification] / max(rows, columns)
    for signal, image in ask["signals"]:
        image.array[...] = _column.picture((rows, columns), pixel_nm, 20 * ask["pixel_time"] / (1 + signal))
    while _fault() != "no wait" and (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.01))


def DS_DeleteParameters(number: int) -> None:
    del _parameters[number]["signals"]
