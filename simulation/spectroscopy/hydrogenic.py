"""Generalised oscillator strengths of hydrogen-like K and L shells; `edges` scales them to elements.

Everything is in units of the effective nuclear charge Zs: w = E / (Zs^2 Ry) is the energy transfer and
q = (momentum transfer * a0 / Zs)^2. Strengths are per unit of w, of the filled shell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SMALLEST = 1e-9


def k_shell(w: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """df/dw of two 1s electrons (Bethe, Ann. Phys. 397 (1930) 325; Egerton, 3rd ed., section 3.6.1).

    256 w (q + k^2/3 + 1/3) exp(-2 b / k) / {[(q - k^2 + 1)^2 + 4 k^2]^3 [1 - exp(-2 pi / k)]}, k^2 = w - 1,
    b = arctan(2 k / (q - k^2 + 1)) in 0..pi. Continued to k^2 < 0, where bound states of hydrogen stand for the
    continuum of an atom whose outer electrons lower the threshold.
    """
    w, q = np.broadcast_arrays(np.asarray(w, np.float64), np.asarray(q, np.float64))
    k2 = w - 1
    base = q - k2 + 1
    return 256 * w * (q + k2 / 3 + 1 / 3) * _phase_factor(k2, base, 2.0) / (base**2 + 4 * k2) ** 3


def p_shell(w: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """df/dw of six 2p electrons.

    Walske, Phys. Rev. 101 (1956) 940; Choi, Merzbacher, Khandelwal, At. Data 5 (1973) 291.
    k^2 = w - 1/4; the same continuation below the hydrogenic threshold as for the K shell.
    """
    w, q = np.broadcast_arrays(np.asarray(w, np.float64), np.asarray(q, np.float64))
    k2 = w - 0.25
    polynomial = (
        9 / 4 * q**4
        - (3 / 4 + 3 * k2) * q**3
        + (19 / 32 - 3 / 4 * k2 - k2**2 / 2) * q**2
        + (107 / 960 + 41 / 48 * k2 + 113 / 60 * k2**2 + k2**3) * q
        + (11 / 3072 + 3 / 64 * k2 + 7 / 32 * k2**2 + 5 / 12 * k2**3 + k2**4 / 4)
    )
    base = q - k2 + 0.25
    return 32 * w * polynomial * _phase_factor(k2, base, 1.0) / (base**2 + k2) ** 5


def l_shell(w: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """df/dw of all eight L electrons, 2s and 2p; sources as for `p_shell`."""
    w, q = np.broadcast_arrays(np.asarray(w, np.float64), np.asarray(q, np.float64))
    k2 = w - 0.25
    polynomial = (
        q**3
        - (5 / 3 * k2 + 11 / 12) * q**2
        + (k2**2 / 3 + 3 / 2 * k2 + 65 / 48) * q
        + (k2**3 / 3 + 3 / 4 * k2**2 + 23 / 48 * k2 + 5 / 64)
    )
    base = q - k2 + 0.25
    return 32 * w * polynomial * _phase_factor(k2, base, 1.0) / (base**2 + k2) ** 4


def _phase_factor(k2: NDArray[np.float64], base: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """exp(-2 b / k) / (1 - exp(-2 pi / k)) with tan b = slope * k / base; for k^2 < 0 its continuation.

    With k = i kappa, exp(-2 b / k) becomes [(base + slope kappa) / (base - slope kappa)]^(-1 / kappa).
    """
    k = np.sqrt(np.maximum(np.abs(k2), _SMALLEST))
    with np.errstate(under="ignore"):
        free = np.exp(-2 / k * np.arctan2(slope * k, base)) / -np.expm1(-2 * np.pi / k)
    inside = np.clip(slope * k / np.maximum(base, _SMALLEST), 0, 1 - _SMALLEST)
    bound = np.exp(-2 / k * np.arctanh(inside))
    return np.where(k2 >= 0, free, bound)
