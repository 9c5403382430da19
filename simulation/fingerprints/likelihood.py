"""Poisson log-likelihoods of counts, averaged over what is not known: scale, shift, rotation, background.

Each function returns a `Fit`: the log-likelihood averaged over the unknowns, and the mean counts that fit best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.special import gammaln, logsumexp

Counts = NDArray[np.float64]

_DARKEST = 1e-12
"""A pixel of a fingerprint counts at least so many electrons for one of the beam."""
_STEPS = 60
_CONVERGED = 1e-9


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
    uncertainty: float,
    max_shift_px: tuple[int, int],
    quarter_turns: tuple[int, ...],
) -> Fit:
    """Images of one exposure: one scale, shift and turn for all detectors; averaged over all turns and shifts.

    Arrays are (channels, rows, columns); shifts wrap round and reach `max_shift_px` either way.
    """
    total = float(sum(each.sum() for each in counts))
    sums = float(sum(each.sum() for each in fractions))
    scale, spread = _scale(total, electrons_e_per_px * sums, uncertainty)
    best, terms = (-np.inf, 0, 0, 0), []
    rows, columns = (_shifts(n, reach) for n, reach in zip(counts[0].shape[-2:], max_shift_px, strict=True))
    for turns in quarter_turns:
        logarithms = [np.log(np.maximum(turned(each, turns), _DARKEST)) for each in fractions]
        allowed = _correlation(counts, logarithms)[np.ix_(rows, columns)]
        terms.append(allowed.ravel())
        row, column = np.unravel_index(int(np.argmax(allowed)), allowed.shape)
        best = max(best, (float(allowed[row, column]), turns, int(rows[row]), int(columns[column])))
    found = np.concatenate(terms)
    likelihood = float(logsumexp(found) - np.log(len(found))) + _rest(counts, electrons_e_per_px) + scale.log_factor
    moved = [np.roll(turned(each, best[1]), best[2:], axis=(-2, -1)) for each in fractions]
    return Fit(likelihood, [each * electrons_e_per_px * scale.best for each in moved], spread)


def fit_pattern(
    counts: Counts, fractions: Counts, electrons: float, uncertainty: float, turns_deg: tuple[float, ...]
) -> Fit:
    """One pattern or several, (..., rows, columns), averaged over the rotations that it may have."""
    scale, spread = _scale(float(counts.sum()), electrons * float(fractions.sum()), uncertainty)
    candidates = [rotated(fractions, turn) for turn in turns_deg]
    terms = [float(np.sum(counts * np.log(np.maximum(each, _DARKEST)))) for each in candidates]
    likelihood = float(logsumexp(terms) - np.log(len(terms))) + _rest([counts], electrons) + scale.log_factor
    return Fit(likelihood, [candidates[int(np.argmax(terms))] * electrons * scale.best], spread)


def fit_spectrum(
    counts: Counts, fractions: Counts, losses_ev: NDArray[np.float64], electrons: float, uncertainty: float
) -> Fit:
    """Edges over a power law A E^-r of unknown height and exponent, and of the edges' unknown scale.

    Averaged by Laplace's method: the maximum, and the curvature there; flat in ln A and r, normal in ln scale.
    """
    edges = electrons * fractions
    law = np.stack([np.ones_like(losses_ev), -np.log(losses_ev / losses_ev[0])])
    free_scale = uncertainty > 0
    height = np.maximum(counts - edges, 0.1)
    weight = np.sqrt(np.maximum(counts, 1))
    slope, start = np.polyfit(law[1], np.log(height), 1, w=weight)
    parameters = np.array([start, slope, 0.0])
    prior = np.diag([0.0, 0.0, 1 / uncertainty**2 if free_scale else 1.0])
    value = _spectrum_value(counts, edges, law, parameters, prior)
    for _ in range(_STEPS):
        mean, jacobian = _spectrum_model(edges, law, parameters)
        jacobian[2] *= free_scale
        gradient = jacobian @ (counts / mean - 1) - prior @ parameters
        information = (jacobian / mean) @ jacobian.T + prior
        step = np.asarray(np.linalg.solve(information, gradient), np.float64)
        parameters, value, gain = _climbed(counts, edges, law, parameters, prior, step, value)
        if gain < _CONVERGED:
            break
    mean, jacobian = _spectrum_model(edges, law, parameters)
    jacobian[2] *= free_scale
    information = (jacobian / mean) @ jacobian.T + prior
    curvature = np.linalg.slogdet(information)[1] - (2 * np.log(1 / uncertainty) if free_scale else 0.0)
    likelihood = value - float(np.sum(gammaln(counts + 1))) - 0.5 * float(curvature)
    fitted = float(np.trace(np.linalg.solve(information, information - prior)))
    return Fit(likelihood, [mean], fitted)


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
    log_factor: float
    best: float


def _scale(total: float, expected: float, uncertainty: float) -> tuple[_Scale, float]:
    """The factor of the likelihood that holds the scale, averaged over a gamma distribution of mean 1; best scale.

    Exact: integral of s^C exp(-s M) over a gamma density of shape k = 1 / uncertainty^2.
    """
    if uncertainty == 0:
        return _Scale(-expected, 1.0), 0.0
    k = uncertainty**-2
    log_factor = k * np.log(k) - gammaln(k) + gammaln(k + total) - (k + total) * np.log(k + expected)
    return _Scale(float(log_factor), (k + total) / (k + expected)), expected / (k + expected)


def _rest(counts: list[Counts], electrons: float) -> float:
    """What does not depend on the fingerprint."""
    total = sum(each.sum() for each in counts)
    return float(total * np.log(electrons) - sum(np.sum(gammaln(each + 1)) for each in counts))


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


def _spectrum_model(edges: Counts, law: Counts, parameters: Counts) -> tuple[Counts, Counts]:
    """Mean counts, and their derivatives by ln A, r and ln scale."""
    background = np.exp(np.clip(parameters[0] * law[0] + parameters[1] * law[1], -80, 80))
    scaled = edges * np.exp(np.clip(parameters[2], -5, 5))
    return background + scaled + _DARKEST, np.stack([background * law[0], background * law[1], scaled])


def _spectrum_value(counts: Counts, edges: Counts, law: Counts, parameters: Counts, prior: Counts) -> float:
    mean, _ = _spectrum_model(edges, law, parameters)
    return float(np.sum(counts * np.log(mean) - mean) - 0.5 * parameters @ prior @ parameters)


def _climbed(
    counts: Counts, edges: Counts, law: Counts, parameters: Counts, prior: Counts, step: Counts, value: float
) -> tuple[Counts, float, float]:
    """The step, halved until it climbs."""
    for _ in range(30):
        moved = parameters + step
        higher = _spectrum_value(counts, edges, law, moved, prior)
        if higher >= value:
            return moved, higher, higher - value
        step = step / 2
    return parameters, value, 0.0
