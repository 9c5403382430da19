"""A parallel beam through atoms: exit waves by multislice, images through an objective lens, diffraction patterns.

Everything is a fraction of the incident beam. Neighbour: `simulation.world.at_once` makes exposures of the twin of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt, tan

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.aberrations import chi
from simulation.backend import Backend
from simulation.coherence import focal_quadrature
from simulation.electron import wavelength_angstrom
from simulation.multislice import Propagator, propagate, transmissions
from simulation.potential import PotentialModel
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

Waves = NDArray[np.complex128]


def exit_wave(
    specimen: Specimen,
    grid: WaveGrid,
    beam_energy_ev: float,
    on: Backend,
    *,
    slice_thickness_nm: float = 0.2,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
) -> Waves:
    """Fourier coefficients of a plane wave behind the specimen, (rows, columns) in FFT order; 1 at 0 in vacuum.

    Of a tilted one, `tilt_mrad` (x, y), they are counted from its own direction.
    """
    optics = Optics(
        beam_energy_ev=beam_energy_ev, semi_convergence_angle_mrad=1.0, probe_current_pa=1.0,
        tilt_x_mrad=tilt_mrad[0], tilt_y_mrad=tilt_mrad[1],
    )  # fmt: skip
    functions = transmissions(specimen, grid, slice_thickness_nm, PotentialModel(), beam_energy_ev, on)
    waves = on.empty_waves((1, *grid.shape_px))
    waves[...] = 0
    waves[0, 0, 0] = 1
    waves = propagate(waves, functions, Propagator(optics, grid, functions.thickness_angstrom, on), on)
    return np.asarray(on.to_numpy(waves)[0], dtype=np.complex128)


@dataclass(frozen=True, slots=True)
class ObjectiveLens:
    """Its aberrations and defocus, an aperture (None: none), and the standard deviation of its focus."""

    optics: Optics
    aperture_mrad: float | None = None
    focal_spread_nm: float = 0.0

    def image(self, waves: Iterable[Waves], grid: WaveGrid) -> NDArray[np.float64]:
        """Mean intensity of exit waves behind it, (rows, columns); 1 in vacuum.

        The waves of a tilted beam pass it as far off its axis as `optics` says. psi(k) exp(-i chi(k)) within the
        aperture (Kirkland, ch. 3); foci are averaged as intensities.
        """
        ky, kx = from_axis(self.optics, grid)
        per_mrad = wavelength_angstrom(self.optics.beam_energy_ev) * 1e3
        widest_mrad = grid.cutoff_mrad(per_mrad / 1e3)
        aperture_mrad = widest_mrad if self.aperture_mrad is None else min(self.aperture_mrad, widest_mrad)
        passed = np.hypot(ky, kx) * per_mrad <= aperture_mrad
        total, count = np.zeros(grid.shape_px), 0
        foci = [(np.exp(-1j * chi(optics, kx, ky)) * passed, weight) for optics, weight in self._foci(aperture_mrad)]
        for wave in waves:
            count += 1
            for transfer, weight in foci:
                total += weight * np.abs(np.fft.ifft2(wave * transfer, norm="forward")) ** 2
        return total / count

    def _foci(self, aperture_mrad: float) -> list[tuple[Optics, float]]:
        if self.focal_spread_nm == 0:
            return [(self.optics, 1.0)]
        step_nm = sqrt(2) * self.focal_spread_nm
        nodes = focal_quadrature(self.optics.beam_energy_ev, aperture_mrad, self.focal_spread_nm)
        return [
            (self.optics.model_copy(update={"defocus_nm": self.optics.defocus_nm + step_nm * node}), weight)
            for node, weight in nodes
        ]


def from_axis(optics: Optics, grid: WaveGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ky (rows, 1) and kx (1, columns) of the waves of a tilted beam, counted from the optic axis."""
    ky, kx = grid.frequencies_per_angstrom()
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    return ky + tan(optics.tilt_y_mrad * 1e-3) / wavelength, kx + tan(optics.tilt_x_mrad * 1e-3) / wavelength


def diffraction(waves: Iterable[Waves], selected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean pattern of exit waves behind an aperture in an image plane, (rows, columns) in FFT order.

    `selected` is the amplitude that the aperture lets through at each pixel; the pattern of vacuum adds up to 1.
    """
    total, count = np.zeros(selected.shape), 0
    for wave in waves:
        count += 1
        total += np.abs(np.fft.fft2(np.fft.ifft2(wave, norm="forward") * selected)) ** 2
    return total / (count * selected.size * float(np.sum(selected**2)))


def on_camera(
    values: NDArray[np.float64],
    centre_px: tuple[float, float],
    shape_px: tuple[int, int],
    camera_pixel_px: tuple[float, float],
) -> NDArray[np.float64]:
    """Sums over the pixels of a camera of that shape, (rows, columns).

    Its middle lies at `centre_px` (row, column) of the values, its pixels are as long (y, x) as so many of theirs. What
    falls on a border is shared by area, what falls beside the camera is left out.
    """
    down = _shares(values.shape[0], centre_px[0], shape_px[0], camera_pixel_px[0])
    across = _shares(values.shape[1], centre_px[1], shape_px[1], camera_pixel_px[1])
    return down @ values @ across.T


def _shares(count: int, centre_px: float, camera_count: int, camera_pixel_px: float) -> NDArray[np.float64]:
    """The part of each pixel (columns) that lies on each of the camera's (rows), along one axis."""
    low = np.arange(count) - centre_px - 0.5
    edge = (np.arange(camera_count) - camera_count / 2) * camera_pixel_px
    overlap = np.minimum(low[None, :] + 1, edge[:, None] + camera_pixel_px) - np.maximum(low[None, :], edge[:, None])
    return np.clip(overlap, 0.0, None)
