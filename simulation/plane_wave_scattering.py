"""Plane waves through a thin supercell: the rows S_k(K) of its scattering matrix, for one placing of its atoms.

The neighbour `gram` sums them over detectors and thermal configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from simulation.backend import backend
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.multislice import fourier_resized
from simulation.potential import PotentialModel, PotentialSynthesizer
from simulation.slices import AtomSlice
from simulation.structure_columns import Supercell, SupercellAtoms
from simulation.wave_grid import WaveGrid

_BEAMS_PER_BLOCK = 8
_SPECTRA_KEPT = 64
_NYQUIST_SHARE = 0.77
"""Of the Nyquist frequency beyond which nothing aliases onto the detectors. What does with less was scattered far out
twice: it changes differences of WSe2 by less than 1e-3 of their peak in HAADF, 1e-4 in MAADF."""
_SAME_PLANE_ANGSTROM = 0.05


@dataclass(frozen=True, slots=True)
class Rays:
    """Integer reciprocal-lattice coordinates (iy, ix): incident plane waves (n, 2) and scattered ones (m, 2)."""

    incident: NDArray[np.int64]
    scattered: NDArray[np.int64]


class OneSlice:
    """All atoms in one slice: S_k(K) = T(K - k), T the Fourier transform of exp(i sigma V).

    Leaves out that waves from atoms at different heights dephase: at 60 kV two atoms 0.33 nm apart lose coherence
    beyond about 80 mrad, so this overrates stacked columns there.
    """

    def __init__(self, supercell: Supercell, rays: Rays, objects: PhaseObjects) -> None:
        """Address of every K - k in a box of spatial frequencies."""
        self._objects = objects
        self._reach = int(np.abs(rays.scattered).max() + np.abs(rays.incident).max()) + 1
        objects.check_reach(self._reach)
        side = 2 * self._reach + 1
        self._incident = rays.incident[:, 0] * side + rays.incident[:, 1]
        self._scattered = (rays.scattered[:, 0] + self._reach) * side + rays.scattered[:, 1] + self._reach

    def rows(self, atoms: SupercellAtoms) -> NDArray[np.complex64]:
        """(n, m)."""
        side = np.arange(-self._reach, self._reach + 1)
        box = self._objects.spectrum(atoms)[np.ix_(side, side)].ravel()
        return box.take(self._scattered[None, :] - self._incident[:, None])


class Planes:
    """One slice per atomic plane of the perfect structure, free space between: multislice of every plane wave.

    Focus counts from the plane met first. Waves beyond the detectors are dropped after each plane; transmission
    functions keep what scatters any incident wave onto any detector.
    """

    def __init__(self, supercell: Supercell, rays: Rays, objects: PhaseObjects) -> None:
        """Grid, propagators, and which atom belongs to which plane."""
        self._objects = objects
        self._rays = rays
        wavelength = wavelength_angstrom(objects.beam_energy_ev)
        height, width = supercell.extent_angstrom
        extent = np.array([height, width])
        incident, scattered = (float(np.hypot(*(part / extent).T).max()) for part in (rays.incident, rays.scattered))
        nyquist = _NYQUIST_SHARE * (3 * scattered + incident) / 2 + 1 / min(height, width)
        self._grid = WaveGrid.for_cell(width, height, 0.5 / nyquist / 10, None)
        objects.check_reach(max(self._grid.shape_px) // 2)
        k2 = self._grid.squared_frequencies()
        self._kept = (k2 <= (scattered + incident) ** 2).astype(np.float32)
        heights = supercell.atoms().positions_angstrom[:, 2]
        planes = np.unique(np.round(heights / _SAME_PLANE_ANGSTROM)) * _SAME_PLANE_ANGSTROM
        self._owner = np.argmin(np.abs(heights[:, None] - planes[None, :]), axis=1)
        self._count = len(planes)
        means = [float(heights[self._owner == plane].mean()) for plane in range(self._count)]
        # Contents of a column are computed one after the other and differ in one or two planes.
        self._known_spectra = lru_cache(_SPECTRA_KEPT)(self._computed_spectrum)
        self._propagators = [
            ((k2 <= scattered**2) * np.exp(-1j * np.pi * wavelength * (after - before) * k2)).astype(np.complex64)
            for before, after in pairwise(means)
        ]

    def rows(self, atoms: SupercellAtoms) -> NDArray[np.complex64]:
        """(n, m)."""
        spectra = [self._spectrum(atoms, plane) for plane in range(self._count)]
        rest = [scipy.fft.ifft2(spectrum, norm="forward") for spectrum in spectra[1:]]
        incident, scattered = self._rays.incident, self._rays.scattered
        columns = self._grid.shape_px[1]
        flat = (scattered[:, 0] % self._grid.shape_px[0]) * columns + scattered[:, 1] % columns
        found = np.empty((len(incident), len(scattered)), dtype=np.complex64)
        for start in range(0, len(incident), _BEAMS_PER_BLOCK):
            block = incident[start : start + _BEAMS_PER_BLOCK]
            waves = np.stack([np.roll(spectra[0], (int(y), int(x)), (0, 1)) for y, x in block])
            for propagator, transmission in zip(self._propagators, rest, strict=True):
                waves *= propagator
                waves = scipy.fft.ifft2(waves, overwrite_x=True)
                waves *= transmission
                waves = scipy.fft.fft2(waves, overwrite_x=True)
            found[start : start + len(block)] = waves.reshape(len(block), -1)[:, flat]
        return found

    def _spectrum(self, atoms: SupercellAtoms, plane: int) -> NDArray[np.complex64]:
        """Transmission function of one plane in Fourier space, band-limited; T(0) is its mean."""
        here = (self._owner == plane) & (atoms.numbers > 0)
        return self._known_spectra(atoms.numbers[here].tobytes(), atoms.positions_angstrom[here].tobytes())

    def _computed_spectrum(self, numbers: bytes, positions: bytes) -> NDArray[np.complex64]:
        atoms = SupercellAtoms(np.frombuffer(numbers, np.int64), np.frombuffer(positions).reshape(-1, 3))
        cropped = fourier_resized(backend("numpy"), self._objects.spectrum(atoms), self._grid.shape_px)
        spectrum = cropped * self._kept
        spectrum.setflags(write=False)
        return spectrum


class PhaseObjects:
    """exp(i sigma V) on a grid finer than the wave: at 0.0016 nm and 60 kV, W scatters right to 2.5 % at 150 mrad."""

    def __init__(
        self, supercell: Supercell, beam_energy_ev: float, potential_sampling_nm: float, parametrization: str
    ) -> None:
        """The fine grid, and form factors on it."""
        height, width = supercell.extent_angstrom
        self.beam_energy_ev = beam_energy_ev
        self._sigma = np.float32(interaction_parameter(beam_energy_ev))
        self._grid = WaveGrid.for_cell(width, height, potential_sampling_nm, None)
        self._synthesizer = PotentialSynthesizer(self._grid, PotentialModel(parametrization), backend("numpy"))

    def check_reach(self, reach_px: int) -> None:
        """Refuse spatial frequencies, in steps of the supercell's reciprocal lattice, that the grid does not hold."""
        if 2 * reach_px + 1 > min(self._grid.shape_px):
            limit_mrad = 1e3 * wavelength_angstrom(self.beam_energy_ev) / (2 * max(self._grid.sampling_angstrom))
            raise InvalidParameter(
                f"detectors and aperture reach too far for a potential that ends at {limit_mrad:.0f} mrad;"
                " use a finer potential_sampling_nm or smaller detectors"
            )

    def spectrum(self, atoms: SupercellAtoms) -> NDArray[np.complex64]:
        """Fourier coefficients on the fine grid, FFT order, over the number of pixels: 1 at the origin in vacuum."""
        present = atoms.numbers > 0
        if not present.any():
            vacuum = np.zeros(self._grid.shape_px, dtype=np.complex64)
            vacuum[0, 0] = 1
            return vacuum
        phase = self._synthesizer.potential(AtomSlice(atoms.numbers[present], atoms.positions_angstrom[present, :2]))
        phase = np.asarray(phase, dtype=np.float32) * self._sigma
        wave = np.empty(phase.shape, dtype=np.complex64)
        np.cos(phase, out=wave.real)
        np.sin(phase, out=wave.imag)
        return scipy.fft.fft2(wave, norm="forward", overwrite_x=True)
