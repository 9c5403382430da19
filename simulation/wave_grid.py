"""The grid of the wave: pixels, spatial frequencies and antialias aperture. Arrays are (row, column) = (y, x)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from simulation.arguments import positive, whole_pair
from simulation.errors import InvalidParameter

ANTIALIAS_FRACTION = 0.6666666
"""Band limit as a fraction of the Nyquist frequency of the coarser side."""
_TAPER_CYCLES_PER_PIXEL = 0.01
_PIXEL_LIMIT = 2**15


@dataclass(frozen=True, slots=True)
class WaveGrid:
    """`shape_px` pixels over the periodic `extent_angstrom`, both (y, x).

    `band_sampling_angstrom`: the pixel whose antialias aperture holds here; None for the coarser side of its own.
    `aperture_edge`: how the edge of the probe's aperture falls onto the frequencies (see `probe.aperture_function`).
    """

    shape_px: tuple[int, int]
    extent_angstrom: tuple[float, float]
    band_sampling_angstrom: float | None = None
    aperture_edge: str = "soft"

    @classmethod
    def for_cell(
        cls, width_angstrom: float, height_angstrom: float, sampling_nm: float, shape_px: tuple[int, int] | None
    ) -> WaveGrid:
        """At least the sampling asked for, rounded up to FFT-friendly sizes unless `shape_px` fixes them."""
        if shape_px is None:
            sampling_nm = positive("sampling_nm", sampling_nm, "nm")
            counts = (steps_across(height_angstrom, sampling_nm * 10), steps_across(width_angstrom, sampling_nm * 10))
            too = "fine" if max(counts) > _PIXEL_LIMIT else "coarse"
            _check_shape(counts, f"sampling_nm = {sampling_nm:g} nm is too {too} for this cell")
            shape_px = (fft_friendly(counts[0]), fft_friendly(counts[1]))
        else:
            shape_px = whole_pair("grid_shape_px", shape_px)
            _check_shape(shape_px, "grid_shape_px is (rows, columns)")
        return cls(shape_px, (height_angstrom, width_angstrom))

    @property
    def sampling_angstrom(self) -> tuple[float, float]:
        """Pixel size (y, x)."""
        return self.extent_angstrom[0] / self.shape_px[0], self.extent_angstrom[1] / self.shape_px[1]

    @property
    def cutoff_per_angstrom(self) -> float:
        """Spatial frequency beyond which no wave exists (antialiasing)."""
        return ANTIALIAS_FRACTION / (2 * self._band_sampling)

    @property
    def _band_sampling(self) -> float:
        return max(self.sampling_angstrom) if self.band_sampling_angstrom is None else self.band_sampling_angstrom

    def cutoff_mrad(self, wavelength_angstrom: float) -> float:
        """The same as an angle."""
        return self.cutoff_per_angstrom * wavelength_angstrom * 1e3

    def frequencies_per_angstrom(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """ky as (rows, 1) and kx as (1, columns) in FFT order, cycles per angstrom."""
        ky = np.asarray(np.fft.fftfreq(self.shape_px[0], self.sampling_angstrom[0]), dtype=np.float64)
        kx = np.asarray(np.fft.fftfreq(self.shape_px[1], self.sampling_angstrom[1]), dtype=np.float64)
        return ky[:, None], kx[None, :]

    def squared_frequencies(self) -> NDArray[np.float64]:
        """k^2 in FFT order, (rows, columns), per square angstrom."""
        ky, kx = self.frequencies_per_angstrom()
        return ky**2 + kx**2

    def antialias_aperture(self, offset_per_angstrom: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
        """1 inside, 0 beyond the cutoff, a raised cosine between; (rows, columns) in FFT order.

        `offset_per_angstrom` (y, x) is added to every frequency: for waves that are periodic but for a plane wave.
        """
        ky, kx = self.frequencies_per_angstrom()
        k2 = (ky + offset_per_angstrom[0]) ** 2 + (kx + offset_per_angstrom[1]) ** 2
        width = _TAPER_CYCLES_PER_PIXEL / self._band_sampling
        start = self.cutoff_per_angstrom - width
        aperture = (k2 <= start**2).astype(np.float64)
        edge = np.nonzero((k2 > start**2) & (k2 <= self.cutoff_per_angstrom**2))
        aperture[edge] = 0.5 * (1 + np.cos(np.pi * (np.sqrt(k2[edge]) - start) / width))
        return aperture

    def part(self, parts: tuple[int, int], *, same_pixels: bool = False) -> WaveGrid:
        """The smallest FFT-friendly grid of 1/parts (y, x) of the extent that holds products of waves of this band.

        Where the pixels of this grid can be divided into an FFT-friendly number, those of the part are the same; with
        `same_pixels` into any number.
        """
        shape = []
        for count, extent, share in zip(self.shape_px, self.extent_angstrom, parts, strict=True):
            needed = steps_across(extent / share, self._band_sampling)
            divides = count % share == 0 and (same_pixels or fft_friendly(count // share) == count // share)
            shape.append(count // share if divides else fft_friendly(max(4, needed)))
        extent = self.extent_angstrom[0] / parts[0], self.extent_angstrom[1] / parts[1]
        return WaveGrid((shape[0], shape[1]), extent, self._band_sampling, self.aperture_edge)

    def finer(self, factor: int) -> WaveGrid:
        """The same extent with `factor` times the pixels a side."""
        return WaveGrid((self.shape_px[0] * factor, self.shape_px[1] * factor), self.extent_angstrom)


def fft_friendly(count: int) -> int:
    """The next number with no prime factor above 5.

    >>> fft_friendly(313)
    320
    """
    friendly = scipy.fft.next_fast_len(count, True)
    if friendly is None:
        raise InvalidParameter(f"no FFT-friendly size is known for {count} pixels")
    return friendly


def steps_across(length_angstrom: float, step_angstrom: float) -> int:
    """ceil(length / step), forgiving rounding: a whole number of steps within 1e-6 stays that number; at least 1."""
    return max(1, ceil(length_angstrom / step_angstrom - 1e-6))


def _check_shape(shape_px: tuple[int, int], remedy: str) -> None:
    for count in shape_px:
        if not 4 <= count <= _PIXEL_LIMIT:
            raise InvalidParameter(f"a wave grid of {shape_px} pixels is outside 4 to {_PIXEL_LIMIT} a side; {remedy}")
