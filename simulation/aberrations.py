"""The aberration function of the probe-forming lens; its neighbour `probe` turns it into a wave."""

from __future__ import annotations

from math import cos, pi, radians, sin
from typing import Any

from array_api_compat import array_namespace

from instruments.optics import Aberrations, Optics
from simulation.electron import wavelength_angstrom

Array = Any
"""An array of numpy, torch or CuPy: what array-api-compat takes."""

_ANGSTROM_PER_NM = 10.0
TERMS = ((1, 2), (2, 1), (2, 3), (3, 0), (3, 2), (3, 4), (4, 1), (4, 3), (4, 5), (5, 0), (5, 2), (5, 4), (5, 6))
"""(order n, symmetry m) of the coefficients C_nm that `Aberrations` knows."""


def chi(optics: Optics, kx_per_angstrom: Array, ky_per_angstrom: Array) -> Array:
    """Aberration phase in radians at spatial frequencies (cycles per angstrom; arrays that broadcast).

    chi = 2 pi / lambda * sum_nm alpha^(n+1) C_nm cos(m (phi - phi_nm)) / (n + 1), alpha = lambda k,
    phi from +x towards +y, C10 = -defocus. The probe is exp(-i chi). Evaluated as polynomials in
    (alpha_x, alpha_y), so it is smooth at the origin.
    """
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    alpha_x, alpha_y = kx_per_angstrom * wavelength, ky_per_angstrom * wavelength
    alpha2 = alpha_x * alpha_x + alpha_y * alpha_y
    total = 0.5 * (-optics.defocus_nm * _ANGSTROM_PER_NM) * alpha2
    for order, symmetry in TERMS:
        magnitude_nm, azimuth_deg = _coefficient(optics.aberrations, order, symmetry)
        if magnitude_nm == 0:
            continue
        real, imaginary = powers(alpha_x, alpha_y, symmetry)
        angle = symmetry * radians(azimuth_deg)
        term = (real * cos(angle) + imaginary * sin(angle)) * alpha2 ** ((order + 1 - symmetry) // 2)
        total = total + magnitude_nm * _ANGSTROM_PER_NM / (order + 1) * term
    return 2 * pi / wavelength * total


def _coefficient(aberrations: Aberrations, order: int, symmetry: int) -> tuple[float, float]:
    magnitude_nm = getattr(aberrations, f"c{order}{symmetry}_nm")
    azimuth_deg = getattr(aberrations, f"phi{order}{symmetry}_deg") if symmetry else 0.0
    return magnitude_nm, azimuth_deg


def powers(x: Array, y: Array, exponent: int) -> tuple[Array, Array]:
    """Real and imaginary part of (x + i y)^exponent; arrays that broadcast."""
    xp = array_namespace(x, y)
    real, imaginary = xp.ones_like(x * y), xp.zeros_like(x * y)
    for _ in range(exponent):
        real, imaginary = real * x - imaginary * y, real * y + imaginary * x
    return real, imaginary
