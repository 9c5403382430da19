"""The column's half of the double: numbers in and out, silent about what it does not take."""
# ruff: noqa: N999

from __future__ import annotations

import numpy as np
from double_column import COLUMN

REACH = 100_000.0
NM_PER_NUMBER = np.array([[0.05, 0.01], [-0.012, 0.048]])
MAGNIFICATIONS = (200_000, 1_000_000, 2_000_000)
_numbers = {"CLA1": [32768, 32768], "CLA2": [32768, 32768], "OLf": 32768, "selector": 2}


def connect() -> None:
    """Nothing to connect to."""


class Stage3:
    def GetPos(self) -> list[float]:
        return list(COLUMN.stage)

    def GetStatus(self) -> list[int]:
        if COLUMN.fault("limiter"):
            return [2] * 5
        return [int(COLUMN.moves)] * 5

    def GetDrvMode(self) -> int:
        return int(COLUMN.fault("piezo"))

    def SetX(self, value: float) -> None:
        self._set(0, value, REACH)

    def SetY(self, value: float) -> None:
        self._set(1, value, REACH)

    def SetZ(self, value: float) -> None:
        self._set(2, value, REACH)

    def SetTiltXAngle(self, value: float) -> None:
        self._set(3, value, 90.0)

    def SetTiltYAngle(self, value: float) -> None:
        self._set(4, value, 90.0)

    def Stop(self) -> None:
        COLUMN.halt()

    def _set(self, axis: int, value: float, reach: float) -> None:
        if abs(value) <= reach:  # beyond it nothing happens, and nothing is said
            COLUMN.drive(axis, float(value))


class Def3:
    def GetBeamBlank(self) -> int:
        return int(COLUMN.blanked)

    def SetBeamBlank(self, sw: int) -> None:
        if type(sw) is int and sw in (0, 1):
            COLUMN.blank(bool(sw))

    def GetCLA1(self) -> list[int]:
        return list(_numbers["CLA1"])

    def SetCLA1(self, arg1: int, arg2: int) -> None:
        if _fit(arg1, arg2):
            _numbers["CLA1"] = [arg1, arg2]
            COLUMN.shift_nm = (NM_PER_NUMBER @ np.subtract([arg1, arg2], 32768)).tolist()

    def GetCLA2(self) -> list[int]:
        return list(_numbers["CLA2"])

    def SetCLA2(self, arg1: int, arg2: int) -> None:
        if _fit(arg1, arg2):
            _numbers["CLA2"] = [arg1, arg2]


class Lens3:
    def GetOLf(self) -> int:
        return _numbers["OLf"]

    def SetOLf(self, value: int) -> None:
        if _fit(value):
            _numbers["OLf"] = value


class EOS3:
    def GetSpotSize(self) -> int:
        return 3

    def GetTemStemMode(self) -> int:
        return int(not COLUMN.fault("in TEM"))

    def SetSelector(self, value: int) -> None:
        _numbers["selector"] = value

    def GetMagValue(self) -> list:
        value = MAGNIFICATIONS[_numbers["selector"]]
        return [value, "X", f"x{value}"]


class HT3:
    def GetHtValue(self) -> float:
        return 60.0 if COLUMN.fault("kilovolts") else 60_000.0


class Detector3:
    def GetPosition(self, detector: int) -> int:
        return int(not COLUMN.fault("retracted"))


def _fit(*numbers: object) -> bool:
    return all(type(one) is int and 0 <= one <= 65535 for one in numbers)
