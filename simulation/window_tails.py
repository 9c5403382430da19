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
from simulation.wave_grid import WaveGrid


def tail_maps(
    spectrum: NDArray[Any],
    masks: NDArray[Any],
    specimen: Transmissions,
    propagator: Propagator,
    shape_px: tuple[int, int],
    on: Backend,
) -> NDArray[Any]:
    """Signals missing from windows of `shape_px` centred on every pixel, (channels, rows, columns).

    `spectrum`: the incident wave at the first atoms, centred on the origin, in Fourier space (sum of squares 1);
    `masks`: (channels, rows, columns), FFT order; `propagator`: the whole grid's.
    """
    grid, xp = specimen.grid, on.xp
    outside = on.asarray(_outside(grid, shape_px).astype(on.real_type))
    incident = on.asarray(spectrum.astype(on.complex_type))
    mixed = _all_seen_from_tail(spectrum, masks, _outside(grid, shape_px), on)
    filters = [on.asarray(mask.astype(on.real_type)) for mask in masks]
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
        wave = on.ifft2_sum(incident)
        tail = wave * outside
        tail_spectrum = on.fft2(tail)
        scattered = on.fft2(specimen.functions[index] - 1)
        power += on.fused.intensity(tail) / len(itinerary)
        wave -= tail
        for channel, mask in enumerate(filters):
            first = xp.conj(on.ifft2(tail_spectrum * mask)) * wave
            if sees_incident[channel]:
                first += tail * xp.conj(on.ifft2_sum(incident * mask))
            first = on.ifft2(first)
            first *= scattered
            total[channel] += first
            del first
            if sees_incident[channel]:
                strength[channel] += on.fused.intensity(on.ifft2(scattered * mixed[channel]))
        arriving += scattered
        del wave, tail, tail_spectrum, scattered
        on.release_memory()
    if itinerary:
        power = on.ifft2(power + 0j)
        for channel, mix in enumerate(mixed):
            if not sees_incident[channel]:
                strength[channel] = on.fused.intensity(on.ifft2(arriving * mix))
            total[channel] = 2 * total[channel] + on.fft2(strength[channel] + 0j) * power
    empty = np.zeros(grid.shape_px, dtype=on.real_type)
    return np.stack([empty if isinstance(each, float) else on.to_numpy(xp.real(on.ifft2(each))) for each in total])


def _all_seen_from_tail(
    spectrum: NDArray[Any], masks: NDArray[Any], outside: NDArray[np.bool_], on: Backend
) -> list[Array]:
    """For each mask, on the device."""
    weights = _tail_weights(spectrum, outside)
    mixed = [on.asarray(_seen_from_tail(mask, weights).astype(on.real_type)) for mask in masks]
    del weights
    on.release_memory()
    return mixed


def _outside(grid: WaveGrid, shape_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels, counted from the probe, that are not in its window."""
    inside = []
    for count, own in zip(grid.shape_px, shape_px, strict=True):
        steps = np.arange(count)
        steps = np.where(steps >= (count + 1) // 2, steps - count, steps)
        inside.append((steps >= -(own // 2)) & (steps < own - own // 2))
    return ~(inside[0][:, None] & inside[1][None, :])


def _tail_weights(spectrum: NDArray[Any], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How the tail's intensity is spread over the aperture's plane waves: more on its edge than within; sums to 1.

    What the sharp cut scatters beyond the aperture is left out: it interferes with the wave inside the window.
    """
    weights = np.where(spectrum != 0, np.abs(np.fft.fft2(np.fft.ifft2(spectrum) * outside)) ** 2, 0.0)
    return weights / weights.sum()


def _seen_from_tail(mask: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square root of the share of the tail's plane waves that a scattering vector brings onto the detector."""
    product = scipy.fft.rfft2(mask.astype(np.float64))
    product *= np.conj(scipy.fft.rfft2(weights))
    return np.sqrt(np.clip(scipy.fft.irfft2(product, mask.shape), 0.0, None))
