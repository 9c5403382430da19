"""By which method an image is made: the one asked for, or the cheapest whose estimated error is small enough.

Neighbours: `method_choice` predicts what methods cost, `error_check` how far they are off, `exposure` applies one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan

from instruments.optics import Optics
from simulation.backend import Backend
from simulation.detectors import Detector, has_pixels
from simulation.electron import wavelength_angstrom
from simulation.error_check import ErrorCheck, ErrorEstimate, Signals
from simulation.errors import AccuracyMissed, MethodUnavailable
from simulation.exposure import Detection, Exposure
from simulation.method_choice import (
    INTERPOLATING,
    INTERPOLATIONS,
    Candidate,
    Workload,
    candidates,
    tolerances,
    windows,
)
from simulation.position_noise import error_from_noise
from simulation.sources import Sources
from simulation.wave_grid import WaveGrid
from simulation.windowed import smallest_side_nm

_FALLING = {"windowed": (2.0, 2.0), "prism": (4.0, 4.0), "partitioned_prism": (4.0, 1.0)}
"""The power of its fineness by which a method's error falls at most, and how many times finer is at least tried."""
_ADAPTING = frozenset({"windowed", "local_difference"})
"""Methods that come as near as asked for, if they can."""
_TOLERANCES_COUNT = 3
"""Of local differences, where nothing else was asked for."""
_HOPELESS = 1.5
"""Error on the check probes alone, over the accuracy asked for, from which on the others are not imaged.

For windows it is 1: the spread of their images is known beforehand.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How images are to be made; arguments as for `simulate`."""

    method: str
    interpolation: int
    accuracy: float
    slice_thickness_nm: float
    seed: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Signals of one exposure, the method that made them, and what is known about their error."""

    candidate: Candidate
    signals: Signals
    error_estimate: ErrorEstimate
    phonon_standard_error: float


class MethodTrial:
    """Images of one specimen by a method as good as wanted."""

    def __init__(self, sources: Sources, grid: WaveGrid, on: Backend, wanted: Wanted) -> None:
        """Nothing is computed yet."""
        self.detection = Detection(sources, grid, on)
        self._sources, self._grid, self._on, self._wanted = sources, grid, on, wanted
        once, single = wanted.method in INTERPOLATING, on.precision == "single"
        self._errors = ErrorCheck(sources, grid, self.detection.of_first, wanted.seed, once=once, is_single=single)

    def measured(self, exposure: Exposure) -> Measurement:
        """By the method asked for; under `auto` by the cheapest one whose estimated error is small enough."""
        wanted = self._wanted
        if wanted.method in ("auto", "windowed", "local_difference"):
            return self._first_good(exposure)
        interpolation = wanted.interpolation if wanted.method in INTERPOLATING else 1
        candidate = Candidate(wanted.method, interpolation, 0.0)
        self._check_probes([candidate], exposure)
        return self._measured_by(candidate, exposure)

    def _check_probes(self, tried: list[Candidate], exposure: Exposure) -> None:
        """Refuse a blur that takes too many, unless a method takes the source in by itself."""
        if exposure.blur is not None and not any(self.detection.takes_source_in(each, exposure) for each in tried):
            exposure.blur.check_probes()

    def candidates(self, optics: Optics, probe_count: int, detectors: Mapping[str, Detector]) -> list[Candidate]:
        """Approximate methods worth trying, then the cheapest exact one; windows alone if they were asked for."""
        wanted = self._wanted
        if wanted.method == "local_difference":
            tried = tolerances(wanted.accuracy, _TOLERANCES_COUNT)
            return [Candidate("local_difference", 1, 0.0, tolerance=each) for each in tried]
        if wanted.method == "windowed" and has_pixels(detectors):
            raise MethodUnavailable("windows do not resolve diffraction patterns; use method='multislice' or 'prism'")
        workload = self._workload(optics, probe_count, detectors)
        if wanted.method == "windowed":
            return windows(workload)
        kept = frozenset(
            factor for factor in INTERPOLATIONS if self._sources.kept_matrix(0, optics, factor) is not None
        )
        tried = candidates(workload, kept)
        first_exact = next(index for index, candidate in enumerate(tried) if candidate.is_exact)
        return tried[: first_exact + 1]

    def _first_good(self, exposure: Exposure) -> Measurement:
        """Of what is tried the first within the accuracy asked for, else the last.

        Errors seldom fall faster than a power of how fine a method is: what would have to be better still is left out.
        """
        measured, accuracy = None, self._wanted.accuracy
        finest_needed: dict[str, float] = {}
        tried = self.candidates(exposure.foci[0][0], exposure.probe_count, exposure.detectors)
        self._check_probes(tried, exposure)
        for candidate in tried:
            method, fineness = candidate.method, candidate.fineness
            if fineness and candidate is not tried[-1]:
                if fineness < finest_needed.get(method, 0.0):
                    continue
                ratio = self._estimate(candidate, exposure, {}, accuracy).ratio
                power, largest_step = _FALLING[method]
                finest_needed[method] = fineness * min((ratio / accuracy) ** (1 / power), largest_step)
                if ratio > (1.0 if candidate.window_px else _HOPELESS) * accuracy:
                    continue
            measured = self._measured_by(candidate, exposure)
            if measured.error_estimate.ratio <= accuracy:
                break
        if measured is None:
            raise MethodUnavailable(
                "no window that holds the probe goes twice into this cell of"
                f" {self._sources.specimens[0].cell_angstrom} angstrom;"
                " repeat the cell, reduce the defocus, or use method='multislice' or 'prism'"
            )
        if self._wanted.method in _ADAPTING and measured.error_estimate.ratio > accuracy:
            warnings.warn(
                f"method={self._wanted.method!r} comes no nearer to multislice than {measured.error_estimate.ratio:.2g}"
                f" of the image's standard deviation, {accuracy:g} was asked for: use method='auto' or 'multislice', a"
                " larger cell, or a larger accuracy",
                AccuracyMissed,
                stacklevel=5,
            )
        return measured

    def _workload(self, optics: Optics, probe_count: int, detectors: Mapping[str, Detector]) -> Workload:
        specimens, wanted = self._sources.specimens, self._wanted
        choosing = len(specimens) == 1 and wanted.method == "auto"
        is_crystal = choosing and self._error_from_noise(optics, detectors) <= wanted.accuracy
        crystal = self._sources.crystal(0) if is_crystal else None
        return Workload(
            self._grid,
            optics,
            max(1, self._sources.step_count()),
            probe_count,
            self._on.working_bytes * 8 // self._on.complex_bytes // len(specimens),  # as if in single precision
            crystal,
            None if has_pixels(detectors) else smallest_side_nm(optics, self._grid, specimens[0].cell_angstrom[2]),
            self._sources.defective(0) if choosing and crystal is None else None,
            wanted.accuracy,
            self._sources.kept_bloch_matrix(0, optics) is not None,
            self._sources.unlike_slices(optics.beam_energy_ev),
        )

    def _measured_by(self, candidate: Candidate, exposure: Exposure) -> Measurement:
        """With its error: that of sharp probes, over the spread that a source leaves of the image."""
        mean, deviation = self.detection.mean(candidate, exposure)
        optics = exposure.optics
        error = ErrorEstimate(nan if candidate.method == "incoherent" else 0.0, optics)
        if candidate.method == "periodic":
            error = ErrorEstimate(self._error_from_noise(optics, exposure.detectors), optics)
        elif not (candidate.is_exact or candidate.method == "incoherent"):
            error = self._estimate(candidate, exposure, mean)
        return Measurement(candidate, mean, error, deviation)

    def _estimate(
        self, candidate: Candidate, exposure: Exposure, image: Signals, accuracy: float = inf
    ) -> ErrorEstimate:
        points = exposure.sample_angstrom()
        return self._errors.estimate(candidate, exposure.optics, points, exposure.detectors, image, accuracy=accuracy)

    def _error_from_noise(self, optics: Optics, detectors: Mapping[str, Detector]) -> float:
        """Of taking the specimen for a perfect crystal; infinite where it is none."""
        crystal = self._sources.crystal(0)
        cutoff_mrad = self._grid.cutoff_mrad(wavelength_angstrom(optics.beam_energy_ev))
        return inf if crystal is None else error_from_noise(crystal.deviation_angstrom, optics, detectors, cutoff_mrad)
