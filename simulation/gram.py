"""Detector Gram matrices of a supercell: everything its images need, for any defocus and aberrations of the probe.

The probe is a sum of plane waves k, each scattered into S_k(K). Once M_D[k, k'] = mean over thermal configurations of
sum over K in detector D of conj(S_k(K)) S_k'(K) is known, the image for probe coefficients c_k is
I(r0) = sum_kk' conj(c_k) c_k' M_D[k, k'] exp(2 pi i (k - k').r0), and no wave is propagated again: `lattice_images`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.plane_wave_scattering import OneSlice, PhaseObjects, Planes, Rays
from simulation.scattering_factors import symbol_of
from simulation.structure_columns import Supercell, SupercellAtoms
from simulation.thermal_displacements import unit_displacements

ALGORITHM_VERSION = 5
"""Part of every cache key: raise it when the numbers change."""

_RAYS_PER_BLOCK = 4096


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
    potential_sampling_nm: float = 0.0016
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
        """Choose the plane waves and the detector pixels, on the reciprocal lattice of the supercell."""
        self._supercell = supercell
        self._settings = settings
        self._wavelength = wavelength_angstrom(settings.beam_energy_ev)
        self.beam_indices = self._disc(settings.semi_convergence_angle_mrad)
        outer_mrad = max(outer for _, outer in settings.rings_mrad)
        scattered = self._disc(outer_mrad)
        self._shares = [self._share(scattered, inner, outer) for inner, outer in settings.rings_mrad]
        used = np.any([share > 0 for share in self._shares], axis=0)
        self._shares = [share[used] for share in self._shares]
        rays = Rays(self.beam_indices, scattered[used])
        objects = PhaseObjects(
            supercell, settings.beam_energy_ev, settings.potential_sampling_nm, settings.parametrization
        )
        self._scattering = (
            OneSlice(supercell, rays, objects) if settings.slices == 1 else Planes(supercell, rays, objects)
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
        total = np.zeros((len(self._shares), count, count), dtype=np.complex128)
        configurations = list(self._configurations(atoms))
        for positions in configurations:
            scattered = self._scattering.rows(SupercellAtoms(atoms.numbers, positions))
            for ring, share in enumerate(self._shares):
                total[ring] += _upper_gram(scattered, share)
        total /= len(configurations)
        upper = np.triu(total, 1)
        diagonal = np.einsum("rkk->rk", total).real
        total = upper + np.conj(np.swapaxes(upper, 1, 2)) + diagonal[:, :, None] * np.eye(count)
        return total.astype(np.complex64)

    def _configurations(self, atoms: SupercellAtoms) -> Iterator[NDArray[np.float64]]:
        """Displaced positions (Einstein model), the same in every slot whatever the content of the site."""
        sigmas = self._sigmas_angstrom(atoms.numbers)
        if not np.any(sigmas):
            yield atoms.positions_angstrom
            return
        columns = self._supercell.columns()
        for unit in unit_displacements(columns, self._settings.phonon_count, self._settings.seed):
            yield atoms.positions_angstrom + sigmas[:, None] * unit

    def _sigmas_angstrom(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        known = dict(self._settings.rms_displacements_nm)
        sigmas = np.zeros(len(numbers))
        if self._settings.phonon_count == 0:
            return sigmas
        for number in np.unique(numbers[numbers > 0]):
            symbol = symbol_of(int(number))
            if symbol not in known:
                raise InvalidParameter(f"no rms displacement is given for {symbol}; name it in rms_displacement_nm")
            sigmas[numbers == number] = known[symbol] * 10
        return sigmas

    def _disc(self, limit_mrad: float) -> NDArray[np.int64]:
        """Reciprocal lattice points (iy, ix) whose pixel reaches inside the angle, (n, 2)."""
        reach = int(limit_mrad * 1e-3 / self._wavelength * max(self._supercell.extent_angstrom)) + 2
        side = np.arange(-reach, reach + 1)
        indices = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        return indices[self._within(indices, limit_mrad) > 0]

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

    def _share(self, indices: NDArray[np.int64], inner_mrad: float, outer_mrad: float) -> NDArray[np.float32]:
        """Share of each reciprocal pixel in the ring, so that detectors keep their area on a coarse lattice."""
        share = self._within(indices, outer_mrad) - self._within(indices, inner_mrad)
        return np.maximum(share, 0).astype(np.float32)


def _upper_gram(scattered: NDArray[np.complex64], share: NDArray[np.float32]) -> NDArray[np.complex128]:
    """Upper triangle of sum_K share conj(S_k) S_k', block by block; (n, n)."""
    count = len(scattered)
    total = np.zeros((count, count), dtype=np.complex128)
    inside = np.flatnonzero(share)
    for start in range(0, len(inside), _RAYS_PER_BLOCK):
        block = inside[start : start + _RAYS_PER_BLOCK]
        weighted = scattered[:, block] * np.sqrt(share[block])
        total += blas.cherk(1.0, weighted.T, trans=2)
    return total
