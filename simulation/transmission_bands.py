"""Transmission functions with atoms at any point between pixels, made in bands of rows so that memory stays small.

A grid four times finer than the wave's is never held as a whole: its rows are filled band by band, exponentiated,
transformed along x and cut to the frequencies that a wave can have. What reaches far of the atoms' potential lies on
the wave's grid; the rest is added from a small patch around each atom (`atomic_cores` has the radial parts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from simulation.atom_parts import AtomPart
from simulation.atomic_cores import (
    OVERSAMPLING,
    Forms,
    core_radius_angstrom,
    forms_of,
    layers_without_overlap,
    middle_radius_angstrom,
    radial_integrals,
    stacked_core,
    stacks,
)
from simulation.backend import Array, Backend
from simulation.electron import interaction_parameter
from simulation.placement import SpreadAtoms
from simulation.slices import AtomSlice
from simulation.threads import in_order
from simulation.wave_grid import WaveGrid

BAND_BYTES = 32 * 2**20
"""Of the finer grid's rows treated at once; several arrays of this size are in use."""

_CORE_PATCH_SHARE = 0.5
"""Of the middle's 64 pixels; the cores end after 20, and what the cut of their spectrum adds has room."""
_TAPER_START, _TAPER_WIDTH = 0.85, 0.07
"""Of the Nyquist frequency: where the cores' spectrum is cut softly, so that its ringing ends within the patch."""
_SAME_OFFSET_DECIMALS = 6
_PATCHES_AT_ONCE = 16
_WIDE_FORMS_COUNT = 16
"""Kept at once, each half a grid: parts of atoms come in many kinds."""
_STACK_BASE = 128
"""Numbers of atoms are below; those at one place are told by the digits of one negative number."""
_NODE_COUNTS = {"single": 6, "double": 10}
"""Along each axis: shifts of a patch between the pixels are interpolated between so many."""


