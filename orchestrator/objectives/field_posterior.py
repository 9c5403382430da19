"""The map of one line from counts at some of its positions: rate and uncertainty everywhere, kernel chosen by evidence.

Neighbours: `poisson_process` fits one kernel, `survey_kernel` lists what kernels there are, `element_map` asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import scipy

from orchestrator.objectives.poisson_process import LogRatePosterior, fit_log_rate
from orchestrator.objectives.survey_kernel import KernelChoice, MapPositions, Separations

_AXES = (
    (0.1, 0.2, 0.4, 0.8, 1.6, 3.2),  # variance of the log-rate
    (0.03, 0.05, 0.08, 0.13, 0.2, 0.35),  # length scale, fraction of the field
    (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),  # weight of position alone
    (0.2, 0.4, 0.8, 1.5, 3.0),  # scale in the survey's features
)
_WITH_SURVEY, _POSITION_ONLY = (3, 3, 2, 2), (3, 3, 5, 2)
_EVIDENCE_POINTS = 256
_MOST_KERNELS = 3
_LEAST_WEIGHT = 0.05
_TOLERANCE = 1e-9

_Index = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class MapCounts:
    """What was counted: indices of distinct positions (n,), counts (n,), exposures (n,) in the unit of the rate."""

    indices: np.ndarray
    counts: np.ndarray
    exposures: np.ndarray

    def thinned(self, most: int) -> MapCounts:
        """At most `most` of them, evenly through the order they are in."""
        if len(self.indices) <= most:
            return self
        kept = np.linspace(0, len(self.indices) - 1, most).round().astype(int)
        return MapCounts(self.indices[kept], self.counts[kept], self.exposures[kept])


@dataclass(frozen=True, slots=True)
class KernelWeight:
    """One kernel and its share in the average."""

    choice: KernelChoice
    weight: float


@dataclass(frozen=True, slots=True)
class RateMap:
    """Posterior mean and standard deviation of the rate at m positions, counts per unit of exposure."""

    mean: np.ndarray
    std: np.ndarray

    @property
    def relative_error(self) -> float:
        """Root mean square of the standard deviation over the mean rate."""
        return float(np.sqrt(np.mean(self.std**2)) / np.mean(self.mean))


def choose_kernels(
    positions: MapPositions, counted: MapCounts, start: KernelChoice | None = None
) -> tuple[KernelWeight, ...]:
    """Up to three kernels weighted by their evidence, the best first; those without survey always compete.

    The search climbs a fixed grid of hyperparameters from `start`, from a middling kernel with the survey and from one
    without; the evidence of more than 256 positions is taken from 256 of them.
    """
    counted = counted.thinned(_EVIDENCE_POINTS)
    seen = positions[counted.indices]
    between = Separations(seen, seen)
    evidences: dict[_Index, float] = {}

    def evidence(index: _Index) -> float:
        if index not in evidences:
            covariance = between.covariance(_choice(index))
            evidences[index] = fit_log_rate(counted.counts, counted.exposures, covariance).log_evidence
        return evidences[index]

    starts: list[_Index] = [_POSITION_ONLY]
    if positions.features is not None:
        starts.append(_WITH_SURVEY)
    if start is not None and (positions.features is not None or not start.uses_survey):
        starts.append(_index(start))
    for begin in starts:
        axes = (0, 1) if positions.features is None else (0, 1, 2, 3)
        current = begin
        while (better := _best_neighbour(current, axes, evidence)) != current:
            current = better
    return _weighted(evidences)


def _choice(index: _Index) -> KernelChoice:
    return KernelChoice(*(axis[i] for axis, i in zip(_AXES, index, strict=True)))


def _index(choice: KernelChoice) -> _Index:
    a, b, c, d = (axis.index(value) for axis, value in zip(_AXES, astuple(choice), strict=True))
    return a, b, c, d


def _best_neighbour(index: _Index, axes: tuple[int, ...], evidence: Callable[[_Index], float]) -> _Index:
    best = index
    for axis in axes:
        for step in (-1, 1):
            moved = list(index)
            moved[axis] += step
            a, b, c, d = moved
            if 0 <= moved[axis] < len(_AXES[axis]) and evidence((a, b, c, d)) > evidence(best) + _TOLERANCE:
                best = (a, b, c, d)
    return best


def _weighted(evidences: dict[_Index, float]) -> tuple[KernelWeight, ...]:
    # Without the survey its scale is idle: kernels that differ in it alone are one.
    distinct = {_choice(index if _choice(index).uses_survey else (*index[:3], 0)): e for index, e in evidences.items()}
    ranked = sorted(distinct.items(), key=lambda item: (-item[1], item[0]))[:_MOST_KERNELS]
    ratios = np.exp([evidence - ranked[0][1] for _, evidence in ranked])
    kept = [(choice, ratio) for (choice, _), ratio in zip(ranked, ratios, strict=True) if ratio >= _LEAST_WEIGHT]
    total = sum(ratio for _, ratio in kept)
    return tuple(KernelWeight(choice, float(ratio / total)) for choice, ratio in kept)


@dataclass(frozen=True, slots=True)
class FieldPosterior:
    """What counts say of a rate under several kernels, averaged by their weights; see `fit_field`.

    `underestimate`, at least 1, is the factor by which the counts missed what was predicted for each of them from all
    the others further than the posterior foresaw; standard deviations of maps carry it. A smooth process in a grainy
    specimen would otherwise believe itself too much.
    """

    positions: MapPositions
    counted: MapCounts
    kernels: tuple[KernelWeight, ...]
    fits: dict[KernelChoice, LogRatePosterior]
    underestimate: float

    def rate_map(self, where: np.ndarray) -> RateMap:
        """Rate at the positions of index `where`, (m,): mean and std over the kernels."""
        between = Separations(self.positions[self.counted.indices], self.positions[where])
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for kernel in self.kernels:
            cross = between.covariance(kernel.choice)
            parts.append(self.fits[kernel.choice].predict(cross, kernel.choice.variance))
        mean, variance = _averaged(self.kernels, parts, _cap(self.fits))
        return RateMap(mean, self.underestimate * np.sqrt(variance))


def fit_field(
    positions: MapPositions,
    counted: MapCounts,
    kernels: tuple[KernelWeight, ...],
    earlier: FieldPosterior | None = None,
) -> FieldPosterior:
    """The posterior under these kernels; Newton's method starts from an `earlier` one with the same first positions."""
    seen = positions[counted.indices]
    between = Separations(seen, seen)
    fits: dict[KernelChoice, LogRatePosterior] = {}
    for kernel in kernels:
        start = None
        if earlier is not None and kernel.choice in earlier.fits:
            start = earlier.fits[kernel.choice].weights
            start = np.concatenate([start, np.zeros(len(counted.indices) - len(start))])
        covariance = between.covariance(kernel.choice)
        fits[kernel.choice] = fit_log_rate(counted.counts, counted.exposures, covariance, start)
    return FieldPosterior(positions, counted, kernels, fits, _underestimate(counted, kernels, fits))


