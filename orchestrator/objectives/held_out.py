"""How well a predicted rate map explains counts that nobody has used: Poisson deviance, and the error left."""

from __future__ import annotations

import numpy as np
import scipy

_LEAST_EXPECTED = 1e-12


def held_out_deviance(rate_map: np.ndarray, heldout_counts: np.ndarray, exposure_ratio: float) -> float:
    """Mean Poisson deviance a position, 2 mean(n log(n / mu) - n + mu) with mu = rate * exposure_ratio.

    Both arrays have one shape. About 1 for the true rate where counts are not small; 0 only for mu = n everywhere.
    Raises ValueError for shapes that differ, rates that are negative or not finite.
    """
    _check(rate_map, heldout_counts, exposure_ratio)
    counts = heldout_counts.astype(float)
    expected = np.maximum(rate_map * exposure_ratio, _LEAST_EXPECTED)
    xlogy = scipy.special.xlogy
    return float(2 * np.mean(xlogy(counts, counts) - xlogy(counts, expected) - counts + expected))


def null_deviance(heldout_counts: np.ndarray) -> float:
    """Deviance of the best constant rate, the mean of the held-out counts themselves."""
    return held_out_deviance(np.full(heldout_counts.shape, heldout_counts.mean()), heldout_counts, 1.0)


def held_out_error(rate_map: np.ndarray, heldout_counts: np.ndarray, exposure_ratio: float) -> float:
    """Root mean square error of the rate map over the mean rate, counting noise of the held-out part taken off.

    For Poisson counts of mean mu, E(n - r)^2 = (mu - r)^2 + mu; so mean((n - r)^2) - mean(n) estimates the squared
    error without bias. 0 where the estimate is negative.
    """
    _check(rate_map, heldout_counts, exposure_ratio)
    squared = np.mean((heldout_counts - rate_map * exposure_ratio) ** 2) - heldout_counts.mean()
    return float(np.sqrt(max(squared, 0.0)) / heldout_counts.mean())


def _check(rate_map: np.ndarray, heldout_counts: np.ndarray, exposure_ratio: float) -> None:
    if rate_map.shape != heldout_counts.shape:
        raise ValueError(
            f"rate map {rate_map.shape} and held-out counts {heldout_counts.shape} differ in shape; bin one"
        )
    if not np.isfinite(rate_map).all() or (rate_map < 0).any():
        raise ValueError("the rate map holds values that are negative or not finite; a rate is 0 or above")
    if not exposure_ratio > 0:
        raise ValueError(f"exposure ratio {exposure_ratio} is not above 0")
