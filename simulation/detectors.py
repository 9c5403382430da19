"""Detectors in the diffraction plane: annular, segmented and pixelated; angles are wavelength times frequency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from simulation.arguments import as_float, finite, not_negative, positive, whole, whole_pair
from simulation.backend import Array, Backend
from simulation.errors import InvalidParameter
from simulation.wave_grid import WaveGrid


@dataclass(frozen=True, slots=True)
class AnnularDetector:
    """Everything with inner <= angle < outer; bright field has inner_mrad = 0 and includes the centre."""

    inner_mrad: float
    outer_mrad: float

    def __post_init__(self) -> None:
        """Refuse empty rings."""
        _set_ring(self)


@dataclass(frozen=True, slots=True)
class SegmentedDetector:
    """Rings of equal width cut into equal segments, counted from +x towards +y; the first starts at `rotation_deg`."""

    inner_mrad: float
    outer_mrad: float
    ring_count: int = 1
    segment_count: int = 4
    rotation_deg: float = 0.0

    def __post_init__(self) -> None:
        """Refuse empty rings and counts below one."""
        _set_ring(self)
        for name in ("ring_count", "segment_count"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        object.__setattr__(self, "rotation_deg", finite("rotation_deg", self.rotation_deg, "degrees"))


@dataclass(frozen=True, slots=True)
class PixelatedDetector:
    """The diffraction pattern on the pixels of the wave grid, zero angle at index n // 2 of each axis.

    `max_angle_mrad` is half the side of the square kept; by default the rectangle inscribed in the antialias cutoff.
    `shape_px` (rows, columns) fixes the size instead.
    """

    max_angle_mrad: float | None = None
    shape_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive."""
        if self.max_angle_mrad is not None:
            object.__setattr__(self, "max_angle_mrad", positive("max_angle_mrad", self.max_angle_mrad, "mrad"))
        if self.shape_px is not None:
            object.__setattr__(self, "shape_px", whole_pair("shape_px", self.shape_px))


Detector = AnnularDetector | SegmentedDetector | PixelatedDetector
_AXES = frozenset({"x", "y", "point", "detector_y", "detector_x"})


@dataclass(frozen=True, slots=True)
class _Window:
    """Flat pixel indices of a pixelated detector, its shape, and its angles in mrad."""

    indices: NDArray[np.int64]
    y_mrad: NDArray[np.float64]
    x_mrad: NDArray[np.float64]


