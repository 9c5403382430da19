"""Scan distortions beyond an affine one, from the local phase of the lattice: slow drift and creep bend the rows.

The gradient of a phase has no jumps, so rows may bend by more than their distance. Neighbour: `normalised`, whose
images come without the sub-frames that would show drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy

_WINDOW_NM = 0.6
_EVERY_NM = 0.25
_ROUNDS = 3
_INVERSIONS = 4
_POWERS = tuple((i, j) for i in range(4) for j in range(4 - i) if i + j)


@dataclass(frozen=True, slots=True)
class Bending:
    """Where the scan really was: a cubic displacement of the image's points, of mean zero; affine parts included."""

    scale_nm: float
    coefficients: np.ndarray
    middle_nm: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, pixel_size_nm: float, g_per_nm: np.ndarray) -> Self:
        """From an image (rows, columns) of a lattice; `g_per_nm` (k, 2) are reciprocal vectors that are seen well."""
        places = grid_nm(image.shape, pixel_size_nm)
        scale_nm = float(np.abs(places).max())
        flat = image - scipy.ndimage.gaussian_filter(image, _WINDOW_NM / pixel_size_nm)
        every = max(1, round(_EVERY_NM / pixel_size_nm))
        sampled = places[every:-every:every, every:-every:every].reshape(-1, 2)
        slopes = _slopes(sampled, scale_nm)
        coefficients = np.zeros((len(_POWERS), 2))
        for _ in range(_ROUNDS):
            moved = places - _values(places, scale_nm, coefficients)
            coefficients = coefficients + _step(flat, moved, g_per_nm, pixel_size_nm, every, slopes)
        return cls(scale_nm, coefficients, _values(sampled, scale_nm, coefficients).mean(axis=0))

    def displacement_nm(self, xy_nm: np.ndarray) -> np.ndarray:
        """How far a point of the image (..., 2) lies from where the undistorted lattice has it."""
        return _values(xy_nm, self.scale_nm, self.coefficients) - self.middle_nm

    def bent(self, xy_nm: np.ndarray) -> np.ndarray:
        """Where points (..., 2) of the undistorted lattice are in the image."""
        found = xy_nm
        for _ in range(_INVERSIONS):
            found = xy_nm + self.displacement_nm(found)
        return found

    def straightened(self, image: np.ndarray, pixel_size_nm: float) -> np.ndarray:
        """The image as an undistorted scan would have it; nearest values beyond its edges."""
        places = self.bent(grid_nm(image.shape, pixel_size_nm)) / pixel_size_nm
        rows, columns = (places[..., 1] + (image.shape[0] - 1) / 2, places[..., 0] + (image.shape[1] - 1) / 2)
        return scipy.ndimage.map_coordinates(image, [rows, columns], order=1, mode="nearest")


def grid_nm(shape_px: tuple[int, ...], pixel_size_nm: float) -> np.ndarray:
    """(rows, columns, 2) places (x, y) of an image's pixels about its centre."""
    y_nm, x_nm = ((np.arange(length) - (length - 1) / 2) * pixel_size_nm for length in shape_px)
    return np.stack(np.meshgrid(x_nm, y_nm), axis=-1)


def _step(
    flat: np.ndarray, moved_nm: np.ndarray, g_per_nm: np.ndarray, pixel_size_nm: float, every: int, slopes: np.ndarray
) -> np.ndarray:
    """Least squares of the phases' gradients, d phase = -2 pi g . d u, weighted by the power of each fringe."""
    sigma_px = _WINDOW_NM / pixel_size_nm
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for g in g_per_nm:
        wave = flat * np.exp(-2j * np.pi * (moved_nm @ g))
        real, imaginary = (scipy.ndimage.gaussian_filter(part, sigma_px) for part in (wave.real, wave.imag))
        smooth = real + 1j * imaginary
        down, across = np.gradient(smooth, pixel_size_nm)
        inner = (slice(every, -every, every),) * 2
        power = (np.abs(smooth) ** 2)[inner].ravel()
        for number, slope in enumerate((across, down)):
            gradient = np.imag(np.conj(smooth) * slope)[inner].ravel()
            part = slopes[number][:, :, None] * (-2 * np.pi * g)
            left.append(power[:, None] * part.reshape(len(power), -1))
            right.append(gradient)
    return np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0].reshape(-1, 2)


def _values(xy_nm: np.ndarray, scale_nm: float, coefficients: np.ndarray) -> np.ndarray:
    u, v = xy_nm[..., 0] / scale_nm, xy_nm[..., 1] / scale_nm
    return np.stack([u**i * v**j for i, j in _POWERS], axis=-1) @ coefficients


def _slopes(xy_nm: np.ndarray, scale_nm: float) -> np.ndarray:
    """(2, n, powers) of each term along x and y, per nm."""
    u, v = (xy_nm / scale_nm).T
    along_x = np.stack([i * u ** max(i - 1, 0) * v**j for i, j in _POWERS], axis=1)
    along_y = np.stack([j * u**i * v ** max(j - 1, 0) for i, j in _POWERS], axis=1)
    return np.stack([along_x, along_y]) / scale_nm
