"""PRISM: plane waves are propagated once, and every probe is a sum of their exit waves (Ophus 2017).

With interpolation f > 1 only every f-th plane wave is propagated, and a probe is summed within a window of 1/f of
the cell around it. With f = 1 the result is multislice's, up to rounding. Re-imaging with other positions, defocus,
aberrations or detectors propagates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.device_batches import in_batches
from simulation.errors import InvalidParameter
from simulation.multislice import Propagator, Transmissions, fourier_resized, propagate
from simulation.probe import aperture_function, probe_spectrum
from simulation.progress import batches
from simulation.wave_grid import WaveGrid, fft_friendly

LARGEST_MEMORY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Layout:
    """Grids of a scattering matrix: `window` (probes and detectors) and `stored` (exit waves over the whole cell)."""

    window: WaveGrid
    stored: WaveGrid
    interpolation: int

    @classmethod
    def of(cls, grid: WaveGrid, interpolation: int) -> Layout:
        """The smallest FFT-friendly grids that hold every frequency up to the antialias cutoff."""
        rows, columns = (
            fft_friendly(int(2 * grid.cutoff_per_angstrom * extent / interpolation) + 2)
            for extent in grid.extent_angstrom
        )
        (height, width), edge = grid.extent_angstrom, grid.aperture_edge
        window = WaveGrid((rows, columns), (height / interpolation, width / interpolation), None, edge)
        stored = WaveGrid((rows * interpolation, columns * interpolation), grid.extent_angstrom, None, edge)
        return cls(window, stored, interpolation)

    def beams(self, optics: Optics) -> NDArray[np.int64]:
        """Flat pixel indices of the window grid that lie in the (soft) aperture."""
        return np.flatnonzero(aperture_function(optics, self.window).ravel())


def scattering_matrix_bytes(grid: WaveGrid, optics: Optics, interpolation: int) -> int:
    """Memory that the matrix of one specimen will take in single precision."""
    layout = Layout.of(grid, interpolation)
    pixels = layout.stored.shape_px[0] * layout.stored.shape_px[1]
    if interpolation == 1:
        pixels = len(pixels_within(grid, layout.window))
    return 8 * pixels * len(layout.beams(optics))


class ScatteringMatrix:
    """Exit waves of all beams of an aperture through one specimen."""

    def __init__(
        self, optics: Optics, specimen: Transmissions, grid: WaveGrid, interpolation: int, on: Backend
    ) -> None:
        """Propagate every beam; `optics` gives energy, tilt and the largest aperture that can be asked for.

        `check_memory` says beforehand whether there is room.
        """
        self._on = on
        self._layout = Layout.of(grid, interpolation)
        self._beams = self._layout.beams(optics)
        self.semi_convergence_angle_mrad = optics.semi_convergence_angle_mrad
        self.grid = self._layout.window
        propagator = Propagator(optics, grid, specimen.thickness_angstrom, on)
        exits = exit_waves(self._beams, self._layout, grid, specimen, propagator, on)
        if interpolation == 1:
            self.pixels: NDArray[np.int64] | None = pixels_within(grid, self.grid)
            self._waves = _in_fourier_space(exits, self.pixels, len(self._beams), on)
        else:
            self.pixels = None
            self._waves = _in_real_space(exits, self._layout.stored.shape_px, len(self._beams), on)

    @property
    def bytes_count(self) -> int:
        """Memory of the exit waves."""
        return int(self._waves.nbytes)

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        coefficients = probe_spectrum(optics, self.grid).ravel()[self._beams]
        if self.pixels is not None:
            yield from self._whole_cell(coefficients, points_angstrom)
        else:
            yield from self._windows(coefficients, points_angstrom)

    def _coefficients(self, base: NDArray[np.complex128], points_angstrom: NDArray[np.float64]) -> Array:
        """(points, beams)."""
        ky, kx = self.grid.frequencies_per_angstrom()
        row, column = np.divmod(self._beams, self.grid.shape_px[1])
        turns = points_angstrom[:, 1, None] * ky[row, 0][None, :] + points_angstrom[:, 0, None] * kx[0, column][None, :]
        return self._on.asarray((base * np.exp(-2j * np.pi * turns)).astype(self._on.complex_type))

    def _whole_cell(
        self, base: NDArray[np.complex128], points_angstrom: NDArray[np.float64]
    ) -> Iterator[tuple[int, Array]]:
        count = self._on.batch_count(2 * self._on.complex_bytes * self._waves.shape[1])

        def seen(start: int, stop: int) -> tuple[int, Array]:
            coefficients = self._coefficients(base, points_angstrom[start:stop])
            return start, squared_modulus(self._on, self._on.xp.matmul(coefficients, self._waves))

        total = len(points_angstrom)
        yield from in_batches(seen, batches(total, count, "probes"), count, total, self._on)

    def _windows(
        self, base: NDArray[np.complex128], points_angstrom: NDArray[np.float64]
    ) -> Iterator[tuple[int, Array]]:
        xp, (rows, columns) = self._on.xp, self.grid.shape_px
        count = self._on.batch_count(2 * self._on.complex_bytes * rows * columns)
        corners = self._corners(points_angstrom)

        def seen(start: int, stop: int) -> tuple[int, Array]:
            part = slice(start, stop)
            coefficients = self._coefficients(base, points_angstrom[part])
            waves = [self._window_sum(corner, coefficients[i]) for i, corner in enumerate(corners[part].tolist())]
            spectra = self._on.fft2(xp.stack(waves)) / (rows * columns)
            return start, xp.reshape(squared_modulus(self._on, spectra), (len(waves), rows * columns))

        total = len(points_angstrom)
        yield from in_batches(seen, batches(total, count, "probes"), count, total, self._on)

    def _corners(self, points_angstrom: NDArray[np.float64]) -> NDArray[np.int64]:
        """First row and column of the window centred on the pixel nearest to each probe."""
        stored, (rows, columns) = self._layout.stored, self.grid.shape_px
        dy, dx = stored.sampling_angstrom
        row = np.floor(points_angstrom[:, 1] / dy + 0.5).astype(np.int64) - rows // 2
        column = np.floor(points_angstrom[:, 0] / dx + 0.5).astype(np.int64) - columns // 2
        return np.column_stack([row % stored.shape_px[0], column % stored.shape_px[1]])

    def _window_sum(self, corner: list[int], coefficients: Array) -> Array:
        """(rows, columns) of a probe in the window at a corner; windows across the cell's edge are summed in parts.

        A part is a view of the exit waves: only the small sums are copied.
        """
        xp, stored = self._on.xp, self._layout.stored.shape_px
        row_parts, column_parts = (
            _periodic_parts(start, count, available)
            for start, count, available in zip(corner, self.grid.shape_px, stored, strict=True)
        )
        bands = [
            xp.concat([xp.matmul(self._waves[rows, columns], coefficients) for columns in column_parts], axis=1)
            for rows in row_parts
        ]
        return xp.concat(bands, axis=0)


def _periodic_parts(start: int, count: int, available: int) -> list[slice]:
    """The stretch of `count` from `start` on a ring, as one or two slices."""
    if start + count <= available:
        return [slice(start, start + count)]
    return [slice(start, available), slice(0, start + count - available)]


def check_memory(optics: Optics, grid: WaveGrid, interpolation: int, on: Backend) -> None:
    """Refuse a scattering matrix too large for the device, before anything is computed for it."""
    needed = scattering_matrix_bytes(grid, optics, interpolation) * on.complex_bytes // 8
    if needed > LARGEST_MEMORY_SHARE * on.memory_bytes:
        raise InvalidParameter(
            f"the scattering matrix of PRISM with interpolation {interpolation} needs {needed / 2**30:.1f} GiB, above"
            f" {LARGEST_MEMORY_SHARE:.0%} of the {on.memory_bytes / 2**30:.1f} GiB free on {on.name};"
            " use a larger interpolation, a smaller aperture, or method='multislice'"
        )


def squared_modulus(on: Backend, waves: Array) -> Array:
    """|waves|^2, real."""
    return on.fused.intensity(waves)


def pixels_within(grid: WaveGrid, window: WaveGrid) -> NDArray[np.int64]:
    """Flat indices of the window grid's pixels up to the antialias cutoff of the wave grid."""
    return np.flatnonzero(window.squared_frequencies().ravel() <= grid.cutoff_per_angstrom**2)