class ExactTransmission:
    """Spectra of exp(i sigma V) of slices, their frequencies right to 0.1 %."""

    def __init__(
        self,
        grid: WaveGrid,
        parametrization: str,
        beam_energy_ev: float,
        on: Backend,
        *,
        reach_per_angstrom: float | None = None,
        band_bytes: int = BAND_BYTES,
        part_of: Callable[[int], AtomPart] = AtomPart,
    ) -> None:
        """`grid` is the wave's. What varies faster along x than `reach_per_angstrom` (its cutoff) is left out.

        `part_of`: which part of which atom a slice's number stands for; by default all of the element's.
        """
        self._grid, self._fine, self._on = grid, grid.finer(OVERSAMPLING), on
        self._interaction = interaction_parameter(beam_energy_ev)
        dy, dx = self._fine.sampling_angstrom
        nyquist = 0.5 / max(dy, dx)
        self.core_radius_angstrom = core_radius_angstrom(nyquist)
        self._atoms = SpreadAtoms(grid, on)
        self._wide_forms: dict[int, Array] = {}
        self._integrals = radial_integrals(nyquist)  # held, so that all forms share them

        def form(number: int) -> Forms:
            return forms_of(part_of(number), parametrization, self._interaction, nyquist)

        def core(number: int, k: NDArray[np.float64]) -> NDArray[np.complex128]:
            parts = tuple(part_of(each) for each in _members(number))
            own = stacked_core(parts, parametrization, self._interaction, nyquist) if parts else form(number).core
            return own(k) * 0.5 * erfc((k / nyquist - _TAPER_START) / _TAPER_WIDTH)

        self._form, self._part_of = form, part_of
        radius = middle_radius_angstrom(nyquist)
        self._middles = Patches(self._fine, _sides(radius, dy, dx), lambda number, k: form(number).middle(k), on)
        self._cores = Patches(self._fine, _sides(_CORE_PATCH_SHARE * radius, dy, dx), core, on)
        columns = grid.frequencies_per_angstrom()[1][0]
        reach = grid.cutoff_per_angstrom if reach_per_angstrom is None else reach_per_angstrom
        self._columns = np.flatnonzero(np.abs(columns) <= reach)
        self._band_rows = max(1, band_bytes // (on.complex_bytes * self._fine.shape_px[1]))

    def of(self, atoms: AtomSlice) -> Array:
        """Fourier coefficients on the wave's grid, (rows, columns), as its FFT would give them."""
        on, (rows, columns) = self._on, self._fine.shape_px
        near = _chosen(atoms, lambda number: self._form(number).has_middle)
        sharp = _chosen(near, lambda number: self._form(number).has_core)
        layers = layers_without_overlap(self._stacked(sharp), 2 * self.core_radius_angstrom, self._fine.extent_angstrom)
        wide = self._wide_rows(atoms)
        signed = np.where(self._columns > self._grid.shape_px[1] // 2, self._columns - self._grid.shape_px[1],
                          self._columns)  # fmt: skip
        kept = on.asarray(np.mod(signed, columns))
        found = on.empty_waves((rows, len(self._columns)))

        def fill(start: int) -> None:
            stop = min(start + self._band_rows, rows)
            wave = self._band(near, layers, wide[start:stop], start)
            found[start:stop] = on.xp.take(on.fft(wave, columns, -1), kept, axis=1)

        for _ in in_order(fill, range(0, rows, self._band_rows), on.threads):
            pass
        return self._cut(found)

    def _stacked(self, atoms: AtomSlice) -> AtomSlice:
        """Whole atoms at one place as one: a product of their factors would hold frequencies that no grid does."""
        kinds = np.unique(atoms.numbers).tolist()
        if not all(0 < kind < _STACK_BASE and self._part_of(kind).is_whole for kind in kinds):
            return atoms
        places = stacks(atoms, self._fine.extent_angstrom) if len(atoms.numbers) > 1 else []
        if not places:
            return atoms
        single = np.delete(np.arange(len(atoms.numbers)), np.concatenate(places))
        kept = np.concatenate([single, [place[0] for place in places]])
        numbers = [*atoms.numbers[single].tolist(), *(_number_of(atoms.numbers[place]) for place in places)]
        return AtomSlice(np.array(numbers, dtype=np.int64), atoms.xy_angstrom[kept])

    def _wide_rows(self, atoms: AtomSlice) -> Array:
        """What reaches far, V*angstrom times the columns: on all rows of the finer grid, along x in Fourier space."""
        on, rows, half = self._on, self._fine.shape_px[0], self._grid.shape_px[1] // 2 + 1
        spectrum = on.xp.zeros_like(on.empty_waves((self._grid.shape_px[0], half)))
        for number in np.unique(atoms.numbers).tolist():
            spectrum += self._atoms.of(atoms.xy_angstrom[atoms.numbers == number]) * self._wide_form(number)
        negative = self._grid.shape_px[0] // 2
        padded = on.xp.zeros_like(on.empty_waves((rows, half)))
        padded[: spectrum.shape[0] - negative] = spectrum[: spectrum.shape[0] - negative]
        padded[rows - negative :] = spectrum[spectrum.shape[0] - negative :]
        return _inverse_along_y(on, padded)

    def _wide_form(self, number: int) -> Array:
        if number not in self._wide_forms:
            dy, dx = self._fine.sampling_angstrom
            form = self._form(number)
            wide = self._atoms.frequencies.radial(lambda k: form.wide(k) / (dy * dx), self._on.real_type)
            if len(self._wide_forms) >= _WIDE_FORMS_COUNT:
                del self._wide_forms[next(iter(self._wide_forms))]
            self._wide_forms[number] = wide / self._atoms.drawn
        return self._wide_forms[number]

    def _band(self, atoms: AtomSlice, layers: list[AtomSlice], wide: Array, first_row: int) -> Array:
        """exp(i sigma V) on some rows of the finer grid."""
        on, columns = self._on, self._fine.shape_px[1]
        count, half = wide.shape
        phase = on.irfft2(on.xp.reshape(wide, (count, 1, half)), (1, columns))
        phase = on.xp.reshape(phase, (count, columns))
        self._middles.add(phase, atoms, first_row)
        phase *= self._interaction
        wave = on.empty_waves((count, columns))
        on.fused.phase_wave(phase, wave)
        for layer in layers:
            self._cores.multiply_by(wave, layer, first_row)
        return wave

    def _cut(self, found: Array) -> Array:
        """Along y in Fourier space too, with the rows of the wave's grid."""
        on, (rows, columns) = self._on, self._grid.shape_px
        spectrum = on.xp.zeros_like(on.empty_waves((rows, columns)))
        negative, scale = rows // 2, 1 / OVERSAMPLING**2
        block = max(1, BAND_BYTES // (on.complex_bytes * found.shape[0]))
        for start in range(0, found.shape[1], block):
            along = on.fft(found[:, start : start + block], found.shape[0], -2) * scale
            own = on.asarray(self._columns[start : start + block])
            spectrum[: rows - negative, own] = along[: rows - negative]
            spectrum[rows - negative :, own] = along[along.shape[0] - negative :]
        return spectrum


def _chosen(atoms: AtomSlice, is_wanted: Callable[[int], bool]) -> AtomSlice:
    """Those whose number is wanted."""
    numbers = [number for number in np.unique(atoms.numbers).tolist() if is_wanted(number)]
    kept = np.isin(atoms.numbers, numbers)
    return AtomSlice(atoms.numbers[kept], atoms.xy_angstrom[kept])


def _number_of(members: NDArray[np.int64]) -> int:
    """One negative number for the atoms at one place; see `_members`."""
    return -sum(number * _STACK_BASE**place for place, number in enumerate(sorted(members.tolist())))


def _members(number: int) -> list[int]:
    """The atoms that a negative number stands for; none for other numbers."""
    found, rest = [], max(-number, 0)
    while rest:
        rest, digit = divmod(rest, _STACK_BASE)
        found.append(digit)
    return found


class Patches:
    """A function around each atom on rows of a periodic grid, shifted exactly between the pixels."""

    def __init__(
        self,
        grid: WaveGrid,
        shape_px: tuple[int, int],
        form: Callable[[int, NDArray[np.float64]], NDArray[np.inexact]],
        on: Backend,
    ) -> None:
        """`form(number, k)`: the function's Fourier transform; outside `shape_px` it must be zero."""
        self._grid, self._shape, self._form, self._on = grid, shape_px, form, on
        dy, dx = grid.sampling_angstrom
        self._own = WaveGrid(shape_px, (shape_px[0] * dy, shape_px[1] * dx))
        self._nodes = _chebyshev_nodes(_NODE_COUNTS[on.precision])
        self._tables: dict[int, Array] = {}

    def add(self, rows: Array, atoms: AtomSlice, first_row: int) -> None:
        """Adds each to (rows, columns), whose first row is `first_row` of the grid."""
        self._each(rows, atoms, first_row, is_factor=False)

    def multiply_by(self, rows: Array, atoms: AtomSlice, first_row: int) -> None:
        """Multiplies (rows, columns) by 1 plus each, in place: an array of ones would cost as much again."""
        self._each(rows, atoms, first_row, is_factor=True)

    def _each(self, rows: Array, atoms: AtomSlice, first_row: int, *, is_factor: bool) -> None:
        pixel = atoms.xy_angstrom[:, ::-1] / np.array(self._grid.sampling_angstrom)
        whole = np.floor(pixel + 0.5).astype(np.int64)
        rest = np.round(pixel - whole, _SAME_OFFSET_DECIMALS) + 0.0
        corner = np.mod(whole - np.array(self._shape) // 2 - (first_row, 0), self._grid.shape_px)
        period = self._grid.shape_px[0]
        near = np.flatnonzero((corner[:, 0] < rows.shape[0]) | (corner[:, 0] > period - self._shape[0]))
        described = np.column_stack([atoms.numbers[near].astype(np.float64), rest[near]])
        keys, which = np.unique(described, axis=0, return_inverse=True)
        order = near[np.argsort(which.ravel(), kind="stable")]
        which = np.sort(which.ravel())
        shape = (_PATCHES_AT_ONCE, self._shape[0] * self._shape[1])
        room = self._on.xp.empty(shape, dtype=rows.dtype, device=self._on.device)
        for start, stop in _runs(keys[:, 0], _PATCHES_AT_ONCE):
            made = self._between(int(keys[start, 0]), keys[start:stop, 1:], room)
            if is_factor:
                made += 1
            first, last = np.searchsorted(which, (start, stop))
            for atom, patch in zip(order[first:last].tolist(), (which[first:last] - start).tolist(), strict=True):
                self._put(rows, made[patch], int(corner[atom, 0]), int(corner[atom, 1]), is_factor=is_factor)

    def _put(self, rows: Array, patch: Array, row: int, column: int, *, is_factor: bool) -> None:
        columns = list(_overlaps(column, self._shape[1], self._grid.shape_px[1], self._grid.shape_px[1]))
        for own_rows, there_rows in _overlaps(row, self._shape[0], self._grid.shape_px[0], rows.shape[0]):
            for own_columns, there_columns in columns:
                if is_factor:
                    rows[there_rows, there_columns] *= patch[own_rows, own_columns]
                else:
                    rows[there_rows, there_columns] += patch[own_rows, own_columns]

    def _between(self, number: int, offsets_px: NDArray[np.float64], room: Array) -> Array:
        """Patches of one element for offsets (y, x) from the middle pixel, interpolated; (at least n, rows, columns).

        The functions hold no frequency above the grid's Nyquist, and offsets are half a pixel at most: polynomials of
        few nodes are exact to rounding. Products have one shape: a patch has the same bits whatever is beside it.
        They lie in `room`, which is used again: fresh memory would cost more than the product.
        """
        on, table = self._on, self._table(number)
        weights = np.zeros((_PATCHES_AT_ONCE, len(self._nodes) ** 2), on.to_numpy(table[:0]).dtype)
        along_y, along_x = (_polynomials(offsets_px[:, axis], self._nodes) for axis in (0, 1))
        weights[: len(offsets_px)] = (along_y[:, :, None] * along_x[:, None, :]).reshape(len(offsets_px), -1)
        on.xp.matmul(on.asarray(weights), table, out=room)
        return on.xp.reshape(room, (_PATCHES_AT_ONCE, *self._shape))

    def _table(self, number: int) -> Array:
        """Patches for all pairs of nodes, one a row."""
        if number not in self._tables:
            nodes = np.stack(np.meshgrid(self._nodes, self._nodes, indexing="ij"), axis=-1).reshape(-1, 2)
            self._tables[number] = self._on.xp.reshape(self._made(number, nodes), (len(nodes), -1))
        return self._tables[number]

    def _made(self, number: int, offsets_px: NDArray[np.float64]) -> Array:
        """Patches for offsets (y, x) from the middle pixel, by their Fourier transform; (n, rows, columns)."""
        on, (rows, columns) = self._on, self._shape
        form = self._spectrum(number)
        is_real = not np.iscomplexobj(form)
        ramps = []
        for offset, count, is_half in ((offsets_px[:, 0], rows, False), (offsets_px[:, 1], columns, is_real)):
            k = np.fft.fftfreq(count)[: count // 2 + 1] if is_half else np.fft.fftfreq(count)
            ramp: NDArray[np.complex128] = np.exp(-2j * np.pi * k * (offset[:, None] + count // 2))
            if count % 2 == 0:
                ramp[:, count // 2] = ramp[:, count // 2].real
            ramps.append(ramp.astype(on.complex_type))
        spectra = on.asarray(form * ramps[0][:, :, None] * ramps[1][:, None, :])
        return on.irfft2(spectra, self._shape) if is_real else on.ifft2(spectra)

    def _spectrum(self, number: int) -> NDArray[np.inexact]:
        """The form on the patch's grid, half of it if real."""
        ky, kx = self._own.frequencies_per_angstrom()
        dy, dx = self._own.sampling_angstrom
        form = self._form(number, np.hypot(ky, kx)) / (dy * dx)
        if np.iscomplexobj(form):
            return form.astype(self._on.complex_type)
        return form[:, : self._shape[1] // 2 + 1].astype(self._on.real_type)


def _chebyshev_nodes(count: int) -> NDArray[np.float64]:
    """Where polynomials between -1/2 and 1/2 are best known."""
    return -0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _polynomials(places: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """At each place the weights of values at the nodes, (n, nodes): Lagrange's polynomials."""
    others = ~np.eye(len(nodes), dtype=bool)
    found = np.empty((len(places), len(nodes)))
    for index, node in enumerate(nodes):
        rest = nodes[others[index]]
        found[:, index] = np.prod((places[:, None] - rest) / (node - rest), axis=1)
    return found


def _runs(values: NDArray[np.float64], longest: int) -> Iterator[tuple[int, int]]:
    """First and last index of runs of one value in a sorted array, in pieces."""
    for value in np.unique(values).tolist():
        first, last = np.searchsorted(values, value, "left"), np.searchsorted(values, value, "right")
        for start in range(int(first), int(last), longest):
            yield start, min(start + longest, int(last))


def _overlaps(corner: int, count: int, period: int, available: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of `count` steps from `corner` on a ring that lie in its first `available`: own slice, slice there."""
    base = corner
    while base + count > 0:
        first, last = max(base, 0), min(base + count, available)
        if first < last:
            yield slice(first - base, last - base), slice(first, last)
        base -= period


def _sides(radius_angstrom: float, dy_angstrom: float, dx_angstrom: float) -> tuple[int, int]:
    """Even pixel counts across."""
    rows, columns = (2 * int(np.ceil(radius_angstrom / step - 1e-6)) for step in (dy_angstrom, dx_angstrom))
    return rows, columns


def _inverse_along_y(on: Backend, spectrum: Array) -> Array:
    """Inverse FFT along the rows' axis; in blocks of columns, in place."""
    block = max(1, BAND_BYTES // (on.complex_bytes * spectrum.shape[0]))
    for start in range(0, spectrum.shape[1], block):
        part = on.xp.conj(spectrum[:, start : start + block])
        spectrum[:, start : start + block] = on.xp.conj(on.fft(part, spectrum.shape[0], -2)) / spectrum.shape[0]
    return spectrum
