"""Images of perfect crystals: every plane wave of the probe is propagated through one unit cell only.

In a cell that holds n_y x n_x unit cells multislice splits into n_y n_x Bloch vectors q: a plane wave k = q + g meets
only waves q + g', with g and g' reciprocal to the unit cell. So each wave lives on the unit cell's grid, with its
frequencies moved by q, and mirrors and rotations of the crystal give most waves from the others. The result is
multislice's up to rounding where the unit cell has the same pixels and no mirrors; else transmission functions, which
depend a little on where atoms lie between pixels, leave up to 2e-5 of the image's standard deviation.

Detectors with few channels need only M_D[k, k'] = sum over K in D of conj(S_k(K)) S_k'(K), k and k' of equal q; the
image is a Fourier series over the differences k' - k, and re-imaging propagates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.bloch_waves import BlochWaves
from simulation.crystal_symmetry import Crystal
from simulation.detectors import (
    AnnularDetector,
    Detector,
    PixelatedDetector,
    SegmentedDetector,
    channel_masks,
    detector_shape,
)
from simulation.device_batches import in_batches
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.probe import aperture_function, probe_spectrum
from simulation.progress import batches
from simulation.wave_grid import WaveGrid

_POINTS_PER_BLOCK = 8192
_LARGEST_MEMORY_SHARE = 0.8
_KEPT_GRAM_BYTES = 256 * 2**20


def matrix_counts(grid: WaveGrid, optics: Optics, crystal: Crystal) -> tuple[int, float, float]:
    """Plane waves of the aperture, and to how many waves and how many plane waves each belongs on average."""
    beams = int(np.count_nonzero(aperture_function(optics, grid)))
    waves = int(np.count_nonzero(grid.squared_frequencies() <= grid.cutoff_per_angstrom**2))
    bloch_vectors = crystal.repeats[0] * crystal.repeats[1]
    return beams, waves / bloch_vectors, max(1.0, beams / bloch_vectors)


def bloch_matrix_bytes(grid: WaveGrid, optics: Optics, crystal: Crystal) -> int:
    """Memory in single precision of the matrix while it is made, and of one channel's products with their addresses."""
    beams, waves_each, beams_each = matrix_counts(grid, optics, crystal)
    return int(beams * (2 * 8 * waves_each + (8 + 8) * beams_each))


def check_bloch_memory(grid: WaveGrid, optics: Optics, crystal: Crystal, on: Backend) -> None:
    """Refuse a matrix too large for the device, before anything is computed for it."""
    needed = bloch_matrix_bytes(grid, optics, crystal) * on.complex_bytes // 8
    if needed > _LARGEST_MEMORY_SHARE * on.memory_bytes:
        raise InvalidParameter(
            f"the scattering matrix of method 'periodic' needs {needed / 2**30:.1f} GiB for a unit repeated"
            f" {crystal.repeats} times along (y, x), above {_LARGEST_MEMORY_SHARE:.0%} of the"
            f" {on.memory_bytes / 2**30:.1f} GiB free on {on.name}; use fewer repeats of the large unit, a smaller"
            " aperture, or method='multislice'"
        )