def exit_waves(
    beams: NDArray[np.int64],
    layout: Layout,
    grid: WaveGrid,
    specimen: Transmissions,
    propagator: Propagator,
    on: Backend,
) -> Iterator[Array]:
    """Batches of exit waves in Fourier space on the stored grid, unit amplitude at entrance."""
    rows, columns = grid.shape_px
    f, window = layout.interpolation, layout.window.shape_px
    row, column = np.divmod(beams, window[1])
    row = f * np.where(row >= (window[0] + 1) // 2, row - window[0], row) % rows
    column = f * np.where(column >= (window[1] + 1) // 2, column - window[1], column) % columns
    count = on.batch_count(on.complex_bytes * rows * columns)

    def crossed(start: int, stop: int) -> Array:
        own_rows, own_columns = row[start:stop], column[start:stop]
        waves = np.zeros((len(own_rows), rows, columns), on.complex_type)
        waves[np.arange(len(own_rows)), own_rows, own_columns] = 1.0
        return fourier_resized(on, propagate(on.asarray(waves), specimen, propagator, on), layout.stored.shape_px)

    yield from in_batches(crossed, batches(len(beams), count, "plane waves"), count, len(beams), on)


def _in_fourier_space(exits: Iterator[Array], pixels: NDArray[np.int64], count: int, on: Backend) -> Array:
    """(beams, pixels)."""
    xp, index = on.xp, on.asarray(pixels)
    waves = on.empty_waves((count, len(pixels)))
    start = 0
    for batch in exits:
        stop = start + batch.shape[0]
        waves[start:stop] = xp.take(xp.reshape(batch, (stop - start, -1)), index, axis=1)
        start = stop
    return waves


def _in_real_space(exits: Iterator[Array], shape_px: tuple[int, int], count: int, on: Backend) -> Array:
    """(rows, columns, beams): beams last, so that summing a probe reads memory in order."""
    xp = on.xp
    waves = on.empty_waves((*shape_px, count))
    start, pixels = 0, shape_px[0] * shape_px[1]
    for batch in exits:
        stop = start + batch.shape[0]
        waves[:, :, start:stop] = xp.permute_dims(on.ifft2(batch) * pixels, (1, 2, 0))
        start = stop
    return waves
