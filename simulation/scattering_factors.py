"""Electron scattering factors of neutral atoms, and the potential of an atom that belongs to each.

k is a spatial frequency in cycles per angstrom (k = scattering angle / wavelength), not 2 pi / d and not
sin(theta)/wavelength. Factors are first Born, with the rest mass of the electron.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, k0, k1

from simulation.argument_kinds import kinds_checked
from simulation.arguments import as_float
from simulation.electron import POTENTIAL_PER_SCATTERING_FACTOR
from simulation.errors import InvalidParameter, InvalidSpecimen

PARAMETRIZATIONS = ("lobato", "kirkland")
"""Lobato, Van Dyck, Acta Cryst. A70 (2014) 636; Kirkland, Advanced Computing in Electron Microscopy (2010), App. C."""

_DEEP = 700.0
"""Depths in units of the decay length beyond which nothing is left."""


@dataclass(frozen=True, slots=True)
class _Coefficients:
    a: tuple[float, ...]
    b: tuple[float, ...]
    c: tuple[float, ...] = ()
    d: tuple[float, ...] = ()


@cache
def _table(parametrization: str) -> dict[str, _Coefficients]:
    if parametrization not in PARAMETRIZATIONS:
        raise InvalidParameter(
            f"unknown parametrization {parametrization!r}; choose one of {', '.join(PARAMETRIZATIONS)}"
        )
    text = files("simulation").joinpath("data", f"{parametrization}.json").read_text(encoding="utf-8")
    return {
        symbol: _Coefficients(**{name: tuple(values) for name, values in row.items()})
        for symbol, row in json.loads(text)["elements"].items()
    }


def elements(parametrization: str = "lobato") -> tuple[str, ...]:
    """Symbols in the table, by atomic number from 1.

    >>> len(elements("lobato")), elements("kirkland")[5]
    (103, 'C')
    """
    return tuple(_table(parametrization))


def symbol_of(symbol_or_number: str | int) -> str:
    """Chemical symbol for a symbol or an atomic number; an error if no table holds it.

    >>> symbol_of(74)
    'W'
    """
    symbols = elements()
    if isinstance(symbol_or_number, str):
        if symbol_or_number not in symbols:
            raise InvalidSpecimen(
                f"unknown element {symbol_or_number!r}; the tables hold {symbols[0]} to {symbols[-1]}: give a symbol"
                " such as 'Se'"
            )
        return symbol_or_number
    given = as_float(symbol_or_number)
    if not (1 <= given <= len(symbols) and given.is_integer()):
        raise InvalidSpecimen(
            f"no scattering factor for atomic number {symbol_or_number}; the tables hold 1 to {len(symbols)}"
            f" ({symbols[0]} to {symbols[-1]}): replace or delete such atoms (0 stands for an unknown 'X')"
        )
    return symbols[int(given) - 1]


@kinds_checked
def electron_scattering_factor(
    symbol_or_number: str | int, k_per_angstrom: ArrayLike, parametrization: str = "lobato"
) -> NDArray[np.float64]:
    """f_e in angstrom at spatial frequencies k (cycles per angstrom), same shape, float64.

    >>> float(electron_scattering_factor("W", 1.0).round(4))
    2.8979
    """
    row = _table(parametrization)[symbol_of(symbol_or_number)]
    k2 = np.asarray(k_per_angstrom, dtype=np.float64) ** 2
    if parametrization == "lobato":
        parts = [a * (2 + b * k2) / (1 + b * k2) ** 2 for a, b in zip(row.a, row.b, strict=True)]
    else:
        parts = [a / (k2 + b) for a, b in zip(row.a, row.b, strict=True)]
        parts += [c * np.exp(-d * k2) for c, d in zip(row.c, row.d, strict=True)]
    return np.sum(parts, axis=0)


def projected_scattering_factor(
    symbol_or_number: str | int, k_per_angstrom: ArrayLike, parametrization: str = "lobato"
) -> NDArray[np.float64]:
    """Fourier transform of the atom's projected potential, V*angstrom^2, same shape as k."""
    return POTENTIAL_PER_SCATTERING_FACTOR * electron_scattering_factor(
        symbol_or_number, k_per_angstrom, parametrization
    )


