"""What of an atom's potential lies between two heights: `atomic_cores` makes transmission functions of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.special import j0, roots_legendre

from simulation.scattering_factors import (
    atomic_potential_v,
    projected_potential_v_angstrom,
    projected_scattering_factor,
    scattering_factor_below,
)

_QUADRATURE_COUNT = 64
_NO_FREQUENCY_SIGMAS = 1.2
"""Over sigma: the frequency from which on a Debye-Waller factor is below 1e-12."""
_RADII_PER_SIGMA = 8


@dataclass(frozen=True, slots=True)
class AtomPart:
    """Between two heights above the nucleus; by default all of the atom. A whole one may be smeared by its motion.

    >>> AtomPart(79).is_whole, AtomPart(79, -0.5, 0.5).is_whole
    (True, False)
    """

    number: int
    lower_angstrom: float = -inf
    upper_angstrom: float = inf
    rms_angstrom: float = 0.0
    """Rms displacement per axis."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.lower_angstrom == -inf and self.upper_angstrom == inf

    @property
    def upwards(self) -> AtomPart:
        """This part or its mirror image, which has the same projection: the one that lies more above the nucleus."""
        lower, upper = self.lower_angstrom, self.upper_angstrom
        return AtomPart(self.number, -upper, -lower) if not self.is_whole and lower + upper < 0 else self

    def scattering_factor(self, k_per_angstrom: ArrayLike, parametrization: str) -> NDArray[np.float64]:
        """Fourier transform of its projected potential, V*angstrom^2, same shape as k."""
        if self.is_whole:
            at_rest = projected_scattering_factor(self.number, k_per_angstrom, parametrization)
            return at_rest * debye_waller(k_per_angstrom, self.rms_angstrom) if self.rms_angstrom else at_rest
        upper, lower = (
            scattering_factor_below(self.number, k_per_angstrom, height, parametrization)
            for height in (self.upper_angstrom, self.lower_angstrom)
        )
        return upper - lower

    def projected_v_angstrom(self, radii_angstrom: NDArray[np.float64], parametrization: str) -> NDArray[np.float64]:
        """Projected potential at distances (> 0) from the atom's axis, (n,); V*angstrom."""
        if self.rms_angstrom:
            return self._smeared_v_angstrom(radii_angstrom, parametrization)
        if self.is_whole:
            return projected_potential_v_angstrom(self.number, radii_angstrom, parametrization)
        upper, lower = (
            _projected_below(self.number, radii_angstrom, height, parametrization)
            for height in (self.upper_angstrom, self.lower_angstrom)
        )
        return upper - lower

    def _smeared_v_angstrom(self, radii_angstrom: NDArray[np.float64], parametrization: str) -> NDArray[np.float64]:
        """Integral of the scattering factor over k, on radii a fraction of sigma apart, and a spline between them."""
        highest = _NO_FREQUENCY_SIGMAS / self.rms_angstrom
        farthest = float(radii_angstrom.max())
        nodes, weights = roots_legendre(_QUADRATURE_COUNT + ceil(4 * highest * farthest))
        k = highest * (nodes + 1) / 2
        integrand = np.pi * highest * weights * k * self.scattering_factor(k, parametrization)
        coarse = np.linspace(0, farthest, 16 + ceil(_RADII_PER_SIGMA * farthest / self.rms_angstrom))
        return CubicSpline(coarse, j0(2 * np.pi * coarse[:, None] * k) @ integrand)(radii_angstrom)


def debye_waller(k_per_angstrom: ArrayLike, rms_angstrom: float) -> NDArray[np.float64]:
    """exp(-2 pi^2 sigma^2 k^2): the mean of exp(-2 pi i k.u) over Gaussian displacements."""
    return np.exp(-2 * (np.pi * rms_angstrom * np.asarray(k_per_angstrom, dtype=np.float64)) ** 2)


def _projected_below(
    number: int, radii_angstrom: NDArray[np.float64], height_angstrom: float, parametrization: str
) -> NDArray[np.float64]:
    """Integral of the potential from the nucleus up to a height; odd in the height."""
    if abs(height_angstrom) == inf:
        half = projected_potential_v_angstrom(number, radii_angstrom, parametrization) / 2
        return half if height_angstrom > 0 else -half
    return depth_integral(number, radii_angstrom, 0.0, height_angstrom, parametrization)


def depth_integral(
    number: int, radii_angstrom: NDArray[np.float64], lower_angstrom: float, upper_angstrom: float, parametrization: str
) -> NDArray[np.float64]:
    """Integral over z between two heights, by Gauss and Legendre in t with z = rho sinh t.

    That flattens the peak above the nucleus, so that the cusp costs no digits.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_COUNT)
    start, end = (np.arcsinh(height / radii_angstrom)[:, None] for height in (lower_angstrom, upper_angstrom))
    t = 0.5 * (end - start) * nodes + 0.5 * (end + start)
    r = radii_angstrom[:, None] * np.cosh(t)
    return 0.5 * (end - start)[:, 0] * ((atomic_potential_v(number, r, parametrization) * r) @ weights)
