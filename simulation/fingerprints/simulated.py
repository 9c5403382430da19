"""Fingerprints of one candidate, one tilt at a time: what can be shared between thicknesses is propagated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import backend
from simulation.bloch_matrix import BlochMatrix
from simulation.bloch_waves import BlochVectors, BlochWaves
from simulation.coherence import FWHM_PER_SIGMA, focal_nodes, is_period
from simulation.crystal_symmetry import Crystal
from simulation.detectors import Detector, DetectorBank, PixelatedDetector, detector_shape
from simulation.electron import wavelength_angstrom
from simulation.engine import Simulator
from simulation.error_check import Signals
from simulation.errors import InvalidParameter
from simulation.fingerprints.average_patterns import position_averaged_patterns, rebinned
from simulation.fingerprints.depth_series import detector_bank, joined, signals_at_depths
from simulation.fingerprints.settings import LibrarySettings
from simulation.fingerprints.spectra import edge_spectra
from simulation.fingerprints.stack import Stack
from simulation.fingerprints.storage import Arrays
from simulation.multislice import Transmissions, transmissions
from simulation.phonons import configurations
from simulation.potential import PotentialModel
from simulation.source_blur import SourceBlur
from simulation.specimen_tilt import seen_from_specimen
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

Points = NDArray[np.float64]
Detectors = Mapping[str, Detector]
Seen = tuple[list[Signals], DetectorBank | None]
Signalling = Callable[[Optics, Points, Detectors], Seen]
"""Signals (points, *detector shape) by name at each of some depths, and the bank that knows the angles."""
Imaging = Callable[[Optics], list[Signals]]
"""Signals (points, *detector shape) of the image's pixels, blurred by the source, at each of some depths."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Arrays of one thickness (index of the stack's cuts) and defocus, and notes on how they were made."""

    cut_index: int
    defocus_nm: float
    arrays: Arrays
    notes: dict[str, Any]


class CandidateSimulation:
    """Everything of one candidate: arrays come thickness by thickness."""

    def __init__(self, stack: Stack, settings: LibrarySettings, device: str = "auto") -> None:
        """Nothing is propagated yet."""
        self._stack, self._settings, self._device = stack, settings, device
        self._on = backend(device)
        self._model = PotentialModel(settings.parametrization)

    def fingerprints(self, tilt_mrad: tuple[float, float]) -> Iterator[Simulated]:
        """Every thickness and defocus at one tilt."""
        settings, stack = self._settings, self._stack
        optics = seen_from_specimen(settings.optics, tilt_mrad)
        patterns = self._average_patterns(optics)
        spectra = None if settings.spectrum is None else edge_spectra(settings.spectrum, stack, optics)
        for index, defocus_nm, found, notes in self._scanned(optics):
            arrays = dict(found)
            if patterns is not None:
                arrays["pattern"] = patterns[index]
            if spectra is not None:
                arrays["spectrum"] = spectra[index]
            yield Simulated(index, defocus_nm, arrays, notes)

    def periodic_field(self) -> tuple[bool, bool]:
        """Whether the image field is a whole period of the structure along (y, x)."""
        images, specimen = self._settings.images, self._stack.specimen
        if images is None:
            return False, False
        height, width = images.scan.height_nm * 10, images.scan.width_nm * 10
        return is_period(specimen, 1, height), is_period(specimen, 0, width)

    def _specimens(self) -> list[Specimen]:
        return configurations(self._stack.specimen, self._settings.phonons, self._settings.phonon_seed)

    def _average_patterns(self, optics: Optics) -> NDArray[np.float64] | None:
        """(cuts, rows, columns), None where none are asked for."""
        pattern = self._settings.pattern
        if pattern is None or pattern.points_nm:
            return None
        specimens = self._specimens()
        total = sum(
            position_averaged_patterns(
                specimen,
                self._stack.slice_thickness_nm,
                self._stack.cuts,
                optics,
                step_mrad=pattern.step_mrad,
                shape_px=pattern.shape_px,
                sampling_nm=self._settings.sampling_nm,
                model=self._model,
                on=self._on,
            )
            for specimen in specimens
        )
        return np.asarray(total) / len(specimens)

    def _scanned(self, optics: Optics) -> Iterator[tuple[int, float, Arrays, dict[str, Any]]]:
        """Images, and patterns at points, of every thickness and defocus."""
        settings, cuts = self._settings, self._stack.cuts
        points = () if settings.pattern is None else settings.pattern.points_nm
        if settings.images is None and not points:
            for index in range(len(cuts)):
                yield from ((index, defocus_nm, {}, {}) for defocus_nm in settings.defoci_nm)
        elif len(cuts) == 1:
            yield from self._by_simulator(optics)
        elif (crystal := self._crystal()) is not None:
            yield from self._by_bloch_waves(crystal, optics)
        else:
            yield from self._by_probes(optics)

    @property
    def _grid(self) -> WaveGrid:
        width, height, _ = self._stack.specimen.cell_angstrom
        return WaveGrid.for_cell(width, height, self._settings.sampling_nm, None)

    def _crystal(self) -> Crystal | None:
        if self._settings.phonons is not None:
            return None
        return Crystal.of(self._stack.specimen, self._grid, self._stack.slice_thickness_nm)

    def _transmissions(self, specimen: Specimen, grid: WaveGrid) -> Transmissions:
        energy_ev = self._settings.optics.beam_energy_ev
        return transmissions(specimen, grid, self._stack.slice_thickness_nm, self._model, energy_ev, self._on)

    def _by_simulator(self, optics: Optics) -> Iterator[tuple[int, float, Arrays, dict[str, Any]]]:
        """One thickness only: what the simulator keeps serves every defocus."""
        settings, stack = self._settings, self._stack
        simulator = Simulator(
            stack.atoms(stack.cuts[0]),
            method=settings.method,
            sampling_nm=settings.sampling_nm,
            slice_thickness_nm=stack.slice_thickness_nm,
            parametrization=settings.parametrization,
            coherence=settings.coherence,
            phonons=settings.phonons,
            accuracy=settings.accuracy,
            device=self._device,
            seed=settings.phonon_seed,
        )
        for defocus_nm in settings.defoci_nm:
            focused = optics.model_copy(update={"defocus_nm": defocus_nm})
            arrays: Arrays = {}
            notes: dict[str, Any] = {}
            if settings.images is not None:
                images = simulator.image(focused, settings.images.scan, dict(settings.images.detectors))
                arrays |= {f"image.{name}": images[name].values.astype(np.float64) for name in images.data_vars}
                error = float(images.attrs["error_estimate"])
                notes = {"method": images.attrs["method"], "error_estimate": error if np.isfinite(error) else None}
            if settings.pattern is not None and settings.pattern.points_nm:
                seen = simulator.diffraction(focused, settings.pattern.points_nm, max_angle_mrad=self._reach_mrad())
                axes = seen["detector_y"].values, seen["detector_x"].values
                arrays["pattern"] = self._rebinned(seen.values.astype(np.float64), axes)
            yield 0, defocus_nm, arrays, notes

    def _by_bloch_waves(self, crystal: Crystal, optics: Optics) -> Iterator[tuple[int, float, Arrays, dict[str, Any]]]:
        """Perfect crystals: plane waves go from thickness to thickness, images are made of them at each."""
        unit, grid = self._transmissions(crystal.unit, crystal.unit_grid), self._grid
        waves = BlochWaves(optics, unit, crystal, BlochVectors(optics, crystal.repeats, grid), self._on)
        for index, cut in enumerate(self._stack.cuts):
            waves.cross(cut)
            matrix = BlochMatrix(optics, waves, self._on)

            def signals(focused: Optics, points: Points, detectors: Detectors, matrix: BlochMatrix = matrix) -> Seen:
                bank = detector_bank(detectors, grid, focused, self._on, matrix.pixels)
                parts = [bank.measure(intensity) for _, intensity in matrix.intensities(focused, points)]
                return [joined(parts, self._on)], bank

            def images(focused: Optics, matrix: BlochMatrix = matrix) -> list[Signals]:
                asked = self._settings.images
                if asked is None:
                    return [{}]
                sigma = 10 * self._settings.coherence.source_size_nm / FWHM_PER_SIGMA
                return [matrix.signals(focused, asked.scan.points_angstrom(), dict(asked.detectors), sigma)]

            for defocus_nm in self._settings.defoci_nm:
                focused = optics.model_copy(update={"defocus_nm": defocus_nm})
                yield index, defocus_nm, self._exposed(images, signals, focused, 1)[0], {"method": "periodic"}

    def _by_probes(self, optics: Optics) -> Iterator[tuple[int, float, Arrays, dict[str, Any]]]:
        """Anything else: each probe by multislice, looked at on its way."""
        grid, cuts = self._grid, self._stack.cuts
        functions = [self._transmissions(each, grid) for each in self._specimens()]
        for defocus_nm in self._settings.defoci_nm:
            focused = optics.model_copy(update={"defocus_nm": defocus_nm})
            runs: list[list[Arrays]] = []
            for own in functions:

                def signals(node: Optics, points: Points, detectors: Detectors, own: Transmissions = own) -> Seen:
                    return signals_at_depths(own, grid, cuts, node, points, detectors, self._on)

                def images(node: Optics, signals: Signalling = signals) -> list[Signals]:
                    return self._added_up(signals, node, len(cuts))

                runs.append(self._exposed(images, signals, focused, len(cuts)))
            for index in range(len(cuts)):
                mean = {name: np.mean([run[index][name] for run in runs], axis=0) for name in runs[0][index]}
                yield index, defocus_nm, mean, {"method": "multislice"}

    def _added_up(self, signals: Signalling, optics: Optics, depth_count: int) -> list[Signals]:
        """The image from probes, those between the pixels that a source takes included."""
        images, source_size_nm = self._settings.images, self._settings.coherence.source_size_nm
        if images is None:
            return [{} for _ in range(depth_count)]
        blur = SourceBlur(images.scan, source_size_nm, optics, self._stack.specimen)
        sums = [
            {name: blur.sums(detector_shape(detector)) for name, detector in images.detectors.items()}
            for _ in range(depth_count)
        ]
        for start, points in blur.strips():
            for depth, seen in zip(sums, signals(optics, points, dict(images.detectors))[0], strict=True):
                for name, values in seen.items():
                    depth[name].add(start, values)
        return [{name: each.image() for name, each in depth.items()} for depth in sums]

    def _exposed(self, images: Imaging, signals: Signalling, optics: Optics, depth_count: int) -> list[Arrays]:
        """Averaged over the focal spread, for each of the depths that `images` and `signals` give."""
        found: list[Arrays] = [{} for _ in range(depth_count)]
        asked, pattern = self._settings.images, self._settings.pattern
        nodes = focal_nodes(optics, self._settings.coherence.focal_spread_nm)
        if asked is not None:
            runs = [(images(node), weight) for node, weight in nodes]
            for index, arrays in enumerate(found):
                for name in asked.detectors:
                    values = np.asarray(sum(weight * run[index][name] for run, weight in runs))
                    shape = detector_shape(asked.detectors[name])
                    arrays[f"image.{name}"] = values.reshape(*asked.scan.shape, *shape)
        if pattern is not None and pattern.points_nm:
            points = np.asarray(pattern.points_nm, np.float64) * 10
            camera = PixelatedDetector(max_angle_mrad=self._reach_mrad())
            for node, weight in nodes:
                run, bank = signals(node, points, {"pattern": camera})
                for index, arrays in enumerate(found):
                    seen = self._rebinned(run[index]["pattern"], bank.angles_mrad("pattern") if bank else None)
                    arrays["pattern"] = arrays.get("pattern", np.zeros(seen.shape)) + weight * seen
        return found

    def _reach_mrad(self) -> float:
        """The detector's edge and a pixel of the wave's own more."""
        pattern = self._settings.pattern
        if pattern is None:
            return 0.0
        wavelength = wavelength_angstrom(self._settings.optics.beam_energy_ev)
        return max(pattern.shape_px) / 2 * pattern.step_mrad + 1e3 * wavelength / min(self._grid.extent_angstrom)

    def _rebinned(
        self, patterns: NDArray[np.float64], axes_mrad: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    ) -> NDArray[np.float64]:
        pattern = self._settings.pattern
        if pattern is None or axes_mrad is None:
            raise InvalidParameter("patterns need a pixelated detector")
        return rebinned(patterns, *axes_mrad, pattern.step_mrad, pattern.shape_px)
