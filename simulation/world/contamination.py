"""What a carbon film adds to each detector: single elastic scattering from tabulated factors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from simulation.electron import REST_ENERGY_EV, wavelength_angstrom
from simulation.scattering_factors import electron_scattering_factor

_CARBON_PER_NM3 = 90.0  # amorphous carbon, 1.8 g/cm3 (assumption)
_REACH_MRAD = 260
_STEP_MRAD = 1.0


def film_fraction_per_nm(
    beam_energy_ev: float, semi_convergence_angle_mrad: float, inner_mrad: float, outer_mrad: float
) -> float:
    """Change of a detector's signal, fraction of the beam per nm of amorphous carbon; negative inside the bright disc.

    Atoms scatter once and independently, |gamma f_e(theta)|^2 per steradian (first Born, Lobato factors), from every
    angle of the evenly filled disc; what leaves a direction is missing there. Good while the film is thin beside the
    mean free path (tens of nm); inelastic scattering is left out, most of it stays within a few mrad.
    """
    angle, change = _change(beam_energy_ev, semi_convergence_angle_mrad)
    return float(change[(angle >= inner_mrad) & (angle < outer_mrad)].sum())


@lru_cache(maxsize=4)
def _change(beam_energy_ev: float, semi_convergence_angle_mrad: float) -> tuple[np.ndarray, np.ndarray]:
    """(angle in mrad, change per nm of the beam that leaves there) over directions; of every detector."""
    axis = np.arange(-_REACH_MRAD, _REACH_MRAD + 1) * _STEP_MRAD
    angle = np.hypot(axis[:, None], axis[None, :])
    pixel_sr = (_STEP_MRAD * 1e-3) ** 2
    gamma = 1 + beam_energy_ev / REST_ENERGY_EV
    factor_angstrom = gamma * electron_scattering_factor("C", angle * 1e-3 / wavelength_angstrom(beam_energy_ev))
    per_nm = _CARBON_PER_NM3 * factor_angstrom**2 * 1e-2 * pixel_sr  # 1 square angstrom = 1e-2 nm2
    disc = (angle <= semi_convergence_angle_mrad).astype(float)
    disc /= disc.sum()
    size = next_fast_len(2 * len(axis) - 1, real=True)
    product = rfft2(disc, (size, size)) * rfft2(per_nm, (size, size))
    gained = np.asarray(irfft2(product, (size, size)))[_REACH_MRAD:][: len(axis), _REACH_MRAD : _REACH_MRAD + len(axis)]
    return angle, gained - disc * per_nm.sum()
