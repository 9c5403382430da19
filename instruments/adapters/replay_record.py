"""Recorded counts as streams in time: what a point still has to give, and what was held out; `replay` reads them.

Given its number, the counts of a Poisson process fall uniformly over the exposure. So every recorded count is put, once
and for all, into the measured or the held-out part and the measured ones get a moment of arrival. A visit of some dwell
reads the counts of the next stretch of that time: a shorter dwell thins binomially, and no count is ever read twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

_TICKS = 2**30  # arrival times are multiples of 2**-30 of the full dwell, so that point + time is exact in float64


@dataclass(frozen=True, slots=True)
class CountStream:
    """Arrivals of the measured counts of one line: sorted sums of flat point index and fraction of the full dwell."""

    arrivals: np.ndarray

    def counts(self, points: np.ndarray, start_fraction: np.ndarray, stop_fraction: np.ndarray) -> np.ndarray:
        """Counts of each flat point index between two fractions of its full dwell, start <= t < stop; same shape."""
        first = np.searchsorted(self.arrivals, points + np.clip(start_fraction, 0.0, 1.0), side="left")
        last = np.searchsorted(self.arrivals, points + np.clip(stop_fraction, 0.0, 1.0), side="left")
        return last - first


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """Streams of the measured part and maps (rows, columns) of the held-out part, by line."""

    streams: dict[str, CountStream]
    heldout: dict[str, np.ndarray]


def split_record(counts: dict[str, np.ndarray], measured_fraction: float, seed: int) -> SplitRecord:
    """Split every count binomially; the draws of a line depend on `seed` and its name alone, not on the other lines."""
    streams: dict[str, CountStream] = {}
    heldout: dict[str, np.ndarray] = {}
    for line, recorded in counts.items():
        rng = np.random.default_rng([seed, crc32(line.encode())])
        measured = rng.binomial(recorded, measured_fraction)
        heldout[line] = recorded - measured
        points = np.repeat(np.arange(measured.size), measured.ravel())
        streams[line] = CountStream(np.sort(points + rng.integers(0, _TICKS, points.size) / _TICKS))
    return SplitRecord(streams, heldout)
