"""Partitioned PRISM: a few parent plane waves are propagated, the others interpolated between them (Pelz et al. 2021).

Seen from the middle plane of the atoms and divided by its plane wave, the exit wave of a beam changes slowly with the
beam's direction: M_k(r) is close to a sum of w_kp M_p(r) over parents p. Only the M_p are kept; the exit waves of all
beams are put together from them for a few rows of pixels at a time. With every beam a parent the result is
multislice's. Memory and propagation fall with the number of parents, the error grows with their distance. Where the
parents lie depends on the aperture, so an image is made from those of its own aperture alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.device_batches import in_batches
from simulation.errors import InvalidParameter
from simulation.multislice import Propagator, Transmissions
from simulation.prism import LARGEST_MEMORY_SHARE, Layout, exit_waves, pixels_within, squared_modulus
from simulation.probe import aperture_function, probe_spectrum
from simulation.progress import batches
from simulation.slices import EMPTY
from simulation.wave_grid import WaveGrid, fft_friendly

_POINTS_BYTES = 48 * 2**20
_BLOCK_BYTES = 16 * 2**20
_CROWDED = 0.6
"""Of the parents' distance: one inside the aperture is left out where one on its edge is nearer."""
_FEWEST_FOR_SPLINES = 4


class PartitionedMatrix:
    """Exit waves of the parent beams of an aperture through one specimen, without their plane waves."""

    def __init__(
        self, optics: Optics, specimen: Transmissions, grid: WaveGrid, interpolation: int, on: Backend
    ) -> None:
        """`interpolation`: the distance of parents in steps of the beams; `optics` gives energy, tilt and aperture."""
        self._on, self.grid = on, _roomy(grid, interpolation)
        self._beams = np.flatnonzero(aperture_function(optics, self.grid).ravel())
        self.pixels: NDArray[np.int64] | None = pixels_within(grid, self.grid)
        vectors = _signed(self._beams, self.grid.shape_px)
        parents = parent_beams(vectors, interpolation)
        self._weights = on.asarray(interpolation_weights(vectors, vectors[parents]).astype(on.complex_type))
        before, after = _middle(specimen.order)
        own = Propagator(optics, self.grid, specimen.thickness_angstrom, on)
        row, column = np.divmod(self._beams, self.grid.shape_px[1])
        phases = own.phase_y[row, 0] + own.phase_x[0, column]
        self._arrivals = np.exp(1j * before * phases)
        propagator = Propagator(optics, grid, specimen.thickness_angstrom, on)
        layout = Layout(self.grid, self.grid, 1)
        back = on.asarray(
            (np.exp(-1j * after * own.phase_y) * np.exp(-1j * after * own.phase_x)).astype(on.complex_type)
        )
        self._waves = on.empty_waves((len(parents), *self.grid.shape_px))
        start, count = 0, self.grid.shape_px[0] * self.grid.shape_px[1]
        for batch in exit_waves(self._beams[parents], layout, grid, specimen, propagator, on):
            members = parents[start : start + batch.shape[0]]
            along_y, along_x = self._ramps(members, np.conj(self._arrivals[members]) * count, sign=-1)
            modulation = on.ifft2(batch * back)
            modulation *= along_y[:, :, None]
            modulation *= along_x[:, None, :]
            self._waves[start : start + len(members)] = modulation
            start += len(members)

    @property
    def bytes_count(self) -> int:
        """Memory of the parents' waves."""
        return int(self._waves.nbytes)

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        on, (rows, columns) = self._on, self.grid.shape_px
        spectrum = probe_spectrum(optics, self.grid).ravel()[self._beams]
        used = np.flatnonzero(spectrum)
        index = on.asarray(self.pixels if self.pixels is not None else np.arange(rows * columns))
        count = points_at_once(rows * columns, on.complex_bytes)

        def seen(start: int, stop: int) -> tuple[int, Array]:
            points = points_angstrom[start:stop]
            coefficients = self._coefficients(spectrum, used, points)
            waves = on.empty_waves((len(points), rows, columns))
            for first, part in self._exits(used):
                values = on.xp.matmul(coefficients, on.xp.reshape(part, (len(used), -1)))
                waves[:, first : first + part.shape[1]] = on.xp.reshape(values, (len(points), -1, columns))
            exits = on.xp.reshape(on.fft2(waves), (len(points), -1)) / (rows * columns)
            return start, squared_modulus(on, on.xp.take(exits, index, axis=1))

        starts, total = batches(len(points_angstrom), count, "probes"), len(points_angstrom)
        yield from in_batches(seen, starts, count, total, replace(on, threads=1))

    def _coefficients(
        self, spectrum: NDArray[np.complex128], used: NDArray[np.int64], points_angstrom: NDArray[np.float64]
    ) -> Array:
        """(points, beams) as they arrive at the middle plane."""
        ky, kx = self.grid.frequencies_per_angstrom()
        row, column = np.divmod(self._beams[used], self.grid.shape_px[1])
        turns = points_angstrom[:, 1, None] * ky[row, 0][None, :] + points_angstrom[:, 0, None] * kx[0, column][None, :]
        values = spectrum[used] * self._arrivals[used] * np.exp(-2j * np.pi * turns)
        return self._on.asarray(values.astype(self._on.complex_type))

    def _exits(self, used: NDArray[np.int64]) -> Iterator[tuple[int, Array]]:
        """Waves of all beams at the middle plane, (beams, some rows, columns), with the first row."""
        on, (rows, columns) = self._on, self.grid.shape_px
        weights = self._weights[on.asarray(used)]
        along_y, along_x = self._ramps(used, np.ones(len(used)), sign=1)
        height = max(1, _BLOCK_BYTES // (on.complex_bytes * columns * len(used)))
        for first in range(0, rows, height):
            own = self._waves[:, first : first + height]
            part = on.xp.reshape(
                on.xp.matmul(weights, on.xp.reshape(own, (own.shape[0], -1))), (len(used), -1, columns)
            )
            part *= along_y[:, first : first + height, None]
            part *= along_x[:, None, :]
            yield first, part

    def _ramps(self, members: NDArray[np.int64], factors: NDArray[Any], *, sign: int) -> tuple[Array, Array]:
        """exp(+-2 pi i k.r) of some beams as (n, rows), times their factors, and (n, columns)."""
        vectors = _signed(self._beams[members], self.grid.shape_px)
        ramps = [
            np.exp(sign * 2j * np.pi * vectors[:, axis, None] * np.arange(count) / count)
            for axis, count in enumerate(self.grid.shape_px)
        ]
        ramps[0] = ramps[0] * factors[:, None]
        along_y, along_x = (self._on.asarray(ramp.astype(self._on.complex_type)) for ramp in ramps)
        return along_y, along_x


def parent_beams(vectors: NDArray[np.int64], interpolation: int) -> NDArray[np.int64]:
    """Which beams (iy, ix) are propagated: some on the aperture's edge, and a square lattice within; ascending."""
    if interpolation == 1:
        return np.arange(len(vectors))
    radius = np.hypot(*vectors.T)
    edge = np.flatnonzero(radius > radius.max() - 1)
    chosen: list[int] = []
    for index in edge[np.argsort(np.arctan2(*vectors[edge].T), kind="stable")].tolist():
        if not chosen or np.hypot(*(vectors[chosen] - vectors[index]).T).min() >= interpolation:
            chosen.append(index)
    lattice = np.flatnonzero((vectors % interpolation == 0).all(axis=1))  # never crowded among themselves
    to_edge, _ = KDTree(vectors[chosen]).query(vectors[lattice])
    return np.sort(np.concatenate([np.array(chosen, np.int64), lattice[to_edge >= _CROWDED * interpolation]]))


def interpolation_weights(vectors: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each parent in each beam, (beams, parents), by thin-plate splines: exact for parents and linear functions."""
    if len(parents) < _FEWEST_FOR_SPLINES:
        distance = np.hypot(*(vectors[:, None, :] - parents[None, :, :]).transpose(2, 0, 1))
        return np.eye(len(parents))[np.argmin(distance, axis=1)]
    splines = RBFInterpolator(parents.astype(float), np.eye(len(parents)), kernel="thin_plate_spline")
    return splines(vectors.astype(float))


def points_at_once(pixels: int, complex_bytes: int) -> int:
    """Probes for which the exit waves of all beams are put together once."""
    return max(1, _POINTS_BYTES // (complex_bytes * pixels))


def partitioned_counts(grid: WaveGrid, optics: Optics, interpolation: int) -> tuple[int, int, int]:
    """Beams, parents, and pixels of each parent's wave."""
    roomy = _roomy(grid, interpolation)
    beams = np.flatnonzero(aperture_function(optics, roomy).ravel())
    parents = parent_beams(_signed(beams, roomy.shape_px), interpolation)
    return len(beams), len(parents), roomy.shape_px[0] * roomy.shape_px[1]


def check_partitioned_memory(optics: Optics, grid: WaveGrid, interpolation: int, on: Backend) -> None:
    """Refuse parents' waves too large for the device, before anything is computed for them."""
    _, parents, pixels = partitioned_counts(grid, optics, interpolation)
    needed = parents * pixels * on.complex_bytes
    if needed > LARGEST_MEMORY_SHARE * on.memory_bytes:
        raise InvalidParameter(
            f"{parents} parent waves of partitioned PRISM need {needed / 2**30:.1f} GiB, above"
            f" {LARGEST_MEMORY_SHARE:.0%} of the {on.memory_bytes / 2**30:.1f} GiB free on {on.name};"
            " use a larger interpolation, a smaller aperture, or method='multislice'"
        )


def _roomy(grid: WaveGrid, interpolation: int) -> WaveGrid:
    """Holds every frequency up to the cutoff, and what interpolation between parents can move beyond it."""
    rows, columns = (
        fft_friendly(int(2 * grid.cutoff_per_angstrom * extent) + 2 + 2 * (interpolation - 1))
        for extent in grid.extent_angstrom
    )
    return WaveGrid((rows, columns), grid.extent_angstrom, max(grid.sampling_angstrom), grid.aperture_edge)


def _middle(order: tuple[int, ...]) -> tuple[float, float]:
    """Slices before and after the middle plane of the atoms."""
    filled = [index for index, each in enumerate(order) if each != EMPTY] or [0, len(order) - 1]
    before = (filled[0] + filled[-1] + 1) / 2
    return before, len(order) - before


def _signed(flat: NDArray[np.int64], shape_px: tuple[int, int]) -> NDArray[np.int64]:
    """Vectors (iy, ix) of flat pixel indices in FFT order."""
    parts = np.divmod(flat, shape_px[1])
    return np.column_stack([np.where(i >= (n + 1) // 2, i - n, i) for i, n in zip(parts, shape_px, strict=True)])
