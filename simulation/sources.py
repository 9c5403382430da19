"""Where signals come from: every probe propagated, whole or in a window, or summed from a kept scattering matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.bloch_matrix import BlochMatrix, check_bloch_memory
from simulation.bloch_waves import BlochVectors, BlochWaves
from simulation.crystal_symmetry import Crystal
from simulation.defective_crystal import DefectiveCrystal
from simulation.detectors import Detector
from simulation.device_batches import in_batches
from simulation.difference_cost import check_difference_memory
from simulation.errors import MethodUnavailable
from simulation.incoherent import IncoherentSource
from simulation.local_difference import LocalDifferenceSource, changed_slices
from simulation.method_choice import Candidate
from simulation.multislice import Propagator, Transmissions, propagate, step_count, transmissions
from simulation.partitioned_prism import PartitionedMatrix, check_partitioned_memory
from simulation.potential import PotentialModel
from simulation.prism import ScatteringMatrix, check_memory, squared_modulus
from simulation.probe import position_phases, probe_spectrum
from simulation.progress import batches
from simulation.slices import slice_count
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid
from simulation.windowed import WindowedSource

BLURRING = ("periodic", "incoherent")
"""Methods whose signals of detectors with channels take in the size of the source."""
_BLOCH = 0
"""In the place of PRISM's interpolation."""


class Source(Protocol):
    """What turns probe positions into diffraction intensities on a grid."""

    grid: WaveGrid
    pixels: NDArray[np.int64] | None
    """Flat pixels of the grid that intensities hold; None for all."""

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Batches of (n, pixels), each with the index of its first point; they sum to 1 in vacuum."""
        ...


class SignalSource(Protocol):
    """What turns probe positions into the signals of detectors with channels, without intensities between."""

    def signals(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """(points, *detector shape) by name, fractions of the incident beam."""
        ...


class BlurringSource(Protocol):
    """A source of signals that takes in the size of the electron source at no cost."""

    def signals(
        self,
        optics: Optics,
        points_angstrom: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        source_sigma_angstrom: float = 0.0,
    ) -> dict[str, NDArray[np.float64]]:
        """As `SignalSource.signals`, averaged over a Gaussian around each point."""
        ...


class MultisliceSource:
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
        base = on.asarray(probe_spectrum(optics, self.grid).astype(on.complex_type))
        count = on.batch_count(on.complex_bytes * rows * columns)

        def seen(start: int, stop: int) -> tuple[int, Array]:
            along_y, along_x = position_phases(self.grid, points_angstrom[start:stop])
            waves = base * on.asarray(along_y.astype(on.complex_type))[:, :, None]
            waves *= on.asarray(along_x.astype(on.complex_type))[:, None, :]
            exits = propagate(waves, self._specimen, propagator, on)
            return start, on.xp.reshape(squared_modulus(on, exits), (exits.shape[0], rows * columns))

        total = len(points_angstrom)
        yield from in_batches(seen, batches(total, count, "probes"), count, total, on)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A specimen as it meets the beam: one set of transmission functions for each phonon configuration."""

    specimens: list[Specimen]
    transmissions: list[Transmissions]
    grid: WaveGrid
    specimen_tilt_mrad: tuple[float, float]
    on: Backend
    placement: str = "exact"


