"""How far an approximate image is from multislice: compared on a few of its probes.

Neighbours: `method_trial` asks for it, `method_choice` says which methods are approximate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.check_probes import CheckProbes, atoms_under, drawn, unusual
from simulation.detectors import AnnularDetector, Detector, PixelatedDetector
from simulation.difference_check import compared_ratio, doubt_ratio
from simulation.local_difference import LocalDifferenceSource
from simulation.method_choice import MANY_PROBES, Candidate, fits
from simulation.progress import during
from simulation.sources import Sources
from simulation.wave_grid import WaveGrid
from simulation.windowed import WindowedSource

Signals = dict[str, NDArray[np.float64]]
"""Detector signals (points, *detector shape) by name, fractions of the incident beam."""
Imaging = Callable[[Candidate, Optics, NDArray[np.float64], Mapping[str, Detector]], Signals]
"""Signals of some probes by a method."""
_MULTISLICE = Candidate("multislice", 1, 0.0)
_WIDER = (2.0, 1.5, 1.25)
_SINGLE_ROUNDING = 2e-6
"""Of a signal, by its waves in single precision; measured against double."""


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """Rms difference from multislice over the image's spread, and the optics it was found with."""

    ratio: float
    optics: Optics


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Probes of one exposure with multislice's signals of them. `signals`: of candidates, at these and at some more."""

    exposure: tuple[Any, ...]
    probes: CheckProbes
    points: NDArray[np.float64]
    reference: Signals
    signals: dict[tuple[Any, ...], Signals]


