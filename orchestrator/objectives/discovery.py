"""Which sites may be called, at a stated false discovery rate; Bayesian rule on posterior probabilities."""

from __future__ import annotations

import numpy as np


def confirmed_at(error_probability: np.ndarray, false_discovery_rate: float) -> np.ndarray:
    """Mask (n,) of the largest set whose mean error probability stays at or below the rate.

    `error_probability` is one minus the posterior of the call (local false discovery rate); the expected fraction of
    wrong calls in the set is its mean (Newton et al., Biostatistics 5 (2004) 155; Sun & Cai, JASA 102 (2007) 901).

    >>> confirmed_at(np.array([0.001, 0.04, 0.2, 0.01]), 0.05).tolist()
    [True, True, False, True]
    """
    order = np.argsort(error_probability, kind="stable")
    running = np.cumsum(error_probability[order]) / np.arange(1, len(order) + 1)
    allowed = np.nonzero(running <= false_discovery_rate)[0]
    mask = np.zeros(len(error_probability), dtype=bool)
    if len(allowed):
        mask[order[: allowed[-1] + 1]] = True
    return mask & (error_probability < 0.5)


def error_bound(error_probability: np.ndarray, false_discovery_rate: float) -> float:
    """The largest error probability that is still confirmed; the rate itself if nothing is."""
    mask = confirmed_at(error_probability, false_discovery_rate)
    return float(error_probability[mask].max()) if mask.any() else false_discovery_rate
