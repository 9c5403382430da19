"""Images of thin specimens from windows: what a probe costs does not depend on the field of view.

A probe meets only the atoms near it, so it is propagated on a window cut from the whole grid's transmission
functions. Three things keep that close to multislice on the whole grid:

- the incident wave is the whole grid's, summed at the window's pixels from its few plane waves, lead-in included;
- a detector's mask M(K) of the whole grid is folded onto the diffraction grid of a window twice as large: its Fourier
  transform, cut to the distances that two points of the window can have, counts a wave that fills the window exactly
  (sum of M |psi|^2 is the double sum of conj(psi(r)) psi(r') m(r - r'));
- what detectors see of the probe in vacuum is added, whole grid minus window.

What happens outside the window is added to second order (`window_tails`). Valid where the probe stays in the window:
thin specimens, small defocus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend, backend
from simulation.detectors import Detector, PixelatedDetector, channel_masks, detector_shape
from simulation.device_batches import in_batches
from simulation.electron import wavelength_angstrom
from simulation.errors import MethodUnavailable
from simulation.method_choice import fits
from simulation.multislice import Itinerary, Propagator, Transmissions
from simulation.probe import probe_spectrum
from simulation.progress import batches
from simulation.wave_grid import WaveGrid, fft_friendly
from simulation.window_cuts import WindowCuts
from simulation.window_tails import tail_maps

_SAME_OFFSET_DECIMALS = 6
_ARRAYS_PER_WAVE = 4
_SHARE_INSIDE = 0.94
_SAMPLES_PER_WAVE = 4
"""Of the shortest wave in the aperture: how finely the probe's width is looked at."""
_PLACES_PER_PIXEL = 8
"""Along each axis: how finely the vacuum's windows follow the probe between pixels."""


def smallest_side_nm(optics: Optics, grid: WaveGrid, depth_angstrom: float) -> float:
    """Side of the square that holds most of the probe at the entrance and at the exit of the specimen."""
    beams = _beams_of(probe_spectrum(optics, grid), grid)
    through = Propagator(optics, grid, depth_angstrom, backend("numpy"))
    rows, columns = (
        np.rint(k * extent).astype(int) for k, extent in zip((beams.ky, beams.kx), grid.extent_angstrom, strict=True)
    )
    counts = [
        min(whole, fft_friendly(_SAMPLES_PER_WAVE * len(own)))
        for whole, own in zip(grid.shape_px, (rows, columns), strict=True)
    ]
    side = 0.0
    for share in (0.0, 1.0):
        phases = np.exp(1j * share * through.phase_y[rows]) * np.exp(1j * share * through.phase_x[:, columns])
        spectrum = np.zeros(counts, dtype=np.complex128)
        spectrum[np.ix_(rows, columns)] = beams.amplitudes * phases
        power = np.abs(np.fft.ifft2(spectrum)) ** 2
        for axis, extent in enumerate(grid.extent_angstrom):
            along = power.sum(axis=1 - axis)
            steps = np.abs(np.fft.fftfreq(len(along), 1 / len(along))).astype(int)
            inside = np.cumsum(np.bincount(steps, along)) / along.sum()
            sides_px = 1.0 + 2.0 * np.arange(len(inside))
            side = max(side, float(np.interp(_SHARE_INSIDE, inside, sides_px)) * extent / len(along) / 10)
    return side


@dataclass(frozen=True, slots=True)
class _Beams:
    """Plane waves of the incident wave: frequencies present along y and x, and their amplitudes (y, x)."""

    ky: NDArray[np.float64]
    kx: NDArray[np.float64]
    amplitudes: NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class _Exposure:
    """What all probes of one optics and set of detectors share. `tails`: added for what windows leave out.

    `columns` of the diffraction grid lie beyond every detector and are not computed.
    """

    key: tuple[Optics, tuple[tuple[str, Detector], ...]]
    beams: _Beams
    shapes: dict[str, tuple[int, ...]]
    in_vacuum: NDArray[np.float64]
    folded: Array
    columns: slice
    tails: NDArray[Any]


