"""Structures of the double."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class StagePosition:
    x: float | None = None
    y: float | None = None
    z: float | None = None
    a: float | None = None
    b: float | None = None


@dataclass
class Point:
    x: float = 0.0
    y: float = 0.0


@dataclass
class Rectangle:
    left: float
    top: float
    width: float
    height: float


@dataclass
class Region:
    coordinate_system: str
    rectangle: Rectangle


@dataclass
class StemAcquisitionSettings:
    dwell_time: float
    detector_types: list[str]
    size: int
    region: Region | None = None


class AdornedImage:
    def __init__(self, data: np.ndarray, pixel_m: float, detector: str) -> None:
        self.data = data
        self.metadata: Any = SimpleNamespace(
            binary_result=SimpleNamespace(pixel_size=Point(pixel_m, pixel_m), detector=detector)
        )
