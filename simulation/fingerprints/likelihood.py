"""Log-likelihoods of counts, averaged over what is not known: scale, shift, rotation, background.

Each function returns a `Fit`: the log-likelihood averaged over the unknowns, and the mean counts that fit best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.special import gammaln, logsumexp

Counts = NDArray[np.float64]

_DARKEST = 1e-12
"""A pixel of a fingerprint counts at least so many electrons for one of the beam."""
_STEPS = 60
_CONVERGED = 1e-9
_EXPONENT = 3.0, 1.5
_LOG_HEIGHT_STD = 2.0
_QUADRATURE_NODES = 5


@dataclass(frozen=True, slots=True)
class Noise:
    """What is uncertain besides Poisson's noise: the scale of all counts, and the fingerprint, pixel by pixel.

    Both are standard deviations over means, of gamma distributions. With an error of the fingerprint counts are
    negative binomial: a mean m has variance m + (error m)^2.
    """

    scale_std: float
    model_error: float = 0.0

    def log_factor(self, mean: Counts) -> Counts:
        """What counts are multiplied with in the log-likelihood of a mean; ln m without an error of the model."""
        return np.log(np.maximum(mean, _DARKEST)) - np.log1p(self.model_error**2 * mean)

    def log_rest(self, mean: Counts) -> Counts:
        """What else depends on the mean; -m without an error of the model."""
        variance = self.model_error**2
        return -mean if variance == 0 else -np.log1p(variance * mean) / variance

    def log_constant(self, counts: Counts) -> float:
        """What does not depend on the mean."""
        found = -np.sum(gammaln(counts + 1))
        if self.model_error > 0:
            k = self.model_error**-2
            found += np.sum(gammaln(counts + k) - gammaln(k) - counts * np.log(k))
        return float(found)

    def dilution(self, mean: Counts) -> Counts:
        """Variance over mean."""
        return 1 + self.model_error**2 * mean


@dataclass(frozen=True, slots=True)
class Fit:
    """`expected`: mean counts in the shape of what was measured. `fitted_count`: unknowns taken from these counts."""

    log_likelihood: float
    expected: list[Counts]
    fitted_count: float


def fit_images(
    counts: list[Counts],
    fractions: list[Counts],
    electrons_e_per_px: float,
    noise: Noise,
    max_shift_px: tuple[int, int],
    quarter_turns: tuple[int, ...],
) -> Fit:
    """Images of one exposure: one scale, shift and turn for all detectors; averaged over all turns and shifts.

    Arrays are (channels, rows, columns); shifts wrap round and reach `max_shift_px` either way.
    """
    rows, columns = (_shifts(n, reach) for n, reach in zip(counts[0].shape[-2:], max_shift_px, strict=True))

    def arranged(scale: float) -> Counts:
        means = [electrons_e_per_px * scale * each for each in fractions]
        factors, rest = [noise.log_factor(each) for each in means], sum(noise.log_rest(each).sum() for each in means)
        found = [_correlation(counts, [turned(each, turns) for each in factors]) for turns in quarter_turns]
        return np.stack([each[np.ix_(rows, columns)] for each in found]) + rest

    def moved(index: int) -> list[Counts]:
        turn, row, column = np.unravel_index(index, (len(quarter_turns), len(rows), len(columns)))
        shift = int(rows[row]), int(columns[column])
        return [np.roll(turned(each, quarter_turns[turn]), shift, axis=(-2, -1)) for each in fractions]

    return _averaged(counts, electrons_e_per_px, noise, arranged, moved)


def fit_pattern(counts: Counts, fractions: Counts, electrons: float, noise: Noise, turns_deg: tuple[float, ...]) -> Fit:
    """One pattern or several, (..., rows, columns), averaged over the rotations that it may have."""
    rotations = [rotated(fractions, turn) for turn in turns_deg]

    def arranged(scale: float) -> Counts:
        means = [electrons * scale * each for each in rotations]
        return np.array([np.sum(counts * noise.log_factor(mean) + noise.log_rest(mean)) for mean in means])

    return _averaged([counts], electrons, noise, arranged, lambda index: [rotations[index]])


def _averaged(
    counts: list[Counts],
    electrons: float,
    noise: Noise,
    arranged: Callable[[float], Counts],
    moved: Callable[[int], list[Counts]],
) -> Fit:
    """Over the scale and all arrangements alike.

    `arranged` gives the log-likelihood at a scale, its constant left out, of every arrangement, `moved` the fractions
    in one of them. Without an error of the model the integral over the scale is exact, with one it is Laplace's.
    """
    terms = arranged(1.0)
    best = int(np.argmax(terms))
    together = np.concatenate([each.ravel() for each in counts])
    mean = electrons * np.concatenate([each.ravel() for each in moved(best)])
    scale = _scale(together, mean, noise)
    if noise.model_error == 0:
        terms = terms + float(together.sum()) * np.log(scale.best) + (1 - scale.best) * float(mean.sum())
    else:
        terms = arranged(scale.best)
        best = int(np.argmax(terms))
    likelihood = float(logsumexp(terms) - np.log(terms.size)) + noise.log_constant(together) + scale.log_weight
    return Fit(likelihood, [electrons * scale.best * each for each in moved(best)], scale.fitted_count)


def fit_spectrum(
    counts: Counts, fractions: Counts, losses_ev: NDArray[np.float64], electrons: float, noise: Noise
) -> Fit:
    """Edges over a power law A E^-r of unknown height and exponent, and of the edges' unknown scale.

    Averaged over normal distributions of r (3 +- 1.5), of ln A (that all counts are background, +- 2) and of ln scale,
    by Gauss-Hermite quadrature about the maximum (after Liu and Pierce, Biometrika 81 (1994) 624): few counts will do.
    """
    law = -np.log(losses_ev / np.exp(np.mean(np.log(losses_ev))))
    lines = _Lines(counts, electrons * fractions, law, noise)
    parameters = lines.usual
    value = float(lines.value(parameters))
    for _ in range(_STEPS):
        gradient, information = lines.slopes(parameters)
        step = np.asarray(np.linalg.solve(information, gradient), np.float64)
        parameters, value, gain = lines.climbed(parameters, step, value)
        if gain < _CONVERGED:
            break
    _, information = lines.slopes(parameters)
    spread = np.linalg.cholesky(np.linalg.inv(information))
    at, weights = _quadrature()
    values = lines.value(parameters + np.sqrt(2) * at @ spread.T) + np.sum(at**2, axis=1) + weights
    volume = float(np.sum(np.log(np.diag(spread)))) + 1.5 * np.log(2)
    likelihood = float(logsumexp(values)) + volume + lines.log_prior_constant + noise.log_constant(counts)
    data = float(np.trace(np.linalg.solve(information, information - lines.prior)))
    return Fit(likelihood, [lines.model(parameters)[0]], data)


@cache
def _quadrature() -> tuple[Counts, Counts]:
    """Nodes (n, 3) and logarithms of their weights for integrals over exp(-z^2)."""
    nodes, weights = np.polynomial.hermite.hermgauss(_QUADRATURE_NODES)
    at = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    logs = np.log(weights)
    return at, (logs[:, None, None] + logs[:, None] + logs).ravel()


def turned(image: Counts, quarter_turns: int) -> Counts:
    """An image (..., rows, columns) turned from +x towards +y about its first pixel, as a periodic one."""
    for _ in range(quarter_turns % 4):
        image = np.swapaxes(image, -2, -1)
        image = np.roll(image[..., ::-1], 1, axis=-1)
    return image


def rotated(pattern: Counts, turn_deg: float) -> Counts:
    """A pattern (..., rows, columns) rotated from +x towards +y about zero angle (index n // 2); same sum."""
    if turn_deg % 360 == 0:
        return pattern
    angle = np.radians(turn_deg)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([count // 2 for count in pattern.shape[-2:]])
    flat = pattern.reshape(-1, *pattern.shape[-2:])
    moved = np.stack([
        affine_transform(each, back, centre - back @ centre, order=1, mode="nearest") for each in flat
    ])  # fmt: skip
    moved *= (flat.sum(axis=(1, 2)) / moved.sum(axis=(1, 2)))[:, None, None]
    return moved.reshape(pattern.shape)


@dataclass(frozen=True, slots=True)
class _Scale:
    best: float
    log_weight: float
    fitted_count: float


def _scale(counts: Counts, mean: Counts, noise: Noise) -> _Scale:
    """The likeliest scale of the mean, and the log of the integral over scales relative to the likelihood there.

    The prior is a gamma distribution of mean 1 and shape k = 1 / uncertainty^2. For Poisson's noise the integral of
    s^C exp(-s M) over it is known; else by the curvature at the maximum.
    """
    if noise.scale_std == 0:
        return _Scale(1.0, 0.0, 0.0)
    k, total, expected = noise.scale_std**-2, float(counts.sum()), float(mean.sum())
    best = (k + total) / (k + expected)
    if noise.model_error == 0:
        integral = k * np.log(k) - gammaln(k) + gammaln(k + total) - (k + total) * np.log(k + expected)
        return _Scale(best, float(integral - total * np.log(best) + best * expected), expected / (k + expected))
    curvature = data = 1.0
    for _ in range(_STEPS):
        diluted = noise.dilution(best * mean)
        slope = (k - 1) / best - k + float(np.sum((counts / best - mean) / diluted))
        data = float(np.sum(mean / best / diluted))
        curvature = (k - 1) / best**2 + data
        step = max(slope / curvature, -best / 2)
        best += step
        if abs(step) < _CONVERGED:
            break
    prior = k * np.log(k) - gammaln(k) + (k - 1) * np.log(best) - k * best
    return _Scale(best, float(prior + 0.5 * np.log(2 * np.pi / curvature)), data / curvature)


def _correlation(counts: list[Counts], logarithms: list[Counts]) -> Counts:
    """Sum over pixels of counts times the shifted logarithm, for every cyclic shift, (rows, columns)."""
    shape = counts[0].shape[-2:]
    spectrum, offset = np.zeros((shape[0], shape[1] // 2 + 1), np.complex128), 0.0
    for seen, logarithm in zip(counts, logarithms, strict=True):
        means = logarithm.mean(axis=(-2, -1), keepdims=True)  # keeps the transform's rounding small
        offset += float(np.sum(seen * means))
        spectrum += np.sum(np.fft.rfft2(seen) * np.conj(np.fft.rfft2(logarithm - means)), axis=0)
    return np.fft.irfft2(spectrum, s=shape) + offset


def _shifts(count: int, reach: int) -> NDArray[np.int64]:
    """All different shifts up to a reach."""
    if 2 * reach + 1 >= count:
        return np.arange(count)
    return np.arange(-reach, reach + 1) % count


@dataclass(frozen=True, slots=True)
class _Lines:
    """A spectrum of edges over a power law, by ln height in the middle, exponent, and ln scale of the edges."""

    counts: Counts
    edges: Counts
    law: Counts
    noise: Noise

    @property
    def usual(self) -> Counts:
        """Parameters before any fit: the middle of their distributions."""
        return np.array([np.log((self.counts.sum() + 0.5) / len(self.counts)), _EXPONENT[0], 0.0])

    @property
    def deviations(self) -> Counts:
        """Standard deviations of those; a scale that is known is moved by one that does nothing."""
        return np.array([_LOG_HEIGHT_STD, _EXPONENT[1], self.noise.scale_std or 1.0])

    @property
    def prior(self) -> Counts:
        """Information on the parameters before any count."""
        return np.diag(self.deviations**-2)

    @property
    def log_prior_constant(self) -> float:
        """What makes the distributions sum to 1."""
        return float(-np.sum(np.log(self.deviations)) - 1.5 * np.log(2 * np.pi))

    def model(self, parameters: Counts) -> tuple[Counts, Counts]:
        """Mean counts (..., channels), and their derivatives by the parameters."""
        height, exponent, scale = (parameters[..., index, None] for index in range(3))
        background = np.exp(np.clip(height + exponent * self.law, -80, 80))
        known = self.noise.scale_std == 0
        scaled = self.edges * (1.0 if known else np.exp(np.clip(scale, -5, 5)))
        by_scale = np.zeros_like(scaled) if known else scaled
        return background + scaled + _DARKEST, np.stack([background, background * self.law, by_scale])

    def value(self, parameters: Counts) -> Counts:
        """Log-likelihood (...) of parameters (..., 3), with the distributions of these; constants left out."""
        mean, _ = self.model(parameters)
        data = self.counts * self.noise.log_factor(mean) + self.noise.log_rest(mean)
        return np.sum(data, axis=-1) - 0.5 * np.sum(((parameters - self.usual) / self.deviations) ** 2, axis=-1)

    def slopes(self, parameters: Counts) -> tuple[Counts, Counts]:
        """Gradient, and Fisher's information with the prior's."""
        mean, jacobian = self.model(parameters)
        variance = mean * self.noise.dilution(mean)
        gradient = jacobian @ ((self.counts - mean) / variance) - self.prior @ (parameters - self.usual)
        return gradient, (jacobian / variance) @ jacobian.T + self.prior

    def climbed(self, parameters: Counts, step: Counts, value: float) -> tuple[Counts, float, float]:
        """The step, halved until it climbs; the new value, and what was gained."""
        for _ in range(30):
            moved = parameters + step
            higher = float(self.value(moved))
            if higher >= value:
                return moved, higher, higher - value
            step = step / 2
        return parameters, value, 0.0
