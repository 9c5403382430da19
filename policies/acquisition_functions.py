"""Acquisition functions: what a candidate is worth before it is measured. Kept apart from the models they read."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """log E[max(f - best, 0)] for f ~ N(mean, std^2), finite and with slope however small the improvement.

    With z = (mean - best) / std, E = std (phi(z) + z Phi(z)). Far below (z < -6), phi + z Phi tends to
    phi(z) / (z^2 + 3) (asymptotic series), which keeps the logarithm exact to 1e-3 (Ament et al. 2023 give the idea).

    >>> round(float(np.exp(log_expected_improvement(np.array(0.0), np.array(1.0), 0.0))), 6)
    0.398942
    """
    z = (np.asarray(mean) - best) / np.asarray(std)
    log_density = -0.5 * z**2 - _LOG_SQRT_2PI
    near = np.maximum(z, -6.0)
    with np.errstate(divide="ignore"):
        direct = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * np.exp(log_ndtr(near)))
    far = log_density - np.log(z**2 + 3.0)
    return np.log(std) + np.where(z < -6.0, far, direct)


def per_cost(log_value: np.ndarray, cost_share: np.ndarray, exponent: float) -> np.ndarray:
    """log(value / cost^exponent); costs are shares of what is left, or all ones."""
    return log_value - exponent * np.log(np.maximum(cost_share, 1e-300))
