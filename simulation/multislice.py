"""Fourier multislice: transmit, then propagate, slice by slice, with an antialias aperture (Kirkland, ch. 6)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import tan

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Array, Backend
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.potential import PartOf, PotentialModel, PotentialSynthesizer
from simulation.progress import steps
from simulation.slices import EMPTY, Slices
from simulation.specimens import Specimen
from simulation.tabulated_potential import tabulated_slices
from simulation.transmission_bands import ExactTransmission
from simulation.wave_grid import WaveGrid

_LARGEST_MEMORY_SHARE = 0.8
_THIN_ANGSTROM, _APERTURES_APART_ANGSTROM = 0.05, 2.0


@dataclass(frozen=True, slots=True)
class Transmissions:
    """Band-limited transmission functions, (distinct slices, rows, columns), and the order they are met in.

    `order`: for each slice from the entrance an index, or `EMPTY`.
    """

    functions: Array
    order: tuple[int, ...]
    thickness_angstrom: float
    grid: WaveGrid

    @property
    def bytes_count(self) -> int:
        """Memory of the functions."""
        return int(self.functions.nbytes)


def transmissions(
    specimen: Specimen,
    grid: WaveGrid,
    slice_thickness_nm: float,
    model: PotentialModel,
    beam_energy_ev: float,
    on: Backend,
    only: Collection[int] | None = None,
) -> Transmissions:
    """exp(i sigma V) of every distinct slice, band-limited by the antialias aperture.

    With exact placement it is made on a finer grid and cropped in Fourier space (see `transmission_bands`); with
    `bilinear` on the wave grid itself. Slices that are not among `only` count as empty.
    """
    slices, part_of = model.slices(specimen, slice_thickness_nm)
    if only is not None:
        slices = slices.only(only)
    order = tuple(range(len(slices.order))) if model.is_tabulated else slices.order
    _check_memory(len(set(order) - {EMPTY}), grid, on)
    aperture = on.asarray(grid.antialias_aperture().astype(on.real_type))
    if model.is_tabulated:
        spectra = _tabulated(specimen, grid, slice_thickness_nm, model, beam_energy_ev, on)
    else:
        spectra = _transmitted(slices, part_of, grid, model, beam_energy_ev, on)
    count = len(set(order) - {EMPTY})
    functions = on.empty_waves((count, *grid.shape_px))
    for index, spectrum in enumerate(steps(spectra, "slices of the potential", count)):
        functions[index] = on.ifft2(spectrum * aperture)
        on.release_memory()
    return Transmissions(functions, order, slices.thickness_angstrom, grid)


def _transmitted(
    slices: Slices, part_of: PartOf, grid: WaveGrid, model: PotentialModel, beam_energy_ev: float, on: Backend
) -> Iterator[Array]:
    """Spectra of exp(i sigma V) of the distinct slices, on the wave grid."""
    if model.placement == "exact":
        exact = ExactTransmission(grid, model.parametrization, beam_energy_ev, on, part_of=part_of)
        yield from (exact.of(atoms) for atoms in slices.distinct)
    else:
        synthesizer = PotentialSynthesizer(grid, model, on, part_of)
        interaction = interaction_parameter(beam_energy_ev)
        yield from (_spectrum(on, interaction * synthesizer.potential(atoms)) for atoms in slices.distinct)


def _tabulated(
    specimen: Specimen,
    grid: WaveGrid,
    slice_thickness_nm: float,
    model: PotentialModel,
    beam_energy_ev: float,
    on: Backend,
) -> Iterator[Array]:
    """The same of every slice, from values at the pixels."""
    interaction = interaction_parameter(beam_energy_ev)
    for sheet in tabulated_slices(specimen, grid, slice_thickness_nm, model.parametrization):
        yield _spectrum(on, on.asarray((interaction * sheet).astype(on.real_type)))


def _spectrum(on: Backend, phase: Array) -> Array:
    """Of exp(i phase)."""
    wave = on.empty_waves(tuple(phase.shape))
    on.fused.phase_wave(phase, wave)
    return on.fft2(wave)


def _check_memory(distinct_count: int, grid: WaveGrid, on: Backend) -> None:
    needed = distinct_count * grid.shape_px[0] * grid.shape_px[1] * on.complex_bytes
    if needed > _LARGEST_MEMORY_SHARE * on.memory_bytes:
        raise InvalidParameter(
            f"{distinct_count} transmission functions of {grid.shape_px} pixels need {needed / 2**30:.1f} GiB, above"
            f" {_LARGEST_MEMORY_SHARE:.0%} of the {on.memory_bytes / 2**30:.1f} GiB free on {on.name};"
            " use a coarser sampling_nm, thicker slices, or a smaller cell"
        )


def fourier_resized(on: Backend, spectrum: Array, shape_px: tuple[int, int]) -> Array:
    """Crop or zero-pad the last two axes of a spectrum in FFT order to `shape_px`.

    Where an even size is cut, only its negative Nyquist frequency remains; what lies beyond the antialias
    aperture is removed by the caller.
    """
    for axis, count in ((-2, shape_px[0]), (-1, shape_px[1])):
        spectrum = _resized_axis(on, spectrum, axis, count)
    return spectrum


def _resized_axis(on: Backend, spectrum: Array, axis: int, count: int) -> Array:
    xp, available = on.xp, spectrum.shape[axis]
    if count == available:
        return spectrum
    kept = min(count, available)
    positive, negative = (kept + 1) // 2, kept // 2
    first = _cut(spectrum, axis, 0, positive)
    last = _cut(spectrum, axis, available - negative, available)
    parts = [first, last]
    if count > available:
        shape = list(spectrum.shape)
        shape[axis] = count - available
        parts.insert(1, xp.zeros(tuple(shape), dtype=spectrum.dtype, device=on.device))
    return xp.concat(parts, axis=axis)


def _cut(array: Array, axis: int, start: int, stop: int) -> Array:
    return array[..., start:stop] if axis == -1 else array[..., start:stop, :]


class Propagator:
    """Free-space steps through whole numbers of slices, with the antialias aperture once for each slice.

    Of slices thinner than 0.005 nm it is as much as once every 0.2 nm: what its edge takes does not grow without limit.

    P = exp(-i pi lambda dz k^2 - 2 pi i dz (kx tan tilt_x + ky tan tilt_y)), whose phase is a part along y (rows, 1)
    plus one along x (1, columns).
    """

    def __init__(
        self,
        optics: Optics,
        grid: WaveGrid,
        thickness_angstrom: float,
        on: Backend,
        offset_per_angstrom: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """`optics` gives the wavelength and the tilt of the beam; `offset_per_angstrom` (y, x) is added to k."""
        ky, kx = grid.frequencies_per_angstrom()
        ky, kx = ky + offset_per_angstrom[0], kx + offset_per_angstrom[1]
        tilt_x, tilt_y = tan(optics.tilt_x_mrad * 1e-3), tan(optics.tilt_y_mrad * 1e-3)
        per_area = np.pi * wavelength_angstrom(optics.beam_energy_ev)
        self.phase_y: NDArray[np.float64] = -thickness_angstrom * (per_area * ky**2 + 2 * np.pi * ky * tilt_y)
        self.phase_x: NDArray[np.float64] = -thickness_angstrom * (per_area * kx**2 + 2 * np.pi * kx * tilt_x)
        self._aperture = on.asarray(grid.antialias_aperture(offset_per_angstrom).astype(on.real_type))
        is_thin = thickness_angstrom < _THIN_ANGSTROM
        self._apertures_per_slice = thickness_angstrom / _APERTURES_APART_ANGSTROM if is_thin else 1.0
        self._on = on
        self._powers: dict[tuple[int, bool], Array] = {}

    def through(self, count: int, *, averaging: bool = False) -> Array:
        """The factor in Fourier space for so many slices, (rows, columns).

        `averaging`: divided by the number of pixels, for `Backend.ifft2_sum`.
        """
        if (count, averaging) not in self._powers:
            along_y, along_x = (
                self._on.asarray(np.exp(1j * count * phase).astype(self._on.complex_type))
                for phase in (self.phase_y, self.phase_x)
            )
            if averaging:
                along_y /= self.phase_y.size * self.phase_x.size
            self._powers[count, averaging] = along_y * along_x * self._aperture ** self.aperture_power(count)
        return self._powers[count, averaging]

    def aperture_power(self, count: int) -> float:
        """How many times the antialias aperture is passed in so many slices."""
        return count * self._apertures_per_slice


@dataclass(frozen=True, slots=True)
class Itinerary:
    """Runs of empty slices merged: (empty slices crossed before, transmission index) ..., and the slices left after.

    Exact: an empty slice transmits 1, and successive propagators multiply.
    """

    steps: tuple[tuple[int, int], ...]
    trailing: int

    @classmethod
    def of(cls, order: tuple[int, ...]) -> Itinerary:
        """Each step's propagation includes the slice transmitted before it."""
        steps: list[tuple[int, int]] = []
        pending = 0
        for index in order:
            if index != EMPTY:
                steps.append((pending, index))
                pending = 0
            pending += 1
        return cls(tuple(steps), pending)


def propagate(waves: Array, specimen: Transmissions, propagator: Propagator, on: Backend) -> Array:
    """Exit waves in Fourier space from incident waves in Fourier space, both (n, rows, columns) in FFT order.

    The last propagation step is included. `waves` is overwritten. Two transforms and two products a step, each one
    pass: factors are made before the first, and the inverse transform's division is part of them.
    """
    itinerary = Itinerary.of(specimen.order)
    factors = [propagator.through(crossed, averaging=True) for crossed, _ in itinerary.steps if crossed]
    if len(factors) < len(itinerary.steps):  # atoms in the first slice
        factors.insert(0, 1 / (waves.shape[-2] * waves.shape[-1]))
    for factor, (_, index) in zip(factors, itinerary.steps, strict=True):
        waves *= factor
        waves = on.ifft2_sum(waves)
        waves *= specimen.functions[index]
        waves = on.fft2(waves)
    if itinerary.trailing:
        waves *= propagator.through(itinerary.trailing)
    return waves


def step_count(order: tuple[int, ...]) -> int:
    """Transmissions met, each costing two Fourier transforms."""
    return sum(index != EMPTY for index in order)
