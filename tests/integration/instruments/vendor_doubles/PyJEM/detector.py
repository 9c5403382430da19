"""TEMCenter's half of the double: settings as dictionaries, images as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from double_column import COLUMN

from PyJEM import TEM3

FIELDS_NM = (640.0, 128.0, 64.0)  # of the selectors
_setting: dict[str, Any] = {
    "ImagingArea": {"Width": 512, "Height": 512, "X": 40, "Y": 8}, "ExposureTimeValue": 10.0, "frameIntegration": 1,
    "scanMode": 3, "ScanRotation": 0,
}  # fmt: skip
_last: list[bytes] = []


def get_attached_detector() -> list[str]:
    return ["ADF1", "BF"]


class Detector:
    def __init__(self, det: str) -> None:
        assert det in get_attached_detector()
        self._name = det

    def get_detectorsetting(self) -> dict[str, Any]:
        return dict(_setting)

    def set_scanmode(self, value: int) -> dict[str, Any]:
        return self._set("scanMode", value)

    def set_imaging_area(self, Width: int, Height: int, X: int | None = None, Y: int | None = None) -> dict[str, Any]:
        if COLUMN.fault("REST fails"):
            return {"status": "Failed"}
        asked = {"Width": Width, "Height": Height, "X": X, "Y": Y}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._set("ImagingArea", {**_setting["ImagingArea"], **given})

    def set_frameintegration(self, value: int) -> dict[str, Any]:
        return self._set("frameIntegration", 4 if COLUMN.fault("integrates") else value)

    def set_exposuretime_value(self, value: float) -> dict[str, Any]:
        return self._set("ExposureTimeValue", 10.0 * value if COLUMN.fault("other dwell") else value)

    def snapshot_rawdata(self) -> Any:
        if COLUMN.fault("stale") and _last:
            return _last[-1]
        if COLUMN.fault("no image"):
            return {"status": "Failed"}
        area, dwell_s = _setting["ImagingArea"], 1e-6 * _setting["ExposureTimeValue"]
        width_nm = FIELDS_NM[TEM3._numbers["selector"]]
        counts = COLUMN.scan(width_nm, area["Height"], area["Width"], dwell_s)
        data = np.minimum(counts, 65535).astype("<u2").tobytes()
        _last[:] = [data[:-2] if COLUMN.fault("short") else data]
        return _last[-1]

    def _set(self, key: str, value: Any) -> dict[str, Any]:
        _setting[key] = value
        return {key: value}