def atomic_potential_v(
    symbol_or_number: str | int, radius_angstrom: ArrayLike, parametrization: str = "lobato"
) -> NDArray[np.float64]:
    """Potential in V at a distance from the nucleus (> 0): the three-dimensional Fourier transform of f_e."""
    row = _table(parametrization)[symbol_of(symbol_or_number)]
    r = np.asarray(radius_angstrom, dtype=np.float64)
    if parametrization == "lobato":
        parts = [
            pi**2 * a * b**-1.5 * (sqrt(b) / (pi * r) + 1) * np.exp(-2 * pi * r / sqrt(b))
            for a, b in zip(row.a, row.b, strict=True)
        ]
    else:
        parts = [pi * a / r * np.exp(-2 * pi * r * sqrt(b)) for a, b in zip(row.a, row.b, strict=True)]
        parts += [c * (pi / d) ** 1.5 * np.exp(-((pi * r) ** 2) / d) for c, d in zip(row.c, row.d, strict=True)]
    return POTENTIAL_PER_SCATTERING_FACTOR * np.sum(parts, axis=0)


def projected_potential_v_angstrom(
    symbol_or_number: str | int, radius_angstrom: ArrayLike, parametrization: str = "lobato"
) -> NDArray[np.float64]:
    """Potential integrated along the beam at a distance (> 0) from the atom's axis, V*angstrom.

    The two-dimensional Fourier transform of `projected_scattering_factor`; it diverges like -log(r) on the axis.
    """
    row = _table(parametrization)[symbol_of(symbol_or_number)]
    r = np.asarray(radius_angstrom, dtype=np.float64)
    if parametrization == "lobato":
        parts = [
            2 * pi * a / b * k0(2 * pi * r / sqrt(b)) + 2 * pi**2 * a * r * b**-1.5 * k1(2 * pi * r / sqrt(b))
            for a, b in zip(row.a, row.b, strict=True)
        ]
    else:
        parts = [2 * pi * a * k0(2 * pi * r * sqrt(b)) for a, b in zip(row.a, row.b, strict=True)]
        parts += [pi * c / d * np.exp(-((pi * r) ** 2) / d) for c, d in zip(row.c, row.d, strict=True)]
    return POTENTIAL_PER_SCATTERING_FACTOR * np.sum(parts, axis=0)


def scattering_factor_below(
    symbol_or_number: str | int, k_per_angstrom: ArrayLike, height_angstrom: float, parametrization: str = "lobato"
) -> NDArray[np.float64]:
    """The same of what lies between the nucleus and a height above it: half of all at infinity, odd in the height.

    `projected_scattering_factor` with its integral over z cut short: the inverse Fourier transform of f_e along the
    beam is, with c = 2 pi sqrt(k^2 + 1/b), a sum of exp(-c z) and (1 + c z) exp(-c z), or of Gaussians.
    """
    row = _table(parametrization)[symbol_of(symbol_or_number)]
    k2, height = np.asarray(k_per_angstrom, dtype=np.float64) ** 2, abs(height_angstrom)
    if parametrization == "lobato":
        parts = [_lobato_below(a, b, k2, height) for a, b in zip(row.a, row.b, strict=True)]
    else:
        depths = [2 * pi * np.sqrt(k2 + b) * height for b in row.b]
        parts = [-a / (k2 + b) / 2 * np.expm1(-z) for a, b, z in zip(row.a, row.b, depths, strict=True)]
        parts += [c / 2 * np.exp(-d * k2) * erf(pi * height / sqrt(d)) for c, d in zip(row.c, row.d, strict=True)]
    sign = 1.0 if height_angstrom >= 0 else -1.0
    return sign * POTENTIAL_PER_SCATTERING_FACTOR * np.sum(parts, axis=0)


def _lobato_below(a: float, b: float, k2: NDArray[np.float64], height_angstrom: float) -> NDArray[np.float64]:
    u = 1 + b * k2
    depth = np.minimum(2 * pi * np.sqrt(u / b) * height_angstrom, _DEEP)
    fading = np.exp(-depth)
    return a * ((1 - fading) / (2 * u) + (2 - (2 + depth) * fading) / (4 * u**2))