class WindowedSource:
    """Signals of probes, each propagated through a window of one specimen's transmission functions."""

    def __init__(self, specimen: Transmissions, grid: WaveGrid, shape_px: tuple[int, int], on: Backend) -> None:
        """`shape_px` is the window's; the grid must be twice as large."""
        if not fits(grid, shape_px):
            raise MethodUnavailable(
                f"a window of {shape_px} pixels needs a wave grid of twice that a side, and this one has"
                f" {grid.shape_px}; use method='multislice' or 'prism' for such a small cell"
            )
        self.grid, self.shape_px = grid, shape_px
        self._specimen, self._on = specimen, on
        rows, columns = shape_px
        dy, dx = grid.sampling_angstrom
        self._window = WaveGrid(shape_px, (rows * dy, columns * dx), max(dy, dx), grid.aperture_edge)
        self._itinerary = Itinerary.of(specimen.order)
        self._known: _Exposure | None = None

    @property
    def bytes_count(self) -> int:
        """Memory of what is kept of the last exposure; the transmission functions are the specimen's."""
        return 0 if self._known is None else int(self._known.tails.nbytes)

    def signals(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape) of detectors with channels, fractions of the incident beam."""
        exposure = self._exposure(optics, detectors)
        beams, shapes = exposure.beams, exposure.shapes
        folded, columns = exposure.folded, exposure.columns
        propagator = Propagator(optics, self._window, self._specimen.thickness_angstrom, self._on)
        values = np.empty((len(points_angstrom), len(exposure.in_vacuum)))
        offsets, which, corners = self._places(points_angstrom)
        count = self._on.batch_count(self._on.complex_bytes * self.shape_px[0] * self.shape_px[1] * _ARRAYS_PER_WAVE)

        def measure(start: int, stop: int) -> None:
            used, own = np.unique(which[start:stop], return_inverse=True)
            probes = self._probes(beams, offsets[used])
            waves = probes[self._on.asarray(own)] if len(used) > 1 else self._on.xp.tile(probes, (stop - start, 1, 1))
            values[start:stop] = self._measured(waves, corners[start:stop], propagator, folded, columns)

        starts, total = batches(len(points_angstrom), count, "probes"), len(points_angstrom)
        for _ in in_batches(measure, starts, count, total, self._on):
            pass
        places, nearest = self._coarse(offsets)

        def measure_vacuum(start: int, stop: int) -> NDArray[np.float64]:
            return self._measured(self._probes(beams, places[start:stop]), None, propagator, folded, columns)

        rounds = range(0, len(places), count)
        in_vacuum = np.concatenate(list(in_batches(measure_vacuum, rounds, count, len(places), self._on)))
        values += exposure.in_vacuum - in_vacuum[nearest[which]]
        values += self._tails(exposure, corners)
        edges = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])
        return {
            name: values[:, edges[i] : edges[i + 1]].reshape(len(values), *shape)
            for i, (name, shape) in enumerate(shapes.items())
        }

    def added(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> NDArray[np.float64]:
        """What is added at each point for what its window leaves out, (points, channels)."""
        return self._tails(self._exposure(optics, detectors), self._places(points_angstrom)[2])

    def _exposure(self, optics: Optics, detectors: Mapping[str, Detector]) -> _Exposure:
        """The last one is kept: probes to check, and windows of the image itself, ask for the same."""
        key = (optics, tuple(detectors.items()))
        if self._known is None or self._known.key != key:
            whole = Propagator(optics, self.grid, self._specimen.thickness_angstrom, self._on)
            masks, shapes = self._masks(optics, detectors, whole)
            spectrum = self._incident(optics, whole)
            in_vacuum = np.einsum("yx,cyx->c", np.abs(spectrum) ** 2, masks)
            beams, folded = _beams_of(spectrum, self.grid), self._folded(masks)
            counted = self._counted(folded)
            spectrum = spectrum.astype(self._on.complex_type)
            self._on.release_memory()
            tails = tail_maps(spectrum, masks, folded, self._specimen, whole, self.shape_px, self._on)
            self._known = _Exposure(key, beams, shapes, in_vacuum, *counted, tails)
            self._on.release_memory()
        return self._known

    def _tails(self, exposure: _Exposure, corners: NDArray[np.int64]) -> NDArray[np.float64]:
        """(points, channels)."""
        centres = np.mod(corners + np.array(self.shape_px) // 2, self.grid.shape_px)
        return exposure.tails[:, centres[:, 0], centres[:, 1]].T.astype(np.float64)

    def _incident(self, optics: Optics, whole: Propagator) -> NDArray[np.complex128]:
        """The probe centred on the origin, in Fourier space of the whole grid, where it meets the first atoms."""
        spectrum = probe_spectrum(optics, self.grid)
        lead_in = self._itinerary.steps[0][0] if self._itinerary.steps else self._itinerary.trailing
        if not lead_in:
            return spectrum
        return spectrum * self._on.to_numpy(whole.through(lead_in))

    def _masks(
        self, optics: Optics, detectors: Mapping[str, Detector], whole: Propagator
    ) -> tuple[NDArray[Any], dict[str, tuple[int, ...]]]:
        """(channels, rows, columns) on the whole grid, with what the antialias aperture takes after the last atoms."""
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        trailing = self._itinerary.trailing if self._itinerary.steps else 0
        taper = (self.grid.antialias_aperture() ** (2 * whole.aperture_power(trailing))).astype(self._on.real_type)
        found: list[NDArray[Any]] = []
        shapes: dict[str, tuple[int, ...]] = {}
        for name, detector in detectors.items():
            if isinstance(detector, PixelatedDetector):
                raise MethodUnavailable(
                    f"detector {name!r} has pixels, which windows do not resolve; use method='multislice' or 'prism'"
                )
            channels = channel_masks(detector, self.grid, wavelength).T.reshape(-1, *self.grid.shape_px)
            found.append(channels * taper)
            shapes[name] = detector_shape(detector)
        return np.concatenate(found), shapes

    def _folded(self, masks: NDArray[Any]) -> NDArray[np.float64]:
        """Masks on the diffraction grid of two windows, (channels, rows, columns)."""
        rows, columns = self.shape_px
        row_lags, column_lags = (np.fft.fftfreq(2 * n, 1 / (2 * n)).astype(int) for n in (rows, columns))
        row_place, column_place = row_lags % self.grid.shape_px[0], column_lags % self.grid.shape_px[1]
        by_rows = (scipy.fft.ifft(mask.astype(np.float64), axis=0)[row_place] for mask in masks)
        cut = np.stack([scipy.fft.ifft(rows_cut, axis=1)[:, column_place] for rows_cut in by_rows])
        cut[:, rows, :] = 0.0
        cut[:, :, columns] = 0.0
        return np.fft.fft2(cut).real

    def _counted(self, folded: NDArray[np.float64]) -> tuple[Array, slice]:
        """What a wave's intensity on that grid is multiplied by, (pixels, channels), and the columns left out of it."""
        columns = self.shape_px[1]
        kx = np.fft.fftfreq(2 * columns, self.grid.sampling_angstrom[1])
        margin = 1 / (columns * self.grid.sampling_angstrom[1])
        beyond = np.flatnonzero(np.abs(kx) > self.grid.cutoff_per_angstrom + margin)
        scaled = folded / (folded[0].size * np.prod(self.grid.shape_px))
        flat = np.delete(scaled, beyond, axis=2).reshape(len(folded), -1).T
        left_out = slice(int(beyond[0]), int(beyond[-1]) + 1) if len(beyond) else slice(0, 0)
        return self._on.asarray(flat.astype(self._on.real_type)), left_out

    def _places(
        self, points_angstrom: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Distinct offsets (x, y) from the pixels in angstrom, which each point has, and its window's corner."""
        dy, dx = self.grid.sampling_angstrom
        pixel = np.column_stack([points_angstrom[:, 1] / dy, points_angstrom[:, 0] / dx])
        whole = np.floor(pixel + 0.5).astype(np.int64)
        rest = np.round(pixel - whole, _SAME_OFFSET_DECIMALS) + 0.0
        distinct, which = np.unique(rest, axis=0, return_inverse=True)
        corners = np.mod(whole - np.array(self.shape_px) // 2, self.grid.shape_px)
        return np.column_stack([distinct[:, 1] * dx, distinct[:, 0] * dy]), which.ravel(), corners

    def _coarse(self, offsets_angstrom: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """A few places within a pixel, (x, y), and which of them is nearest to each offset."""
        step = np.array(self.grid.sampling_angstrom[::-1]) / _PLACES_PER_PIXEL
        rounded, nearest = np.unique(np.round(offsets_angstrom / step), axis=0, return_inverse=True)
        return rounded * step, nearest.ravel()

    def _probes(self, beams: _Beams, offsets_angstrom: NDArray[np.float64]) -> Array:
        """Incident waves at the window's pixels, (offsets, rows, columns), centred on its middle plus an offset."""
        on = self._on
        dy, dx = self.grid.sampling_angstrom
        y, x = ((np.arange(n) - n // 2)[:, None] * step for n, step in zip(self.shape_px, (dy, dx), strict=True))
        along_y = on.asarray(np.exp(2j * np.pi * y * beams.ky).astype(on.complex_type))
        along_x = on.asarray(np.exp(2j * np.pi * beams.kx[:, None] * x.T).astype(on.complex_type))
        offset_x, offset_y = offsets_angstrom[:, 0, None, None], offsets_angstrom[:, 1, None, None]
        turn = np.exp(-2j * np.pi * (offset_y * beams.ky[:, None] + offset_x * beams.kx[None, :]))
        amplitudes = on.asarray((beams.amplitudes * turn).astype(on.complex_type))
        return on.xp.matmul(on.xp.matmul(along_y, amplitudes), along_x)

    def _measured(
        self,
        waves: Array,
        corners: NDArray[np.int64] | None,
        propagator: Propagator,
        folded: Array,
        columns: slice,
    ) -> NDArray[np.float64]:
        """(waves, channels); without corners in vacuum. `waves` is overwritten."""
        on, (height, width) = self._on, self.shape_px
        factors = [propagator.through(crossed, averaging=True) for crossed, _ in self._itinerary.steps[1:]]
        cuts = None if corners is None else WindowCuts(corners, self.shape_px, self.grid.shape_px, on)
        for number, (_, index) in enumerate(self._itinerary.steps):
            if number:
                waves = on.fft2(waves)
                waves *= factors[number - 1]
                waves = on.ifft2_sum(waves)
            if cuts is not None:
                cuts.multiply(waves, self._specimen.functions[index])
        half = on.fft(waves, 2 * width, -1)
        if columns.start < columns.stop:
            half = on.xp.concat([half[:, :, : columns.start], half[:, :, columns.stop :]], axis=2)
        spectra = on.fft(half, 2 * height, -2)
        flat = on.xp.reshape(spectra, (spectra.shape[0], -1))
        return on.to_numpy(on.fused.weighted_power(flat, folded)).astype(np.float64)


def _beams_of(spectrum: NDArray[np.complex128], grid: WaveGrid) -> _Beams:
    ky, kx = grid.frequencies_per_angstrom()
    rows, columns = np.flatnonzero(np.abs(spectrum).max(axis=1)), np.flatnonzero(np.abs(spectrum).max(axis=0))
    return _Beams(ky[rows, 0], kx[0, columns], spectrum[np.ix_(rows, columns)])
