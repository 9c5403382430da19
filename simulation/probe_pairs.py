"""The coherent pairs of plane waves in a probe, and the images they make with a lattice's scattering matrices.

Neighbours: `gram` computes the matrices, `lattice_images` makes images of lattices and defects of them.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Coherence, Optics
from simulation.aberrations import chi
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.gram import GramCalculator, GramSettings
from simulation.probe import aperture_function
from simulation.structure_columns import Supercell
from simulation.wave_grid import WaveGrid

_FWHM_PER_STD = 2.3548200450309493


class ProbePairs:
    """Pairs (k, k') of the plane waves of a probe, by their difference q = k - k'."""

    def __init__(self, supercell: Supercell, settings: GramSettings, calculator: GramCalculator) -> None:
        self._settings = settings
        self._wavelength = wavelength_angstrom(settings.beam_energy_ev)
        self._extent = supercell.extent_angstrom
        self._beams = calculator.beam_indices
        self._ky, self._kx = calculator.beams_per_angstrom
        reach = int(np.abs(self._beams).max(initial=0))
        side = np.arange(-2 * reach, 2 * reach + 1)
        self._side_px = len(side)
        self._aperture_grid = WaveGrid((2 * reach + 3, 2 * reach + 3), self._extent)
        difference = self._beams[:, None, :] - self._beams[None, :, :] + 2 * reach
        self._bins = (difference[..., 0] * len(side) + difference[..., 1]).ravel()
        self._qy, self._qx = side / self._extent[0], side / self._extent[1]
        self._q2 = self._qy[:, None] ** 2 + self._qx[None, :] ** 2
        self.lattice_mask = _lattice_mask(supercell, self._qy, self._qx)
        self._last_envelope: tuple[float, NDArray[np.float64]] | None = None  # of the focal spread used last

    def check(self, optics: Optics) -> None:
        """Refuse optics these matrices do not describe."""
        settings = self._settings
        if optics.beam_energy_ev != settings.beam_energy_ev:
            raise InvalidParameter(
                f"beam energy {optics.beam_energy_ev:g} eV: these images are for {settings.beam_energy_ev:g} eV;"
                " make others with from_structure"
            )
        if not 0 < optics.semi_convergence_angle_mrad <= settings.semi_convergence_angle_mrad:
            raise InvalidParameter(
                f"semi-convergence angle {optics.semi_convergence_angle_mrad:g} mrad: these images hold above 0 to"
                f" {settings.semi_convergence_angle_mrad:g} mrad; make others with from_structure"
            )
        if optics.tilt_x_mrad or optics.tilt_y_mrad:
            raise InvalidParameter(
                "tilted illumination is not described by these images; set both beam tilts to 0 mrad"
            )

    def harmonics(self, gram: NDArray[np.complex128], optics: Optics, coherence: Coherence) -> NDArray[np.complex128]:
        """I(q) on a square of reciprocal lattice points, (y, x), zero in the middle.

        Focal spread, Gaussian with standard deviation s, averages every pair exactly:
        exp(-(pi lambda s (k^2 - k'^2))^2 / 2). The source multiplies I(q) by exp(-2 (pi s q)^2), s = FWHM / 2.3548.
        """
        amplitude = aperture_function(optics, self._aperture_grid)[self._beams[:, 0], self._beams[:, 1]]
        probe = amplitude * np.exp(-1j * chi(optics, self._kx, self._ky)) / sqrt(float(np.sum(amplitude**2)))
        pairs = np.conj(probe)[:, None] * probe[None, :] * gram
        if coherence.focal_spread_nm > 0:
            pairs *= self._envelope(coherence.focal_spread_nm)
        count = self._side_px**2
        flat = pairs.ravel()
        harmonics = np.bincount(self._bins, flat.real, count) + 1j * np.bincount(self._bins, flat.imag, count)
        source_angstrom = coherence.source_size_nm * 10 / _FWHM_PER_STD
        damping = np.exp(-2 * (np.pi * source_angstrom) ** 2 * self._q2)
        return harmonics.reshape(self._q2.shape) * damping

    def _envelope(self, focal_spread_nm: float) -> NDArray[np.float64]:
        """What the focal spread leaves of every pair; the same for every defocus, so that a series computes it once."""
        known = self._last_envelope
        if known is None or known[0] != focal_spread_nm:
            k2 = self._kx**2 + self._ky**2
            spread = np.pi * self._wavelength * focal_spread_nm * 10 * (k2[:, None] - k2[None, :])
            known = self._last_envelope = (focal_spread_nm, np.exp(-0.5 * spread**2))
        return known[1]

    def synthesised(
        self, harmonics: NDArray[np.complex128], x_angstrom: NDArray[np.float64], y_angstrom: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The image at every (y, x) of two axes, exactly: sum of I(q) exp(2 pi i q.r). Read-only."""
        along_y = np.exp(2j * np.pi * y_angstrom[:, None] * self._qy[None, :])
        along_x = np.exp(2j * np.pi * self._qx[:, None] * x_angstrom[None, :])
        image = np.array((along_y @ harmonics @ along_x).real, dtype=np.float64)
        image.setflags(write=False)
        return image


def _lattice_mask(
    supercell: Supercell, qy_per_angstrom: NDArray[np.float64], qx_per_angstrom: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which q belong to the reciprocal lattice: those that every translation of the lattice leaves in phase."""
    width, height, _ = supercell.lattice.specimen.cell_angstrom
    mask = np.ones((len(qy_per_angstrom), len(qx_per_angstrom)), dtype=bool)
    for x, y in (*supercell.lattice.translations_angstrom, (width, 0.0), (0.0, height)):
        turns = qx_per_angstrom[None, :] * x + qy_per_angstrom[:, None] * y
        mask &= np.abs(turns - np.round(turns)) < 1e-3
    return mask
