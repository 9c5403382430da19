"""A JEOL microscope through its maker's PyJEM, as the device of a worker: in PyJEM's own numbers and units.

Runs in the Python in which PyJEM is installed; loads nothing of stempilot but `stempilot_beam` beside it. Of PyJEM it
uses `TEM3` (column, stage) and `detector` (TEMCenter's service). Neighbour: `instruments.adapters.pyjem`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent))
from stempilot_beam import AcquisitionFailed, Beam, CommandRefused, ConfigurationError

AXES = ("x", "y", "z", "tilt_x", "tilt_y")  # in the order of GetPos and GetStatus
MOTOR, STEM, INSERTED = 0, 1, 1
AT_REST, AT_LIMITER = 0, 2
FULL_SCAN, ONE_PASS = 0, 1
_LOOK_S = 0.01
_SAME_DWELL = 0.01


def open_device(
    path: list[str], connect: bool, offline: bool, detectors: dict[str, dict[str, Any]], arrive_s: float
) -> PyJEMDevice:
    """The microscope, blanked; `detectors`: ours -> TEMCenter's `name` and the `number` of `Detector3`, or None."""
    sys.path += path
    package = "PyJEM.offline" if offline else "PyJEM"
    try:
        tem3, service = import_module(package + ".TEM3"), import_module(package + ".detector")
    except ImportError as error:
        raise ConfigurationError(f"{error}; PyJEM is JEOL's: name the Python, or the folder, that has it") from error
    if connect:
        tem3.connect()
    attached = list(service.get_attached_detector())
    missing = [one["name"] for one in detectors.values() if one["name"] not in attached]
    if missing:
        raise ConfigurationError(
            "TEMCenter has no detector {}; it has {}".format(", ".join(missing), ", ".join(map(str, attached)))
        )
    return PyJEMDevice(tem3, service, detectors, arrive_s)


