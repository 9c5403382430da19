"""Images of a crystal with changed sites: the perfect crystal's, and the difference that the changed sites make.

With psi the exit wave of the perfect crystal and delta what the changed sites add, a detector sees
|psi|^2 + 2 Re conj(psi) delta + |delta|^2. The first is a Fourier series (`bloch_matrix`); delta is a sum over a few
waves (`difference_waves`), so the others are products of small matrices kept for each detector. Nothing is linearised
and nothing cut off in space: the only error beyond rounding is in the waves left out, and images made without the
weakest of those kept say how large it is. Another probe, scan or detector propagates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.bloch_matrix import BlochMatrix
from simulation.bloch_waves import BlochVectors, BlochWaves
from simulation.defective_crystal import DefectiveCrystal
from simulation.detectors import AnnularDetector, Detector, PixelatedDetector, SegmentedDetector, channel_masks
from simulation.device_batches import in_batches
from simulation.difference_waves import LARGEST_TOLERANCE, SMALLEST_TOLERANCE, DifferenceWaves
from simulation.electron import wavelength_angstrom
from simulation.multislice import Transmissions, transmissions
from simulation.potential import PotentialModel
from simulation.progress import batches, steps
from simulation.slices import EMPTY
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_POINTS_PER_BLOCK = 512
_COARSER = (2.0, 4.0)
"""The error is judged by leaving out so many times more amplitude."""
_KEPT_DETECTORS_COUNT = 8
_TINY = 1e-30

Products = list[tuple[Array, Array]]
"""For each channel: psi with delta, (plane waves, waves), and delta with delta, (waves, waves)."""


class LocalDifferenceSource:
    """Signals and diffraction patterns of a crystal with changed sites."""

    def __init__(
        self,
        optics: Optics,
        defective: DefectiveCrystal,
        unit: Transmissions,
        changed: tuple[Transmissions, Transmissions],
        grid: WaveGrid,
        tolerance: float,
        on: Backend,
    ) -> None:
        """`unit` is one unit cell of the crystal; `changed` the slices that differ, as they are and as they were.

        `tolerance` is the amplitude left out of the sources; `optics` gives energy, tilt and the largest aperture.
        """
        self._on, self.grid = on, grid
        self.tolerance = min(max(tolerance, SMALLEST_TOLERANCE[on.precision]), LARGEST_TOLERANCE)
        self.semi_convergence_angle_mrad = optics.semi_convergence_angle_mrad
        self._wavelength = wavelength_angstrom(optics.beam_energy_ev)
        vectors = BlochVectors(optics, defective.crystal.repeats, grid, every=True)
        waves = BlochWaves(optics, unit, defective.crystal, vectors, on)
        differences = DifferenceWaves(waves, self.tolerance, on)
        powers = {depth: _power(changed, depth, on) for depth in defective.slices}
        largest = max(powers.values(), default=0.0) or 1.0
        for depth in steps(defective.slices, "changed slices"):
            differences.cross(depth)
            now, before = (_at(slices, depth, on) for slices in changed)
            differences.meet(now, before, max(powers[depth] / largest, _TINY))
        differences.cross(len(unit.order))
        self._matrix = BlochMatrix(optics, waves, on)
        self._exits = differences.exits
        self._shares = on.asarray(differences.amplitudes)
        self._counts = differences.wave_count, *(differences.leading_count(factor) for factor in _COARSER)
        self.pixels: NDArray[np.int64] | None = vectors.pixels
        self._products: dict[Detector, Products] = {}
        self._known: tuple[Any, dict[str, NDArray[np.float64]]] | None = None

    def serves(self, optics: Optics, tolerance: float) -> bool:
        """Whether it is fine enough, for its own aperture: that of a larger one has left out other waves."""
        fine = self.tolerance <= max(tolerance, SMALLEST_TOLERANCE[self._on.precision])
        return fine and self.semi_convergence_angle_mrad == optics.semi_convergence_angle_mrad

    @property
    def wave_count(self) -> int:
        """Waves that the differences are summed from."""
        return int(self._exits.shape[0])

    @property
    def bytes_count(self) -> int:
        """Memory of matrix and waves."""
        return self._matrix.bytes_count + int(self._exits.nbytes) + int(self._shares.nbytes)

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        on, xp, vectors = self._on, self._on.xp, self._matrix.vectors
        count = on.batch_count(2 * on.complex_bytes * len(vectors.pixels))

        def seen(start: int, stop: int) -> tuple[int, Array]:
            amplitudes = on.asarray(self._matrix.amplitudes(optics, points_angstrom[start:stop]))
            perfect = [
                xp.matmul(xp.take(amplitudes, on.asarray(rows), axis=1), part)
                for rows, part in zip(vectors.rows, self._matrix.parts, strict=True)
            ]
            own = xp.matmul(amplitudes, xp.matrix_transpose(self._shares))
            found = xp.concat(perfect, axis=1) + xp.matmul(own, self._exits)
            return start, on.fused.intensity(found)

        starts, total = batches(len(points_angstrom), count, "probes"), len(points_angstrom)
        yield from in_batches(seen, starts, count, total, replace(on, threads=1))

    def signals(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape) of detectors with channels, fractions of the incident beam."""
        perfect = self._matrix.signals(optics, points_angstrom, detectors)
        fine = self.differences(optics, points_angstrom, detectors)
        return {name: perfect[name] + fine[name].reshape(perfect[name].shape) for name in detectors}

    def differences(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """What the changed sites add, (points, channels)."""
        return {name: made[0] for name, made in self._differences(optics, points_angstrom, detectors).items()}

    def doubts(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """By how much signals (points, channels) change when more is left out of the waves, for twice as much.

        The larger of two: when twice as much is left out, and half the change when four times as much is.
        """
        doubts: dict[str, NDArray[np.float64]] = {}
        for name, (fine, *coarser) in self._differences(optics, points_angstrom, detectors).items():
            changes = [
                np.abs(fine - each) * _COARSER[0] / factor for each, factor in zip(coarser, _COARSER, strict=True)
            ]
            doubts[name] = np.max(changes, axis=0)
        return doubts

    def _differences(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """With all waves and with fewer and fewer of the strongest, (counts, points, channels); the last are kept."""
        key = (optics, points_angstrom.tobytes(), tuple(detectors.items()))
        if self._known is not None and self._known[0] == key:
            return self._known[1]
        products = {name: self._products_of(detector) for name, detector in detectors.items()}
        sizes = {name: (len(self._counts), len(points_angstrom), len(each)) for name, each in products.items()}
        found = {name: np.zeros(size) for name, size in sizes.items()}
        if self.wave_count:
            for start in range(0, len(points_angstrom), _POINTS_PER_BLOCK):
                block = slice(start, start + _POINTS_PER_BLOCK)
                amplitudes = self._on.asarray(self._matrix.amplitudes(optics, points_angstrom[block]))
                own = self._on.xp.matmul(amplitudes, self._on.xp.matrix_transpose(self._shares))
                for name, channels in products.items():
                    for channel, product in enumerate(channels):
                        for i, values in enumerate(self._seen(amplitudes, own, product)):
                            found[name][i, block, channel] = values
        self._known = (key, found)
        return found

    def _seen(self, amplitudes: Array, own: Array, product: tuple[Array, Array]) -> Iterator[NDArray[np.float64]]:
        """2 Re conj(psi) delta + |delta|^2 on one channel, from all waves and from fewer."""
        xp, (mixed, squared) = self._on.xp, product
        toward = 2 * xp.matmul(xp.conj(amplitudes), mixed)
        for count in self._counts:
            part = own[:, :count]
            total = toward[:, :count] + xp.matmul(xp.conj(part), squared[:count, :count])
            yield self._on.to_numpy(xp.sum(xp.real(total * part), axis=1)).astype(np.float64)

    def _products_of(self, detector: Detector) -> Products:
        """Kept for the last detectors."""
        if isinstance(detector, PixelatedDetector):
            raise TypeError("detectors with pixels are measured from intensities")
        if detector not in self._products:
            while len(self._products) >= _KEPT_DETECTORS_COUNT:
                del self._products[next(iter(self._products))]
            self._products[detector] = self._made(detector)
        return self._products[detector]

    def _made(self, detector: AnnularDetector | SegmentedDetector) -> Products:
        on, xp, vectors = self._on, self._on.xp, self._matrix.vectors
        masks = channel_masks(detector, self.grid, self._wavelength)[vectors.pixels]
        made: Products = []
        for mask in masks.T:
            squared: Any = 0.0
            mixed = on.asarray(np.zeros((len(vectors.beams), self.wave_count), on.complex_type))
            start = 0
            for rows, part in zip(vectors.rows, self._matrix.parts, strict=True):
                inside = np.flatnonzero(mask[start : start + part.shape[1]])
                waves = xp.take(self._exits, on.asarray(start + inside), axis=1)
                squared = squared + xp.matmul(xp.conj(waves), xp.matrix_transpose(waves))
                if len(rows):
                    seen = xp.conj(xp.take(part, on.asarray(inside), axis=1))
                    mixed[on.asarray(rows), :] = xp.matmul(seen, xp.matrix_transpose(waves))
                start += int(part.shape[1])
            made.append((mixed, squared))
        return made


def changed_slices(
    defective: DefectiveCrystal,
    specimen: Specimen,
    grid: WaveGrid,
    slice_thickness_nm: float,
    model: PotentialModel,
    beam_energy_ev: float,
    on: Backend,
) -> tuple[Transmissions, Transmissions]:
    """The slices that differ, on the whole grid: as they are, and as the crystal has them; others count as empty."""
    as_they_are, as_they_were = (
        transmissions(atoms, grid, slice_thickness_nm, model, beam_energy_ev, on, only=defective.slices)
        for atoms in (specimen, defective.perfect)
    )
    return as_they_are, as_they_were


def _power(changed: tuple[Transmissions, Transmissions], depth: int, on: Backend) -> float:
    """Of what one slice transmits differently."""
    now, before = (_at(slices, depth, on) for slices in changed)
    return float(on.xp.sum(on.fused.intensity(now - before)))


def _at(slices: Transmissions, depth: int, on: Backend) -> Array:
    """The transmission function of one slice; 1 where it holds no atoms."""
    index = slices.order[depth]
    return on.asarray(np.ones(slices.grid.shape_px, on.complex_type)) if index == EMPTY else slices.functions[index]
