"""Images of perfect crystals: every plane wave of the probe is propagated through one unit cell only.

In a cell that holds n_y x n_x unit cells multislice splits into n_y n_x Bloch vectors q: a plane wave k = q + g meets
only waves q + g', with g and g' reciprocal to the unit cell. So each wave lives on the unit cell's grid, with its
frequencies moved by q, and mirrors and rotations of the crystal give most waves from the others. The result is
multislice's up to rounding.

Detectors with few channels need only M_D[k, k'] = sum over K in D of conj(S_k(K)) S_k'(K), k and k' of equal q; the
image is a Fourier series over the differences k' - k, and re-imaging propagates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.crystal_symmetry import IDENTITY, Symmetry, lateral_repeats, part_of, symmetries
from simulation.detectors import (
    AnnularDetector,
    Detector,
    PixelatedDetector,
    SegmentedDetector,
    channel_masks,
    detector_shape,
)
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.multislice import Propagator, Transmissions, propagate
from simulation.probe import aperture_function, probe_spectrum
from simulation.progress import batches, steps
from simulation.slices import owners
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_POINTS_PER_BLOCK = 8192
_KINDS_PER_SLICE = 1000
_LARGEST_MEMORY_SHARE = 0.8
_KEPT_GRAM_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Crystal:
    """A specimen that repeats: how often along (y, x), one unit of it, its grid and its symmetries."""

    repeats: tuple[int, int]
    unit: Specimen
    unit_grid: WaveGrid
    operations: tuple[Symmetry, ...]

    @classmethod
    def of(
        cls, specimen: Specimen, grid: WaveGrid, slice_thickness_nm: float, *, same_pixels: bool = False
    ) -> Crystal | None:
        """The smallest unit, None where nothing repeats; atoms of unlike slices are unlike.

        `same_pixels`: atoms are put on pixels, so that parts divide the pixels, and no mirror holds between them.
        """
        kinds = specimen.numbers + _KINDS_PER_SLICE * owners(specimen, slice_thickness_nm)
        sorted_out = Specimen(kinds, specimen.positions_angstrom, specimen.cell_angstrom)
        repeats = lateral_repeats(sorted_out)
        if same_pixels:
            repeats = _dividing(repeats, grid.shape_px)
        if repeats == (1, 1):
            return None
        part = part_of(sorted_out, repeats)
        if len(part.numbers) * repeats[0] * repeats[1] != len(specimen.numbers):
            return None  # atoms that lie on one another: places repeat, numbers of atoms at them need not
        unit = Specimen(part.numbers % _KINDS_PER_SLICE, part.positions_angstrom, part.cell_angstrom)
        found = (IDENTITY,) if same_pixels else symmetries(part)
        operations = tuple(each for each in found if repeats[0] == repeats[1] or not each.exchanges_axes)
        return cls(repeats, unit, grid.part(repeats, same_pixels=same_pixels), operations)


def _dividing(repeats: tuple[int, int], shape_px: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (int(np.gcd(repeat, count)) for repeat, count in zip(repeats, shape_px, strict=True))
    return rows, columns


def matrix_counts(grid: WaveGrid, optics: Optics, crystal: Crystal) -> tuple[int, float, float]:
    """Plane waves of the aperture, and to how many waves and how many plane waves each belongs on average."""
    beams = int(np.count_nonzero(aperture_function(optics, grid)))
    waves = int(np.count_nonzero(grid.squared_frequencies() <= grid.cutoff_per_angstrom**2))
    bloch_vectors = crystal.repeats[0] * crystal.repeats[1]
    return beams, waves / bloch_vectors, max(1.0, beams / bloch_vectors)


def bloch_matrix_bytes(grid: WaveGrid, optics: Optics, crystal: Crystal) -> int:
    """Memory in single precision of the matrix while it is made, and of one channel's products with their addresses."""
    beams, waves_each, beams_each = matrix_counts(grid, optics, crystal)
    return int(beams * (2 * 8 * waves_each + (8 + 8) * beams_each))


