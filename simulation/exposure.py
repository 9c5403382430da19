"""One exposure: what reaches the detectors by one method, averaged over foci and over configurations of the atoms.

Neighbours: `sources` makes the waves, `method_trial` says by which method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.detectors import Detector, DetectorBank, PixelatedDetector, has_pixels
from simulation.device_batches import in_batches
from simulation.electron import wavelength_angstrom
from simulation.error_check import Signals, spread_of
from simulation.errors import MethodUnavailable
from simulation.method_choice import Candidate
from simulation.progress import steps
from simulation.results import Axes
from simulation.scans import Scan
from simulation.source_blur import SourceBlur
from simulation.sources import BLURRING, Source, Sources
from simulation.wave_grid import WaveGrid

_SAMPLE_COUNT = 2**16
"""Probes from which errors are estimated, where a blur takes more of them."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Optics of each focus with their weights, where the probe stands, detectors, and the blur by the source if any."""

    foci: list[tuple[Optics, float]]
    scan: Scan
    detectors: Mapping[str, Detector]
    blur: SourceBlur | None = None

    @property
    def optics(self) -> Optics:
        """Those of the middle focus."""
        return self.foci[len(self.foci) // 2][0]

    @property
    def probe_count(self) -> int:
        """Probes of all foci, those between the pixels that a blur takes included."""
        each = int(np.prod(self.scan.shape)) if self.blur is None else self.blur.probe_count
        return each * len(self.foci)

    def sample_angstrom(self) -> NDArray[np.float64]:
        """Where probes of the image stand, (n, 2) of (x, y): all, or many of those that a blur takes."""
        if self.blur is None:
            return self.scan.points_angstrom()
        return self.blur.places_nm(max(_SAMPLE_COUNT, int(np.prod(self.scan.shape)))) * 10


class Detection:
    """Signals of one specimen on detectors, by whatever method."""

    def __init__(self, sources: Sources, grid: WaveGrid, on: Backend) -> None:
        self._sources, self._grid, self._on = sources, grid, on

    def mean(self, candidate: Candidate, exposure: Exposure) -> tuple[Signals, float]:
        """Images (*scan shape, *detector shape) averaged over phonon configurations, blurred by the source.

        And the standard error of that mean over the image's spread.
        """
        count = len(self._sources.specimens)
        mean: Signals = {}
        squares = dict.fromkeys(exposure.detectors, 0.0)
        for index in steps(range(count), "configurations"):  # none is kept: patterns of one may fill the memory
            run = self._signals(candidate, index, exposure)
            for name in exposure.detectors:
                if index == 0:
                    mean[name] = run[name]
                    continue
                off = run[name] - mean[name]
                mean[name] = mean[name] + off / (index + 1)
                squares[name] += index / (index + 1) * float(np.mean(np.square(off, out=off), dtype=np.float64))
        if count == 1:
            return mean, 0.0
        variances = {name: value / (count - 1) / count for name, value in squares.items()}
        return mean, max(float(np.sqrt(variances[name])) / spread_of(mean[name]) for name in mean)

    def of_first(
        self, candidate: Candidate, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> Signals:
        """Of the first configuration, at one focus."""
        return self._sharp(candidate, 0, optics, points, detectors)

    def axes_mrad(self, candidate: Candidate, optics: Optics, detectors: Mapping[str, Detector]) -> Axes:
        """Angles of the pixelated detectors."""
        pixelated = {name: each for name, each in detectors.items() if isinstance(each, PixelatedDetector)}
        if not pixelated:
            return {}
        bank = self._bank(self._sources.source(candidate, 0, optics), optics, pixelated)
        return {name: bank.angles_mrad(name) for name in pixelated}

    def _signals(self, candidate: Candidate, configuration: int, exposure: Exposure) -> Signals:
        """One configuration, averaged over the focal spread."""
        if len(exposure.foci) == 1:
            return self._image(candidate, configuration, exposure.optics, exposure)
        total: Signals = {}
        for optics, weight in steps(exposure.foci, "defoci"):
            values = self._image(candidate, configuration, optics, exposure)
            for name in exposure.detectors:
                total[name] = total.get(name, 0.0) + weight * values[name]
        return total

    def _image(self, candidate: Candidate, configuration: int, optics: Optics, exposure: Exposure) -> Signals:
        """At one focus, blurred by the source."""
        blur, scan, detectors = exposure.blur, exposure.scan, exposure.detectors
        if blur is None:
            found = self._sharp(candidate, configuration, optics, scan.points_angstrom(), detectors)
        elif self.takes_source_in(candidate, exposure):
            source = self._sources.blurring_source(candidate, configuration, optics)
            found = source.signals(optics, scan.points_angstrom(), detectors, blur.sigma_nm * 10)
        else:
            return self._blurred(candidate, configuration, optics, detectors, blur)
        return {name: values.reshape(*scan.shape, *values.shape[1:]) for name, values in found.items()}

    def takes_source_in(self, candidate: Candidate, exposure: Exposure) -> bool:
        """Whether the method takes the source in without more probes than the scan has."""
        true = exposure.blur is not None and not exposure.blur.of_pixels
        return true and candidate.method in BLURRING and not has_pixels(exposure.detectors)

    def _blurred(
        self,
        candidate: Candidate,
        configuration: int,
        optics: Optics,
        detectors: Mapping[str, Detector],
        blur: SourceBlur,
    ) -> Signals:
        """Added up from its probes as they come."""
        sums: dict[str, Any] = {}
        for first, points in blur.strips():
            for start, parts in self._parts(candidate, configuration, optics, points, detectors):
                for name, part in parts.items():
                    if name not in sums:
                        sums[name] = blur.sums(part.shape[1:])
                    sums[name].add(first + start, part)
        return {name: sums[name].image() for name in detectors}

    def _sharp(
        self,
        candidate: Candidate,
        configuration: int,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> Signals:
        """(points, *detector shape)."""
        signals: Signals = {}
        for start, parts in self._parts(candidate, configuration, optics, points, detectors):
            for name, part in parts.items():
                if name not in signals:  # in one piece: small parts kept between waves would scatter over the heap
                    kind = part.dtype if isinstance(detectors[name], PixelatedDetector) else np.float64
                    signals[name] = np.empty((len(points), *part.shape[1:]), dtype=kind)
                signals[name][start : start + len(part)] = part
        return {name: signals[name] for name in detectors}

    def _parts(
        self,
        candidate: Candidate,
        configuration: int,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> Iterator[tuple[int, Mapping[str, NDArray[Any]]]]:
        """Signals (n, *detector shape) of successive probes, each with the index of its first point."""
        if not has_pixels(detectors):
            direct = self._sources.signal_source(candidate, configuration, optics)
            if direct is not None:
                yield 0, direct.signals(optics, points, detectors)
                return
        elif candidate.method == "incoherent":
            raise MethodUnavailable("method 'incoherent' knows no diffraction patterns; use 'multislice' or 'prism'")
        source = self._sources.source(candidate, configuration, optics)
        bank = self._bank(source, optics, detectors)
        for start, intensity in source.intensities(optics, points):
            for first, parts in self._measured(bank, intensity):
                yield start + first, parts

    def _measured(self, bank: DetectorBank, intensity: Array) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """At once; piece by piece where the device has no room for patterns beside what they are cut from."""

        def seen(start: int, stop: int) -> tuple[int, dict[str, NDArray[Any]]]:
            return start, {name: self._on.to_numpy(part) for name, part in bank.measure(intensity[start:stop]).items()}

        count = int(intensity.shape[0])
        return in_batches(seen, [0], count, count, replace(self._on, threads=1))

    def _bank(self, source: Source, optics: Optics, detectors: Mapping[str, Detector]) -> DetectorBank:
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        cutoff_mrad = self._grid.cutoff_mrad(wavelength)
        return DetectorBank(detectors, source.grid, wavelength, cutoff_mrad, self._on, source.pixels)