class PyJEMDevice:
    """Stage, blanker, calibrated deflectors, lens and scanned detectors; blanked except while it exposes."""

    def __init__(self, tem3: Any, service: Any, detectors: dict[str, dict[str, Any]], arrive_s: float) -> None:
        self._stage, self._deflectors, self._lenses = tem3.Stage3(), tem3.Def3(), tem3.Lens3()
        self._optics, self._voltage, self._positions = tem3.EOS3(), tem3.HT3(), tem3.Detector3()
        self._detectors = {name: service.Detector(one["name"]) for name, one in detectors.items()}
        self._numbers = {name: one["number"] for name, one in detectors.items()}
        self._arrive_s = arrive_s
        self._last = b""
        self._moves: dict[str, Any] = {
            "x": self._stage.SetX,
            "y": self._stage.SetY,
            "z": self._stage.SetZ,
            "tilt_x": self._stage.SetTiltXAngle,
            "tilt_y": self._stage.SetTiltYAngle,
        }
        self._beam = Beam(
            lambda is_blanked: self._deflectors.SetBeamBlank(int(is_blanked)),
            lambda: self._deflectors.GetBeamBlank() == 1,
        )

    def read(self) -> dict[str, Any]:
        """Everything that is read back, together."""
        return {
            "position": {name: float(place) for name, place in zip(AXES, self._stage.GetPos())},  # noqa: B905  Python 3.8
            "is_blanked": self._beam.is_blanked,
            "voltage_v": float(self._voltage.GetHtValue()),
            "spot": int(self._optics.GetSpotSize()),
            "shift": [int(one) for one in self._deflectors.GetCLA1()],
            "tilt": [int(one) for one in self._deflectors.GetCLA2()],
            "focus": int(self._lenses.GetOLf()),
        }

    def move(self, values: dict[str, float], tolerances: dict[str, float], duration_s: float) -> None:
        """Drive the stage's motors, one axis after another, until each rests where it was sent."""
        if self._stage.GetDrvMode() != MOTOR:
            raise CommandRefused("the stage is on its piezo drive; select the motor at the microscope")
        until_s = time.monotonic() + duration_s
        for name, value in values.items():
            self._moves[name](float(value))
            self._wait(AXES.index(name), float(value), tolerances[name], until_s)

    def deflect(self, shift_counts: list[int] | None, tilt_counts: list[int] | None, focus_count: int | None) -> None:
        """Beam shift (CLA1), beam tilt (CLA2), fine objective lens (OLf) as the numbers of their converters."""
        if shift_counts is not None:
            self._deflectors.SetCLA1(*shift_counts)
        if tilt_counts is not None:
            self._deflectors.SetCLA2(*tilt_counts)
        if focus_count is not None:
            self._lenses.SetOLf(focus_count)

    def blank(self, is_blanked: bool) -> None:
        """Blank or unblank; it is read back."""
        if is_blanked:
            self._beam.blank()
        else:
            self._beam.unblank()

    def arrange(
        self, name: str, spot: int | None, selector: int, magnification: float, side_px: int, dwell_us: float
    ) -> dict[str, Any]:
        """Set magnification and scan, the beam as it is; what the detector says of itself. Raises CommandRefused."""
        if self._optics.GetTemStemMode() != STEM:
            raise CommandRefused("the microscope is not in STEM (ASID) mode; change it at the microscope")
        if spot is not None and self._optics.GetSpotSize() != spot:
            raise CommandRefused(
                f"the spot size is {self._optics.GetSpotSize()}, the current was measured at {spot}; set it there, or "
                "measure"
            )
        number = self._numbers[name]
        if number is not None and self._positions.GetPosition(number) != INSERTED:
            raise CommandRefused(f"{name} is not inserted; insert it at the microscope")
        self._optics.SetSelector(selector)
        found = float(self._optics.GetMagValue()[0])
        if found != magnification:
            raise CommandRefused(
                f"selector {selector} gave a magnification of {found:g}, the configuration says {magnification:g}"
            )
        detector = self._detectors[name]
        for reply in (
            detector.set_scanmode(FULL_SCAN),
            detector.set_imaging_area(side_px, side_px, 0, 0),  # a corner that is left out stays where it was
            detector.set_frameintegration(ONE_PASS),
            detector.set_exposuretime_value(dwell_us),
        ):
            _refuse_failure(reply)
        return self._checked(detector.get_detectorsetting(), side_px, dwell_us)

    def expose(self, name: str, count: int, is_lit: bool) -> dict[str, Any]:
        """The bytes of so many scans, one row each, and for how long the beam was on."""
        detector = self._detectors[name]
        with self._beam.exposing(is_lit):
            scans = [self._scan(detector) for _ in range(count)]
        sizes = sorted({len(one) for one in scans})
        if len(sizes) > 1:
            raise AcquisitionFailed(f"scans of {sizes} bytes came")
        data = np.stack([np.frombuffer(one, np.uint8) for one in scans])
        return {"data": data, "beam_on_s": self._beam.on_s}

    def release(self) -> None:
        """Expose again after `stop`."""
        self._beam.release()

    def stop(self) -> None:
        """Blank, halt the stage; from beside, while a scan or a move runs."""
        self._beam.stop()
        self._stage.Stop()

    def _scan(self, detector: Any) -> bytes:
        if self._beam.is_stopped:
            raise AcquisitionFailed("stopped between two scans")
        data = detector.snapshot_rawdata()
        if not isinstance(data, (bytes, bytearray)):
            raise AcquisitionFailed(f"TEMCenter gave no image but {data!r:.100}")
        digest = hashlib.sha256(data).digest()
        if digest == self._last and len(set(data)) > 1:
            raise AcquisitionFailed("TEMCenter gave the same image again, byte for byte: it is an old one")
        self._last = digest
        return bytes(data)

    def _wait(self, index: int, target: float, tolerance: float, until_s: float) -> None:
        """Until the axis rests at the target, or rests elsewhere for so long that it will not go there."""
        given_up_s = time.monotonic() + self._arrive_s
        while time.monotonic() < until_s:
            if self._beam.is_stopped:
                raise RuntimeError("stopped while the stage moved; read its position")
            status = self._stage.GetStatus()[index]
            if status == AT_LIMITER:
                raise RuntimeError(f"stage axis {AXES[index]} is at its hardware limiter; free it at the microscope")
            if status != AT_REST:
                given_up_s = time.monotonic() + self._arrive_s
            elif abs(self._stage.GetPos()[index] - target) <= tolerance or time.monotonic() > given_up_s:
                return
            time.sleep(_LOOK_S)
        self._stage.Stop()
        raise RuntimeError(f"stage axis {AXES[index]} still moved when its time was over; it was halted")

    def _checked(self, setting: dict[str, Any], side_px: int, dwell_us: float) -> dict[str, Any]:
        area, dwell = setting["ImagingArea"], float(setting["ExposureTimeValue"])
        box = [int(area[name]) for name in ("X", "Y", "Width", "Height")]
        mode, passes = setting["scanMode"], setting["frameIntegration"]
        is_whole = box == [0, 0, side_px, side_px] and (mode, passes) == (FULL_SCAN, ONE_PASS)
        if not is_whole or abs(dwell - dwell_us) > _SAME_DWELL * dwell_us:
            raise CommandRefused(
                f"TEMCenter would scan {box} (x, y, width, height in px) {passes} times in mode {mode}, {dwell:g} us a "
                f"pixel; {side_px} px a side from 0, once in mode {FULL_SCAN}, {dwell_us:g} us were asked for; nothing "
                "was exposed"
            )
        return {"dwell_us": dwell, "side_px": side_px, "scan_rotation": setting.get("ScanRotation")}


def _refuse_failure(reply: Any) -> None:
    if isinstance(reply, dict) and "fail" in str(reply.get("status", "")).lower():
        raise CommandRefused(f"TEMCenter refuses the scan: {reply!r:.200}")
