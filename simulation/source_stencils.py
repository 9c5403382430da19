"""How probes beside a pixel add up to its blur by the source: offsets along one axis, and their weights.

An image holds no spatial frequency above twice the aperture's radius (`band_per_nm`). So the average over a Gaussian
source need not be an integral: a few probes are enough whose weights give every frequency of the band the factor
exp(-2 (pi sigma q)^2). The weights are fitted to that, with the far end of the band counting less, where images hold
little. Neighbour: `source_blur`, which lays stencils over a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from simulation.coherence import FWHM_PER_SIGMA
from simulation.errors import InvalidParameter

_TOLERANCE = 3e-6
"""Of the factor of any frequency, the far end of the band less strictly."""
_LEAST_IMPORTANCE = 0.1
_RIDGE = 1e-5
_LARGEST_GAIN = 1.15
"""Of what lies beyond the band: the sum of the weights without their signs."""
_LARGEST_HALF_COUNT = 2000
_MANY_STEPS, _PLAIN_SIGMAS = 12, 5.2
_FIRST_REACH_SIGMAS = 2.4
_LEAST_WIDTH_STEPS = 0.15
_SAMPLED_FROM_STEPS = 0.5
"""Standard deviation, in steps, from which on a sampled Gaussian has the width of the Gaussian."""
_SAMPLED_SIGMAS = 4.0
_THREE = 3
"""A sampled Gaussian has more weights."""


@dataclass(frozen=True, slots=True)
class FittedStencil:
    """Weights that are right for every frequency of a band, whatever the distance of the probes."""

    offsets_nm: NDArray[np.float64]
    frequencies_per_nm: NDArray[np.float64]
    solver: NDArray[np.float64]
    """From what is missing in the factors at the frequencies to what is missing in the weights of a Gaussian."""
    least_width_nm: float

    def weights(self, sigma_nm: Any) -> Any:
        """(offsets,), summing to 1, of an array of no dimensions (numpy or torch)."""
        xp = array_namespace(sigma_nm)
        solver, frequencies, offsets = (
            _like(sigma_nm, each) for each in (self.solver, self.frequencies_per_nm, self.offsets_nm)
        )
        gaussian = xp.exp(-0.5 * offsets**2 / (sigma_nm**2 + self.least_width_nm**2))
        gaussian = gaussian / xp.sum(gaussian)
        factors = xp.matmul(xp.cos(2 * np.pi * frequencies[:, None] * offsets), gaussian)
        found = gaussian + xp.matmul(solver, xp.exp(-2 * (np.pi * frequencies * sigma_nm) ** 2) - factors)
        return found / xp.sum(found)


@dataclass(frozen=True, slots=True)
class SampledStencil:
    """The Gaussian at a scan's own pixels, cut at four standard deviations: as other programs blur a finished image.

    Below half a pixel, where sampling would lose most of its width, three weights of the same variance.
    """

    offsets_nm: NDArray[np.float64]
    step_nm: float

    def weights(self, sigma_nm: Any) -> Any:
        """(offsets,), summing to 1, of an array of no dimensions (numpy or torch)."""
        xp = array_namespace(sigma_nm)
        if len(self.offsets_nm) == _THREE:
            variance = (sigma_nm / self.step_nm) ** 2
            return xp.stack([variance / 2, 1 - variance, variance / 2])
        found = xp.exp(-0.5 * (_like(sigma_nm, self.offsets_nm) / sigma_nm) ** 2)
        return found / xp.sum(found)


Stencil = FittedStencil | SampledStencil


def sampled(sigma_nm: float, step_nm: float) -> SampledStencil:
    """At the pixels of a scan."""
    sigma_steps = sigma_nm / step_nm
    reach = 1 if sigma_steps < _SAMPLED_FROM_STEPS else int(_SAMPLED_SIGMAS * sigma_steps + 0.5)
    return SampledStencil(step_nm * np.arange(-reach, reach + 1, dtype=np.float64), step_nm)


def fitted(sigma_nm: float, step_nm: float, band_per_nm: float, most: int | None = None) -> FittedStencil | None:
    """The shortest that is right, of probes a step apart; None where that would take more than `most` on a side.

    Steps must be below 1 / (2 band): the nearer to that, the longer it is. A source of no size takes one probe.
    """
    if step_nm * _MANY_STEPS < sigma_nm and (1 / step_nm - band_per_nm) * sigma_nm > 1:
        plain = _plain(sigma_nm, step_nm)
        return plain if most is None or len(plain.offsets_nm) // 2 <= most else None
    half = int(_FIRST_REACH_SIGMAS * sigma_nm / step_nm)
    while half <= (_LARGEST_HALF_COUNT if most is None else most):
        made = _fit(step_nm * np.arange(half + 1, dtype=np.float64), sigma_nm, band_per_nm)
        gain = np.abs(made.weights(np.asarray(sigma_nm))).sum()
        if gain < _LARGEST_GAIN and _error(made, sigma_nm, band_per_nm) < _TOLERANCE:
            return made
        half += 1 + half // 12
    return None


def _plain(sigma_nm: float, step_nm: float) -> FittedStencil:
    """A sampled Gaussian, of so many steps that nothing is left to fit."""
    reach = int(np.ceil(_PLAIN_SIGMAS * sigma_nm / step_nm))
    offsets = step_nm * np.arange(-reach, reach + 1, dtype=np.float64)
    return FittedStencil(offsets, np.zeros(1), np.zeros((len(offsets), 1)), 0.0)


def sparsest(sigma_nm: float, band_per_nm: float) -> FittedStencil:
    """That of the fewest probes, at distances of its own choice."""
    steps_nm = np.arange(0.3, 1.6, 0.1) / (2 * band_per_nm)
    if sigma_nm == 0:
        return _fit(np.zeros(1), 0.0, band_per_nm)
    best, most = None, _LARGEST_HALF_COUNT
    for step_nm in steps_nm[::-1].tolist():
        made = fitted(sigma_nm, step_nm, band_per_nm, min(most, 8 + int(6 * sigma_nm / step_nm)))
        if made is not None:
            best, most = made, len(made.offsets_nm) // 2 - 1
    if best is None:
        raise InvalidParameter(
            f"a source of {sigma_nm * FWHM_PER_SIGMA:.3g} nm (full width at half maximum) is too wide for an image as"
            f" fine as {1 / band_per_nm:.2g} nm: a pixel would take more than {2 * _LARGEST_HALF_COUNT} probes along"
            " each axis; source_size_nm is in nm: give a smaller one"
        )
    return best


def _fit(offsets_nm: NDArray[np.float64], sigma_nm: float, band_per_nm: float) -> FittedStencil:
    """`offsets_nm`: from 0 on; the other side has the same weights. Of what fits alike, the nearest to a Gaussian."""
    turns = band_per_nm * max(offsets_nm[-1], 4 * sigma_nm)
    frequencies = np.linspace(0.0, band_per_nm, 32 + int(12 * turns))
    waves = np.cos(2 * np.pi * frequencies[:, None] * offsets_nm) * np.where(offsets_nm == 0, 1.0, 2.0)
    importance = _importance(frequencies, band_per_nm)
    ridge = _RIDGE * np.sqrt(len(frequencies)) * np.eye(len(offsets_nm))
    solver = np.linalg.pinv(np.vstack([waves * importance[:, None], ridge]))[:, : len(frequencies)] * importance
    both = np.concatenate([-offsets_nm[:0:-1], offsets_nm])
    step_nm = offsets_nm[1] if len(offsets_nm) > 1 else band_per_nm**-1
    return FittedStencil(both, frequencies, np.concatenate([solver[:0:-1], solver]), _LEAST_WIDTH_STEPS * step_nm)


def _error(made: FittedStencil, sigma_nm: float, band_per_nm: float) -> float:
    """The largest, far frequencies counting less."""
    waves = np.cos(2 * np.pi * made.frequencies_per_nm[:, None] * made.offsets_nm)
    found = waves @ made.weights(np.asarray(sigma_nm))
    wanted = np.exp(-2 * (np.pi * made.frequencies_per_nm * sigma_nm) ** 2)
    return float((np.abs(found - wanted) * _importance(made.frequencies_per_nm, band_per_nm)).max())


def _importance(frequencies_per_nm: NDArray[np.float64], band_per_nm: float) -> NDArray[np.float64]:
    """Two apertures, moved by a frequency, overlap less and less: an image's strength falls at least so."""
    return np.maximum(1 - frequencies_per_nm / band_per_nm, _LEAST_IMPORTANCE)


def _like(sigma_nm: Any, array: NDArray[np.float64]) -> Any:
    """On the library and device of the other."""
    return array_namespace(sigma_nm).asarray(array, device=sigma_nm.device)
