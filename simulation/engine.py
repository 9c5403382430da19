"""From a specimen to images: the public `simulate`, and `Simulator`, which keeps what re-imaging can use again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from instruments.optics import Coherence, Optics
from simulation.backend import Array, Backend, backend
from simulation.coherence import SourceBlur, focal_nodes
from simulation.detectors import Detector, DetectorBank, PixelatedDetector, check_detectors
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.method_choice import CHECK_POINT_COUNT, Candidate, Workload, candidates, check_method
from simulation.multislice import Propagator, Transmissions, propagate, step_count, transmissions
from simulation.phonons import FrozenPhonons, Phonons, configurations
from simulation.potential import PotentialModel
from simulation.prism import ScatteringMatrix, squared_modulus
from simulation.probe import check_aperture, position_phases, probe_spectrum
from simulation.results import dataset
from simulation.scans import GridScan, PointScan, Scan
from simulation.slices import slice_count, slices_of
from simulation.specimens import Atoms, Specimen
from simulation.wave_grid import WaveGrid

Signals = dict[str, NDArray[np.float64]]
"""Detector signals (points, *detector shape) by name, fractions of the incident beam."""
_KEPT_MEMORY_SHARE = 0.4


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
    seed: int = 0,
) -> xr.Dataset:
    """Image a specimen: one float32 variable a detector, in fractions of the incident beam.

    `atoms`: `ase.Atoms` or anything with its `numbers positions cell`, angstrom, orthogonal periodic cell, beam
    along +z. The wave grid has ceil(cell / sampling) pixels a side, FFT-friendly upwards unless `grid_shape_px`
    fixes it, and ceil(depth / slice_thickness) equal slices. `interpolation` is PRISM's factor. `accuracy` bounds
    the error that `method="auto"` accepts, as rms difference from multislice over the image's standard deviation.
    `coherence` blurs by source size (`GridScan` only) and averages over focal spread. Attributes of the result say
    which method was used, its estimated error, and every parameter.
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
        seed=seed,
    )
    return simulator.image(optics, scan, detectors)


