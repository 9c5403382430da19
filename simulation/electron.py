"""The fast electron: wavelength and interaction with a potential (CODATA 2022, exact SI where exact)."""

from __future__ import annotations

from math import pi, sqrt

from simulation.arguments import as_float
from simulation.errors import InvalidParameter

_PLANCK_J_S = 6.62607015e-34
_LIGHT_M_PER_S = 299_792_458.0
_CHARGE_C = 1.602176634e-19
_ELECTRON_MASS_KG = 9.1093837139e-31
_SMALLEST_ENERGY_EV, _LARGEST_ENERGY_EV = 1e3, 1e7

REST_ENERGY_EV = _ELECTRON_MASS_KG * _LIGHT_M_PER_S**2 / _CHARGE_C
"""Rest energy of the electron."""

POTENTIAL_PER_SCATTERING_FACTOR = _PLANCK_J_S**2 / (2 * pi * _ELECTRON_MASS_KG * _CHARGE_C) * 1e20
"""h^2 / (2 pi m e) in V*angstrom^2: projected potential (V*angstrom^2) = this * f_e (angstrom)."""


def wavelength_angstrom(beam_energy_ev: float) -> float:
    """Relativistic wavelength, lambda = h c / sqrt(E (2 m c^2 + E)).

    >>> round(wavelength_angstrom(200e3), 6)
    0.025079
    """
    check_beam_energy(beam_energy_ev)
    planck_light_ev_angstrom = _PLANCK_J_S * _LIGHT_M_PER_S / _CHARGE_C * 1e10
    return planck_light_ev_angstrom / sqrt(beam_energy_ev * (2 * REST_ENERGY_EV + beam_energy_ev))


def interaction_parameter(beam_energy_ev: float) -> float:
    """Phase per projected potential in rad/(V*angstrom): sigma = 2 pi gamma m e lambda / h^2.

    >>> round(interaction_parameter(200e3), 7)
    0.0007288
    """
    wavelength = wavelength_angstrom(beam_energy_ev)
    return (1 + beam_energy_ev / REST_ENERGY_EV) * wavelength / POTENTIAL_PER_SCATTERING_FACTOR


def check_beam_energy(beam_energy_ev: float) -> None:
    """Refuse energies of no microscope: below 1000 eV a number is meant in keV."""
    if not 0 < as_float(beam_energy_ev) < float("inf"):
        raise InvalidParameter(f"beam_energy_ev = {beam_energy_ev} must be a positive number of eV")
    if beam_energy_ev > _LARGEST_ENERGY_EV:
        raise InvalidParameter(f"beam_energy_ev = {beam_energy_ev:g} is above {_LARGEST_ENERGY_EV:g} eV; give it in eV")
    if beam_energy_ev < _SMALLEST_ENERGY_EV:
        raise InvalidParameter(
            f"beam_energy_ev = {beam_energy_ev:g} is below {_SMALLEST_ENERGY_EV:g} eV; give it in eV: 200e3 for 200 kV"
        )
