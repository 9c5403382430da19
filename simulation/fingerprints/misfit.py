"""Whether counts could come from a fingerprint at all: the deviance at several coarsenesses, for small counts too."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, gammaln, xlogy

from simulation.fingerprints.likelihood import Counts, Noise

_FEWEST_BLOCKS = 4
_LARGEST_TABLED = 300.0


def misfit_p_value(
    counts: list[Counts], expected: list[Counts], fitted_count: float, model_error: float = 0.0
) -> float:
    """Probability of a misfit as bad as this one if the fingerprint were true; small: it is not.

    The deviance of all pixels, and again of blocks of 2, 4, 8 ... pixels a side: a structure that differs on a
    large scale shows there long before single pixels tell. The smallest of the p-values, times their number.
    Each deviance is compared with a gamma distribution of its own mean and variance, which for large counts is
    chi-squared. `fitted_count`: unknowns that were fitted. `model_error`: by how much each mean may be off, sums over
    blocks as much as single pixels.
    """
    found: list[float] = []
    block = 1
    while block == 1 or _fewest(counts, block) >= _FEWEST_BLOCKS:
        seen = [_blocks(each, block) for each in counts]
        mean = [_blocks(each, block) for each in expected]
        found.append(_p_value(np.concatenate(seen), np.concatenate(mean), fitted_count, model_error))
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


def _p_value(counts: Counts, expected: Counts, fitted_count: float, model_error: float) -> float:
    deviance = float(np.sum(deviances(counts, expected, model_error)))
    means, variances = _moments(model_error)(expected)
    mean = max(float(np.sum(means)) - fitted_count, 0.5)
    variance = max(float(np.sum(variances)) - 2 * fitted_count, 1.0)
    return float(gammaincc(mean**2 / variance, deviance * mean / variance))


def deviances(
    counts: NDArray[np.float64], expected: NDArray[np.float64], model_error: float = 0.0
) -> NDArray[np.float64]:
    """2 [c ln(c / m) - (c - m)] of each pixel; with an error 2 [c ln(c / m) - (c + k) ln((c + k) / (m + k))]."""
    mean = np.maximum(expected, 1e-12)
    if model_error == 0:
        return 2 * (xlogy(counts, counts / mean) - (counts - mean))
    k = model_error**-2
    return np.maximum(2 * (xlogy(counts, counts / mean) - (counts + k) * np.log1p((counts - mean) / (mean + k))), 0.0)


class _Moments:
    """Mean and variance of the deviance of a count by its mean, tabled; 1 and 2 for large means."""

    def __init__(self, model_error: float) -> None:
        self._logarithms = np.linspace(np.log(1e-9), np.log(_LARGEST_TABLED), 300)
        rows = [_moments_at(float(np.exp(each)), model_error) for each in self._logarithms]
        self._table = np.array(rows).T

    def __call__(self, expected: Counts) -> tuple[Counts, Counts]:
        at = np.log(np.maximum(expected, 1e-9))
        small = expected < _LARGEST_TABLED
        mean = np.where(small, np.interp(at, self._logarithms, self._table[0]), 1.0)
        variance = np.where(small, np.interp(at, self._logarithms, self._table[1]), 2.0)
        return mean, variance


@cache
def _moments(model_error: float) -> _Moments:
    return _Moments(model_error)


def _moments_at(mean: float, model_error: float) -> tuple[float, float]:
    reach = int(mean + 12 * np.sqrt(mean * (1 + model_error**2 * mean)) + 30)
    counts = np.arange(reach, dtype=np.float64)
    noise = Noise(0.0, model_error)
    logarithm = counts * noise.log_factor(np.full(1, mean)) + noise.log_rest(np.full(1, mean)) - gammaln(counts + 1)
    if model_error > 0:
        k = model_error**-2
        logarithm += gammaln(counts + k) - gammaln(k) - counts * np.log(k)
    probability = np.exp(logarithm)
    values = deviances(counts, np.full(reach, mean), model_error)
    first = float(np.sum(probability * values))
    return first, float(np.sum(probability * values**2)) - first**2
