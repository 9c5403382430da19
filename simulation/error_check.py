"""How far an approximate image is from multislice: compared on a few of its probes.

Neighbours: `method_trial` asks for it, `method_choice` says which methods are approximate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.detectors import AnnularDetector, Detector, PixelatedDetector
from simulation.difference_check import compared_ratio, doubt_ratio
from simulation.local_difference import LocalDifferenceSource
from simulation.method_choice import CHECK_POINT_COUNT, Candidate
from simulation.progress import during
from simulation.sources import Sources
from simulation.windowed import WindowedSource

Signals = dict[str, NDArray[np.float64]]
"""Detector signals (points, *detector shape) by name, fractions of the incident beam."""
Imaging = Callable[[Candidate, Optics, NDArray[np.float64], Mapping[str, Detector]], Signals]
"""Signals of some probes by a method."""
_MULTISLICE = Candidate("multislice", 1, 0.0)
_ERROR_MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """Rms difference from multislice over the image's spread, and the optics it was found with."""

    ratio: float
    optics: Optics


class ErrorCheck:
    """Estimates for the images of one specimen; with `once` one for each energy and tilt."""

    def __init__(self, sources: Sources, signals: Imaging, seed: int, *, once: bool) -> None:
        """`seed` draws the probes."""
        self._sources, self._signals, self._seed, self._once = sources, signals, seed, once
        self._known_errors: dict[tuple[float, float, float], tuple[Any, ErrorEstimate]] = {}
        self._known_reference: tuple[Any, Signals] | None = None
        self._known_doubtful: tuple[Any, NDArray[np.int64]] | None = None
        self._known_differences: tuple[LocalDifferenceSource, float] | None = None

    @during("check against multislice")
    def estimate(
        self,
        candidate: Candidate,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        image: Signals,
    ) -> ErrorEstimate:
        """Rms difference from multislice on a few probes of configuration 0, over the image's spread; worst detector.

        Patterns on a coarser diffraction grid are compared through rings. An estimate made once
        for each energy and tilt lets re-imaging propagate nothing; it holds for that image alone (with another defocus,
        scan or detector the error can be ten times that) and is nan for others, which name the optics of the one. Of
        windows half the probes are taken where most was added for what is outside the smallest of them: errors are
        large at few places. These count once each, the random ones for all the others, and the difference is stated
        with a margin.
        """
        key = (optics.beam_energy_ev, optics.tilt_x_mrad, optics.tilt_y_mrad)
        asked = (optics, points.tobytes(), tuple(detectors.items()), _spreads(image))
        if self._once and key in self._known_errors:
            of, known = self._known_errors[key]
            return known if of == asked else ErrorEstimate(nan, known.optics)
        compared = {name: each for name, each in detectors.items() if not isinstance(each, PixelatedDetector)}
        compared = compared or _rings(optics)
        if candidate.tolerance is not None:
            return self._of_differences(candidate.tolerance, optics, points, compared, image)
        doubtful = self._doubtful(candidate, optics, points, compared)
        others = np.setdiff1d(np.arange(len(points)), doubtful)
        count = min(CHECK_POINT_COUNT if len(doubtful) else 2 * CHECK_POINT_COUNT, len(others))
        picked = np.random.default_rng([self._seed, count]).choice(others, count, replace=False)
        chosen = points[np.concatenate([doubtful, picked])]
        stands_for = np.concatenate([np.ones(len(doubtful)), np.full(count, len(others) / max(1, count))])
        reference = self._reference(optics, chosen, compared)
        own = self._signals(candidate, optics, chosen, compared)
        spreads = {name: spread_of(image.get(name, reference[name])) for name in compared}
        squares = {name: ((own[name] - reference[name]) ** 2).reshape(len(chosen), -1).mean(1) for name in compared}
        ratios = [np.sqrt(np.average(squares[name], weights=stands_for)) / spreads[name] for name in compared]
        estimate = ErrorEstimate(_ERROR_MARGIN * float(max(ratios)), optics)
        self._known_errors[key] = asked, estimate
        return estimate

    def _of_differences(
        self,
        tolerance: float,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        image: Signals,
    ) -> ErrorEstimate:
        """The larger of two estimates (`difference_check`); multislice is asked once for each source."""
        source = self._sources.local_difference(0, optics, tolerance)
        signals = source.signals(optics, points, detectors)
        spreads = {name: spread_of(image.get(name, values)) for name, values in signals.items()}
        if self._known_differences is None or self._known_differences[0] is not source:
            ratio = compared_ratio(
                source, optics, points, detectors, spreads,
                lambda chosen: self._signals(_MULTISLICE, optics, chosen, detectors),
            )  # fmt: skip
            self._known_differences = (source, ratio)
        doubt = doubt_ratio(source, optics, points, detectors, spreads)
        return ErrorEstimate(max(doubt, self._known_differences[1]), optics)

    def _doubtful(
        self, candidate: Candidate, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> NDArray[np.int64]:
        """Probes for which most was added for what their windows leave out, counted from the mean.

        Those of the first window tried serve the others too: then all are compared with the same multislice.
        """
        if candidate.window_px is None:
            return np.zeros(0, dtype=np.int64)
        key = (optics, points.tobytes(), tuple(detectors.items()))
        if self._known_doubtful is None or self._known_doubtful[0] != key:
            source = self._sources.signal_source(candidate, 0, optics)
            if not isinstance(source, WindowedSource):
                return np.zeros(0, dtype=np.int64)
            added = source.added(optics, points, detectors)
            unusual = np.abs(added - added.mean(axis=0)) / (added.std(axis=0) + np.finfo(float).tiny)
            self._known_doubtful = (key, np.argsort(unusual.max(axis=1), kind="stable")[-CHECK_POINT_COUNT:])
        return self._known_doubtful[1]

    def _reference(self, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]) -> Signals:
        """Multislice at the check probes; the last ones are kept."""
        key = (optics, points.tobytes(), tuple(detectors.items()))
        if self._known_reference is None or self._known_reference[0] != key:
            self._known_reference = (key, self._signals(_MULTISLICE, optics, points, detectors))
        return self._known_reference[1]


def _spreads(image: Signals) -> tuple[str, ...]:
    return tuple(f"{spread_of(image[name]):.4g}" for name in sorted(image))


def spread_of(values: NDArray[np.float64]) -> float:
    """Standard deviation, or the mean where nothing varies; never zero."""
    spread = float(np.std(values)) or float(np.mean(np.abs(values)))
    return spread or 1.0


def _rings(optics: Optics) -> dict[str, Detector]:
    """Bright field, annular bright field and dark field, in units of the aperture."""
    angle_mrad = optics.semi_convergence_angle_mrad or 1.0
    edges_mrad = (0.0, angle_mrad / 2, angle_mrad, 2 * angle_mrad)
    return {f"ring {inner:g}": AnnularDetector(inner, outer) for inner, outer in pairwise(edges_mrad)}
