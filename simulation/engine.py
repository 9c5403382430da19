"""From a specimen to images: the public `simulate`, and `Simulator`, which keeps what re-imaging can use again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from instruments.optics import Coherence, Optics
from simulation.arguments import checked_seed
from simulation.backend import backend
from simulation.coherence import SourceBlur, focal_nodes
from simulation.detectors import (
    Detector,
    DetectorBank,
    PixelatedDetector,
    check_detectors,
    check_not_empty,
    has_pixels,
)
from simulation.electron import wavelength_angstrom
from simulation.error_check import ErrorCheck, ErrorEstimate, Signals, spread_of
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.images import Image, Images
from simulation.method_choice import (
    INTERPOLATING,
    INTERPOLATIONS,
    Candidate,
    Workload,
    candidates,
    check_method,
    tolerances,
    windows,
)
from simulation.multislice import step_count
from simulation.phonons import FrozenPhonons, Phonons, configurations
from simulation.position_noise import error_from_noise
from simulation.potential import PotentialModel
from simulation.probe import check_aperture, check_aperture_edge
from simulation.probe_size import check_room
from simulation.progress import steps, watched
from simulation.results import dataset
from simulation.scans import GridScan, PointScan, Scan
from simulation.slices import slice_count, slices_of
from simulation.sources import Prepared, Source, Sources
from simulation.specimen_tilt import checked_tilt_mrad, seen_from_specimen
from simulation.specimens import Atoms, Specimen
from simulation.wave_grid import WaveGrid
from simulation.windowed import smallest_side_nm

_LARGEST_WINDOW_STEP = 2.0
_HOPELESS = 1.5
"""Error on the check probes alone, over the accuracy asked for, from which on the others are not tried."""
_INCOHERENT_GRID_ANGSTROM = 40.0


@dataclass(frozen=True, slots=True)
class _Measurement:
    """Signals of one exposure and what is known about their error."""

    candidate: Candidate
    signals: Signals
    error_estimate: ErrorEstimate
    phonon_standard_error: float


def simulate(
    atoms: Atoms,
    optics: Optics,
    scan: Scan,
    detectors: Mapping[str, Detector],
    *,
    method: str = "auto",
    sampling_nm: float = 0.005,
    grid_shape_px: tuple[int, int] | None = None,
    slice_thickness_nm: float = 0.2,
    interpolation: int = 1,
    parametrization: str = "lobato",
    placement: str = "exact",
    projection: str = "infinite",
    coherence: Coherence | None = None,
    phonons: Phonons | None = None,
    accuracy: float = 0.01,
    device: str = "auto",
    precision: str = "single",
    aperture: str = "soft",
    specimen_tilt_mrad: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> Images:
    """Image a specimen: one float32 variable a detector, in fractions of the incident beam.

    `atoms`: `ase.Atoms` or anything with its `numbers positions cell`, angstrom, orthogonal periodic cell, beam
    along +z. The wave grid has ceil(cell / sampling) pixels a side, FFT-friendly upwards unless `grid_shape_px`
    fixes it, and ceil(depth / slice_thickness) equal slices. `interpolation` is PRISM's factor, or the distance of
    partitioned PRISM's parents. `accuracy` bounds the error that `method="auto"` accepts, as rms difference from
    multislice over the image's standard deviation.
    `coherence` blurs by source size (`GridScan` only) and averages over focal spread. `precision="double"` propagates
    in complex128 and returns float64. `aperture`: its edge is a ramp one reciprocal pixel wide (`soft`), so that images
    depend less on the cell's size, or `hard`. `specimen_tilt_mrad` (x, y) leans the specimen: atoms at depth z are met
    at x + z tan(tilt), which is right for small angles (`specimen_tilt`). Attributes of the result say which method was
    used, its estimated error (nan where none is known: `incoherent`, and images that a `Simulator` makes from the kept
    waves of interpolated PRISM after the one it checked), and every parameter.
    """
    simulator = Simulator(
        atoms,
        method=method,
        sampling_nm=sampling_nm,
        grid_shape_px=grid_shape_px,
        slice_thickness_nm=slice_thickness_nm,
        interpolation=interpolation,
        parametrization=parametrization,
        placement=placement,
        projection=projection,
        coherence=coherence,
        phonons=phonons,
        accuracy=accuracy,
        device=device,
        precision=precision,
        aperture=aperture,
        specimen_tilt_mrad=specimen_tilt_mrad,
        seed=seed,
    )
    return simulator.image(optics, scan, detectors)


class Simulator:
    """A specimen ready to be imaged many times; arguments as for `simulate`.

    Transmission functions are kept between images of one beam energy, scattering matrices between images of one
    energy and tilt whose aperture is no larger: with `method="prism"` or `"periodic"` another defocus, aberration, scan
    or detector propagates nothing. What is kept is dropped, oldest first, beyond 1 GiB or 40 % of a GPU's.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        method: str = "auto",
        sampling_nm: float = 0.005,
        grid_shape_px: tuple[int, int] | None = None,
        slice_thickness_nm: float = 0.2,
        interpolation: int = 1,
        parametrization: str = "lobato",
        placement: str = "exact",
        projection: str = "infinite",
        coherence: Coherence | None = None,
        phonons: Phonons | None = None,
        accuracy: float = 0.01,
        device: str = "auto",
        precision: str = "single",
        aperture: str = "soft",
        specimen_tilt_mrad: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
    ) -> None:
        """Check everything that does not depend on optics, scan or detectors."""
        check_method(method, interpolation, accuracy)
        self._model = PotentialModel(parametrization, placement, projection)
        self._specimen = Specimen.of(atoms)
        width, height, depth = self._specimen.cell_angstrom
        if method == "incoherent":  # no wave spans the field: the grid says how finely the probe is drawn
            width, height = (min(side, _INCOHERENT_GRID_ANGSTROM) for side in (width, height))
        check_aperture_edge(aperture)
        self.grid = replace(WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px), aperture_edge=aperture)
        self.slice_count = slice_count(depth, slice_thickness_nm)
        self._slice_thickness_nm = slice_thickness_nm
        self._method, self._interpolation, self._accuracy = method, int(interpolation), accuracy
        self._coherence = _checked_coherence(coherence)
        self._phonons, self._seed = phonons, checked_seed(seed)
        self._on = backend(device, precision)
        self._tilt_mrad = checked_tilt_mrad(specimen_tilt_mrad)
        specimens = configurations(self._specimen, phonons, self._seed)
        self._sources = Sources(specimens, self.grid, slice_thickness_nm, self._model, self._on)
        self._errors = ErrorCheck(self._sources, self._checked_signals, self._seed, once=method in INTERPOLATING)

    @watched()
    def image(
        self,
        optics: Optics,
        scan: Scan,
        detectors: Mapping[str, Detector],
        *,
        coherence: Coherence | None = None,
        specimen_tilt_mrad: tuple[float, float] | None = None,
    ) -> Images:
        """One exposure on all detectors; `coherence` and `specimen_tilt_mrad` override the simulator's."""
        coherence = self._coherence if coherence is None else _checked_coherence(coherence)
        tilt_mrad = self._tilt_mrad if specimen_tilt_mrad is None else checked_tilt_mrad(specimen_tilt_mrad)
        clipped = self._check(optics, scan, detectors)
        blur = self._blur(scan, coherence)
        wide = scan if blur is None else blur.scan
        seen = seen_from_specimen(optics, tilt_mrad)
        if self._method not in ("incoherent", "windowed"):
            check_room(optics, self._specimen.cell_angstrom, self._interpolation if self._method == "prism" else 1)
        nodes = focal_nodes(seen, coherence.focal_spread_nm)

        def seen_by(signals: Signals) -> Signals:
            shaped = {name: values.reshape(*wide.shape, *values.shape[1:]) for name, values in signals.items()}
            return shaped if blur is None else {name: blur.apply(values) for name, values in shaped.items()}

        measured = self._measure(nodes, wide.points_angstrom(), detectors, seen_by)
        shaped = seen_by(measured.signals)
        attributes = self._attributes(optics, coherence, measured) | {
            "specimen_tilt_mrad": list(tilt_mrad),
            "clipped_outer_mrad": json.dumps(clipped),
        }
        axes_mrad = self._axes_mrad(measured.candidate, seen, detectors)
        return dataset(shaped, scan, detectors, axes_mrad, attributes, self._on.real_type)

    def diffraction(
        self,
        optics: Optics,
        points_nm: ArrayLike,
        *,
        max_angle_mrad: float | None = None,
        coherence: Coherence | None = None,
        specimen_tilt_mrad: tuple[float, float] | None = None,
    ) -> Image:
        """Diffraction patterns (point, detector_y, detector_x) at (n, 2) probe positions (x, y).

        The source size does not apply to single points; the focal spread does.
        """
        detector = PixelatedDetector(max_angle_mrad=max_angle_mrad)
        pointlike = (coherence or self._coherence).model_copy(update={"source_size_nm": 0.0})
        made = self.image(
            optics,
            PointScan(points_nm),
            {"diffraction": detector},
            coherence=pointlike,
            specimen_tilt_mrad=specimen_tilt_mrad,
        )
        return made["diffraction"]

    def prepared(self, beam_energy_ev: float) -> Prepared:
        """The specimen's transmission functions at an energy, for those who propagate waves themselves."""
        return self._sources.prepared(beam_energy_ev, self._tilt_mrad)

    def _check(self, optics: Optics, scan: Scan, detectors: Mapping[str, Detector]) -> dict[str, float]:
        if not isinstance(optics, Optics):
            raise InvalidParameter(f"optics is a {type(optics).__name__}; give instruments.Optics")
        if not isinstance(scan, GridScan | PointScan):
            raise InvalidParameter(f"scan is a {type(scan).__name__}; give a GridScan or a PointScan")
        check_aperture(optics, self.grid.cutoff_per_angstrom)
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        clipped = check_detectors(detectors, self.grid.cutoff_mrad(wavelength))
        if self._method == "incoherent":  # knows no waves, so nothing of a ring is cut off
            return {}
        check_not_empty(detectors, self.grid, wavelength)
        return clipped

    def _blur(self, scan: Scan, coherence: Coherence) -> SourceBlur | None:
        if coherence.source_size_nm == 0:
            return None
        if not isinstance(scan, GridScan):
            raise InvalidParameter(
                f"a source size of {coherence.source_size_nm:g} nm needs a GridScan; points have no neighbours to blur"
            )
        return SourceBlur(scan, coherence.source_size_nm, self._sources.specimens[0])

    def _measure(
        self,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        seen_by: Callable[[Signals], Signals],
    ) -> _Measurement:
        """By the method asked for; under `auto` by the cheapest one whose estimated error is small enough."""
        if self._method in ("auto", "windowed", "local_difference"):
            return self._first_good(nodes, points, detectors, seen_by)
        candidate = Candidate(self._method, self._interpolation if self._method in INTERPOLATING else 1, 0.0)
        return self._measure_by(candidate, nodes, points, detectors, seen_by)

    def _first_good(
        self,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        seen_by: Callable[[Signals], Signals],
    ) -> _Measurement:
        """Of what is tried the first within the accuracy asked for, else the last.

        Errors of windows fall at least as fast as their side grows: sides that cannot do are left out.
        """
        measured, smallest_px = None, 0.0
        tried = self._candidates(nodes[0][0], len(points) * len(nodes), detectors)
        for candidate in tried:
            window_px = candidate.window_px
            if (window_px or candidate.method == "partitioned_prism") and candidate is not tried[-1]:
                if window_px and window_px[0] < smallest_px:
                    continue
                ratio = self._errors.estimate(candidate, nodes[len(nodes) // 2][0], points, detectors, {}).ratio
                if window_px:
                    smallest_px = window_px[0] * min(ratio / self._accuracy, _LARGEST_WINDOW_STEP)
                if ratio > _HOPELESS * self._accuracy:
                    continue
            measured = self._measure_by(candidate, nodes, points, detectors, seen_by)
            if measured.error_estimate.ratio <= self._accuracy:
                break
        if measured is None:
            raise MethodUnavailable(
                f"no window that holds the probe goes twice into this cell of {self._specimen.cell_angstrom} angstrom;"
                " repeat the cell, reduce the defocus, or use method='multislice' or 'prism'"
            )
        return measured

    def _candidates(self, optics: Optics, probe_count: int, detectors: Mapping[str, Detector]) -> list[Candidate]:
        """Approximate methods worth trying, then the cheapest exact one; windows alone if they were asked for."""
        specimens = self._sources.specimens
        if self._method == "local_difference":
            return [Candidate("local_difference", 1, 0.0, tolerance=each) for each in tolerances(self._accuracy)]
        if self._method == "windowed" and has_pixels(detectors):
            raise MethodUnavailable("windows do not resolve diffraction patterns; use method='multislice' or 'prism'")
        steps = step_count(slices_of(specimens[0], self._slice_thickness_nm).order)
        choosing = len(specimens) == 1 and self._method == "auto"
        is_crystal = choosing and self._error_from_noise(optics, detectors) <= self._accuracy
        crystal = self._sources.crystal(0) if is_crystal else None
        workload = Workload(
            self.grid,
            optics,
            max(1, steps),
            probe_count,
            self._on.working_bytes * 8 // self._on.complex_bytes // len(specimens),  # as if in single precision
            crystal,
            None if has_pixels(detectors) else smallest_side_nm(optics, self.grid, self._specimen.cell_angstrom[2]),
            self._sources.defective(0) if choosing and crystal is None else None,
            self._accuracy,
            self._sources.kept_bloch_matrix(0, optics) is not None,
        )
        if self._method == "windowed":
            return windows(workload)
        kept = frozenset(
            factor for factor in INTERPOLATIONS if self._sources.kept_matrix(0, optics, factor) is not None
        )
        tried = candidates(workload, kept)
        first_exact = next(index for index, candidate in enumerate(tried) if candidate.is_exact)
        return tried[: first_exact + 1]

    def _measure_by(
        self,
        candidate: Candidate,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        seen_by: Callable[[Signals], Signals],
    ) -> _Measurement:
        """Averaged over phonon configurations, with the mean's standard error over the image's spread.

        A source takes more from the spread than from the error: the error of sharp probes is held against what is left.
        """
        count = len(self._sources.specimens)
        counted = steps(range(count), "configurations")
        runs = [self._signals(candidate, index, nodes, points, detectors) for index in counted]
        stacks = {name: np.stack([run[name] for run in runs]) for name in detectors}
        mean = {name: stack.mean(axis=0) for name, stack in stacks.items()}
        deviation = 0.0
        if count > 1:
            variances = {name: np.mean(stack.var(axis=0, ddof=1)) / count for name, stack in stacks.items()}
            deviation = max(float(np.sqrt(variances[name])) / spread_of(mean[name]) for name in detectors)
        optics = nodes[len(nodes) // 2][0]
        error = ErrorEstimate(nan if candidate.method == "incoherent" else 0.0, optics)
        if candidate.method == "periodic":
            error = ErrorEstimate(self._error_from_noise(optics, detectors), optics)
        elif not (candidate.is_exact or candidate.method == "incoherent"):
            error = self._errors.estimate(candidate, optics, points, detectors, seen_by(mean))
        return _Measurement(candidate, mean, error, deviation)

    def _error_from_noise(self, optics: Optics, detectors: Mapping[str, Detector]) -> float:
        """Of taking the specimen for a perfect crystal; infinite where it is none."""
        crystal = self._sources.crystal(0)
        cutoff_mrad = self.grid.cutoff_mrad(wavelength_angstrom(optics.beam_energy_ev))
        return inf if crystal is None else error_from_noise(crystal.deviation_angstrom, optics, detectors, cutoff_mrad)

    def _checked_signals(
        self, candidate: Candidate, optics: Optics, points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> Signals:
        """Of the first configuration, at one focus."""
        return self._exposed(candidate, 0, optics, points, detectors)

    def _signals(
        self,
        candidate: Candidate,
        configuration: int,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> Signals:
        """One configuration, averaged over the focal spread."""
        total: Signals = {}
        for optics, weight in steps(nodes, "defoci"):
            values = self._exposed(candidate, configuration, optics, points, detectors)
            for name in detectors:
                total[name] = total.get(name, 0.0) + weight * values[name]
        return total

    def _exposed(
        self,
        candidate: Candidate,
        configuration: int,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> Signals:
        """One configuration at one focus."""
        direct = None
        if not has_pixels(detectors):
            direct = self._sources.signal_source(candidate, configuration, optics)
        elif candidate.method == "incoherent":
            raise MethodUnavailable("method 'incoherent' knows no diffraction patterns; use 'multislice' or 'prism'")
        if direct is not None:
            return direct.signals(optics, points, detectors)
        source = self._sources.source(candidate, configuration, optics)
        bank = self._bank(source, optics, detectors)
        parts = [bank.measure(intensity) for _, intensity in source.intensities(optics, points)]
        return {
            name: np.concatenate([self._on.to_numpy(part[name]) for part in parts]).astype(np.float64)
            for name in detectors
        }

    def _bank(self, source: Source, optics: Optics, detectors: Mapping[str, Detector]) -> DetectorBank:
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        cutoff_mrad = self.grid.cutoff_mrad(wavelength)
        return DetectorBank(detectors, source.grid, wavelength, cutoff_mrad, self._on, source.pixels)

    def _axes_mrad(
        self, candidate: Candidate, optics: Optics, detectors: Mapping[str, Detector]
    ) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        pixelated = {name: each for name, each in detectors.items() if isinstance(each, PixelatedDetector)}
        if not pixelated:
            return {}
        bank = self._bank(self._sources.source(candidate, 0, optics), optics, pixelated)
        return {name: bank.angles_mrad(name) for name in pixelated}

    def _attributes(self, optics: Optics, coherence: Coherence, measured: _Measurement) -> dict[str, Any]:
        tilt = {"tilt_x_mrad": optics.tilt_x_mrad, "tilt_y_mrad": optics.tilt_y_mrad}
        return {
            "method": measured.candidate.method,
            "interpolation": measured.candidate.interpolation,
            "window_px": list(measured.candidate.window_px or self.grid.shape_px),
            "error_estimate": measured.error_estimate.ratio,
            "error_estimate_optics": measured.error_estimate.optics.model_copy(update=tilt).model_dump_json(),
            "phonon_standard_error": measured.phonon_standard_error,
            "requested_method": self._method,
            "accuracy": self._accuracy,
            "optics": optics.model_dump_json(),
            "coherence": coherence.model_dump_json(),
            "parametrization": self._model.parametrization,
            "placement": self._model.placement,
            "projection": self._model.projection,
            "grid_shape_px": list(self.grid.shape_px),
            "sampling_nm": [value / 10 for value in self.grid.sampling_angstrom],
            "slice_count": self.slice_count,
            "slice_thickness_nm": self._specimen.cell_angstrom[2] / self.slice_count / 10,
            "antialias_cutoff_mrad": self.grid.cutoff_mrad(wavelength_angstrom(optics.beam_energy_ev)),
            "phonon_configurations_count": 0 if self._phonons is None else len(self._sources.specimens),
            "phonon_sigmas_nm": json.dumps(_sigmas_nm(self._phonons)),
            "device": self._on.name,
            "precision": self._on.precision,
            "aperture": self.grid.aperture_edge,
            "seed": self._seed,
        }


def _checked_coherence(coherence: Coherence | None) -> Coherence:
    if not isinstance(coherence, Coherence | None):
        raise InvalidParameter(f"coherence is a {type(coherence).__name__}; give instruments.Coherence")
    return coherence or Coherence()


def _sigmas_nm(phonons: Phonons | None) -> Any:
    if not isinstance(phonons, FrozenPhonons):
        return None
    return dict(phonons.sigmas_nm) if isinstance(phonons.sigmas_nm, Mapping) else phonons.sigmas_nm
