"""Single-side-band ptychography of weak phase objects, one spatial frequency of the scan at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import ArrayLike, NDArray

from instruments.optics import Optics
from simulation.aberrations import chi
from simulation.argument_kinds import kinds_checked
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.phase_contrast.fields import Array, check_axes, check_fractions
from simulation.probe import APERTURES

_CHUNK = 2**22


@kinds_checked
def single_side_band(
    patterns: Array,
    y_mrad: ArrayLike,
    x_mrad: ArrayLike,
    pixel_nm: tuple[float, float],
    optics: Optics,
    *,
    least_overlap_px: int = 4,
    aperture: str = "soft",
) -> Array:
    """Phase in rad (scan_y, scan_x), mean 0, of a weak phase object from patterns over a periodic raster scan.

    Patterns are (scan_y, scan_x, detector_y, detector_x) in fractions of the beam, `pixel_nm` the scan's (y, x).
    To first order the transform over probe positions is G(K, Q) = i Phi(Q) [A*(K) A(K - Q) - A(K) A*(K + Q)] with
    A the aperture times exp(-i chi) (Rodenburg, McCallum, Nellist, Ultramicroscopy 48 (1993) 304). Only pixels where
    exactly one of the two products is not zero are used, with the aberrations divided out and weighted by least squares
    (Pennycook et al., Ultramicroscopy 151 (2015) 160). Frequencies beyond twice the aperture, or with fewer than
    `least_overlap_px` pixels, stay 0. Valid while the phase is well below 1 rad and the scan is periodic or empty
    at its edges; no detector pixel may be wider than the aperture's radius. The aperture's edge is one pixel wide, as
    in a simulation, or `hard`: the wrong one costs a percent or two of the phase. The transform of all patterns is
    held in memory at once.
    """
    if patterns.ndim != 4:
        raise InvalidParameter(
            f"patterns of shape {tuple(patterns.shape)} must be (scan_y, scan_x, detector_y, detector_x)"
        )
    if aperture not in APERTURES:
        raise InvalidParameter(f"unknown aperture {aperture!r}; choose one of {', '.join(APERTURES)}")
    if not all(0 < side < inf for side in pixel_nm):
        raise InvalidParameter(f"pixel_nm = {pixel_nm} must be positive and finite, (y, x) in nm")
    xp = array_namespace(patterns)
    check_axes(patterns, y_mrad, x_mrad)
    for angles in (np.asarray(y_mrad, np.float64), np.asarray(x_mrad, np.float64)):
        if len(angles) > 1 and not np.allclose(np.diff(angles), angles[1] - angles[0], rtol=1e-3):
            raise InvalidParameter("the angles of the detector's pixels must have equal steps")
    check_fractions("patterns", patterns)
    plane = _Plane(optics, np.asarray(y_mrad, np.float64), np.asarray(x_mrad, np.float64), aperture)
    rows, columns = patterns.shape[0], patterns.shape[1]
    spectrum = xp.fft.fftn(patterns, axes=(0, 1)) / (rows * columns)
    spectrum = xp.reshape(spectrum, (rows * columns, -1))[:, _flat(xp, plane.used, patterns)]
    frequencies = _scan_frequencies((rows, columns), pixel_nm)
    found = np.zeros(rows * columns, np.complex128)
    seen_count = 0
    for part in _parts(len(frequencies), len(plane.used)):
        response = plane.response(frequencies[part])
        enough = (response != 0).sum(axis=1) >= least_overlap_px
        seen_count += int(enough.sum())
        weights = np.where(enough[:, None], response.conj(), 0)
        norm = np.maximum(np.sum(np.abs(weights) ** 2, axis=1), np.finfo(float).tiny)
        own = xp.asarray(weights / norm[:, None], dtype=spectrum.dtype, device=device(patterns))
        found[part] = -1j * _host(xp.sum(own * spectrum[part], axis=1))
    if seen_count == 0:
        raise InvalidParameter(
            f"no side band is seen of {rows} x {columns} pixels of {pixel_nm} nm on angles of"
            f" {np.ptp(y_mrad) / 2:g} x {np.ptp(x_mrad) / 2:g} mrad to each side, of an aperture of"
            f" {optics.semi_convergence_angle_mrad:g} mrad; give angles in mrad, pixels in nm, or a larger scan"
        )
    found[0] = 0
    phase = np.fft.ifft2(found.reshape(rows, columns)) * rows * columns
    return xp.asarray(phase.real, dtype=patterns.dtype, device=device(patterns))


class _Plane:
    """The incident wave at the detector's pixels, which sums to 1 in intensity, and as a function between them."""

    def __init__(self, optics: Optics, y_mrad: NDArray[np.float64], x_mrad: NDArray[np.float64], aperture: str) -> None:
        if len(y_mrad) < 2 or len(x_mrad) < 2:
            raise InvalidParameter("single-side-band needs patterns of at least 2 by 2 pixels")
        self._optics = optics
        self._is_hard = aperture == "hard"
        self._wavelength = wavelength_angstrom(optics.beam_energy_ev)
        self._step_mrad = float(y_mrad[1] - y_mrad[0]), float(x_mrad[1] - x_mrad[0])
        if max(self._step_mrad) > optics.semi_convergence_angle_mrad:
            raise InvalidParameter(
                f"detector pixels of {max(self._step_mrad):.3g} mrad are wider than the semi-convergence angle"
                f" {optics.semi_convergence_angle_mrad:g} mrad"
            )
        y, x = (each.ravel() for each in np.meshgrid(y_mrad, x_mrad, indexing="ij"))
        total = np.sum(np.abs(self._wave(y, x)) ** 2)
        self._scale = 1 / np.sqrt(total)
        self.used = np.flatnonzero(np.abs(self._wave(y, x)) > 0)
        self._y, self._x = y[self.used], x[self.used]

    def response(self, frequencies_per_angstrom: NDArray[np.float64]) -> NDArray[np.complex128]:
        """A*(K) A(K - Q) - A(K) A*(K + Q) where one of the terms vanishes, else 0; (frequencies, used pixels)."""
        shift = frequencies_per_angstrom * self._wavelength * 1e3
        qy, qx = shift[:, 0, None], shift[:, 1, None]
        here = self._wave(self._y, self._x)[None, :]
        minus = here.conj() * self._wave(self._y[None, :] - qy, self._x[None, :] - qx)
        plus = here * self._wave(self._y[None, :] + qy, self._x[None, :] + qx).conj()
        single = (minus == 0) | (plus == 0)
        return np.where(single, minus - plus, 0) * self._scale**2

    def _wave(self, y_mrad: NDArray[np.float64], x_mrad: NDArray[np.float64]) -> NDArray[np.complex128]:
        """The aperture, its edge one pixel wide as of a simulated probe unless it is hard, times exp(-i chi)."""
        polar = np.hypot(y_mrad, x_mrad)
        safe = np.maximum(polar, 1e-12)
        edge = np.hypot(x_mrad / safe * self._step_mrad[1], y_mrad / safe * self._step_mrad[0])
        limit = self._optics.semi_convergence_angle_mrad
        amplitude = np.clip((limit - polar) / np.where(edge > 0, edge, 1.0) + 0.5, 0, 1)
        if self._is_hard:
            amplitude = (polar <= limit * (1 + 1e-9)).astype(np.float64)
        per_mrad = 1e-3 / self._wavelength
        return amplitude * np.exp(-1j * chi(self._optics, x_mrad * per_mrad, y_mrad * per_mrad))


def _scan_frequencies(shape_px: tuple[int, int], pixel_nm: tuple[float, float]) -> NDArray[np.float64]:
    """(positions, 2) of (y, x) in cycles per angstrom, FFT order."""
    ky, kx = (np.fft.fftfreq(count, pixel * 10) for count, pixel in zip(shape_px, pixel_nm, strict=True))
    return np.stack(np.meshgrid(ky, kx, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float64)


def _parts(count: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, width))
    yield from (slice(start, start + step) for start in range(0, count, step))


def _flat(xp: Array, indices: NDArray[np.int64], like: Array) -> Array:
    return xp.asarray(indices, device=device(like))


def _host(array: Array) -> NDArray[np.complex128]:
    return np.asarray(array.tolist(), dtype=np.complex128)