def _averaged(
    kernels: tuple[KernelWeight, ...], log_rates: list[tuple[np.ndarray, np.ndarray]], cap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a mixture of lognormals cut off at `cap`; `log_rates`: those of the logarithms."""
    mean = np.zeros(log_rates[0][0].shape)
    square = np.zeros(mean.shape)
    for kernel, (log_mean, log_variance) in zip(kernels, log_rates, strict=True):
        mean += kernel.weight * _capped_moment(log_mean, log_variance, np.log(cap), 1)
        square += kernel.weight * _capped_moment(log_mean, log_variance, np.log(cap), 2)
    return mean, np.maximum(square - mean**2, 0.0)


def _capped_moment(log_mean: np.ndarray, log_variance: np.ndarray, log_cap: float, order: int) -> np.ndarray:
    """E(min(exp f, cap)^order) of a normal f: the lognormal's partial moment, and the cap for what lies beyond it."""
    spread = np.sqrt(np.maximum(log_variance, 1e-12))
    below = scipy.special.ndtr((log_cap - log_mean - order * log_variance) / spread)
    beyond = scipy.special.ndtr((log_mean - log_cap) / spread)
    return np.exp(order * log_mean + order**2 * log_variance / 2) * below + np.exp(order * log_cap) * beyond


def _cap(fits: dict[KernelChoice, LogRatePosterior]) -> float:
    """No position is believed more than twice as bright as the brightest seen; a lognormal knows no bound."""
    return 2 * max(float(np.exp(fit.mode.max())) for fit in fits.values())


def _underestimate(
    counted: MapCounts, kernels: tuple[KernelWeight, ...], fits: dict[KernelChoice, LogRatePosterior]
) -> float:
    mean, variance = _averaged(kernels, [fits[kernel.choice].left_out() for kernel in kernels], _cap(fits))
    missed = float(np.sum((counted.counts - counted.exposures * mean) ** 2 - counted.counts))
    foreseen = float(np.sum(counted.exposures**2 * variance))
    return float(np.sqrt(max(1.0, missed / foreseen))) if foreseen > 0 else 1.0
