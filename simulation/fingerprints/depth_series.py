"""Signals of one specimen at several thicknesses from one propagation: the waves are looked at on their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.detectors import Detector, DetectorBank, check_detectors
from simulation.electron import wavelength_angstrom
from simulation.error_check import Signals
from simulation.multislice import Propagator, Transmissions, propagate
from simulation.probe import check_aperture, position_phases, probe_spectrum
from simulation.wave_grid import WaveGrid


def waves_at_depths(
    waves: Array, specimen: Transmissions, cuts: Sequence[int], propagator: Propagator, on: Backend
) -> Iterator[Array]:
    """Waves in Fourier space behind so many slices, cut after cut; they equal the exit waves of specimens that thin.

    Each must be used before the next is asked for: they share memory. `waves` is overwritten.
    """
    start = 0
    for cut in cuts:
        waves = propagate(waves, replace(specimen, order=specimen.order[start:cut]), propagator, on)
        start = cut
        yield waves


def detector_bank(
    detectors: Mapping[str, Detector],
    grid: WaveGrid,
    optics: Optics,
    on: Backend,
    pixels: NDArray[np.int64] | None = None,
) -> DetectorBank:
    """Detectors on the whole grid, or on some of its flat pixels; refuses what lies beyond the antialias cutoff."""
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    check_detectors(detectors, grid.cutoff_mrad(wavelength))
    return DetectorBank(detectors, grid, wavelength, grid.cutoff_mrad(wavelength), on, pixels)


def joined(parts: Sequence[Mapping[str, Array]], on: Backend) -> Signals:
    """Batches put one after the other, in double precision."""
    return {name: np.concatenate([on.to_numpy(part[name]) for part in parts]).astype(np.float64) for name in parts[0]}


def signals_at_depths(
    specimen: Transmissions,
    grid: WaveGrid,
    cuts: Sequence[int],
    optics: Optics,
    points_angstrom: NDArray[np.float64],
    detectors: Mapping[str, Detector],
    on: Backend,
) -> tuple[list[Signals], DetectorBank]:
    """For each cut the signals (points, *detector shape) by name, fractions of the beam; and the detectors' bank."""
    rows, columns = grid.shape_px
    bank = detector_bank(detectors, grid, optics, on)
    check_aperture(optics, grid.cutoff_per_angstrom)
    propagator = Propagator(optics, grid, specimen.thickness_angstrom, on)
    base = on.asarray(probe_spectrum(optics, grid).astype(on.complex_type))
    count = on.batch_count(on.complex_bytes * rows * columns)
    parts: list[list[dict[str, Array]]] = [[] for _ in cuts]
    for start in range(0, len(points_angstrom), count):
        along_y, along_x = position_phases(grid, points_angstrom[start : start + count])
        shift_y = on.asarray(along_y.astype(on.complex_type))[:, :, None]
        entering = base * shift_y * on.asarray(along_x.astype(on.complex_type))[:, None, :]
        for found, waves in zip(parts, waves_at_depths(entering, specimen, cuts, propagator, on), strict=True):
            intensity = on.xp.real(waves) ** 2 + on.xp.imag(waves) ** 2
            found.append(bank.measure(on.xp.reshape(intensity, (intensity.shape[0], rows * columns))))
    return [joined(found, on) for found in parts], bank
