"""What a window leaves out, to first and second order: the probe's tails outside it, scattered once.

With u = t - 1 of a slice and psi = in + out the incident wave there, in and outside the window, a detector M lacks
2 Re sum of u out conj(M psi) + u in conj(M out), interference with the unscattered wave, and |sqrt(M) (u out)|^2. These
are correlations of the slice with a kernel around the probe, so maps over the whole grid take a few Fourier transforms.
The last is taken as local: the intensity outside, times what each place scatters from the tail's plane waves into the
detector. For detectors in the dark the waves of all slices are added with the phases that they arrive with: atoms above
one another add up. In the bright field interference with the unscattered wave undoes that, and intensities are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from simulation.backend import Array, Backend
from simulation.multislice import Itinerary, Propagator, Transmissions
from simulation.progress import steps


def tail_maps(
    spectrum: NDArray[Any],
    masks: NDArray[Any],
    folded: NDArray[np.float64],
    specimen: Transmissions,
    propagator: Propagator,
    shape_px: tuple[int, int],
    on: Backend,
) -> NDArray[Any]:
    """Signals missing from windows of `shape_px` centred on every pixel, (channels, rows, columns).

    `spectrum`: the incident wave at the first atoms, centred on the origin, in Fourier space (sum of squares 1);
    `masks`: (channels, rows, columns), FFT order, and `folded` onto the diffraction grid of two windows (`windowed`);
    `propagator`: the whole grid's.
    """
    window, xp = _Window(specimen.grid.shape_px, shape_px, on), on.xp
    incident = on.asarray(spectrum.astype(on.complex_type))
    mixed = _all_seen_from_tail(spectrum, masks, shape_px, on)
    filters = [on.asarray(mask.astype(on.real_type)) for mask in masks]
    near = [on.asarray(each.astype(on.real_type)) for each in folded]
    sees_incident = [bool(np.any(mask[spectrum != 0])) for mask in masks]
    total: list[Any] = [0.0 for _ in masks]
    strength: list[Any] = [0.0 for _ in masks]
    arriving: Any = 0.0
    power: Any = 0.0
    itinerary = Itinerary.of(specimen.order).steps
    factors = [propagator.through(crossed) for crossed, _ in itinerary[1:]]
    for number, (_, index) in enumerate(steps(itinerary, "slices beside windows")):
        if number:
            incident *= factors[number - 1]
            arriving *= factors[number - 1]
        tail = on.ifft2_sum(incident)
        inside = window.cut(tail)
        window.put(tail, 0.0)
        scattered = on.fft2(specimen.functions[index] - 1)
        power += on.fused.intensity(tail) / len(itinerary)
        for channel, mask in enumerate(filters):
            seen = -window.convolved(inside, near[channel])  # M tail = M whole - M inside, in the window
            if sees_incident[channel]:
                first = on.ifft2_sum(incident * mask)
                seen += window.cut(first)
                first = xp.conj(first)
                first *= tail
            else:
                first = xp.zeros_like(tail)
            window.put(first, xp.conj(seen) * inside)
            first = on.ifft2(first)
            first *= scattered
            total[channel] += first
            del first
            if sees_incident[channel]:
                strength[channel] += on.fused.intensity(on.ifft2(scattered * mixed[channel]))
        arriving += scattered
        del tail, scattered
        on.release_memory()
    if itinerary:
        power = on.ifft2(power + 0j)
        for channel, mix in enumerate(mixed):
            if not sees_incident[channel]:
                strength[channel] = on.fused.intensity(on.ifft2(arriving * mix))
            total[channel] = 2 * total[channel] + on.fft2(strength[channel] + 0j) * power
    empty = np.zeros(specimen.grid.shape_px, dtype=on.real_type)
    return np.stack([empty if isinstance(each, float) else on.to_numpy(xp.real(on.ifft2(each))) for each in total])


class _Window:
    """The pixels of a window around the origin of a periodic grid: up to four rectangles in its corners."""

    def __init__(self, whole_px: tuple[int, int], shape_px: tuple[int, int], on: Backend) -> None:
        self._shape, self._on = shape_px, on
        self._places = [_parts_around_origin(own, whole) for own, whole in zip(shape_px, whole_px, strict=True)]

    def cut(self, whole: Array) -> Array:
        """(rows, columns), the origin at half of each."""
        rows, columns = self._places
        lines = [self._on.xp.concat([whole[there, own] for _, own in columns], axis=1) for _, there in rows]
        return self._on.xp.concat(lines, axis=0)

    def put(self, whole: Array, values: Array) -> None:
        """Overwrites these pixels of the whole."""
        for own_rows, rows in self._places[0]:
            for own_columns, columns in self._places[1]:
                whole[rows, columns] = values if isinstance(values, float) else values[own_rows, own_columns]

    def convolved(self, inside: Array, folded: Array) -> Array:
        """What a detector's mask, folded onto the grid of two windows, makes of a wave that fills the window."""
        on, (rows, columns) = self._on, self._shape
        padded = on.xp.zeros_like(on.empty_waves((2 * rows, 2 * columns)))
        padded[:rows, :columns] = inside
        return on.ifft2(on.fft2(padded) * folded)[:rows, :columns]


def _parts_around_origin(own_px: int, whole_px: int) -> list[tuple[slice, slice]]:
    """Of the window's pixels along one axis, those before the origin and those from it on: here, and in the whole."""
    before = own_px // 2
    return [
        (slice(0, before), slice(whole_px - before, whole_px)),
        (slice(before, own_px), slice(0, own_px - before)),
    ]


def _all_seen_from_tail(
    spectrum: NDArray[Any], masks: NDArray[Any], shape_px: tuple[int, int], on: Backend
) -> list[Array]:
    """For each mask, on the device."""
    weights = scipy.fft.rfft2(_tail_weights(spectrum, shape_px))
    np.conj(weights, out=weights)
    mixed = [on.asarray(_seen_from_tail(mask, weights).astype(on.real_type)) for mask in masks]
    del weights
    on.release_memory()
    return mixed


def _tail_weights(spectrum: NDArray[Any], shape_px: tuple[int, int]) -> NDArray[np.float64]:
    """How the tail's intensity is spread over the aperture's plane waves: more on its edge than within; sums to 1.

    What the sharp cut scatters beyond the aperture is left out: it interferes with the wave inside the window.
    """
    places = [np.flatnonzero(np.any(spectrum != 0, axis=axis)) for axis in (1, 0)]
    along_y, along_x = (
        np.exp(2j * np.pi / whole * np.outer(np.arange(own) - own // 2, beams))
        for own, whole, beams in zip(shape_px, spectrum.shape, places, strict=True)
    )
    box = np.ix_(*places)
    amplitudes = spectrum[box].astype(np.complex128)
    inside = along_y @ amplitudes @ along_x.T / spectrum.size
    tail = amplitudes - np.conj(along_y.T) @ inside @ np.conj(along_x)
    weights = np.zeros(spectrum.shape)
    weights[box] = np.where(amplitudes != 0, np.abs(tail) ** 2, 0.0)
    return weights / weights.sum()


def _seen_from_tail(mask: NDArray[Any], weights: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Square root of the share of the tail's plane waves that a scattering vector brings onto the detector.

    `weights`: conjugated, in Fourier space.
    """
    product = scipy.fft.rfft2(mask.astype(np.float64))
    product *= weights
    return np.sqrt(np.clip(scipy.fft.irfft2(product, mask.shape), 0.0, None))
