"""Plane waves of an aperture on their way through a perfect crystal, each on the grid of one unit cell.

In a cell that holds n_y x n_x unit cells a plane wave k = q + g meets only waves q + g', with g and g' reciprocal to
the unit cell: n_y n_x Bloch vectors q, and nothing passes from one to another. Mirrors and rotations of the crystal
give most waves from the others, at any depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.crystal_symmetry import IDENTITY, Crystal, Symmetry
from simulation.device_batches import in_batches
from simulation.multislice import Propagator, Transmissions, propagate
from simulation.probe import aperture_function
from simulation.progress import steps
from simulation.wave_grid import WaveGrid


class BlochVectors:
    """Which plane waves of a cell belong to which Bloch vector of the crystal in it.

    `beams` are those of the aperture, as vectors (iy, ix) of the whole cell's reciprocal lattice. For each Bloch vector
    `rows` says which of them belong to it, and `columns` are the waves they can become, up to the antialias cutoff.
    `pixels` are the flat pixels of all columns, one Bloch vector after the other.
    """

    def __init__(self, optics: Optics, repeats: tuple[int, int], grid: WaveGrid, *, every: bool = False) -> None:
        """`grid` is the whole cell's. `every`: those that no wave of the aperture has are kept too, with empty rows."""
        self.grid, self.repeats = grid, np.array(repeats)
        self.beams = _signed(np.flatnonzero(aperture_function(optics, grid).ravel()), grid.shape_px)
        within = np.flatnonzero(grid.squared_frequencies().ravel() <= grid.cutoff_per_angstrom**2)
        waves = _signed(within, grid.shape_px)
        beam_class, wave_class = self._class_of(self.beams), self._class_of(waves)
        used = np.unique(wave_class if every else beam_class)
        self.rows = _members(beam_class, used)
        own_waves = _members(wave_class, used)
        self.columns = [waves[each] for each in own_waves]
        self.pixels: NDArray[np.int64] = np.concatenate([within[each] for each in own_waves])
        self.centres = [_signed_remainder(columns[0], self.repeats) for columns in self.columns]

    def frequencies(self, vectors: NDArray[np.int64]) -> NDArray[np.float64]:
        """(ky, kx) per angstrom of vectors (iy, ix)."""
        return vectors / np.asarray(self.grid.extent_angstrom)

    def flat(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat pixels of the whole grid in FFT order."""
        return _flat(vectors, self.grid.shape_px)

    def in_unit(self, index: int, shape_px: tuple[int, int]) -> NDArray[np.int64]:
        """Flat pixels of the unit's grid that the columns of Bloch vector number `index` lie on."""
        return _flat((self.columns[index] - self.centres[index]) // self.repeats, shape_px)

    def _class_of(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which Bloch vector: the remainder modulo the repeats, as one number."""
        remainder = np.mod(vectors, self.repeats)
        return remainder[:, 0] * self.repeats[1] + remainder[:, 1]


class BlochWaves:
    """All plane waves of an aperture at one depth of a crystal; `cross` takes them deeper."""

    def __init__(
        self, optics: Optics, unit: Transmissions, crystal: Crystal, vectors: BlochVectors, on: Backend
    ) -> None:
        """`unit` is one unit cell; `optics` gives energy and tilt."""
        self.vectors, self.depth = vectors, 0
        self._on, self._optics, self._unit, self._unit_grid = on, optics, unit, crystal.unit_grid
        self._propagators: dict[int, Propagator] = {}
        tilted = optics.tilt_x_mrad != 0 or optics.tilt_y_mrad != 0
        self._operations = (IDENTITY,) if tilted else crystal.operations
        self._sources, self._turns = _representatives(vectors.beams, self._operations)
        self._own_rows = [rows[self._sources[rows] == rows] for rows in vectors.rows]
        self._own = [self._entering(index) for index in range(len(vectors.rows))]

    @property
    def order(self) -> tuple[int, ...]:
        """Distinct slices of the unit in the order they are met."""
        return self._unit.order

    def cross(self, stop: int) -> None:
        """Take the waves to the entrance of slice number `stop`; the number of slices is the exit."""
        order = self.order[self.depth : stop]
        for index, own in enumerate(steps(self._own, "Bloch vectors")):
            if len(own):
                self._own[index] = self._on.to_numpy(self.through(self._on.asarray(own), index, order))
        self.depth = stop

    def parts(self) -> list[Array]:
        """Amplitudes at this depth by Bloch vector, (beams of it, waves of it); each beam entered with amplitude 1."""
        vectors, on = self.vectors, self._on
        place = np.empty(vectors.grid.shape_px[0] * vectors.grid.shape_px[1], dtype=np.int32)
        for columns in vectors.columns:
            place[vectors.flat(columns)] = np.arange(len(columns))
        holders, held = np.zeros((2, len(vectors.beams)), dtype=np.int64)
        for index, rows in enumerate(self._own_rows):
            holders[rows], held[rows] = index, np.arange(len(rows))
        parts: list[Array] = []
        for rows, columns in zip(vectors.rows, vectors.columns, strict=True):
            part = np.empty((len(rows), len(columns)), dtype=on.complex_type)
            for number in np.unique(self._turns[rows]).tolist():
                mine = self._turns[rows] == number
                sources = self._sources[rows[mine]]
                known = self._own[int(holders[sources[0]])][held[sources]]  # a turn takes one Bloch vector to one
                part[mine] = self._turned(known, number, vectors.beams[rows[mine]], columns, place)
            parts.append(on.asarray(part))
        return parts

    def _turned(
        self,
        known: NDArray[Any],
        number: int,
        beams: NDArray[np.int64],
        columns: NDArray[np.int64],
        place: NDArray[np.int32],
    ) -> NDArray[Any]:
        """S(Rk, RK) = S(k, K) exp(-2 pi i (RK - Rk).t) for the rows of one Bloch vector."""
        operation, vectors = self._operations[number], self.vectors
        back = place[vectors.flat(operation.transposed.turned(columns))]
        shift = np.array(operation.shift_angstrom[::-1])
        of_wave, of_beam = (np.exp(-2j * np.pi * (vectors.frequencies(each) @ shift)) for each in (columns, beams))
        kind = self._on.complex_type
        return known[:, back] * of_wave.astype(kind) * np.conj(of_beam).astype(kind)[:, None]

    def through(self, waves: Array, index: int, order: tuple[int, ...]) -> Array:
        """Waves (n, waves of Bloch vector number `index`) after the slices of `order`, distinct slices of the unit."""
        on, shape = self._on, self._unit_grid.shape_px
        leaving = on.asarray(self.vectors.in_unit(index, shape))
        specimen = Transmissions(self._unit.functions, order, self._unit.thickness_angstrom, self._unit.grid)
        pixels = shape[0] * shape[1]
        count = on.batch_count(on.complex_bytes * pixels)
        propagator = self._propagator(index)

        def crossed(start: int, stop: int) -> Array:
            own = waves[start:stop]
            spread = on.xp.zeros((own.shape[0], pixels), dtype=own.dtype, device=on.device)
            spread[:, leaving] = own
            exits = propagate(on.xp.reshape(spread, (-1, *shape)), specimen, propagator, on)
            return on.xp.take(on.xp.reshape(exits, (own.shape[0], -1)), leaving, axis=1)

        total = int(waves.shape[0])
        return on.xp.concat(list(in_batches(crossed, range(0, total, count), count, total, on)), axis=0)

    def _entering(self, index: int) -> NDArray[Any]:
        """Amplitude 1 at each propagated beam's own place among the waves."""
        vectors, rows = self.vectors, self._own_rows[index]
        waves = np.zeros((len(rows), len(vectors.columns[index])), dtype=self._on.complex_type)
        places = {pixel: place for place, pixel in enumerate(vectors.flat(vectors.columns[index]).tolist())}
        for i, pixel in enumerate(vectors.flat(vectors.beams[rows]).tolist()):
            waves[i, places[pixel]] = 1.0
        return waves

    def _propagator(self, index: int) -> Propagator:
        if index not in self._propagators:
            y, x = self.vectors.frequencies(self.vectors.centres[index]).tolist()
            thickness = self._unit.thickness_angstrom
            self._propagators[index] = Propagator(self._optics, self._unit_grid, thickness, self._on, (y, x))
        return self._propagators[index]


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
