"""The fast electron that loses energy: speed, characteristic angle, and how far the interaction reaches."""

from __future__ import annotations

from math import sqrt

from simulation.argument_kinds import kinds_checked
from simulation.electron import REST_ENERGY_EV, wavelength_angstrom
from simulation.errors import InvalidParameter

BOHR_NM = 0.0529177210544
RYDBERG_EV = 13.605693122990
BARN_PER_NM2 = 1e10


def squared_speed(beam_energy_ev: float) -> float:
    """(v / c)^2.

    >>> round(squared_speed(100e3), 4)
    0.3005
    """
    wavelength_angstrom(beam_energy_ev)  # refuses energies that are not positive
    return 1 - 1 / lorentz_factor(beam_energy_ev) ** 2


def lorentz_factor(beam_energy_ev: float) -> float:
    """gamma = 1 + E / (m c^2)."""
    return 1 + beam_energy_ev / REST_ENERGY_EV


def half_mass_speed2_ev(beam_energy_ev: float) -> float:
    """m v^2 / 2 with the rest mass: Egerton's T (EELS in the Electron Microscope, 3rd ed., section 3.6).

    >>> round(half_mass_speed2_ev(100e3))
    76789
    """
    return REST_ENERGY_EV * squared_speed(beam_energy_ev) / 2


@kinds_checked
def characteristic_angle_mrad(loss_ev: float, beam_energy_ev: float) -> float:
    """theta_E = E / (gamma m v^2), the half width of the Lorentzian of scattering angles (Egerton, section 3.2).

    >>> round(characteristic_angle_mrad(284.0, 100e3), 2)
    1.55
    """
    return 1e3 * loss_ev / (2 * lorentz_factor(beam_energy_ev) * half_mass_speed2_ev(beam_energy_ev))


@kinds_checked
def delocalisation_nm(loss_ev: float, beam_energy_ev: float, collection_semi_angle_mrad: float) -> float:
    """Diameter that holds half of the inelastic scattering.

    d50^2 = (0.5 lambda / theta_E^(3/4))^2 + (0.6 lambda / b)^2, angles in rad (Egerton, Ultramicroscopy 107 (2007)
    575); an estimate, good to some 30 %.
    """
    if not (loss_ev > 0 and collection_semi_angle_mrad > 0):
        raise InvalidParameter(
            f"loss_ev = {loss_ev} and collection_semi_angle_mrad = {collection_semi_angle_mrad} must be positive"
        )
    wavelength_nm = wavelength_angstrom(beam_energy_ev) / 10
    reach = 0.5 * wavelength_nm / (characteristic_angle_mrad(loss_ev, beam_energy_ev) * 1e-3) ** 0.75
    return sqrt(reach**2 + (0.6 * wavelength_nm / (collection_semi_angle_mrad * 1e-3)) ** 2)
