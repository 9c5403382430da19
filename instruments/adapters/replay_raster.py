"""One recorded raster with what is left of its exposure; `replay_images` reads it.

Given its number, the counts of a Poisson process fall uniformly over the exposure. So a visit of a share p of the
exposure that is left takes each count that is left with probability p: shorter dwells thin binomially, and no count is
read twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, radians, sin, sqrt
from typing import Final

import numpy as np

from instruments.commands import AcquireFrame
from instruments.errors import CommandRefused, ConfigurationError
from instruments.readers.recorded_images import RecordedImage
from instruments.units import electrons

_TOLERANCE: Final = 1e-9
_LEVELS: Final = 2**16 - 1
_LEVELS_OF_SPECTRA: Final = 2**32 - 1  # a zero-loss peak stands a million times over its tail
_SURE: Final = 5.0  # standard deviations
_MOST: Final = 0.99  # of the pixels: a spike in one of them is no proof


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a raster, and where its middle lay."""

    rows: slice
    columns: slice
    x_nm: float
    y_nm: float


@dataclass(slots=True)
class Raster:
    """A recorded image of which nothing is unknown any more, and the counts and time at each pixel not read yet.

    What is no count comes as unsigned integers too: (value - zero) / step, by detector in `scales`.
    """

    image: RecordedImage
    pixel_size_nm: float
    dwell_time_us: float
    current_pa: float
    counted: frozenset[str]
    scales: dict[str, tuple[float, float]] = field(init=False)
    left: dict[str, np.ndarray] = field(init=False)
    left_us: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.left = {name: _quanta(self.image.name, name, self.image.detectors[name]) for name in self.counted}
        others = {name: values for name, values in self.image.detectors.items() if name not in self.counted}
        self.scales = {name: _scale(self.image.name, name, values) for name, values in others.items()}
        self.left_us = np.full(self.image.shape_px, self.dwell_time_us)

    def refuse_impossible_counts(self) -> None:
        """Raise ConfigurationError where more electrons are said to be counted than arrived, beyond their scatter."""
        arrived = electrons(self.current_pa, self.dwell_time_us * 1e-6)
        for name in sorted(self.counted):
            values = _by_point(self.image.detectors[name])
            brightest = float(np.quantile(values, _MOST))
            for words, found, scatter in (
                ("on average", float(values.mean()), sqrt(arrived / values.size)),
                (f"at the {1 - _MOST:.0%} brightest pixels", brightest, sqrt(arrived)),
            ):
                if found > arrived + _SURE * scatter:
                    raise ConfigurationError(
                        f"{self.image.name}: counted = true, but {name} has {found:,.1f} counts a pixel {words}, and "
                        f"{arrived:,.1f} electrons arrived there in {self.dwell_time_us:g} us at {self.current_pa:g} "
                        "pA; leave `counted` out, or correct dwell_time_us and current_pa"
                    )

    def place(self, command: AcquireFrame, x_nm: float, y_nm: float) -> Place | None:
        """The pixels nearest to a raster around this point, None where it leaves the image."""
        rows, columns = command.scan.shape_px
        all_rows, all_columns = self.image.shape_px
        along_nm, across_nm = self.turned(x_nm - self.image.centre_nm[0], y_nm - self.image.centre_nm[1], -1)
        row = round(across_nm / self.pixel_size_nm + (all_rows - rows) / 2)
        column = round(along_nm / self.pixel_size_nm + (all_columns - columns) / 2)
        if not (0 <= row <= all_rows - rows and 0 <= column <= all_columns - columns):
            return None
        along_px, across_px = column - (all_columns - columns) / 2, row - (all_rows - rows) / 2
        dx_nm, dy_nm = self.turned(along_px * self.pixel_size_nm, across_px * self.pixel_size_nm, 1)
        return Place(
            slice(row, row + rows),
            slice(column, column + columns),
            self.image.centre_nm[0] + dx_nm,
            self.image.centre_nm[1] + dy_nm,
        )

    def turned(self, x_nm: float, y_nm: float, sense: int) -> tuple[float, float]:
        """A displacement turned by the scan rotation (sense 1: from the raster to the specimen)."""
        angle = sense * radians(self.image.rotation_deg)
        return x_nm * cos(angle) - y_nm * sin(angle), x_nm * sin(angle) + y_nm * cos(angle)

    def short_us(self, place: Place) -> float:
        """Exposure left at the pixel that has least."""
        return float(self.left_us[place.rows, place.columns].min())

    def check(self, command: AcquireFrame, place: Place) -> None:
        """Raise CommandRefused for more exposure than is left, or another than recorded where there are no counts."""
        wanted_us = command.scan.dwell_time_us * command.subframe_count
        uncounted = sorted(self.image.detectors.keys() - self.counted)
        is_whole = command.subframe_count == 1 and abs(wanted_us / self.dwell_time_us - 1) <= _TOLERANCE
        if uncounted and not is_whole:
            raise CommandRefused(
                f"{self.image.name}: {', '.join(uncounted)} holds no counts of electrons, so it has no noise of a "
                f"shorter dwell; ask for one sub-frame of {self.dwell_time_us:g} us"
            )
        left_us = self.short_us(place)
        if left_us < wanted_us * (1 - _TOLERANCE):
            raise CommandRefused(
                f"{self.image.name} has {left_us:g} us of recorded exposure left there, {wanted_us:g} us were asked "
                "for; ask for less, or another place"
            )

    def read(self, command: AcquireFrame, place: Place, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Use up a checked exposure: (sub-frames, rows, columns) by detector."""
        part = (place.rows, place.columns)
        frames: dict[str, list[np.ndarray]] = {name: [] for name in self.image.detectors}
        for _ in range(command.subframe_count):
            share = np.clip(command.scan.dwell_time_us / self.left_us[part], 0.0, 1.0)
            share[share > 1 - _TOLERANCE] = 1.0
            for name, values in self.image.detectors.items():
                if name in self.counted:
                    of_each = share.reshape(share.shape + (1,) * (values.ndim - 2))
                    taken = rng.binomial(self.left[name][part], of_each)
                    self.left[name][part] -= taken
                    frames[name].append(taken.astype(np.uint32))
                else:
                    frames[name].append(_scaled(values[part], *self.scales[name]))
            self.left_us[part] -= command.scan.dwell_time_us
            self.left_us[part][self.left_us[part] < self.dwell_time_us * _TOLERANCE] = 0.0
        return {name: np.stack(taken) for name, taken in frames.items()}


def _by_point(values: np.ndarray) -> np.ndarray:
    """All that was counted at each point, over all channels of a spectrum."""
    return values.sum(axis=tuple(range(2, values.ndim)), dtype=np.float64)


def _scale(image: str, detector: str, values: np.ndarray) -> tuple[float, float]:
    """Zero and step that bring these values to unsigned integers: (0, 1) where they are such, else 16 or 32 bits."""
    if not np.isfinite(values).all():
        raise ConfigurationError(f"{image}: {detector} holds values that are no finite numbers; repair the file")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "ui" and low >= 0 and high < 2**32:
        return 0.0, 1.0
    levels = _LEVELS if values.ndim == 2 else _LEVELS_OF_SPECTRA
    return low, (high - low) / levels or 1.0


def _scaled(values: np.ndarray, zero: float, step: float) -> np.ndarray:
    return np.rint((values.astype(np.float64) - zero) / step).astype(np.uint32)


def _quanta(image: str, detector: str, values: np.ndarray) -> np.ndarray:
    wrong = ~np.isfinite(values) | (values < 0) | (values > 2**32 - 1) | (values != np.rint(values))
    if wrong.any():
        row, column, *channel = np.argwhere(wrong)[0]
        at = f"row {row}, column {column}" + (f", channel {channel[-1]}" if channel else "")
        raise ConfigurationError(
            f"{image}: {detector} is {values[row, column, *channel]} at {at}: no number of electrons; "
            "leave `counted` out, and only the recorded dwell is replayed"
        )
    return values.astype(np.int64)