def check_bloch_memory(grid: WaveGrid, optics: Optics, crystal: Crystal, on: Backend) -> None:
    """Refuse a matrix too large for the device, before anything is computed for it."""
    needed = bloch_matrix_bytes(grid, optics, crystal) * on.complex_bytes // 8
    if needed > _LARGEST_MEMORY_SHARE * on.memory_bytes:
        raise InvalidParameter(
            f"the scattering matrix of method 'periodic' needs {needed / 2**30:.1f} GiB for a unit repeated"
            f" {crystal.repeats} times along (y, x), above {_LARGEST_MEMORY_SHARE:.0%} of the"
            f" {on.memory_bytes / 2**30:.1f} GiB free on {on.name}; use fewer repeats of the large unit, a smaller"
            " aperture, or method='multislice'"
        )


class BlochMatrix:
    """Rows S_k(K) of the scattering matrix of a perfect crystal for the plane waves of an aperture."""

    def __init__(self, optics: Optics, specimen: Transmissions, crystal: Crystal, grid: WaveGrid, on: Backend) -> None:
        """`specimen` is one unit; `grid` the whole cell's; `optics` gives energy, tilt and the largest aperture."""
        self._on, self.grid = on, grid
        self.semi_convergence_angle_mrad = optics.semi_convergence_angle_mrad
        self._wavelength = wavelength_angstrom(optics.beam_energy_ev)
        self._repeats = np.array(crystal.repeats)
        self._beams = _signed(np.flatnonzero(aperture_function(optics, grid).ravel()), grid.shape_px)
        within = np.flatnonzero(grid.squared_frequencies().ravel() <= grid.cutoff_per_angstrom**2)
        waves = _signed(within, grid.shape_px)
        beam_class, wave_class = self._class_of(self._beams), self._class_of(waves)
        used = np.unique(beam_class)
        self._rows = _members(beam_class, used)
        own_waves = _members(wave_class, used)
        self._columns = [waves[each] for each in own_waves]
        flat = [within[each] for each in own_waves]
        self.pixels: NDArray[np.int64] | None = np.concatenate(flat)
        tilted = optics.tilt_x_mrad != 0 or optics.tilt_y_mrad != 0
        operations = (IDENTITY,) if tilted else crystal.operations
        self._parts = self._scattered(optics, specimen, crystal, operations)
        self._grams: dict[Detector, list[list[NDArray[Any]]]] = {}
        self._addresses = self._difference_addresses()

    @property
    def bytes_count(self) -> int:
        """Memory of the matrix and of what was made of it."""
        rows = sum(int(part.nbytes) for part in self._parts)
        return rows + sum(address.nbytes for address in self._addresses[0]) + self._gram_bytes()

    def intensities(self, optics: Optics, points_angstrom: NDArray[np.float64]) -> Iterator[tuple[int, Array]]:
        """Diffraction intensities (n, pixels) of successive probes, each with the index of its first point."""
        xp = self._on.xp
        base = self._coefficients(optics)
        pixels = self.pixels
        count = self._on.batch_count(2 * self._on.complex_bytes * (0 if pixels is None else len(pixels)))
        for start in batches(len(points_angstrom), count, "probes"):
            points = points_angstrom[start : start + count]
            waves = []
            for rows, part in zip(self._rows, self._parts, strict=True):
                ramp = np.exp(-2j * np.pi * (points @ self._frequencies(self._beams[rows])[:, ::-1].T))
                coefficients = self._on.asarray((base[rows] * ramp).astype(self._on.complex_type))
                waves.append(xp.matmul(coefficients, part))
            found = xp.concat(waves, axis=1)
            yield start, xp.real(found) ** 2 + xp.imag(found) ** 2

    def signals(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape) of detectors with channels, from the Gram matrices kept for them."""
        found: dict[str, NDArray[np.float64]] = {}
        coefficients = self._coefficients(optics)
        for name, detector in detectors.items():
            if isinstance(detector, PixelatedDetector):
                raise MethodUnavailable(f"detector {name!r} has pixels: ask for intensities instead")
            channels = [self._series(gram, coefficients, points_angstrom) for gram in self._channel_grams(detector)]
            values = np.stack(channels, axis=1)
            is_ring = isinstance(detector, AnnularDetector)
            found[name] = values[:, 0] if is_ring else values.reshape(len(values), *detector_shape(detector))
        return found

    def _coefficients(self, optics: Optics) -> NDArray[np.complex128]:
        return probe_spectrum(optics, self.grid).ravel()[self._flat(self._beams)]

    def _frequencies(self, vectors: NDArray[np.int64]) -> NDArray[np.float64]:
        """(ky, kx) per angstrom of vectors (iy, ix)."""
        return vectors / np.asarray(self.grid.extent_angstrom)

    def _class_of(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which Bloch vector: the remainder modulo the repeats, as one number."""
        remainder = np.mod(vectors, self._repeats)
        return remainder[:, 0] * self._repeats[1] + remainder[:, 1]

    def _scattered(
        self, optics: Optics, specimen: Transmissions, crystal: Crystal, operations: tuple[Symmetry, ...]
    ) -> list[Array]:
        """Rows by Bloch vector, (beams of it, waves of it): the fewest are propagated, the others turned from them."""
        sources, turns = _representatives(self._beams, operations)
        place = np.empty(self.grid.shape_px[0] * self.grid.shape_px[1], dtype=np.int32)
        for columns in self._columns:
            place[self._flat(columns)] = np.arange(len(columns))
        propagated: dict[int, NDArray[Any]] = {}
        for index, rows in enumerate(steps(self._rows, "Bloch vectors")):
            mine = rows[sources[rows] == rows]
            if len(mine):
                made = self._propagated(self._beams[mine], self._columns[index], optics, specimen, crystal)
                propagated |= {int(row): made[i] for i, row in enumerate(mine)}
        parts: list[Array] = []
        for rows, columns in zip(self._rows, self._columns, strict=True):
            part = np.empty((len(rows), len(columns)), dtype=self._on.complex_type)
            for i, row in enumerate(rows):
                operation, source = operations[turns[row]], int(sources[row])
                back = operation.transposed.turned(columns)
                moved = self._frequencies(columns - self._beams[row])
                turn = moved @ np.array(operation.shift_angstrom[::-1])
                part[i] = propagated[source][place[self._flat(back)]] * np.exp(-2j * np.pi * turn)
            parts.append(self._on.asarray(part))
        return parts

    def _propagated(
        self,
        beams: NDArray[np.int64],
        columns: NDArray[np.int64],
        optics: Optics,
        specimen: Transmissions,
        crystal: Crystal,
    ) -> NDArray[Any]:
        """(beams, columns) of one Bloch vector; each beam enters with amplitude 1."""
        on, grid = self._on, crystal.unit_grid
        bloch = _signed_remainder(beams[0], self._repeats)
        offset = bloch / np.asarray(self.grid.extent_angstrom)
        propagator = Propagator(optics, grid, specimen.thickness_angstrom, on, (float(offset[0]), float(offset[1])))
        entering, leaving = (_flat((each - bloch) // self._repeats, grid.shape_px) for each in (beams, columns))
        pixels, index = grid.shape_px[0] * grid.shape_px[1], on.asarray(leaving)
        count = on.batch_count(on.complex_bytes * pixels)
        found = np.empty((len(beams), len(columns)), dtype=on.complex_type)
        for start in range(0, len(beams), count):
            own = entering[start : start + count]
            waves = np.zeros((len(own), pixels), on.complex_type)
            waves[np.arange(len(own)), own] = 1.0
            exits = propagate(on.asarray(waves.reshape(-1, *grid.shape_px)), specimen, propagator, on)
            taken = on.xp.take(on.xp.reshape(exits, (len(own), -1)), index, axis=1)
            found[start : start + len(own)] = on.to_numpy(taken)
        return found

    def _flat(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        return _flat(vectors, self.grid.shape_px)

    def _channel_grams(self, detector: AnnularDetector | SegmentedDetector) -> Iterator[list[NDArray[Any]]]:
        """For each channel the matrices M of all Bloch vectors; those of the last detectors are kept."""
        if detector not in self._grams:
            masks = channel_masks(detector, self.grid, self._wavelength)[self.pixels]
            self._grams[detector] = [self._gram(masks[:, channel]) for channel in range(masks.shape[1])]
            while len(self._grams) > 1 and self._gram_bytes() > _KEPT_GRAM_BYTES:
                del self._grams[next(iter(self._grams))]
        yield from self._grams[detector]

    def _gram_bytes(self) -> int:
        return sum(gram.nbytes for channels in self._grams.values() for grams in channels for gram in grams)

    def _gram(self, mask: NDArray[np.bool_]) -> list[NDArray[Any]]:
        xp, start = self._on.xp, 0
        grams: list[NDArray[Any]] = []
        for part in self._parts:
            inside = np.flatnonzero(mask[start : start + part.shape[1]])
            start += part.shape[1]
            seen = xp.take(part, self._on.asarray(inside), axis=1)
            grams.append(self._on.to_numpy(xp.matmul(xp.conj(seen), xp.matrix_transpose(seen))))
        return grams

    def _difference_addresses(self) -> tuple[list[NDArray[np.int64]], tuple[int, int]]:
        """Where (k, k') of each Bloch vector go in the table of differences, in steps of the unit cell's lattice."""
        reach = (np.abs(self._beams).max(axis=0) * 2) // self._repeats + 1
        shape = 2 * reach + 1
        addresses: list[NDArray[np.int64]] = []
        for rows in self._rows:
            steps = (self._beams[rows][None, :, :] - self._beams[rows][:, None, :]) // self._repeats + reach
            addresses.append((steps[:, :, 0] * shape[1] + steps[:, :, 1]).ravel())
        return addresses, (int(shape[0]), int(shape[1]))

    def _series(
        self,
        grams: list[NDArray[Any]],
        coefficients: NDArray[np.complex128],
        points_angstrom: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """I(r) = sum over G of h_G exp(-2 pi i G.r), h_G the sum over k' - k = G of conj(c_k) c_k' M[k, k']."""
        addresses, shape = self._addresses
        table = np.zeros(shape[0] * shape[1], dtype=np.complex128)
        for rows, gram, address in zip(self._rows, grams, addresses, strict=True):
            own = coefficients[rows]
            weights = (np.conj(own)[:, None] * own[None, :] * gram).ravel()
            table += np.bincount(address, weights.real, len(table)) + 1j * np.bincount(
                address, weights.imag, len(table)
            )
        steps_y, steps_x = (np.arange(count) - count // 2 for count in shape)
        unit_y, unit_x = np.asarray(self.grid.extent_angstrom) / self._repeats
        values = np.empty(len(points_angstrom))
        for start in range(0, len(points_angstrom), _POINTS_PER_BLOCK):
            points = points_angstrom[start : start + _POINTS_PER_BLOCK]
            along_y = np.exp(-2j * np.pi * points[:, 1, None] * steps_y / unit_y)
            along_x = np.exp(-2j * np.pi * points[:, 0, None] * steps_x / unit_x)
            values[start : start + len(points)] = np.sum((along_y @ table.reshape(shape)) * along_x, axis=1).real
        return values


def _members(classes: NDArray[np.int64], used: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For each class used the indices of its members, ascending; sorted once, for there may be thousands."""
    order = np.argsort(classes, kind="stable")
    starts, stops = (np.searchsorted(classes[order], used, side=side) for side in ("left", "right"))
    return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def _signed(flat: NDArray[np.int64], shape_px: tuple[int, int]) -> NDArray[np.int64]:
    """Signed vectors (iy, ix) of flat pixel indices in FFT order."""
    row, column = np.divmod(flat, shape_px[1])
    signed = [np.where(i >= (n + 1) // 2, i - n, i) for i, n in zip((row, column), shape_px, strict=True)]
    return np.column_stack(signed)


def _flat(vectors: NDArray[np.int64], shape_px: tuple[int, int]) -> NDArray[np.int64]:
    """Flat pixel indices in FFT order of signed vectors (iy, ix)."""
    return (vectors[:, 0] % shape_px[0]) * shape_px[1] + vectors[:, 1] % shape_px[1]


def _signed_remainder(vector: NDArray[np.int64], repeats: NDArray[np.int64]) -> NDArray[np.int64]:
    """The remainder of smallest size, so that a wave's frequencies stay centred on the unit cell's grid."""
    remainder = np.mod(vector, repeats)
    return np.where(remainder > repeats // 2, remainder - repeats, remainder)


def _representatives(
    beams: NDArray[np.int64], operations: tuple[Symmetry, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each beam the one it is turned from, and which operation turns that one into it.

    Operations that hold within a tolerance need not be a group: what is turned from a turned beam stays itself.
    """
    known = {tuple(beam): index for index, beam in enumerate(beams.tolist())}
    sources, turns = np.arange(len(beams)), np.zeros(len(beams), dtype=np.int64)
    for number, operation in enumerate(operations):
        origins = operation.transposed.turned(beams)
        candidates = np.array([known.get(tuple(origin), len(beams)) for origin in origins.tolist()])
        better = candidates < sources
        sources[better], turns[better] = candidates[better], number
    itself = sources[sources] != sources
    sources[itself], turns[itself] = np.flatnonzero(itself), 0
    return sources, turns
