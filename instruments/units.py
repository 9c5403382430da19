"""Conversions between the house units; the only place that holds the electron's charge for doses."""

from __future__ import annotations

import math

ELEMENTARY_CHARGE_C = 1.602_176_634e-19  # exact, SI 2019
ANGSTROM2_PER_NM2 = 100.0

_UNITS = {
    "_e_per_a2_s": "electrons per square angstrom and second", "_e_per_a2": "electrons per square angstrom",
    "_e_per_px": "electrons a pixel", "_nm_per_min": "nm/min", "_nm_per_s": "nm/s", "_deg_per_s": "degrees/s",
    "_m_per_s": "m/s", "_g_per_cm3": "g/cm3", "_per_nm2": "1/nm2", "_per_um2": "1/um2", "_nm": "nm", "_ev": "eV",
    "_mrad": "mrad", "_deg": "degrees", "_pa": "pA", "_us": "microseconds", "_s": "s", "_k": "K", "_sr": "sr",
    "_angstrom": "angstrom", "_nm2": "nm2", "_nm3": "nm3", "_rad": "rad", "_mm": "mm", "_barn": "barn", "_gib": "GiB",
}  # fmt: skip
"""By the ending of a name; the first that fits."""


def electrons(current_pa: float, duration_s: float) -> float:
    """Number of electrons that a beam of `current_pa` delivers in `duration_s`.

    >>> round(electrons(30.0, 1e-6), 1)
    187.2
    """
    return current_pa * 1e-12 * duration_s / ELEMENTARY_CHARGE_C


def unit_of(name: str) -> str:
    """The unit that a name ends in, empty where there is none.

    >>> unit_of("defocus_nm"), unit_of("dose_e_per_a2"), unit_of("count")
    ('nm', 'electrons per square angstrom', '')
    """
    fitting = (ending for ending in _UNITS if name.endswith(ending) and ("_per_" in ending or "_per_" not in name))
    return _UNITS[ending] if (ending := next(fitting, None)) else ""


def wavelength_nm(beam_energy_ev: float) -> float:
    """Relativistic wavelength of the electrons (CODATA 2018 constants).

    >>> round(wavelength_nm(60e3), 6)
    0.004866
    """
    rest_energy_ev = 510_998.95
    return 1.239_841_98e3 / math.sqrt(beam_energy_ev * (2 * rest_energy_ev + beam_energy_ev))