class Sources:
    """Sources of one specimen (and its phonon configurations), made when first asked for and kept.

    Transmission functions serve all images of one beam energy; a scattering matrix all of one energy and tilt with
    no larger aperture, parents of partitioned PRISM and local differences those of the same aperture. The oldest are
    dropped beyond the backend's working memory, but never what was made last nor the transmission functions it came
    from: a specimen larger than that memory is built once for each configuration.
    """

    def __init__(
        self, specimens: list[Specimen], grid: WaveGrid, slice_thickness_nm: float, model: PotentialModel, on: Backend
    ) -> None:
        self.specimens = specimens
        self._grid = grid
        self._slice_thickness_nm = slice_thickness_nm
        self._model = model
        self._on = on
        self._limit_bytes = on.working_bytes
        self._in_use: tuple[Any, ...] | None = None
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._crystals: dict[int, Crystal | None] = {}
        self._defective: dict[int, DefectiveCrystal | None] = {}

    def source(self, candidate: Candidate, configuration: int, optics: Optics) -> Source:
        """The source of intensities for a method, of configuration number `configuration`."""
        if candidate.method == "periodic":
            return self.bloch_matrix(configuration, optics)
        if candidate.tolerance is not None:
            return self.local_difference(configuration, optics, candidate.tolerance)
        if candidate.method == "multislice":
            return MultisliceSource(self._transmissions(configuration, optics.beam_energy_ev), self._grid, self._on)
        if candidate.method == "partitioned_prism":
            return self._partitioned_matrix(configuration, optics, candidate.interpolation)
        matrix = self.kept_matrix(configuration, optics, candidate.interpolation)
        if matrix is None:
            check_memory(optics, self._grid, candidate.interpolation, self._on)
            specimen = self._transmissions(configuration, optics.beam_energy_ev)
            matrix = ScatteringMatrix(optics, specimen, self._grid, candidate.interpolation, self._on)
            self._keep(_matrix_key(configuration, optics, candidate.interpolation), matrix)
        return matrix

    def signal_source(self, candidate: Candidate, configuration: int, optics: Optics) -> SignalSource | None:
        """The source of signals of a method that has one."""
        if candidate.method in BLURRING:
            return self.blurring_source(candidate, configuration, optics)
        if candidate.tolerance is not None:
            return self.local_difference(configuration, optics, candidate.tolerance)
        if candidate.window_px is None:
            return None
        key = ("windowed", configuration, optics.beam_energy_ev, candidate.window_px)
        kept = self._kept.get(key)
        if isinstance(kept, WindowedSource):
            return kept
        specimen = self._transmissions(configuration, optics.beam_energy_ev)
        made = WindowedSource(specimen, self._grid, candidate.window_px, self._on)
        self._drop_narrow_windows(key)
        self._keep(key, made)
        return made

    def _drop_narrow_windows(self, key: tuple[Any, ...]) -> None:
        """Those less than half as wide as a new one: their error was too large, or they were compared with others."""
        for old in [each for each in self._kept if each[:-1] == key[:-1] and 2 * each[-1][0] < key[-1][0]]:
            del self._kept[old]

    def blurring_source(self, candidate: Candidate, configuration: int, optics: Optics) -> BlurringSource:
        """Of one of the methods `BLURRING`."""
        if candidate.method == "periodic":
            return self.bloch_matrix(configuration, optics)
        sampling_nm = max(self._grid.sampling_angstrom) / 10
        edge = self._grid.aperture_edge
        return IncoherentSource(self.specimens[configuration], self._model.parametrization, sampling_nm, edge)

    def prepared(self, beam_energy_ev: float, specimen_tilt_mrad: tuple[float, float]) -> Prepared:
        """All configurations for one energy."""
        made = [self._transmissions(index, beam_energy_ev) for index in range(len(self.specimens))]
        return Prepared(self.specimens, made, self._grid, specimen_tilt_mrad, self._on, self._model.placement)

    def crystal(self, configuration: int) -> Crystal | None:
        """How a configuration repeats; None where it does not."""
        if configuration not in self._crystals:
            same_pixels = self._model.placement == "bilinear"
            specimen = self.specimens[configuration]
            self._crystals[configuration] = Crystal.of(
                specimen, self._grid, self._slice_thickness_nm, same_pixels=same_pixels
            )
        return self._crystals[configuration]

    def step_count(self) -> int:
        """Slices of the first configuration that hold potential."""
        if self._model.is_tabulated:
            return slice_count(self.specimens[0].cell_angstrom[2], self._slice_thickness_nm)
        return step_count(self._model.slices(self.specimens[0], self._slice_thickness_nm)[0].order)

    def unlike_slices(self, beam_energy_ev: float) -> tuple[int, int]:
        """Slices of the first configuration whose transmission is not known yet, and the atoms in them."""
        if ("transmissions", 0, beam_energy_ev) in self._kept:
            return (0, 0)
        if self._model.is_tabulated:
            return self.step_count(), len(self.specimens[0].numbers)
        distinct = self._model.slices(self.specimens[0], self._slice_thickness_nm)[0].distinct
        return len(distinct), sum(len(atoms.numbers) for atoms in distinct)

    def defective(self, configuration: int) -> DefectiveCrystal | None:
        """The crystal that a configuration is but for a few sites; None where it is none, or atoms are tables."""
        if configuration not in self._defective:
            found, specimen = None, self.specimens[configuration]
            if not self._model.is_tabulated:
                found = DefectiveCrystal.of(
                    specimen,
                    self._grid,
                    self._slice_thickness_nm,
                    same_pixels=self._model.placement == "bilinear",
                    reaches=self._model.reaches(specimen, self._slice_thickness_nm),
                )
            self._defective[configuration] = found
        return self._defective[configuration]

    def local_difference(self, configuration: int, optics: Optics, tolerance: float) -> LocalDifferenceSource:
        """Of a crystal with changed sites, at least as fine as `tolerance`. Raises MethodUnavailable for others."""
        key = ("local_difference", configuration, optics.beam_energy_ev, optics.tilt_x_mrad, optics.tilt_y_mrad)
        kept = self._kept.get(key)
        if isinstance(kept, LocalDifferenceSource) and kept.serves(optics, tolerance):
            return kept
        defective = self.defective(configuration)
        if defective is None:
            raise MethodUnavailable(
                "method 'local_difference' needs a crystal that repeats within the cell and differs from that at less"
                " than a fifth of its sites, without phonons, and of projection='finite' placement='exact'; repeat the"
                " unit cell (atoms * (n, m, 1)) before changing sites, or use method='multislice'"
            )
        check_bloch_memory(self._grid, optics, defective.crystal, self._on)
        check_difference_memory(defective, self._grid, optics, tolerance, self._on)
        settings = self._slice_thickness_nm, self._model, optics.beam_energy_ev, self._on
        unit = transmissions(defective.crystal.unit, defective.crystal.unit_grid, *settings)
        changed = changed_slices(defective, self.specimens[configuration], self._grid, *settings)
        made = LocalDifferenceSource(optics, defective, unit, changed, self._grid, tolerance, self._on)
        self._keep(key, made)
        return made

    def kept_bloch_matrix(self, configuration: int, optics: Optics) -> BlochMatrix | None:
        """A Bloch-wise scattering matrix that can image with these optics without propagating, if there is one."""
        kept = self._kept.get(_matrix_key(configuration, optics, _BLOCH))
        if not isinstance(kept, BlochMatrix):
            return None
        return kept if kept.semi_convergence_angle_mrad >= optics.semi_convergence_angle_mrad else None

    def bloch_matrix(self, configuration: int, optics: Optics) -> BlochMatrix:
        """The Bloch-wise scattering matrix of a perfect crystal. Raises MethodUnavailable where nothing repeats."""
        matrix = self.kept_bloch_matrix(configuration, optics)
        if matrix is not None:
            return matrix
        crystal = self.crystal(configuration)
        if crystal is None:
            raise MethodUnavailable(
                "method 'periodic' needs a crystal that repeats within the cell, without phonons or defects;"
                " repeat the unit cell (atoms * (n, m, 1)), or use method='multislice'"
            )
        check_bloch_memory(self._grid, optics, crystal, self._on)
        unit = transmissions(
            crystal.unit, crystal.unit_grid, self._slice_thickness_nm, self._model, optics.beam_energy_ev, self._on
        )
        waves = BlochWaves(optics, unit, crystal, BlochVectors(optics, crystal.repeats, self._grid), self._on)
        waves.cross(len(waves.order))
        matrix = BlochMatrix(optics, waves, self._on)
        self._keep(_matrix_key(configuration, optics, _BLOCH), matrix)
        return matrix

    def _partitioned_matrix(self, configuration: int, optics: Optics, interpolation: int) -> PartitionedMatrix:
        """Of parents of this very aperture: those of a larger one lie elsewhere, and images would differ a little."""
        aperture_mrad = optics.semi_convergence_angle_mrad
        key = ("partitioned", aperture_mrad, *_matrix_key(configuration, optics, interpolation))
        kept = self._kept.get(key)
        if isinstance(kept, PartitionedMatrix):
            return kept
        check_partitioned_memory(optics, self._grid, interpolation, self._on)
        specimen = self._transmissions(configuration, optics.beam_energy_ev)
        matrix = PartitionedMatrix(optics, specimen, self._grid, interpolation, self._on)
        self._keep(key, matrix)
        return matrix

    def kept_matrix(self, configuration: int, optics: Optics, interpolation: int) -> ScatteringMatrix | None:
        """A scattering matrix that can image with these optics without propagating, if there is one."""
        kept = self._kept.get(_matrix_key(configuration, optics, interpolation))
        if not isinstance(kept, ScatteringMatrix):
            return None
        return kept if kept.semi_convergence_angle_mrad >= optics.semi_convergence_angle_mrad else None

    def _transmissions(self, configuration: int, beam_energy_ev: float) -> Transmissions:
        key = ("transmissions", configuration, beam_energy_ev)
        kept = self._kept.get(key)
        if isinstance(kept, Transmissions):
            return kept
        self._in_use = None
        if self._kept_bytes() > self._limit_bytes:
            self._kept.clear()
        specimen = self.specimens[configuration]
        made = transmissions(specimen, self._grid, self._slice_thickness_nm, self._model, beam_energy_ev, self._on)
        self._keep(key, made)
        self._in_use = key
        return made

    def _keep(self, key: tuple[Any, ...], thing: _Kept) -> None:
        self._kept.pop(key, None)
        for oldest in [each for each in self._kept if each != self._in_use]:
            if self._kept_bytes() + thing.bytes_count <= self._limit_bytes:
                break
            del self._kept[oldest]
        self._kept[key] = thing

    def _kept_bytes(self) -> int:
        return sum(each.bytes_count for each in self._kept.values())


_Kept = Transmissions | ScatteringMatrix | PartitionedMatrix | BlochMatrix | WindowedSource | LocalDifferenceSource


def _matrix_key(configuration: int, optics: Optics, interpolation: int) -> tuple[Any, ...]:
    return ("matrix", configuration, optics.beam_energy_ev, optics.tilt_x_mrad, optics.tilt_y_mrad, interpolation)
