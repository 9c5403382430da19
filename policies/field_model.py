"""One line of a map: counts to a Gaussian process on a grid, its kernel chosen by evidence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from policies.field_kernel import FieldPlaces, KernelShape
from policies.incremental import IncrementalGP

_LENGTHS = (0.04, 0.08, 0.16, 0.32)
_MIXES = ((1.0, 1.0), (0.5, 0.7), (0.15, 0.7), (0.15, 1.5))  # (position weight, feature scale)
_VARIANCE_RATIOS = (0.3, 1.0, 3.0)
_MOST_POINTS = 192
_NO_COUNTS = 1.5**0.5  # 2 sqrt(3/8)


@dataclass
class FieldData:
    """Values of one line in the order they came: stabilised values, noise variances, grid cells."""

    cells: list[int] = field(default_factory=list[int])
    stabilised_counts: list[float] = field(default_factory=list[float])
    noise: list[float] = field(default_factory=list[float])

    def add_counts(self, cell: int, counts: float, exposure_ratio: float) -> None:
        """Anscombe: 2 sqrt(counts / e + 3/8) has variance about 1 / e for a fraction e of the full exposure."""
        self.cells.append(cell)
        self.stabilised_counts.append(2 * float(np.sqrt(max(counts, 0.0) / exposure_ratio + 0.375)))
        self.noise.append(1.0 / exposure_ratio)

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, values and noise variances of the first `count`."""
        return np.array(self.cells[:count]), np.array(self.stabilised_counts[:count]), np.array(self.noise[:count])


def choose_shape(places: FieldPlaces, data: FieldData, count: int) -> tuple[KernelShape, float]:
    """The kernel of largest evidence for the first `count` values, and their mean, which is the prior mean.

    Candidates: four lengths, three variances, by position alone (w = 1) and in three mixes with the survey, so a
    survey that says nothing about this line is dropped. At most 192 values, evenly taken, are looked at.
    """
    cells, values, noise = data.first(count)
    mean = float(np.average(values, weights=1 / noise))
    taken = np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(int))
    cells, residual, noise = cells[taken], values[taken] - mean, noise[taken]
    scale = max(float(np.var(residual)) - float(np.mean(noise)), 0.05 * float(np.var(residual)) + 1e-6)
    mixes = _MIXES if places.features is not None else _MIXES[:1]
    best, most = KernelShape(scale, _LENGTHS[-1]), -np.inf
    for length in _LENGTHS:
        for weight, feature_scale in mixes:
            unit = places.block(KernelShape(1.0, length, weight, feature_scale), cells, cells)
            for ratio in _VARIANCE_RATIOS:
                evidence = log_evidence(scale * ratio * unit, residual, noise)
                if evidence > most:
                    best, most = KernelShape(scale * ratio, length, weight, feature_scale), evidence
    return best, mean


def log_evidence(covariance: np.ndarray, values: np.ndarray, noise: np.ndarray) -> float:
    """Log marginal likelihood of zero-mean values; -inf where the covariance is not positive definite."""
    try:
        factor = cho_factor(covariance + np.diag(noise), lower=True)
    except LinAlgError:
        return -np.inf
    fit = values @ cho_solve(factor, values)
    return float(-0.5 * fit - np.log(np.diag(factor[0])).sum() - 0.5 * len(values) * np.log(2 * np.pi))


class FieldModel:
    """Posterior of one line. Built from all values up to the last refit, then grown one value at a time."""

    def __init__(self, places: FieldPlaces, data: FieldData, refit_count: int) -> None:
        self.refit_count = refit_count
        self.shape, self.prior_mean = choose_shape(places, data, refit_count)
        self._places = places
        everything = slice(None)
        variance = np.full(len(places.positions), self.shape.variance)
        self.process = IncrementalGP(lambda cell: places.block(self.shape, np.array([cell]), everything)[0], variance)
        cells, values, noise = data.first(refit_count)
        self.process.start(cells, values - self.prior_mean, noise, places.block(self.shape, cells, everything))

    def extend(self, data: FieldData, count: int) -> None:
        """Take in values up to the first `count`."""
        for i in range(len(self.process.cells), count):
            self.process.add(data.cells[i], data.stabilised_counts[i] - self.prior_mean, data.noise[i])

    @property
    def root(self) -> np.ndarray:
        """(m,) mean of the stabilised counts, at least what no counts would give."""
        return np.maximum(self.process.mean + self.prior_mean, _NO_COUNTS)

    def rate(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) counts per full exposure and their standard deviation.

        The inverse is the closed form of the exact unbiased one (Makitalo and Foi 2011), plus var z / 4 for what is
        not known of z; the variance is that of a squared normal, (4 E[z]^2 var z + 2 (var z)^2) / 16.
        """
        mean, variance = self.root, self.process.variance
        s = np.sqrt(1.5)
        rate = mean**2 / 4 + s / (4 * mean) - 11 / (8 * mean**2) + 5 * s / (8 * mean**3) - 1 / 8
        rate = np.maximum(rate + variance / 4, 0.0)
        return rate, np.sqrt(4 * mean**2 * variance + 2 * variance**2) / 4

    def relative_error(self) -> float:
        """Root mean square of the standard deviation over the mean rate."""
        rate, std = self.rate()
        return float(np.sqrt(np.mean(std**2)) / max(float(rate.mean()), 1e-6))

    def error_reduction(self, candidates: np.ndarray, sample: np.ndarray, noise_variance: float) -> np.ndarray:
        """(k,) expected fall of the mean variance of the rate, over `sample` cells, for one look at each candidate."""
        prior = self._places.block(self.shape, candidates, sample)
        covariance = self.process.covariance_with(prior, candidates, sample)
        slope = self.root[sample] ** 2 / 4 + self.process.variance[sample] / 4
        fall = covariance**2 / (self.process.variance[candidates] + noise_variance)[:, None]
        return (fall * slope).mean(axis=1)
