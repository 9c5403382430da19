"""A double of AutoScript TEM's client: the few names the adapter uses, as public scripts show them; no maker's code."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from double_column import COLUMN, ELECTRONS_PER_S

from autoscript_tem_microscope_client.structures import AdornedImage, Point, StagePosition

_RAD = np.pi / 180
_BRIGHTEST = 0.08  # of the beam: as much as the thickest places scatter
_REACH = {"X": 1e-3, "Y": 1e-3, "Z": 3e-4, "A": 70 * _RAD, "B": 30 * _RAD}


class ApplicationServerException(Exception):
    """What the server raises."""


class _Blanker:
    @property
    def is_beam_blanked(self) -> bool:
        return COLUMN.blanked

    def blank(self) -> None:
        COLUMN.blank(True)

    def unblank(self) -> None:
        COLUMN.blank(False)


class _Deflectors:
    @property
    def beam_shift(self) -> Point:
        return Point(*(1e-9 * one for one in COLUMN.shift_nm))

    @beam_shift.setter
    def beam_shift(self, point: Point) -> None:
        COLUMN.shift_nm = [1e9 * point.x, 1e9 * point.y]


class _Optics:
    def __init__(self) -> None:
        self.blanker, self.deflectors = _Blanker(), _Deflectors()
        self.focusing = SimpleNamespace(stem=SimpleNamespace(objective=SimpleNamespace(defocus=0.0)))
        self._field_m = 1e-6

    @property
    def optical_mode(self) -> str:
        return "Tem" if COLUMN.fault("in TEM") else "Stem"

    @property
    def scan_field_of_view(self) -> float:
        return self._field_m

    @scan_field_of_view.setter
    def scan_field_of_view(self, value: float) -> None:
        self._field_m = max(value, 1e-6) if COLUMN.fault("clamps the field") else value


class _Stage:
    @property
    def position(self) -> StagePosition:
        x, y, z, a, b = COLUMN.stage
        return StagePosition(1e-9 * x, 1e-9 * y, 1e-9 * z, _RAD * a, _RAD * b)

    @property
    def is_moving(self) -> bool:
        return COLUMN.moves

    def get_axis_limits(self, axis: str) -> SimpleNamespace:
        return SimpleNamespace(min=-_REACH[axis], max=_REACH[axis])

    def get_holder_type(self) -> str:
        return "DoubleTilt"

    def absolute_move(self, position: StagePosition) -> None:
        """Blocks until it is there."""
        for axis, name in enumerate("xyzab"):
            value = getattr(position, name)
            if value is None:
                continue
            if abs(value) > _REACH[name.upper()]:
                raise ApplicationServerException(f"stage axis {name.upper()} out of range")
            COLUMN.drive(axis, value * 1e9 if axis < 3 else value / _RAD)
        while COLUMN.moves:
            time.sleep(0.002)


class _Acquisition:
    def __init__(self, optics: _Optics) -> None:
        self._optics = optics

    def acquire_stem_images_advanced(self, settings: Any) -> list[AdornedImage]:
        """One image of each detector, all from one scan."""
        side, region = settings.size, settings.region
        box = region.rectangle if region else SimpleNamespace(left=0.0, top=0.0, width=1.0, height=1.0)
        assert abs(box.left + box.width / 2 - 0.5) < 1 / side, "the double scans middles alone"
        rows, columns = round(side * box.height), round(side * box.width)
        pixel_m = self._optics.scan_field_of_view / side
        counts = COLUMN.scan(pixel_m * columns * 1e9, rows, columns, settings.dwell_time)
        names = settings.detector_types[:1] if COLUMN.fault("loses a detector") else settings.detector_types
        told_m = 1e9 * pixel_m if COLUMN.fault("pixels in nm") else pixel_m
        white = round(_BRIGHTEST * ELECTRONS_PER_S * settings.dwell_time)
        return [AdornedImage(self._pixels(counts, name, white), told_m, name) for name in names]

    def acquire_camera_image(self, camera_detector: str, size: int, exposure_time: float) -> AdornedImage:
        """One image of what the beam lights: 1 nm a pixel."""
        counts = COLUMN.scan(float(size), size, size, exposure_time / size**2)
        return AdornedImage(counts.astype(np.uint16), 1e-9, camera_detector)

    def _pixels(self, counts: np.ndarray, name: str, white: int) -> np.ndarray:
        if name == "BF":  # what is not scattered far, coarsely; lines under a blanked beam are dark
            return (np.maximum(white - counts, 0) * counts.any(axis=1)[:, None]).astype(np.uint16)
        if COLUMN.fault("gives floats"):
            return counts / 7.0
        if COLUMN.fault("below zero"):
            return (counts - counts.max()).astype(np.int32)
        return counts.astype(np.uint16)


class TemMicroscopeClient:
    def connect(self, host: str = "localhost", port: int = 9095) -> None:
        if COLUMN.fault("nobody there"):
            raise ApplicationServerException(f"cannot connect to {host}:{port}")
        self.optics = _Optics()
        self.acquisition = _Acquisition(self.optics)
        self.specimen = SimpleNamespace(stage=_Stage())
        self.source = SimpleNamespace(acceleration_voltage=SimpleNamespace(value=60_000.0))
        self.vacuum = SimpleNamespace(column_valves=SimpleNamespace(state="Opened"))
        self.detectors = SimpleNamespace(
            scanning_detectors=["HAADF", "BF"],
            get_camera_detector=lambda name: SimpleNamespace(insertion_state="Inserted"),
            screen=SimpleNamespace(position="Inserted" if COLUMN.fault("screen in") else "Retracted"),
            get_scanning_detector=lambda name: SimpleNamespace(
                insertion_state="Retracted" if COLUMN.fault("retracted") else "Inserted"
            ),
        )
        self.service = SimpleNamespace(
            autoscript=SimpleNamespace(
                server=SimpleNamespace(is_offline=False, version="double"), client=SimpleNamespace(version="double")
            ),
            system=SimpleNamespace(name="double", serial_number="0"),
        )
