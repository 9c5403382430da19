"""Acquisition functions: what a candidate is worth before it is measured. Kept apart from the models they read."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy.special import erfcx, ndtr

_LOG_SQRT_2PI = 0.5 * np.log(2 * pi)


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, incumbent_value: float) -> np.ndarray:
    """log E[max(f - incumbent, 0)] for f ~ N(mean, std^2), finite and with slope however small the improvement.

    With z = (mean - incumbent) / std, E = std phi(z) (1 + z sqrt(pi/2) erfcx(-z / sqrt 2)), the scaled form that keeps
    log E where E underflows (the idea of Ament et al. 2023); below z = -50 its series, 1 / (z^2 + 3).

    >>> round(float(np.exp(log_expected_improvement(np.array(0.0), np.array(1.0), 0.0))), 6)
    0.398942
    """
    z = (np.asarray(mean) - incumbent_value) / np.asarray(std)
    log_density = -0.5 * z**2 - _LOG_SQRT_2PI
    low = np.clip(z, -50.0, 0.0)
    scaled = 1.0 + low * sqrt(pi / 2) * erfcx(-low / sqrt(2.0))
    high = np.maximum(z, 0.0)
    above = np.log(np.exp(-0.5 * high**2 - _LOG_SQRT_2PI) + high * ndtr(high))
    below = log_density + np.where(z < -50.0, -np.log(z**2 + 3.0), np.log(scaled))
    return np.log(std) + np.where(z > 0.0, above, below)


def log_augmented_improvement(mean: np.ndarray, std: np.ndarray, incumbent_value: float, noise: float) -> np.ndarray:
    """log EI times 1 - noise / sqrt(noise^2 + std^2): what one more noisy look can still teach (Huang et al. 2006).

    Without it a noisy maximum is measured over and over for improvements far below the noise.
    """
    teaches = -np.expm1(-0.5 * np.log1p((np.asarray(std) / max(noise, 1e-12)) ** 2))
    return log_expected_improvement(mean, std, incumbent_value) + np.log(np.maximum(teaches, 1e-300))


def per_cost(log_value: np.ndarray, cost_share: np.ndarray, exponent: float) -> np.ndarray:
    """log(value / cost^exponent); costs are shares of what is left, or all ones."""
    return log_value - exponent * np.log(np.maximum(cost_share, 1e-300))
