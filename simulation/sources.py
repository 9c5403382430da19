"""Where diffraction intensities come from: every probe propagated, or summed from a kept scattering matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.method_choice import Candidate
from simulation.multislice import Propagator, Transmissions, propagate, transmissions
from simulation.potential import PotentialModel
from simulation.prism import ScatteringMatrix, check_memory, squared_modulus
from simulation.probe import position_phases, probe_spectrum
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_KEPT_MEMORY_SHARE = 0.4


class Source(Protocol):
    """What turns probe positions into diffraction intensities on a grid."""

    grid: WaveGrid
    pixels: NDArray[np.int64] | None
    """Flat pixels of the grid that intensities hold; None for all."""

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Batches of (n, pixels), each with the index of its first point; they sum to 1 in vacuum."""
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
        base = on.asarray(probe_spectrum(optics, self.grid).astype(np.complex64))
        count = on.batch_count(8 * rows * columns)
        for start in range(0, len(points_angstrom), count):
            along_y, along_x = position_phases(self.grid, points_angstrom[start : start + count])
            shift_y = on.asarray(along_y.astype(np.complex64))[:, :, None]
            shift_x = on.asarray(along_x.astype(np.complex64))[:, None, :]
            exits = propagate(base * shift_y * shift_x, self._specimen, propagator, on)
            yield start, on.xp.reshape(squared_modulus(on, exits), (exits.shape[0], rows * columns))


class Sources:
    """Sources of one specimen (and its phonon configurations), made when first asked for and kept.

    Transmission functions serve all images of one beam energy; a scattering matrix all of one energy and tilt with
    no larger aperture. The oldest are dropped beyond 40 % of the memory that was free at the start.
    """

    def __init__(
        self, specimens: list[Specimen], grid: WaveGrid, slice_thickness_nm: float, model: PotentialModel, on: Backend
    ) -> None:
        self.specimens = specimens
        self._grid = grid
        self._slice_thickness_nm = slice_thickness_nm
        self._model = model
        self._on = on
        self._limit_bytes = int(_KEPT_MEMORY_SHARE * on.memory_bytes)
        self._kept: dict[tuple[Any, ...], Transmissions | ScatteringMatrix] = {}

    def source(self, candidate: Candidate, configuration: int, optics: Optics) -> Source:
        """The source for a method, of configuration number `configuration`."""
        if candidate.method == "multislice":
            return MultisliceSource(self._transmissions(configuration, optics.beam_energy_ev), self._grid, self._on)
        matrix = self.kept_matrix(configuration, optics, candidate.interpolation)
        if matrix is None:
            check_memory(optics, self._grid, candidate.interpolation, self._on)
            specimen = self._transmissions(configuration, optics.beam_energy_ev)
            matrix = ScatteringMatrix(optics, specimen, self._grid, candidate.interpolation, self._on)
            self._keep(_matrix_key(configuration, optics, candidate.interpolation), matrix)
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
        specimen = self.specimens[configuration]
        made = transmissions(specimen, self._grid, self._slice_thickness_nm, self._model, beam_energy_ev, self._on)
        self._keep(key, made)
        return made

    def _keep(self, key: tuple[Any, ...], thing: Transmissions | ScatteringMatrix) -> None:
        self._kept.pop(key, None)
        if thing.bytes_count > self._limit_bytes:
            return
        while (
            self._kept and sum(each.bytes_count for each in self._kept.values()) + thing.bytes_count > self._limit_bytes
        ):
            del self._kept[next(iter(self._kept))]
        self._kept[key] = thing


def _matrix_key(configuration: int, optics: Optics, interpolation: int) -> tuple[Any, ...]:
    return ("matrix", configuration, optics.beam_energy_ev, optics.tilt_x_mrad, optics.tilt_y_mrad, interpolation)
