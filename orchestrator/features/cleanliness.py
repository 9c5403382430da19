"""Clean or contaminated, cell by cell: a two-class mixture of counts whose clean level the forward model knows.

Contamination only adds to an annular dark-field signal. Used by `survey` (lattice not resolved) and `sites`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

_HAZE = np.geomspace(1.12, 7.0, 36) - 1  # added signal over the clean level; steps of about 5 %
_LEVEL_STD = 0.04  # how well dose and current are believed
_TEXTURE_STD = 0.02  # what neither class explains
_COUPLING = 0.7
_ROUNDS = 12
_LEARNING_ROUNDS = 15
_MOST_CELLS = 1600
_NEIGHBOURS = np.array([[0.7, 1.0, 0.7], [1.0, 0.0, 1.0], [0.7, 1.0, 0.7]])


@dataclass(frozen=True, slots=True)
class CleanCells:
    """`probability` (rows, columns) that a cell is clean; `level` of clean counts over what was predicted."""

    probability: np.ndarray
    level: float
    level_std: float


def clean_cells(counts: np.ndarray, expected: np.ndarray) -> CleanCells:
    """Classify cells (rows, columns) from their counts and the counts expected of the clean lattice.

    Counts are Poisson with mean expected * level (clean) or expected * level * (1 + haze), haze from a fixed grid whose
    weights are learned by expectation-maximisation; the level has a 4 % log-normal prior about 1. Neighbouring cells
    tend to agree: mean-field iterations of an Ising coupling.
    """
    shrink = 1 / (1 + _TEXTURE_STD**2 * max(float(expected.mean()), 0.0))
    counts, expected = counts * shrink, expected * shrink
    level, level_std, weights, clean_share = _level(*_pooled(counts, expected))
    evidence = _evidence(counts, expected, level, weights)
    bias = np.log(clean_share / (1 - clean_share))
    pooled = scipy.ndimage.gaussian_filter(evidence, 1.0, mode="nearest") * 4.0
    probability = _logistic(bias + pooled)
    for _ in range(_ROUNDS):
        agreement = scipy.ndimage.convolve(2 * probability - 1, _NEIGHBOURS, mode="nearest")
        probability = _logistic(bias + evidence + _COUPLING * agreement)
    return CleanCells(probability, level, level_std)


def _pooled(counts: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat arrays of cells, summed in squares until there are few enough."""
    factor = int(np.ceil(np.sqrt(counts.size / _MOST_CELLS)))
    rows, columns = (max(1, length // factor) for length in counts.shape)
    if factor == 1 or min(counts.shape) < factor:
        return counts.ravel(), expected.ravel()

    def pool(values: np.ndarray) -> np.ndarray:
        cut = values[: rows * factor, : columns * factor]
        return cut.reshape(rows, factor, columns, factor).sum(axis=(1, 3)).ravel()

    return pool(counts), pool(expected)


def _level(counts: np.ndarray, expected: np.ndarray) -> tuple[float, float, np.ndarray, float]:
    """The clean level, its standard deviation, the haze weights, and the share of clean cells: best of six starts."""
    found = [_learn(counts, expected, float(start)) for start in np.exp(np.linspace(-0.36, 0.24, 6))]
    return max(found, key=lambda learned: learned[0])[1:]


def _learn(counts: np.ndarray, expected: np.ndarray, level: float) -> tuple[float, float, float, np.ndarray, float]:
    """Expectation-maximisation from one start: (score, level, its std, haze weights, share of clean cells)."""
    classes = len(_HAZE) + 1
    factors = np.concatenate([[1.0], 1.0 + _HAZE])
    weights = np.concatenate([[0.5], np.full(len(_HAZE), 0.5 / len(_HAZE))])
    precision = 1 / _LEVEL_STD**2
    score = -np.inf
    for _ in range(_LEARNING_ROUNDS):
        log_likelihood = _log_likelihoods(counts, expected, level)
        top = log_likelihood.max(axis=0)
        shares = weights[:, None] * np.exp(log_likelihood - top)
        total = shares.sum(axis=0)
        # A uniform frame is clean at another dose rather than hazy all over: the share of clean cells has a prior.
        score = float((np.log(total) + top).sum()) - 0.5 * precision * np.log(level) ** 2 + np.log(weights[0])
        shares /= total
        weights = (shares.sum(axis=1) + 1.0 / classes) / (counts.size + 1.0)
        predicted = float((factors @ shares) @ expected)
        level = float((counts.sum() + precision) / (predicted + precision))
    share = float(np.clip(weights[0], 0.02, 0.98))
    return score, level, level / float(np.sqrt(counts.sum() + precision)), weights[1:] / weights[1:].sum(), share


def _log_likelihoods(counts: np.ndarray, expected: np.ndarray, level: float) -> np.ndarray:
    """(1 + haze levels, ...) Poisson log-likelihoods up to what all share."""
    factors = level * np.concatenate([[1.0], 1.0 + _HAZE]).reshape(-1, *([1] * counts.ndim))
    return counts * np.log(factors) - expected * factors


def _evidence(counts: np.ndarray, expected: np.ndarray, level: float, weights: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio of clean against contaminated, clipped where it decides anyway."""
    log_likelihood = _log_likelihoods(counts, expected, level)
    hazy = log_likelihood[1:] + np.log(weights).reshape(-1, *([1] * counts.ndim))
    top = hazy.max(axis=0)
    ratio = log_likelihood[0] - top - np.log(np.exp(hazy - top).sum(axis=0))
    return np.clip(ratio, -12.0, 12.0)


def _logistic(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(value, -40, 40)))


def tile_sums(image: np.ndarray, tile_px: int) -> np.ndarray:
    """Sums over square tiles from the first corner; the last row and column of tiles may be narrower."""
    rows = np.add.reduceat(image, np.arange(0, image.shape[0], tile_px), axis=0)
    return np.add.reduceat(rows, np.arange(0, image.shape[1], tile_px), axis=1)
