"""Plasmon losses of free valence electrons; `plural` repeats them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.errors import InvalidParameter
from simulation.spectroscopy.kinematics import (
    BOHR_NM,
    RYDBERG_EV,
    characteristic_angle_mrad,
    half_mass_speed2_ev,
)

_REACH = 60


@kinds_checked
def plasmon_energy_ev(valence_electrons_per_nm3: float) -> float:
    """hbar omega_p = Ry sqrt(16 pi n a0^3): free electrons of that density (Egerton, 3rd ed., section 3.3.1).

    >>> round(plasmon_energy_ev(180.6), 1)  # aluminium, three electrons an atom
    15.8
    """
    if not valence_electrons_per_nm3 > 0:
        raise InvalidParameter(f"valence_electrons_per_nm3 = {valence_electrons_per_nm3} must be positive")
    return RYDBERG_EV * sqrt(16 * pi * valence_electrons_per_nm3 * BOHR_NM**3)


@dataclass(frozen=True, slots=True)
class DrudePlasmon:
    """Free electrons with one relaxation time: plasmon energy and its width (full, at half maximum of the loss).

    Good for Al, Mg, Na, Si, Be and the broad peak of amorphous carbon; interband transitions, surfaces and Cerenkov
    losses are left out.
    """

    plasmon_ev: float
    width_ev: float

    def __post_init__(self) -> None:
        """Refuse energies that are not positive."""
        check_fields(self)
        if not (self.plasmon_ev > 0 and self.width_ev > 0):
            raise InvalidParameter(
                f"plasmon_ev = {self.plasmon_ev} and width_ev = {self.width_ev} must be positive, in eV"
            )

    @kinds_checked
    def loss_function(self, loss_ev: ArrayLike) -> NDArray[np.float64]:
        """Im(-1/eps) = E W Ep^2 / [(E^2 - Ep^2)^2 + (E W)^2] (Egerton, 3rd ed., section 3.3.1); 0 at and below 0 eV."""
        loss = np.maximum(np.asarray(loss_ev, np.float64), 0.0)
        damped = loss * self.width_ev
        return damped * self.plasmon_ev**2 / ((loss**2 - self.plasmon_ev**2) ** 2 + damped**2)

    @kinds_checked
    def scattering_per_nm_per_ev(
        self, loss_ev: ArrayLike, beam_energy_ev: float, collection_semi_angle_mrad: float
    ) -> NDArray[np.float64]:
        """Probability of one loss, for each nm of depth and eV, into a collection angle.

        Im(-1/eps) ln[1 + (angle / theta_E)^2] / (pi a0 m v^2) (Egerton, 3rd ed., sections 3.3.1 and 4.2.1); surfaces
        left out, angles below some 15 mrad, where the plasmon's own dispersion and cut-off do not matter.
        """
        if not 0 < collection_semi_angle_mrad < inf:
            raise InvalidParameter(
                f"collection_semi_angle_mrad = {collection_semi_angle_mrad} must be positive and finite, in mrad"
            )
        loss = np.maximum(np.asarray(loss_ev, np.float64), 1e-6)
        angles = characteristic_angle_mrad(1.0, beam_energy_ev) * loss
        spread = np.log1p((collection_semi_angle_mrad / angles) ** 2)
        return self.loss_function(loss) * spread / (2 * pi * BOHR_NM * half_mass_speed2_ev(beam_energy_ev))

    @kinds_checked
    def mean_free_path_nm(self, beam_energy_ev: float, collection_semi_angle_mrad: float) -> float:
        """Mean path between losses into the collection angle."""
        nodes, weights = np.polynomial.legendre.leggauss(400)
        # x = arctan of the distance from the peak in half widths: even where the function is steep
        half = self.width_ev / 2
        low, high = np.arctan(-self.plasmon_ev / half), np.arctan(_REACH * self.plasmon_ev / half)
        x = low + (high - low) * (nodes + 1) / 2
        loss = self.plasmon_ev + half * np.tan(x)
        share = half / np.cos(x) ** 2 * weights * (high - low) / 2
        per_nm = np.sum(share * self.scattering_per_nm_per_ev(loss, beam_energy_ev, collection_semi_angle_mrad))
        return float(1 / per_nm)