class ErrorCheck:
    """Estimates for the images of one specimen; with `once` one for each energy and tilt."""

    def __init__(
        self, sources: Sources, grid: WaveGrid, signals: Imaging, seed: int, *, once: bool, is_single: bool
    ) -> None:
        """`seed` draws the probes; `is_single`: waves are of single precision."""
        self._rounding = _SINGLE_ROUNDING if is_single else 0.0
        self._sources, self._grid, self._signals, self._seed, self._once = sources, grid, signals, seed, once
        self._known_errors: dict[tuple[float, float, float], tuple[Any, ErrorEstimate]] = {}
        self._known_comparisons: dict[bool, _Comparison] = {}
        self._known_differences: tuple[LocalDifferenceSource, float] | None = None

    @during("check against multislice")
    def estimate(
        self,
        candidate: Candidate,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        image: Signals,
        *,
        accuracy: float = inf,
    ) -> ErrorEstimate:
        """Bound on the rms difference from multislice, over the image's spread; worst detector.

        From a few probes of configuration 0, and for windows from a wider window on many (`check_probes`). `image` may
        be empty: then the spread is that of some probes. Patterns on a coarser diffraction grid are compared through
        rings. An estimate made once for each energy and tilt lets re-imaging propagate nothing; it holds for that image
        alone (with another defocus, scan or detector the error can be ten times that) and is nan for others, which name
        the optics of the one. Of windows without an image the rms of the few alone is returned where the bound would
        be above `accuracy` whatever the many say.
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
        comparison = self._comparison(candidate, optics, points, compared)
        if candidate.window_px is not None and not image and accuracy < inf:
            least = self._few_ratio(candidate, comparison, accuracy)
            if least is not None:
                return ErrorEstimate(least, optics)
        ratios = [
            self._upper_rms(candidate, comparison, name) / self._spread(candidate, comparison, name, image)
            for name in compared
        ]
        estimate = ErrorEstimate(max(ratios), optics)
        self._known_errors[key] = asked, estimate
        return estimate

    def _few_ratio(self, candidate: Candidate, comparison: _Comparison, accuracy: float) -> float | None:
        """Of the few probes alone, worst detector; None where a bound may be within the accuracy."""
        optics, _, detectors = comparison.exposure
        probes, exact = comparison.probes, comparison.reference
        own = self._signals(candidate, optics, comparison.points[: len(probes.chosen)], dict(detectors))
        squares = {name: _mean_squares(own[name], exact[name]) for name in own}
        spreads = {name: probes.spread(exact[name]) or spread_of(exact[name]) for name in own}
        if max(probes.least_rms(squares[name]) / spreads[name] for name in own) <= accuracy:
            return None
        return max(float(np.sqrt(probes.shares @ squares[name])) / spreads[name] for name in own)

    def _upper_rms(self, candidate: Candidate, comparison: _Comparison, name: str) -> float:
        """Of one detector, in fractions of the incident beam."""
        own, exact = self._own(candidate, comparison)[name], comparison.reference[name]
        squares, wider = _mean_squares(own[: len(exact)], exact), self._wider(candidate)
        if wider is None:
            return comparison.probes.upper_rms(squares)
        alike = _mean_squares(own, self._own(wider, comparison)[name])
        return comparison.probes.upper_rms(squares, (alike[: len(exact)], alike[len(exact) :]))

    def _spread(self, candidate: Candidate, comparison: _Comparison, name: str, image: Signals) -> float:
        """Of the image where it is known, else about that."""
        if name in image:
            return spread_of(image[name])
        exact = comparison.reference[name]
        if candidate.window_px is None:
            return comparison.probes.spread(exact) or spread_of(exact)
        return spread_of(self._own(candidate, comparison)[name][len(exact) :])

    def _own(self, candidate: Candidate, comparison: _Comparison) -> Signals:
        """Signals by an approximate method at the comparison's points, made once."""
        key = (candidate.method, candidate.interpolation, candidate.window_px)
        if key not in comparison.signals:
            optics, _, detectors = comparison.exposure
            comparison.signals[key] = self._signals(candidate, optics, comparison.points, dict(detectors))
        return comparison.signals[key]

    def _wider(self, candidate: Candidate) -> Candidate | None:
        """A window up to twice as wide, if one fits."""
        if candidate.window_px is None:
            return None
        for factor in _WIDER:
            rows, columns = (2 * round(factor * side_px / 2) for side_px in candidate.window_px)
            if fits(self._grid, (rows, columns)):
                return Candidate("windowed", 1, 0.0, (rows, columns))
        return None

    def _of_differences(
        self,
        tolerance: float,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        image: Signals,
    ) -> ErrorEstimate:
        """The larger of two estimates (`difference_check`), and rounding; multislice is asked once for each source."""
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
        sizes = {name: float(np.sqrt(np.mean(np.square(image.get(name, values))))) for name, values in signals.items()}
        rounding = self._rounding * max(sizes[name] / spreads[name] for name in sizes)
        return ErrorEstimate(max(doubt, self._known_differences[1]) + rounding, optics)

    def _comparison(
        self, candidate: Candidate, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> _Comparison:
        """The last one is kept: that of the first window tried serves the others, as does that of other methods."""
        has_window = candidate.window_px is not None
        exposure = (optics, points.tobytes(), tuple(detectors.items()))
        known = self._known_comparisons.get(has_window)
        if known is None or known.exposure != exposure:
            rng = np.random.default_rng([self._seed, len(points)])
            probes = drawn(self._doubts(candidate, optics, points, detectors), rng)
            chosen = points[probes.chosen]
            reference = self._signals(_MULTISLICE, optics, chosen, detectors)
            if has_window:
                many = rng.choice(len(points), min(MANY_PROBES, len(points)), replace=False)
                chosen = np.concatenate([chosen, points[many]])
            known = self._known_comparisons[has_window] = _Comparison(exposure, probes, chosen, reference, {})
        return known

    def _doubts(
        self, candidate: Candidate, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> NDArray[np.float64]:
        """For each probe. Of a window, the square of what was added for what it leaves out, counted from the mean.

        Of other methods that of the atoms under the probe.
        """
        if candidate.window_px is not None:
            source = self._sources.signal_source(candidate, 0, optics)
            if isinstance(source, WindowedSource):
                return unusual(source.added(optics, points, detectors))
        return unusual(atoms_under(self._sources.specimens[0], points)[:, None])


def _mean_squares(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the differences at each point, over its channels."""
    return ((values - others) ** 2).reshape(len(values), -1).mean(axis=1)


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
