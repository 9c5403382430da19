"""How far one image is displaced against another, to a fraction of a pixel, and the transform that follows from it.

Phase correlation (Kuglin and Hines 1975) finds the pixel; plain correlation of what both images show, by an upsampled
discrete Fourier transform (Guizar-Sicairos, Thurman and Fienup, Optics Letters 33, 156, 2008), the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instruments.errors import AcquisitionFailed
from instruments.transforms import FrameName, FrameTransform, as_matrix

_UPSAMPLING = 50
_LEAST_PEAK = 7.0  # of the correlation, in standard deviations of what lies around it
_LEAST_OVERLAP_PX = 16
_MOST_STEPS = 16  # of a pixel or so each


@dataclass(frozen=True, slots=True)
class Displacement:
    """Where the content of the second image lies against the first, in pixels; `peak` is how clearly, in deviations."""

    x_px: float
    y_px: float
    peak: float


@dataclass(frozen=True, slots=True)
class Move:
    """A commanded displacement of one frame and the images before and after it, (rows, columns)."""

    x_nm: float
    y_nm: float
    before: np.ndarray
    after: np.ndarray


def displacement(first: np.ndarray, second: np.ndarray, *, least_peak: float = _LEAST_PEAK) -> Displacement:
    """How far the content of `second` is moved against that of `first`, +x towards higher columns.

    Below `least_peak` standard deviations the images have nothing in common to measure: AcquisitionFailed. Raises
    ValueError for images of different shapes.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"images of {first.shape} and {second.shape} px cannot be registered; take them alike")
    cross = _whitened(_windowed(second) * np.conj(_windowed(first)))
    surface = np.fft.ifft2(cross).real
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    spread = float(surface.std())
    peak = float(surface[row, column]) / spread if spread > 0 else 0.0
    if peak < least_peak:
        raise AcquisitionFailed(
            f"the images have too little in common to measure a displacement: a peak of {peak:.1f} standard "
            f"deviations, at least {least_peak:g} needed; take a field with more structure, or more dose"
        )
    near_px = _signed(int(row), first.shape[0]), _signed(int(column), first.shape[1])
    y_px, x_px = _settled(first, second, cross, near_px)
    return Displacement(x_px, y_px, peak)


def _settled(first: np.ndarray, second: np.ndarray, cross: np.ndarray, near_px: tuple[int, int]) -> tuple[float, float]:
    """The displacement (y, x) near a whole number of pixels, px, by what both images show.

    Amplitudes count here: where features are soft, most phases are noise. Windows alike do not pull towards 0. Raises
    AcquisitionFailed where it comes to no rest.
    """
    y_px, x_px = near_px
    for _ in range(_MOST_STEPS):
        overlap = _overlap(first, y_px, x_px), _overlap(second, -y_px, -x_px)
        if min(overlap[0].shape) < _LEAST_OVERLAP_PX:
            return _refined(cross, y_px, x_px)
        y_rest, x_rest = _refined(_low(_windowed(overlap[1]) * np.conj(_windowed(overlap[0]))), 0, 0)
        if max(abs(y_rest), abs(x_rest)) <= 0.6:
            return y_px + y_rest, x_px + x_rest
        y_px, x_px = y_px + round(y_rest), x_px + round(x_rest)
    raise AcquisitionFailed(
        f"the images do not say where one lies against the other: near ({near_px[1]}, {near_px[0]}) px they agree "
        "nowhere best; take a field with more structure, or more dose"
    )


def _signed(index: int, size: int) -> int:
    return (index + size // 2) % size - size // 2


def _overlap(image: np.ndarray, y_px: int, x_px: int) -> np.ndarray:
    """The part of an image that is still there after its content moved by (y, x)."""
    rows, columns = image.shape
    return image[max(0, -y_px) : rows - max(0, y_px), max(0, -x_px) : columns - max(0, x_px)]


def _windowed(image: np.ndarray) -> np.ndarray:
    """Spectrum of an image without its mean and without its borders."""
    window = np.outer(np.hanning(image.shape[0] + 2)[1:-1], np.hanning(image.shape[1] + 2)[1:-1])
    values = np.asarray(image, dtype=np.float64)
    return np.fft.fft2((values - values.mean()) * window)


def _whitened(cross: np.ndarray) -> np.ndarray:
    """Phases alone, damped where there is little power and towards high frequencies, where noise is."""
    size = np.abs(cross)
    return _low(cross / (size + 1e-3 * float(size.max()) + 1e-300))


def _low(cross: np.ndarray) -> np.ndarray:
    """Damped towards high frequencies, where noise is."""
    rows, columns = (np.fft.fftfreq(size) for size in cross.shape)
    return cross * np.exp(-((rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * 0.15**2)))


def _refined(cross: np.ndarray, y0: int, x0: int) -> tuple[float, float]:
    """The peak near (y0, x0), px, on a grid of 1/50 px, then between its points by a parabola."""
    rows, columns = cross.shape
    offsets = np.arange(-_UPSAMPLING, _UPSAMPLING + 1) / _UPSAMPLING
    up = np.exp(2j * np.pi * np.outer(y0 + offsets, np.fft.fftfreq(rows)))
    across = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(columns), x0 + offsets))
    fine = np.real(up @ cross @ across)
    best_row, best_column = np.unravel_index(int(fine.argmax()), fine.shape)
    y = offsets[best_row] + _between(fine[:, best_column], int(best_row)) / _UPSAMPLING
    x = offsets[best_column] + _between(fine[best_row, :], int(best_column)) / _UPSAMPLING
    return float(y0 + y), float(x0 + x)


def _between(line: np.ndarray, index: int) -> float:
    if not 0 < index < len(line) - 1:
        return 0.0
    low, middle, high = line[index - 1 : index + 2]
    curvature = low - 2 * middle + high
    return float((low - high) / (2 * curvature)) if curvature < 0 else 0.0


def measure_transform(
    moves: Sequence[Move], *, pixel_size_nm: float, source: FrameName, calibration_id: str, pixel_std_px: float = 0.05
) -> FrameTransform:
    """The transform from `source` to the scan frame that these moves show.

    The content of an image moves against its field, so a move of +x that displaces the content by -x is the identity.
    At least two moves in different directions are needed; with more, the scatter among them is the uncertainty, never
    less than that of registering to `pixel_std_px`. Raises ValueError for too few, AcquisitionFailed.
    """
    commanded = np.array([(move.x_nm, move.y_nm) for move in moves], dtype=float).reshape(-1, 2)
    if len(commanded) < 2 or np.linalg.matrix_rank(commanded, tol=1e-3 * float(abs(commanded).max())) < 2:
        raise ValueError(f"{len(commanded)} moves along one line cannot show a transform; move along x and along y")
    found = [displacement(move.before, move.after) for move in moves]
    seen = -pixel_size_nm * np.array([(one.x_px, one.y_px) for one in found])
    solution = np.linalg.lstsq(commanded, seen, rcond=None)[0]
    left = seen - commanded @ solution
    free = max(len(moves) - 2, 1)
    variance = np.maximum((left**2).sum(axis=0) / free, (pixel_std_px * pixel_size_nm) ** 2)
    spread = np.sqrt(np.outer(np.diag(np.linalg.inv(commanded.T @ commanded)), variance))
    return FrameTransform(
        source=source,
        target="scan",
        matrix=as_matrix(solution.T),
        uncertainty=as_matrix(spread.T),
        calibration_id=calibration_id,
    )
