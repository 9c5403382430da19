"""Detector Gram matrices of a supercell: everything its images need, for any defocus and aberrations of the probe.

The probe is a sum of plane waves k, each scattered into S_k(K). Once M_D[k, k'] = mean over thermal configurations of
sum over K in detector D of conj(S_k(K)) S_k'(K) is known, the image for probe coefficients c_k is
I(r0) = sum_kk' conj(c_k) c_k' M_D[k, k'] exp(2 pi i (k - k').r0): no wave is propagated again. `lattice_images` does so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.linalg import blas

from simulation.backend import backend
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.multislice import fourier_resized
from simulation.potential import PotentialModel, PotentialSynthesizer
from simulation.scattering_factors import symbol_of
from simulation.slices import AtomSlice
from simulation.structure_columns import Supercell, SupercellAtoms
from simulation.wave_grid import ANTIALIAS_FRACTION, WaveGrid

ALGORITHM_VERSION = 1
"""Part of every cache key: raise it when the numbers change."""

_PIXELS_PER_BLOCK = 4096
_BEAMS_PER_BLOCK = 8
_SAME_PLANE_ANGSTROM = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class GramSettings:
    """What the matrices depend on besides the atoms. `rms_displacements_nm`: (symbol, rms per axis) pairs.

    `rings_mrad`: disjoint rings (inner, outer) from which detectors are put together. `phonon_count` = 0: static atoms.
    """

    beam_energy_ev: float
    semi_convergence_angle_mrad: float
    rings_mrad: tuple[tuple[float, float], ...]
    rms_displacements_nm: tuple[tuple[str, float], ...]
    phonon_count: int = 12
    seed: int = 0
    slices: Literal[1, "planes"] = "planes"
    potential_sampling_nm: float = 0.0025
    parametrization: str = "lobato"

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if not (isfinite(self.semi_convergence_angle_mrad) and 0 < self.semi_convergence_angle_mrad <= 200):
            raise InvalidParameter(
                f"semi-convergence angle {self.semi_convergence_angle_mrad} mrad must be above 0 and at most 200 mrad"
            )
        if self.phonon_count < 0:
            raise InvalidParameter(f"phonon_count = {self.phonon_count} must be 0 (static atoms) or more")
        if self.slices not in (1, "planes"):
            raise InvalidParameter(f"slices = {self.slices!r}; choose 1 (all atoms in one) or 'planes'")
        for symbol, value in self.rms_displacements_nm:
            if not (isfinite(value) and 0 <= value < 0.1):
                raise InvalidParameter(f"rms displacement {value} nm of {symbol} must be at least 0 and below 0.1 nm")


class GramCalculator:
    """Computes the matrices of one supercell with any content of its site; holds no result."""

    def __init__(self, supercell: Supercell, settings: GramSettings) -> None:
        """Choose the plane waves and the detector pixels, on the reciprocal grid of the supercell."""
        self._supercell = supercell
        self._settings = settings
        self._wavelength = wavelength_angstrom(settings.beam_energy_ev)
        height, width = supercell.extent_angstrom
        self._fine = WaveGrid.for_cell(width, height, settings.potential_sampling_nm, None)
        self.beam_indices = self._indices(settings.semi_convergence_angle_mrad, inside=True)
        self._rings = [self._ring(inner, outer) for inner, outer in settings.rings_mrad]
        outermost = max(int(np.abs(pixels).max(initial=0)) for pixels, _ in self._rings)
        self._reach = outermost + int(np.abs(self.beam_indices).max(initial=0)) + 1
        if 2 * self._reach + 1 > min(self._fine.shape_px):
            limit_mrad = 1e3 * self._wavelength / (2 * max(self._fine.sampling_angstrom))
            raise InvalidParameter(
                f"detector and aperture reach beyond {limit_mrad:.0f} mrad, the largest angle of"
                f" potential_sampling_nm = {settings.potential_sampling_nm:g} nm; use a finer one"
            )

    @property
    def beams_per_angstrom(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(ky, kx) of the plane waves of the probe, each (n,)."""
        height, width = self._supercell.extent_angstrom
        return self.beam_indices[:, 0] / height, self.beam_indices[:, 1] / width

    def matrices(self, column: str | None = None, content: tuple[str, ...] = ()) -> NDArray[np.complex64]:
        """M of every ring, (rings, n, n), Hermitian: of the perfect supercell, or with `content` in one `column`.

        The same slot has the same displacements whatever the content, so that differences keep little noise.
        """
        atoms = self._supercell.atoms(column, content)
        count = len(self.beam_indices)
        total = np.zeros((len(self._rings), count, count), dtype=np.complex128)
        configuration_count = 0
        for positions in self._configurations(atoms):
            total += self._one_configuration(SupercellAtoms(atoms.numbers, positions))
            configuration_count += 1
        total /= configuration_count
        upper = np.triu(total)
        return (upper + np.conj(np.swapaxes(np.triu(total, 1), 1, 2))).astype(np.complex64)

    def _configurations(self, atoms: SupercellAtoms) -> Iterator[NDArray[np.float64]]:
        """Displaced positions (Einstein model) in antithetic pairs +u, -u, whose first-order noise cancels."""
        sigmas = self._sigmas_angstrom(atoms.numbers)
        if self._settings.phonon_count == 0 or not np.any(sigmas):
            yield atoms.positions_angstrom
            return
        for index in range(self._settings.phonon_count):
            draw = np.random.default_rng([self._settings.seed, index // 2]).standard_normal((len(sigmas), 3))
            yield atoms.positions_angstrom + (-1) ** index * sigmas[:, None] * draw

    def _sigmas_angstrom(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        known = dict(self._settings.rms_displacements_nm)
        sigmas = np.zeros(len(numbers))
        if self._settings.phonon_count == 0:
            return sigmas
        for number in np.unique(numbers[numbers > 0]):
            symbol = symbol_of(int(number))
            if symbol not in known:
                raise InvalidParameter(
                    f"no rms displacement is given for {symbol}; add it to rms_displacement_nm, in nm"
                )
            sigmas[numbers == number] = known[symbol] * 10
        return sigmas

    def _one_configuration(self, atoms: SupercellAtoms) -> NDArray[np.complex64]:
        """Upper triangles of the matrices of one configuration."""
        if self._settings.slices == 1:
            rows = self._transmitted(self._phase_object(atoms))
        else:
            rows = _propagated(self._planes(atoms), self.beam_indices, self._wavelength)
        count = len(self.beam_indices)
        total = np.zeros((len(self._rings), count, count), dtype=np.complex64)
        for ring, (pixels, weights) in enumerate(self._rings):
            for start in range(0, len(pixels), _PIXELS_PER_BLOCK):
                block = slice(start, start + _PIXELS_PER_BLOCK)
                scattered = rows(pixels[block])
                scattered *= np.sqrt(weights[block])
                total[ring] += blas.cherk(1.0, scattered.T, trans=2)
        return total

    def _phase_object(self, atoms: SupercellAtoms) -> NDArray[np.complex64]:
        """exp(i sigma V) of these atoms as one slice, in Fourier space on the fine grid, FFT order; mean 1 in vacuum."""
        on = backend("numpy")
        synthesizer = PotentialSynthesizer(self._fine, PotentialModel(self._settings.parametrization), on)
        present = atoms.numbers > 0
        phase = synthesizer.potential(AtomSlice(atoms.numbers[present], atoms.positions_angstrom[present, :2]))
        phase = np.asarray(phase * interaction_parameter(self._settings.beam_energy_ev), dtype=np.float32)
        wave = np.empty(phase.shape, dtype=np.complex64)
        np.cos(phase, out=wave.real)
        np.sin(phase, out=wave.imag)
        return scipy.fft.fft2(wave, norm="forward", overwrite_x=True)

    def _transmitted(self, spectrum: NDArray[np.complex64]) -> Any:
        """S_k(K) = T(K - k) as a function of pixels (m, 2) -> (beams, m)."""
        reach = self._reach
        side = np.arange(-reach, reach + 1)
        box = spectrum[np.ix_(side, side)].ravel()
        beams = self.beam_indices[:, 0] * len(side) + self.beam_indices[:, 1]

        def rows(pixels: NDArray[np.int64]) -> NDArray[np.complex64]:
            flat = (pixels[:, 0] + reach) * len(side) + pixels[:, 1] + reach
            return box.take(flat[None, :] - beams[:, None])

        return rows

    def _planes(self, atoms: SupercellAtoms) -> list[_Plane]:
        """One phase object per atomic plane of the perfect structure, on a grid with room for antialiasing."""
        outer = max(outer for _, outer in self._settings.rings_mrad) * 1e-3 / self._wavelength
        height, width = self._supercell.extent_angstrom
        grid = WaveGrid.for_cell(width, height, ANTIALIAS_FRACTION / (2.04 * outer) / 10, None)
        aperture = grid.antialias_aperture()
        rest = self._supercell.atoms().positions_angstrom[:, 2]
        heights = np.unique(np.round(rest / _SAME_PLANE_ANGSTROM)) * _SAME_PLANE_ANGSTROM
        owner = np.argmin(np.abs(rest[:, None] - heights[None, :]), axis=1)
        planes = []
        for index, z in enumerate(heights):
            here = SupercellAtoms(np.where(owner == index, atoms.numbers, 0), atoms.positions_angstrom)
            cropped = fourier_resized(backend("numpy"), self._phase_object(here), grid.shape_px)
            transmission = scipy.fft.ifft2(cropped * aperture, norm="forward").astype(np.complex64)
            planes.append(_Plane(float(z), transmission, grid))
        return planes

    def _indices(self, limit_mrad: float, *, inside: bool) -> NDArray[np.int64]:
        """Reciprocal lattice points (iy, ix) whose soft aperture or edge of that angle is above 0, (n, 2)."""
        height, width = self._supercell.extent_angstrom
        reach = int(limit_mrad * 1e-3 / self._wavelength * max(height, width)) + 2
        side = np.arange(-reach, reach + 1)
        indices = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        return indices[self._within(indices, limit_mrad) > 0] if inside else indices

    def _within(self, indices: NDArray[np.int64], limit_mrad: float) -> NDArray[np.float64]:
        """Share of each reciprocal pixel inside the angle: a ramp one pixel wide, as in `probe.aperture_function`."""
        if limit_mrad <= 0:
            return np.zeros(len(indices))
        height, width = self._supercell.extent_angstrom
        ky, kx = indices[:, 0] / height, indices[:, 1] / width
        azimuth = np.arctan2(ky, kx)
        edge = np.hypot(np.cos(azimuth) / width, np.sin(azimuth) / height)
        within = np.clip((limit_mrad * 1e-3 / self._wavelength - np.hypot(ky, kx)) / edge + 0.5, 0, 1)
        return np.where((indices == 0).all(axis=1), 1.0, within)

    def _ring(self, inner_mrad: float, outer_mrad: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pixels (m, 2) of a ring, in order, and the share of each that lies in it."""
        indices = self._indices(outer_mrad, inside=False)
        share = self._within(indices, outer_mrad) - self._within(indices, inner_mrad)
        keep = share > 0
        return indices[keep], share[keep].astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Plane:
    """A transmission function in real space (rows, columns) at a height."""

    z_angstrom: float
    transmission: NDArray[np.complex64]
    grid: WaveGrid


def _propagated(planes: list[_Plane], beams: NDArray[np.int64], wavelength: float) -> Any:
    """S_k(K) through several planes as a function of pixels (m, 2) -> (beams, m); multislice, plane wave by plane wave."""
    grid = planes[0].grid
    propagators = [
        grid.antialias_aperture()
        * np.exp(-1j * np.pi * wavelength * (b.z_angstrom - a.z_angstrom) * grid.squared_frequencies())
        for a, b in zip(planes, planes[1:], strict=False)
    ]
    spectra = np.empty((len(beams), *grid.shape_px), dtype=np.complex64)
    for start in range(0, len(beams), _BEAMS_PER_BLOCK):
        block = beams[start : start + _BEAMS_PER_BLOCK]
        waves = np.zeros((len(block), *grid.shape_px), dtype=np.complex64)
        waves[np.arange(len(block)), block[:, 0], block[:, 1]] = 1
        for index, plane in enumerate(planes):
            if index:
                waves *= propagators[index - 1].astype(np.complex64)
            waves = scipy.fft.fft2(scipy.fft.ifft2(waves) * plane.transmission)
        spectra[start : start + len(block)] = waves

    def rows(pixels: NDArray[np.int64]) -> NDArray[np.complex64]:
        return spectra[:, pixels[:, 0], pixels[:, 1]]

    return rows
