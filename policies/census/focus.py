"""The defocus to use now: a small Gaussian process of image contrast over defocus and time, to follow drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from policies.observation import Observation

_MEAN = 0.5
_VARIANCE = 0.09
_DEFOCUS_LENGTH_NM = 8.0
_TIME_LENGTH_S = 600.0
_LEAST_STD = 0.02
_TIMES_KEPT = 40


@dataclass(frozen=True, slots=True)
class Focus:
    """Best defocus, contrast ratio expected there and its standard deviation."""

    defocus_nm: float
    contrast: float
    contrast_std: float


def best_defocus(observations: Sequence[Observation], options_nm: np.ndarray, boldness_scale: float) -> Focus | None:
    """The defocus of largest expected contrast plus `boldness_scale` standard deviations, now; None before any datum.

    `observations` are all of the history in order: their costs tell the time. The last 40 with a `contrast_ratio`
    count. Squared-exponential kernel, 8 nm by 600 s, contrast 0.5 +/- 0.3 beforehand.
    """
    times = np.cumsum([o.cost.seconds for o in observations])
    kept = [i for i, o in enumerate(observations) if "contrast_ratio" in o.outcomes and "defocus_nm" in o.point]
    kept = kept[-_TIMES_KEPT:]
    if not kept:
        return None
    x = np.array([[float(observations[i].point["defocus_nm"]), times[i]] for i in kept])
    y = np.array([min(observations[i].outcomes["contrast_ratio"][0], 1.5) for i in kept]) - _MEAN
    noise = np.array([max(observations[i].outcomes["contrast_ratio"][1], _LEAST_STD) for i in kept]) ** 2
    ask = np.column_stack([options_nm, np.full(len(options_nm), times[-1])])
    factor = cho_factor(_kernel(x, x) + np.diag(noise), lower=True)
    cross = _kernel(ask, x)
    mean = _MEAN + cross @ cho_solve(factor, y)
    std = np.sqrt(np.maximum(_VARIANCE - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T)), 0.0))
    chosen = int(np.argmax(mean + boldness_scale * std))
    return Focus(float(options_nm[chosen]), float(mean[chosen]), float(std[chosen]))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    steps = (a[:, None, :] - b[None, :, :]) / np.array([_DEFOCUS_LENGTH_NM, _TIME_LENGTH_S])
    return _VARIANCE * np.exp(-0.5 * np.sum(steps**2, axis=2))
