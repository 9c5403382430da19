"""Whether counts could come from a fingerprint at all: the deviance at several coarsenesses, for small counts too."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy
from scipy.stats import gamma

from simulation.fingerprints.likelihood import Counts

_FEWEST_BLOCKS = 4
_LARGEST_TABLED = 300.0


def misfit_p_value(counts: list[Counts], expected: list[Counts], fitted_count: float) -> float:
    """Probability of a misfit as bad as this one if the fingerprint were true; small: it is not.

    The deviance of all pixels, and again of blocks of 2, 4, 8 ... pixels a side: a structure that differs on a
    large scale shows there long before single pixels tell. The smallest of the p-values, times their number.
    Each deviance is compared with a gamma distribution of its own mean and variance, which for large counts is
    chi-squared. `fitted_count`: unknowns that were fitted.
    """
    found: list[float] = []
    block = 1
    while block == 1 or _fewest(counts, block) >= _FEWEST_BLOCKS:
        seen = [_blocks(each, block) for each in counts]
        mean = [_blocks(each, block) for each in expected]
        found.append(_p_value(np.concatenate(seen), np.concatenate(mean), fitted_count))
        block *= 2
    return min(1.0, len(found) * min(found))


def _fewest(counts: list[Counts], block: int) -> int:
    """Blocks along the shortest side that is longer than one."""
    return min(max(1, count // block) for each in counts for count in each.shape[-2:] if count > 1)


def _blocks(values: Counts, block: int) -> Counts:
    """Sums over blocks of the last two axes, flat; the last of each axis takes what is left."""
    for axis in (-2, -1):
        count = values.shape[axis]
        starts = np.arange(max(1, count // block)) * block if count > 1 else np.zeros(1, np.int64)
        values = np.add.reduceat(values, starts, axis=axis)
    return values.ravel()


def _p_value(counts: Counts, expected: Counts, fitted_count: float) -> float:
    deviance = float(np.sum(deviances(counts, expected)))
    means, variances = _moments()(expected)
    mean = max(float(np.sum(means)) - fitted_count, 0.5)
    variance = max(float(np.sum(variances)) - 2 * fitted_count, 1.0)
    return float(gamma.sf(deviance, mean**2 / variance, scale=variance / mean))


def deviances(counts: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 [c ln(c / m) - (c - m)], of each pixel."""
    mean = np.maximum(expected, 1e-12)
    return 2 * (xlogy(counts, counts / mean) - (counts - mean))


class _Moments:
    """Mean and variance of the deviance of a Poisson count by its mean, tabled; 1 and 2 for large means."""

    def __init__(self) -> None:
        self._logarithms = np.linspace(np.log(1e-9), np.log(_LARGEST_TABLED), 300)
        rows = [_moments_at(float(np.exp(each))) for each in self._logarithms]
        self._table = np.array(rows).T

    def __call__(self, expected: Counts) -> tuple[Counts, Counts]:
        at = np.log(np.maximum(expected, 1e-9))
        small = expected < _LARGEST_TABLED
        mean = np.where(small, np.interp(at, self._logarithms, self._table[0]), 1.0)
        variance = np.where(small, np.interp(at, self._logarithms, self._table[1]), 2.0)
        return mean, variance


@cache
def _moments() -> _Moments:
    return _Moments()


def _moments_at(mean: float) -> tuple[float, float]:
    reach = int(mean + 12 * np.sqrt(mean) + 30)
    counts = np.arange(reach, dtype=np.float64)
    probability = np.exp(xlogy(counts, mean) - mean - gammaln(counts + 1))
    values = deviances(counts, np.full(reach, mean))
    first = float(np.sum(probability * values))
    return first, float(np.sum(probability * values**2)) - first**2
