"""Which probes of an image are compared with multislice, and what their errors say about those of all probes.

Errors of approximate images are large at few places. So probes are drawn with chances that grow with a doubt about each
(where nothing better is known: how unusual the atoms under it are), and each counts for the inverse of its chance: the
mean is right whatever the doubts, and the better they are the less it scatters. Half of the chance is the same for all:
no doubt can hide a probe. What is cheap to know of many probes and goes up and down with the errors tells how far the
few are from the mean (regression).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simulation.specimens import Specimen

CHECK_POINT_COUNT = 24
"""Probes of an image that are compared with multislice."""
_SHARE_BY_DOUBT = 0.5
_STANDARD_ERRORS = 3.0
_MARGIN, _MARGIN_AIDED = 1.3, 1.15
_LEAST_SHARE = 0.25
"""Of the mean of the few, that the regression leaves."""
_COLUMN_ANGSTROM = 0.4
"""Standard deviation of a Gaussian about as wide as the image of a column."""
_MAP_PIXEL_ANGSTROM, _MOST_MAP_PIXELS = 0.2, 2048


@dataclass(frozen=True, slots=True)
class CheckProbes:
    """Numbers of the probes drawn, the share of the image that each stands for, and how many there are in all."""

    chosen: NDArray[np.int64]
    shares: NDArray[np.float64]
    all_count: int

    def upper_rms(
        self, squares: NDArray[np.float64], alike: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    ) -> float:
        """Bound on the root mean square over all probes, from the squares at those drawn.

        Their mean and three of its standard errors, as the scatter of these few tells them, with a margin.
        `alike`: what goes up and down with the squares, at the probes drawn and at many others; the margin is smaller.
        """
        count, mean = len(squares), float(self.shares @ squares)
        rest, unknown, slope, moved = squares - mean, 1, 0.0, 0.0
        margin = _MARGIN if alike is None else _MARGIN_AIDED
        if alike is not None and count > 2:
            here, many = alike
            slope, moved = self._regression(rest, here, many)
            rest, unknown = rest - slope * (here - float(self.shares @ here)), 2
            moved = max(moved, (_LEAST_SHARE - 1.0) * mean)
        variance = float(self.shares**2 @ rest**2) * count / max(1, count - unknown) * (1.0 - count / self.all_count)
        if alike is not None:
            variance += slope**2 * float(alike[1].var()) / len(alike[1]) * (1.0 - len(alike[1]) / self.all_count)
        return float(np.sqrt(margin**2 * (mean + moved) + _STANDARD_ERRORS * np.sqrt(variance)))

    def least_rms(self, squares: NDArray[np.float64]) -> float:
        """What `upper_rms` is at least, whatever is alike."""
        return _MARGIN_AIDED * float(np.sqrt(_LEAST_SHARE * (self.shares @ squares)))

    def _regression(
        self, rest: NDArray[np.float64], here: NDArray[np.float64], many: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Slope of the squares over what is alike, not below 0, and what that adds to their mean."""
        mean = float(self.shares @ here)
        variance = float(self.shares @ (here - mean) ** 2)
        slope = max(0.0, float(self.shares @ (rest * (here - mean))) / variance) if variance > 0 else 0.0
        return slope, slope * (float(many.mean()) - mean)

    def spread(self, values: NDArray[np.float64]) -> float:
        """Standard deviation over all probes (and the channels of each), from the values at those drawn; or 0."""
        flat = values.reshape(len(values), -1)
        mean = float(self.shares @ flat.mean(axis=1))
        return float(np.sqrt(self.shares @ ((flat - mean) ** 2).mean(axis=1)))


def unusual(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of the values (points, channels) from their mean, in their variances, mean of the channels."""
    relative = (values - values.mean(axis=0)) / (values.std(axis=0) + np.finfo(float).tiny)
    return np.asarray((relative**2).mean(axis=1), dtype=np.float64)


def atoms_under(specimen: Specimen, points_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the atoms near each probe (n, 2) of the squared atomic number: bright columns, where most goes wrong."""
    lengths = np.array(specimen.cell_angstrom[1::-1])  # y, x
    shape = np.array([min(ceil(side / _MAP_PIXEL_ANGSTROM), _MOST_MAP_PIXELS) for side in lengths.tolist()])

    def pixels(places: NDArray[np.float64]) -> NDArray[np.int64]:
        row, column = (np.floor(places[:, 1::-1] / lengths * shape).astype(np.int64) % shape).T
        return np.asarray(row * shape[1] + column, dtype=np.int64)

    weights = specimen.numbers.astype(np.float64) ** 2
    found = np.bincount(pixels(specimen.positions_angstrom), weights, minlength=int(shape.prod())).reshape(shape)
    blurred = gaussian_filter(found, _COLUMN_ANGSTROM * shape / lengths, mode="wrap")
    return np.asarray(blurred.ravel()[pixels(points_angstrom)], dtype=np.float64)


def drawn(doubts: NDArray[np.float64], rng: np.random.Generator) -> CheckProbes:
    """Probes of an image, one doubt (not negative) for each; more likely those with larger doubts."""
    chances = _chances(doubts, min(CHECK_POINT_COUNT, len(doubts)))
    order = rng.permutation(len(doubts))
    passed = np.cumsum(chances[order]) + rng.uniform()
    hit = np.floor(passed) > np.floor(passed - chances[order])
    chosen = np.sort(order[hit])
    stands_for = 1.0 / chances[chosen]
    return CheckProbes(chosen, stands_for / stands_for.sum(), len(doubts))


def _chances(doubts: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Of being one of `count`, for each probe: none above 1, and what is above goes to the others."""
    mean = float(doubts.mean())
    relative = doubts / mean if mean > 0 else np.ones(len(doubts))
    weights = _SHARE_BY_DOUBT * relative + (1.0 - _SHARE_BY_DOUBT)
    chances = np.zeros(len(doubts))
    certain = np.zeros(len(doubts), dtype=bool)
    while True:
        rest = count - certain.sum()
        chances[certain] = 1.0
        chances[~certain] = rest * weights[~certain] / max(weights[~certain].sum(), np.finfo(float).tiny)
        above = chances > 1.0
        if not above.any():
            return chances
        certain |= above