class Simulator:
    """A specimen ready to be imaged many times; arguments as for `simulate`.

    Transmission functions are kept between images of one beam energy, scattering matrices between images of one
    energy and tilt whose aperture is no larger: with `method="prism"` another defocus, aberration, scan or detector
    propagates nothing. What is kept is dropped, oldest first, beyond 40 % of the memory free at the start.
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
        seed: int = 0,
    ) -> None:
        """Check everything that does not depend on optics, scan or detectors."""
        check_method(method, interpolation, accuracy)
        self._model = PotentialModel(parametrization, placement, projection)
        self._specimen = Specimen.of(atoms)
        width, height, depth = self._specimen.cell_angstrom
        self.grid = WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px)
        self.slice_count = slice_count(depth, slice_thickness_nm)
        self._slice_thickness_nm = slice_thickness_nm
        self._method, self._interpolation, self._accuracy = method, int(interpolation), accuracy
        self._coherence = coherence or Coherence()
        self._phonons, self._seed = phonons, seed
        self._configurations = configurations(self._specimen, phonons, seed)
        self._on = backend(device)
        self._kept = _Kept(int(_KEPT_MEMORY_SHARE * self._on.memory_bytes))

    def image(
        self, optics: Optics, scan: Scan, detectors: Mapping[str, Detector], *, coherence: Coherence | None = None
    ) -> xr.Dataset:
        """One exposure on all detectors; `coherence` overrides the simulator's."""
        coherence = coherence or self._coherence
        clipped = self._check(optics, scan, detectors)
        blur = self._blur(scan, coherence)
        wide = scan if blur is None else blur.scan
        nodes = focal_nodes(optics, coherence.focal_spread_nm)
        points = wide.points_angstrom()
        candidate, error, signals, deviation = self._measure(nodes, points, detectors)
        shaped = {name: values.reshape(*wide.shape, *values.shape[1:]) for name, values in signals.items()}
        if blur is not None:
            shaped = {name: blur.apply(values) for name, values in shaped.items()}
        attributes = self._attributes(optics, coherence, candidate) | {
            "error_estimate": error,
            "clipped_outer_mrad": json.dumps(clipped),
            "phonon_standard_error": deviation,
        }
        return dataset(shaped, scan, detectors, self._axes_mrad(candidate, optics, detectors), attributes)

    def diffraction(
        self,
        optics: Optics,
        points_nm: ArrayLike,
        *,
        max_angle_mrad: float | None = None,
        coherence: Coherence | None = None,
    ) -> xr.DataArray:
        """Diffraction patterns (point, detector_y, detector_x) at (n, 2) probe positions (x, y)."""
        detector = PixelatedDetector(max_angle_mrad=max_angle_mrad)
        coherence = coherence or self._coherence.model_copy(update={"source_size_nm": 0.0})
        return self.image(optics, PointScan(points_nm), {"diffraction": detector}, coherence=coherence)["diffraction"]

    def _check(self, optics: Optics, scan: Scan, detectors: Mapping[str, Detector]) -> dict[str, float]:
        if not isinstance(optics, Optics):
            raise InvalidParameter(f"optics is a {type(optics).__name__}; give instruments.Optics")
        if not isinstance(scan, GridScan | PointScan):
            raise InvalidParameter(f"scan is a {type(scan).__name__}; give a GridScan or a PointScan")
        check_aperture(optics, self.grid.cutoff_per_angstrom)
        return check_detectors(detectors, self.grid.cutoff_mrad(wavelength_angstrom(optics.beam_energy_ev)))

    def _blur(self, scan: Scan, coherence: Coherence) -> SourceBlur | None:
        if coherence.source_size_nm == 0:
            return None
        if not isinstance(scan, GridScan):
            raise InvalidParameter(
                f"a source size of {coherence.source_size_nm:g} nm needs a GridScan; points have no neighbours to blur"
            )
        return SourceBlur(scan, coherence.source_size_nm, self._configurations[0])

    def _measure(
        self, nodes: list[tuple[Optics, float]], points: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> tuple[Candidate, float, Signals, float]:
        """The method used, its estimated error, the mean signals, and the standard error from frozen phonons."""
        tried = self._candidates(nodes[0][0], len(points) * len(nodes))
        for candidate in tried:
            signals, deviation = self._mean_signals(candidate, nodes, points, detectors)
            error = 0.0
            if not candidate.is_exact:
                error = self._error_estimate(candidate, nodes[len(nodes) // 2][0], points, detectors, signals)
            if len(tried) == 1 or error <= self._accuracy:
                return candidate, error, signals, deviation
        raise AssertionError("the list of candidates ends with an exact method")

    def _candidates(self, optics: Optics, probe_count: int) -> list[Candidate]:
        if self._method != "auto":
            return [Candidate(self._method, self._interpolation if self._method == "prism" else 1, 0.0)]
        steps = step_count(slices_of(self._configurations[0], self._slice_thickness_nm).order)
        workload = Workload(
            self.grid, optics, max(1, steps), probe_count, self._on.memory_bytes // len(self._configurations)
        )
        kept = frozenset(f for f in (1, 2, 4) if self._kept_matrix(0, optics, f) is not None)
        return candidates(workload, kept)

    def _mean_signals(
        self,
        candidate: Candidate,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> tuple[Signals, float]:
        """Average over configurations; and the largest over detectors of the mean's standard error over its spread."""
        runs: list[Signals] = []
        for index in range(len(self._configurations)):
            runs.append(self._signals(candidate, index, nodes, points, detectors))
        stacks = {name: np.stack([run[name] for run in runs]) for name in detectors}
        mean = {name: stack.mean(axis=0) for name, stack in stacks.items()}
        if len(runs) == 1:
            return mean, 0.0
        ratios = [
            np.sqrt(np.mean(stack.var(axis=0, ddof=1)) / len(runs)) / spread_of(mean[name])
            for name, stack in stacks.items()
        ]
        return mean, float(max(ratios))

    def _signals(
        self,
        candidate: Candidate,
        configuration: int,
        nodes: list[tuple[Optics, float]],
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
    ) -> Signals:
        """One configuration, averaged over the focal spread."""
        source = self._source(candidate, configuration, nodes[0][0])
        bank = self._bank(source.grid, nodes[0][0], detectors, source.pixels)
        total: Signals = {}
        for optics, weight in nodes:
            parts = [bank.measure(intensity) for _, intensity in source.intensities(optics, points)]
            for name in detectors:
                values = np.concatenate([self._on.to_numpy(part[name]) for part in parts]).astype(np.float64)
                total[name] = total.get(name, 0.0) + weight * values
        return total

    def _bank(
        self, grid: WaveGrid, optics: Optics, detectors: Mapping[str, Detector], pixels: NDArray[np.int64] | None
    ) -> DetectorBank:
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        return DetectorBank(detectors, grid, wavelength, self.grid.cutoff_mrad(wavelength), self._on, pixels)

    def _axes_mrad(
        self, candidate: Candidate, optics: Optics, detectors: Mapping[str, Detector]
    ) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        pixelated = {name: each for name, each in detectors.items() if isinstance(each, PixelatedDetector)}
        if not pixelated:
            return {}
        source = self._source(candidate, 0, optics)
        bank = self._bank(source.grid, optics, pixelated, source.pixels)
        return {name: axes for name in pixelated if (axes := bank.angles_mrad(name)) is not None}

    def _source(self, candidate: Candidate, configuration: int, optics: Optics) -> _Source:
        if candidate.method == "multislice":
            return _MultisliceSource(self._transmissions(configuration, optics.beam_energy_ev), self.grid, self._on)
        return self._matrix(configuration, optics, candidate.interpolation)

    def _transmissions(self, configuration: int, beam_energy_ev: float) -> Transmissions:
        key = ("transmissions", configuration, beam_energy_ev)
        kept = self._kept.get(key)
        if isinstance(kept, Transmissions):
            return kept
        specimen = self._configurations[configuration]
        made = transmissions(specimen, self.grid, self._slice_thickness_nm, self._model, beam_energy_ev, self._on)
        self._kept.put(key, made, made.bytes_count)
        return made

    def _kept_matrix(self, configuration: int, optics: Optics, interpolation: int) -> ScatteringMatrix | None:
        kept = self._kept.get(_matrix_key(configuration, optics, interpolation))
        if isinstance(kept, ScatteringMatrix) and kept.semi_convergence_angle_mrad >= optics.semi_convergence_angle_mrad:
            return kept
        return None

    def _matrix(self, configuration: int, optics: Optics, interpolation: int) -> ScatteringMatrix:
        kept = self._kept_matrix(configuration, optics, interpolation)
        if kept is not None:
            return kept
        specimen = self._transmissions(configuration, optics.beam_energy_ev)
        made = ScatteringMatrix(optics, specimen, self.grid, interpolation, self._on)
        self._kept.put(_matrix_key(configuration, optics, interpolation), made, made.bytes_count)
        return made

    def _error_estimate(
        self,
        candidate: Candidate,
        optics: Optics,
        points: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        image: Signals,
    ) -> float:
        """Rms difference from multislice on a few probes, over the spread of the image; the worst detector."""
        count = min(CHECK_POINT_COUNT, len(points))
        chosen = points[np.random.default_rng([self._seed, 77]).choice(len(points), count, replace=False)]
        scalar = {name: each for name, each in detectors.items() if not isinstance(each, PixelatedDetector)}
        compared = scalar or dict(detectors)
        if not scalar and candidate.method == "prism":
            return float("nan")
        reference = self._signals(Candidate("multislice", 1, 0.0), 0, [(optics, 1.0)], chosen, compared)
        own = self._signals(candidate, 0, [(optics, 1.0)], chosen, compared)
        return max(float(np.sqrt(np.mean((own[name] - reference[name]) ** 2)) / spread_of(image[name])) for name in compared)

    def _attributes(self, optics: Optics, coherence: Coherence, candidate: Candidate) -> dict[str, Any]:
        return {
            "method": candidate.method,
            "interpolation": candidate.interpolation,
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
            "phonon_configurations_count": len(self._configurations) if self._phonons is not None else 0,
            "phonon_sigmas_nm": json.dumps(_sigmas(self._phonons)),
            "device": self._on.name,
            "seed": self._seed,
        }


def spread_of(values: NDArray[np.float64]) -> float:
    """Standard deviation, or the mean where nothing varies; never zero."""
    spread = float(np.std(values)) or float(np.mean(np.abs(values)))
    return spread or 1.0


class _Source(Protocol):
    """What turns probe positions into diffraction intensities on a grid."""

    @property
    def grid(self) -> WaveGrid:
        """Grid of the diffraction plane."""

    @property
    def pixels(self) -> NDArray[np.int64] | None:
        """Flat pixels that intensities hold; None for all."""

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Batches of (n, pixels), each with the index of its first point."""


class _MultisliceSource:
    """Every probe is propagated."""

    def __init__(self, specimen: Transmissions, grid: WaveGrid, on: Backend) -> None:
        self._specimen = specimen
        self._on = on
        self.grid = grid
        self.pixels: NDArray[np.int64] | None = None

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        on, (rows, columns) = self._on, self.grid.shape_px
        propagator = Propagator(optics, self.grid, self._specimen.thickness_angstrom, on)
        base = on.asarray(probe_spectrum(optics, self.grid).astype(np.complex64))
        count = on.batch_count(8 * rows * columns)
        for start in range(0, len(points_angstrom), count):
            along_y, along_x = position_phases(self.grid, points_angstrom[start : start + count])
            shift_y = on.asarray(along_y.astype(np.complex64))[:, :, None]
            shift_x = on.asarray(along_x.astype(np.complex64))[:, None, :]
            exits = propagate(base * shift_y * shift_x, self._specimen, propagator, on)
            yield start, on.xp.reshape(squared_modulus(on, exits), (exits.shape[0], rows * columns))


class _Kept:
    """Things worth keeping, up to a number of bytes; the oldest go first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._things: dict[tuple[Any, ...], tuple[object, int]] = {}

    def get(self, key: tuple[Any, ...]) -> object | None:
        """The thing, or None."""
        kept = self._things.get(key)
        return None if kept is None else kept[0]

    def put(self, key: tuple[Any, ...], thing: object, bytes_count: int) -> None:
        """Keep it if it fits at all."""
        self._things.pop(key, None)
        if bytes_count > self._limit_bytes:
            return
        while self._things and sum(size for _, size in self._things.values()) + bytes_count > self._limit_bytes:
            del self._things[next(iter(self._things))]
        self._things[key] = (thing, bytes_count)


def _matrix_key(configuration: int, optics: Optics, interpolation: int) -> tuple[Any, ...]:
    return ("matrix", configuration, optics.beam_energy_ev, optics.tilt_x_mrad, optics.tilt_y_mrad, interpolation)


def _sigmas(phonons: Phonons | None) -> Any:
    if not isinstance(phonons, FrozenPhonons):
        return None
    return dict(phonons.sigmas_nm) if isinstance(phonons.sigmas_nm, Mapping) else phonons.sigmas_nm
