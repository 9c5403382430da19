"""Conversions between the house units; the only place that holds the electron's charge for doses."""

from __future__ import annotations

import math

ELEMENTARY_CHARGE_C = 1.602_176_634e-19  # exact, SI 2019
ANGSTROM2_PER_NM2 = 100.0


def electrons(current_pa: float, duration_s: float) -> float:
    """Number of electrons that a beam of `current_pa` delivers in `duration_s`.

    >>> round(electrons(30.0, 1e-6), 1)
    187.2
    """
    return current_pa * 1e-12 * duration_s / ELEMENTARY_CHARGE_C


def wavelength_nm(beam_energy_ev: float) -> float:
    """Relativistic wavelength of the electrons (CODATA 2018 constants).

    >>> round(wavelength_nm(60e3), 6)
    0.004866
    """
    rest_energy_ev = 510_998.95
    return 1.239_841_98e3 / math.sqrt(beam_energy_ev * (2 * rest_energy_ev + beam_energy_ev))
