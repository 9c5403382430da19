"""Counts at some positions to a log-rate with uncertainty at others: a Gaussian process under Poisson counting.

n_i ~ Poisson(e_i exp(f_i)), f ~ GP(m, K), in Laplace's approximation (Rasmussen and Williams, Gaussian Processes for
Machine Learning, MIT Press 2006, algorithms 3.1 and 3.2). Unlike a variance-stabilising transform it is right at counts
far below one. Its neighbour `survey_kernel` says what K may be, `field_posterior` chooses among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

_MAX_STEPS = 100
_MAX_HALVINGS = 30
_MAX_LOG_RATE = 30.0


@dataclass(frozen=True, slots=True)
class LogRatePosterior:
    """The mode of f given counts, and what predictions need: `weights` = K^-1 (f - mean) at the n observed positions.

    `log_evidence` is the approximate log marginal likelihood up to a constant of the counts alone.
    """

    mean: float
    mode: np.ndarray
    weights: np.ndarray
    root_curvature: np.ndarray
    factor: np.ndarray
    log_evidence: float

    def predict(self, cross_covariance: np.ndarray, prior_variance: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of f at m positions, from K between the n observed and the m positions, (n, m)."""
        mean = self.mean + cross_covariance.T @ self.weights
        explained = scipy.linalg.solve_triangular(
            self.factor, self.root_curvature[:, None] * cross_covariance, lower=True
        )
        return mean, np.maximum(prior_variance - np.einsum("nm,nm->m", explained, explained), 0.0)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of f at each observed position from all the others, (n,) each.

        The Gaussian that Laplace's approximation puts in a count's place is taken out again (ibid., section 5.4.2):
        with R = (K + W^-1)^-1 the variance is 1 / R_ii - 1 / W_ii, and weights = R (target - mean).
        """
        inverse = scipy.linalg.cho_solve((self.factor, True), np.diag(self.root_curvature))
        with_noise = 1 / (self.root_curvature * np.diag(inverse))
        noise = 1 / self.root_curvature**2
        return self.mode + self.weights * (noise - with_noise), np.maximum(with_noise - noise, 0.0)


def fit_log_rate(
    counts: np.ndarray, exposures: np.ndarray, covariance: np.ndarray, start: np.ndarray | None = None
) -> LogRatePosterior:
    """Newton's method to the mode of f, steps halved until the posterior rises; arguments float64, (n,) and (n, n).

    The process mean is the logarithm of the overall rate, (sum of counts + 1/2) / sum of exposures. `start` are
    weights to begin from, of an earlier fit to some of the same positions.
    """
    mean = float(np.log((counts.sum() + 0.5) / exposures.sum()))
    weights = np.zeros(len(counts)) if start is None else start
    height = _height(counts, exposures, covariance @ weights, weights, mean)
    for _ in range(_MAX_STEPS):
        log_rate = covariance @ weights + mean
        expected = exposures * np.exp(np.minimum(log_rate, _MAX_LOG_RATE))
        root, factor = _factor(expected, covariance)
        target = expected * (log_rate - mean) + counts - expected
        newton = target - root * scipy.linalg.cho_solve((factor, True), root * (covariance @ target))
        step, before = newton - weights, height
        for _ in range(_MAX_HALVINGS):
            height = _height(counts, exposures, covariance @ (weights + step), weights + step, mean)
            if height >= before:
                break
            step = step / 2
        else:
            break
        weights = weights + step
        if height - before < 1e-8 * (1 + abs(height)):
            break
    log_rate = covariance @ weights + mean
    height = _height(counts, exposures, log_rate - mean, weights, mean)
    root, factor = _factor(exposures * np.exp(np.minimum(log_rate, _MAX_LOG_RATE)), covariance)
    return LogRatePosterior(mean, log_rate, weights, root, factor, height - float(np.log(np.diag(factor)).sum()))


def _factor(expected: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square root W of the curvature, and the lower Cholesky factor of 1 + W K W."""
    root = np.sqrt(expected)
    matrix = root[:, None] * covariance * root[None, :]
    matrix[np.diag_indices_from(matrix)] += 1.0
    return root, scipy.linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)


def _height(
    counts: np.ndarray, exposures: np.ndarray, deviation: np.ndarray, weights: np.ndarray, mean: float
) -> float:
    """Log posterior density of f = mean + deviation, up to a constant of the counts."""
    log_rate = deviation + mean
    expected = exposures * np.exp(np.minimum(log_rate, _MAX_LOG_RATE))
    return float(-0.5 * weights @ deviation + counts @ log_rate - expected.sum())