class DetectorBank:
    """All detectors of one exposure, prepared for one diffraction grid.

    `pixels`: flat indices of the grid's pixels that intensities will hold (all of them if None); `cutoff_mrad`: the
    angle beyond which no wave exists.
    """

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        grid: WaveGrid,
        wavelength_angstrom: float,
        cutoff_mrad: float,
        on: Backend,
        pixels: NDArray[np.int64] | None = None,
    ) -> None:
        """Make the masks, and the lists of pixels of pixelated detectors."""
        self._detectors = dict(detectors)
        self._on = on
        angles = _Angles(grid, wavelength_angstrom)
        count = grid.shape_px[0] * grid.shape_px[1]
        keep = np.arange(count) if pixels is None else pixels
        self._masks: dict[str, Array] = {}
        self._windows: dict[str, _Window] = {}
        self._gathers: dict[str, Array] = {}
        inverse = np.full(count, len(keep), dtype=np.int64)
        inverse[keep] = np.arange(len(keep))
        for name, detector in self._detectors.items():
            if isinstance(detector, PixelatedDetector):
                window = _window(detector, grid, wavelength_angstrom, cutoff_mrad)
                self._windows[name] = window
                self._gathers[name] = on.asarray(inverse[window.indices])
            else:
                masks = angles.masks(detector)[keep].astype(on.real_type)
                self._masks[name] = on.asarray(masks)

    def measure(self, intensity: Array) -> dict[str, Array]:
        """Signals from intensities (n, pixels), which sum to 1 in vacuum: (n, *detector shape) by name."""
        xp = self._on.xp
        signals: dict[str, Array] = {}
        for name, masks in self._masks.items():
            shape = detector_shape(self._detectors[name])
            signals[name] = xp.reshape(xp.matmul(intensity, masks), (intensity.shape[0], *shape))
        if not self._gathers:
            return signals
        padded = xp.concat([intensity, xp.zeros_like(intensity[:, :1])], axis=1)
        for name, gather in self._gathers.items():
            window = self._windows[name]
            shape = (intensity.shape[0], len(window.y_mrad), len(window.x_mrad))
            signals[name] = xp.reshape(xp.take(padded, gather, axis=1), shape)
        return signals

    def angles_mrad(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Axes (y, x) of a pixelated detector."""
        return self._windows[name].y_mrad, self._windows[name].x_mrad


class _Angles:
    """Polar scattering angles of a grid's pixels, flat."""

    def __init__(self, grid: WaveGrid, wavelength_angstrom: float) -> None:
        ky, kx = grid.frequencies_per_angstrom()
        self._polar_mrad = (1e3 * wavelength_angstrom * np.hypot(ky, kx)).ravel()
        self._azimuth_deg = np.degrees(np.arctan2(ky, kx)).ravel()

    def masks(self, detector: AnnularDetector | SegmentedDetector) -> NDArray[np.bool_]:
        """(pixels, channels)."""
        polar = self._polar_mrad
        if isinstance(detector, AnnularDetector):
            return ((polar >= detector.inner_mrad) & (polar < detector.outer_mrad))[:, None]
        width = (detector.outer_mrad - detector.inner_mrad) / detector.ring_count
        ring = np.floor((polar - detector.inner_mrad) / width)
        ring = np.where(polar < detector.outer_mrad, np.minimum(ring, detector.ring_count - 1), -1)
        turn = np.mod(self._azimuth_deg - detector.rotation_deg, 360.0) / 360.0
        segment = np.minimum(np.floor(turn * detector.segment_count), detector.segment_count - 1)
        channel = np.where((ring >= 0) & (polar >= detector.inner_mrad), ring * detector.segment_count + segment, -1)
        return channel[:, None] == np.arange(detector.ring_count * detector.segment_count)[None, :]


def has_pixels(detectors: Mapping[str, Detector]) -> bool:
    """Whether any of them records diffraction patterns."""
    return any(isinstance(detector, PixelatedDetector) for detector in detectors.values())


def channel_masks(
    detector: AnnularDetector | SegmentedDetector, grid: WaveGrid, wavelength_angstrom: float
) -> NDArray[np.bool_]:
    """Which of a grid's pixels each channel of a detector counts, (pixels, channels)."""
    return _Angles(grid, wavelength_angstrom).masks(detector)


def detector_shape(detector: Detector) -> tuple[int, ...]:
    """Trailing shape of the signal of a detector whose size does not depend on the grid."""
    return (detector.ring_count, detector.segment_count) if isinstance(detector, SegmentedDetector) else ()


def value_count(
    detectors: Mapping[str, Detector], grid: WaveGrid, wavelength_angstrom: float, cutoff_mrad: float
) -> int:
    """Numbers that all detectors give for one probe."""
    steps_mrad = [1e3 * wavelength_angstrom / extent for extent in grid.extent_angstrom]
    return sum(
        prod(detector.shape_px or _window_shape(detector, grid, steps_mrad, cutoff_mrad))
        if isinstance(detector, PixelatedDetector)
        else prod(detector_shape(detector))
        for detector in detectors.values()
    )


def check_detectors(detectors: Mapping[str, Detector], cutoff_mrad: float) -> dict[str, float]:
    """Outer angles that the antialias cutoff clips, by name; an error for a detector wholly beyond it."""
    if not isinstance(detectors, Mapping):
        raise InvalidParameter(
            f"detectors is a {type(detectors).__name__}; give each a name, such as"
            ' {"haadf": AnnularDetector(80, 160)}'
        )
    if not detectors:
        raise InvalidParameter('no detectors given; give at least one, such as {"haadf": AnnularDetector(80, 160)}')
    for name in detectors:
        if not isinstance(name, str) or not name:
            raise InvalidParameter(f"a detector is called {name!r}; its name must be a text, such as 'haadf'")
        if name in _AXES:
            raise InvalidParameter(f"a detector called {name!r} cannot be told from that axis; give it another name")
    outer = {name: _outer_mrad(name, detector, cutoff_mrad) for name, detector in detectors.items()}
    return {name: cutoff_mrad for name, mrad in outer.items() if mrad is not None and mrad > cutoff_mrad}


def _outer_mrad(name: str, detector: Detector, cutoff_mrad: float) -> float | None:
    """How far out a detector reaches; None: as far as there are waves."""
    if isinstance(detector, PixelatedDetector):
        return detector.max_angle_mrad
    if not isinstance(detector, AnnularDetector | SegmentedDetector):
        raise InvalidParameter(f"detector {name!r} is a {type(detector).__name__}, not a detector of this package")
    if detector.inner_mrad >= cutoff_mrad:
        raise InvalidParameter(
            f"detector {name!r} starts at {detector.inner_mrad:g} mrad, beyond the antialias cutoff"
            f" {cutoff_mrad:.1f} mrad of this grid; use a finer sampling_nm or a smaller inner_mrad"
        )
    return detector.outer_mrad


def check_not_empty(detectors: Mapping[str, Detector], grid: WaveGrid, wavelength_angstrom: float) -> None:
    """Refuse a ring so narrow that no wave of the cell falls on it."""
    step_mrad = 1e3 * wavelength_angstrom / min(grid.extent_angstrom)
    for name, detector in detectors.items():
        if isinstance(detector, PixelatedDetector) or detector.outer_mrad - detector.inner_mrad > 2 * step_mrad:
            continue
        if not _Angles(grid, wavelength_angstrom).masks(detector).any():
            raise InvalidParameter(
                f"detector {name!r} from {detector.inner_mrad:g} to {detector.outer_mrad:g} mrad counts nothing: the"
                f" diffraction plane of this cell has steps of {step_mrad:.2f} mrad; use a wider ring or a larger cell"
            )


def _set_ring(ring: AnnularDetector | SegmentedDetector) -> None:
    """Angles as floats; the outer one may be infinite."""
    inner_mrad = not_negative("inner_mrad", ring.inner_mrad, "mrad")
    outer_mrad = inf if as_float(ring.outer_mrad) == inf else positive("outer_mrad", ring.outer_mrad, "mrad")
    if outer_mrad <= inner_mrad:
        raise InvalidParameter(
            f"a ring from {inner_mrad:g} to {outer_mrad:g} mrad is empty; give 0 <= inner_mrad < outer_mrad, in mrad"
        )
    object.__setattr__(ring, "inner_mrad", inner_mrad)
    object.__setattr__(ring, "outer_mrad", outer_mrad)


def _window(detector: PixelatedDetector, grid: WaveGrid, wavelength_angstrom: float, cutoff_mrad: float) -> _Window:
    steps_mrad = [1e3 * wavelength_angstrom / extent for extent in grid.extent_angstrom]
    counts = detector.shape_px or _window_shape(detector, grid, steps_mrad, cutoff_mrad)
    for count, available in zip(counts, grid.shape_px, strict=True):
        if count > available:
            raise InvalidParameter(f"a pixelated detector of {counts} pixels exceeds the wave grid {grid.shape_px}")
    rows, columns = (np.arange(count, dtype=np.int64) - count // 2 for count in counts)
    indices = (rows % grid.shape_px[0])[:, None] * grid.shape_px[1] + (columns % grid.shape_px[1])[None, :]
    y_mrad = np.asarray(rows * steps_mrad[0], dtype=np.float64)
    x_mrad = np.asarray(columns * steps_mrad[1], dtype=np.float64)
    return _Window(indices.ravel(), y_mrad, x_mrad)


def _window_shape(
    detector: PixelatedDetector, grid: WaveGrid, steps_mrad: list[float], cutoff_mrad: float
) -> tuple[int, int]:
    """Odd counts, so that zero angle is in the middle."""
    reach_mrad = cutoff_mrad / sqrt(2) if detector.max_angle_mrad is None else detector.max_angle_mrad
    rows, columns = (
        2 * min(floor(reach_mrad / step + 1e-9), (count - 1) // 2) + 1
        for step, count in zip(steps_mrad, grid.shape_px, strict=True)
    )
    return rows, columns