class BlochMatrix:
    """Rows S_k(K) of the scattering matrix of a perfect crystal for the plane waves of an aperture."""

    def __init__(self, optics: Optics, waves: BlochWaves, on: Backend) -> None:
        """`waves` have crossed the crystal; `optics` gives energy and the largest aperture."""
        self._on, self.vectors = on, waves.vectors
        self.grid, self.parts = waves.vectors.grid, waves.parts()
        self.semi_convergence_angle_mrad = optics.semi_convergence_angle_mrad
        self._wavelength = wavelength_angstrom(optics.beam_energy_ev)
        self.pixels: NDArray[np.int64] | None = waves.vectors.pixels
        self._grams: dict[Detector, list[list[NDArray[Any]]]] = {}
        self._addresses = self._difference_addresses()

    @property
    def bytes_count(self) -> int:
        """Memory of the matrix and of what was made of it."""
        rows = sum(int(part.nbytes) for part in self.parts)
        return rows + sum(address.nbytes for address in self._addresses[0]) + self._gram_bytes()

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        xp, rows_of = self._on.xp, self.vectors.rows
        count = self._on.batch_count(2 * self._on.complex_bytes * len(self.vectors.pixels))

        def seen(start: int, stop: int) -> tuple[int, Array]:
            amplitudes = self._on.asarray(self.amplitudes(optics, points_angstrom[start:stop]))
            waves = [
                xp.matmul(xp.take(amplitudes, self._on.asarray(rows), axis=1), part)
                for rows, part in zip(rows_of, self.parts, strict=True)
            ]
            found = xp.concat(waves, axis=1)
            return start, self._on.fused.intensity(found)

        total = len(points_angstrom)
        yield from in_batches(seen, batches(total, count, "probes"), count, total, self._on)

    def amplitudes(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> NDArray[Any]:
        """Of each plane wave of the aperture in each probe, (points, beams)."""
        turns: list[NDArray[Any]] = []
        for axis, extent in enumerate(self.grid.extent_angstrom):
            orders, which = np.unique(self.vectors.beams[:, axis], return_inverse=True)
            ramp = np.exp(-2j * np.pi / extent * points_angstrom[:, 1 - axis, None] * orders)
            turns.append(ramp.astype(self._on.complex_type)[:, which])
        return turns[0] * turns[1] * self._coefficients(optics).astype(self._on.complex_type)

    def signals(
        self,
        optics: Optics,
        points_angstrom: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        source_sigma_angstrom: float = 0.0,
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape) of detectors with channels, from the Gram matrices kept for them.

        A source multiplies each term of the Fourier series by a Gaussian.
        """
        found: dict[str, NDArray[np.float64]] = {}
        coefficients = self._coefficients(optics)
        for name, detector in detectors.items():
            if isinstance(detector, PixelatedDetector):
                raise MethodUnavailable(f"detector {name!r} has pixels: ask for intensities instead")
            channels = [
                self._series(gram, coefficients, points_angstrom, source_sigma_angstrom)
                for gram in self._channel_grams(detector)
            ]
            values = np.stack(channels, axis=1)
            is_ring = isinstance(detector, AnnularDetector)
            found[name] = values[:, 0] if is_ring else values.reshape(len(values), *detector_shape(detector))
        return found

    def _coefficients(self, optics: Optics) -> NDArray[np.complex128]:
        return probe_spectrum(optics, self.grid).ravel()[self.vectors.flat(self.vectors.beams)]

    def _channel_grams(self, detector: AnnularDetector | SegmentedDetector) -> Iterator[list[NDArray[Any]]]:
        """For each channel the matrices M of all Bloch vectors; those of the last detectors are kept."""
        if detector not in self._grams:
            masks = channel_masks(detector, self.grid, self._wavelength)[self.pixels]
            self._grams[detector] = [self._gram(masks[:, channel]) for channel in range(masks.shape[1])]
            while len(self._grams) > 1 and self._gram_bytes() > _KEPT_GRAM_BYTES:
                del self._grams[next(iter(self._grams))]
        yield from self._grams[detector]

    def _gram_bytes(self) -> int:
        return sum(gram.nbytes for channels in self._grams.values() for grams in channels for gram in grams)

    def _gram(self, mask: NDArray[np.bool_]) -> list[NDArray[Any]]:
        xp, start = self._on.xp, 0
        grams: list[NDArray[Any]] = []
        for part in self.parts:
            inside = np.flatnonzero(mask[start : start + part.shape[1]])
            start += part.shape[1]
            seen = xp.take(part, self._on.asarray(inside), axis=1)
            grams.append(self._on.to_numpy(xp.matmul(xp.conj(seen), xp.matrix_transpose(seen))))
        return grams

    def _difference_addresses(self) -> tuple[list[NDArray[np.int64]], tuple[int, int]]:
        """Where (k, k') of each Bloch vector go in the table of differences, in steps of the unit cell's lattice."""
        reach = (np.abs(self.vectors.beams).max(axis=0) * 2) // self.vectors.repeats + 1
        shape = 2 * reach + 1
        addresses: list[NDArray[np.int64]] = []
        for rows in self.vectors.rows:
            steps = (
                self.vectors.beams[rows][None, :, :] - self.vectors.beams[rows][:, None, :]
            ) // self.vectors.repeats + reach
            addresses.append((steps[:, :, 0] * shape[1] + steps[:, :, 1]).ravel())
        return addresses, (int(shape[0]), int(shape[1]))

    def _series(
        self,
        grams: list[NDArray[Any]],
        coefficients: NDArray[np.complex128],
        points_angstrom: NDArray[np.float64],
        source_sigma_angstrom: float,
    ) -> NDArray[np.float64]:
        """I(r) = sum over G of h_G exp(-2 pi i G.r), h_G the sum over k' - k = G of conj(c_k) c_k' M[k, k']."""
        addresses, shape = self._addresses
        table = np.zeros(shape[0] * shape[1], dtype=np.complex128)
        for rows, gram, address in zip(self.vectors.rows, grams, addresses, strict=True):
            own = coefficients[rows]
            weights = (np.conj(own)[:, None] * own[None, :] * gram).ravel()
            table += np.bincount(address, weights.real, len(table)) + 1j * np.bincount(
                address, weights.imag, len(table)
            )
        steps_y, steps_x = (np.arange(count) - count // 2 for count in shape)
        unit_y, unit_x = np.asarray(self.grid.extent_angstrom) / self.vectors.repeats
        squares = (steps_y[:, None] / unit_y) ** 2 + (steps_x / unit_x) ** 2
        series = table.reshape(shape) * np.exp(-2 * (np.pi * source_sigma_angstrom) ** 2 * squares)
        values = np.empty(len(points_angstrom))
        for start in range(0, len(points_angstrom), _POINTS_PER_BLOCK):
            points = points_angstrom[start : start + _POINTS_PER_BLOCK]
            along_y = np.exp(-2j * np.pi * points[:, 1, None] * steps_y / unit_y)
            along_x = np.exp(-2j * np.pi * points[:, 0, None] * steps_x / unit_x)
            values[start : start + len(points)] = np.sum((along_y @ series) * along_x, axis=1).real
        return values
