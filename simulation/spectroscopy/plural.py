"""From single to plural scattering and back (Fourier-log), and the thickness from the zero-loss peak."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter

_SAME_CHANNEL = 1e-6


@kinds_checked
def zero_loss_peak(loss_ev: ArrayLike, fwhm_ev: float, electrons: float = 1.0) -> NDArray[np.float64]:
    """A Gaussian zero-loss peak with that many electrons in all, in electrons per channel of an even axis.

    Its mean is 0 eV also where no channel is: a peak narrower than two channels is shared between the nearest two.
    """
    loss = _even(loss_ev)
    if not fwhm_ev > 0:
        raise InvalidParameter(f"fwhm_ev = {fwhm_ev} must be positive, in eV")
    step = loss[1] - loss[0]
    zero, beyond = _zero_place(loss)
    if fwhm_ev >= 2 * step or beyond == 0:
        peak = _gaussian(loss, fwhm_ev)
    else:
        nearest = _gaussian(loss - loss[zero], fwhm_ev)
        next_to_it = _gaussian(loss - loss[zero] - np.sign(beyond) * step, fwhm_ev)
        peak = (1 - abs(beyond)) * nearest + abs(beyond) * next_to_it
    return electrons * peak / peak.sum()


@kinds_checked
def plural_spectrum(loss_ev: ArrayLike, single_per_ev: ArrayLike, zero_loss: ArrayLike) -> NDArray[np.float64]:
    """What a spectrometer sees, electrons per channel, when single losses repeat independently.

    `single_per_ev`: mean number of losses at each loss, for each eV and electron; its integral is thickness over mean
    free path. `zero_loss`: the peak without a specimen, per channel. J(v) = Z(v) exp[S(v) - S(0)] in Fourier space
    (Johnson, Spence, J. Phys. D 7 (1974) 771; Egerton, 3rd ed., section 4.1.1): Poisson numbers of losses,
    none left out. The axis should reach ten or more multiples of the usual loss.
    """
    loss, single, peak = _checked(loss_ev, single_per_ev, zero_loss)
    step, (zero, beyond) = loss[1] - loss[0], _zero_place(loss)
    size = _padded(len(loss))
    losses = np.fft.fft(_shared(_from_zero(np.where(loss > 0, single, 0.0) * step, zero, size), beyond))
    mean = np.sum(np.where(loss > 0, single, 0.0)) * step
    seen = np.fft.ifft(np.fft.fft(_from_zero(peak, zero, size)) * np.exp(losses - mean))
    return _to_axis(seen, zero, len(loss))


@kinds_checked
def single_scattering(
    loss_ev: ArrayLike, spectrum: ArrayLike, zero_loss: ArrayLike, resolution_ev: float
) -> NDArray[np.float64]:
    """Mean number of single losses for each eV and electron: the inverse of `plural_spectrum`, blurred.

    ln[J(v) / Z(v)] times a Gaussian of full width `resolution_ev` at half maximum; `zero_loss` is the peak of this
    spectrum (with the same electrons lost from it), so that its own losses cancel. Deconvolution needs the
    resolution to be no finer than the peak's.
    """
    loss, values, peak = _checked(loss_ev, spectrum, zero_loss)
    if not (values.sum() > 0 and peak.sum() > 0 and resolution_ev > 0):
        raise InvalidParameter(
            f"spectrum and zero_loss sum to {values.sum():g} and {peak.sum():g} electrons, resolution_ev ="
            f" {resolution_ev:g}: all must be above 0"
        )
    step, (zero, beyond) = loss[1] - loss[0], _zero_place(loss)
    size = _padded(len(loss))
    seen, own = (np.fft.fft(_from_zero(each, zero, size)) for each in (values, peak))
    sigma_ev = resolution_ev / (2 * np.sqrt(2 * np.log(2)))
    blur = np.exp(-2 * (np.pi * np.fft.fftfreq(size, step) * sigma_ev) ** 2)
    kept = (blur > 1e-8) & (np.abs(own) > 1e-12 * np.abs(own[0]))
    ratio = np.where(kept, seen, 1.0) / np.where(kept, own, 1.0)
    at_channels = np.exp(-2j * np.pi * np.fft.fftfreq(size) * beyond)
    single_per_channel = np.fft.ifft(np.where(kept, np.log(ratio) * blur, 0) * at_channels)
    return _to_axis(single_per_channel, zero, len(loss)) / step


@kinds_checked
def thickness_over_mean_free_path(loss_ev: ArrayLike, spectrum: ArrayLike, zero_loss_end_ev: float) -> float:
    """t / lambda = ln(all electrons / those of the zero-loss peak) (log-ratio method).

    Egerton, 3rd ed., section 5.1. The peak is everything below `zero_loss_end_ev`.
    """
    loss, values = np.asarray(loss_ev, np.float64), np.asarray(spectrum, np.float64)
    if loss.shape != values.shape:
        raise InvalidParameter(f"a spectrum of shape {values.shape} does not fit losses of shape {loss.shape}")
    peak = float(values[loss < zero_loss_end_ev].sum())
    if not peak > 0:
        raise InvalidParameter(f"no electrons below {zero_loss_end_ev:g} eV; the spectrum needs its zero-loss peak")
    return float(np.log(values.sum() / peak))


@kinds_checked
def with_plural_losses(loss_ev: ArrayLike, edge_spectrum: ArrayLike, low_loss: ArrayLike) -> NDArray[np.float64]:
    """A core-loss spectrum on its own even axis, smeared by a low-loss one with the same step that holds zero loss.

    Convolution with the low-loss spectrum normalised to 1 (Egerton, 3rd ed., section 4.3.2).
    `loss_ev` is the axis of the low losses. What would come from below the edge spectrum's first channel is missing.
    """
    loss, low = _checked(loss_ev, low_loss)
    values = np.asarray(edge_spectrum, np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InvalidParameter(f"edge_spectrum of shape {values.shape} must be one row of finite numbers")
    (zero, beyond), total = _zero_place(loss), low.sum()
    if not total > 0:
        raise InvalidParameter(f"low_loss sums to {total:g}; it must hold electrons, those of zero loss among them")
    smeared: NDArray[np.float64] = np.asarray(np.pad(np.convolve(values, low / total), 1), np.float64)
    return _shared(smeared, beyond)[zero + 1 : zero + 1 + len(values)]


def _checked(loss_ev: ArrayLike, *spectra: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = [_even(loss_ev), *(np.asarray(each, np.float64) for each in spectra)]
    if any(each.shape != arrays[0].shape for each in arrays):
        raise InvalidParameter(f"spectra of shapes {[each.shape for each in arrays[1:]]} do not fit {arrays[0].shape}")
    if not all(np.isfinite(each).all() for each in arrays):
        raise InvalidParameter("a spectrum holds a number that is not finite; give finite ones")
    return arrays


def _even(loss_ev: ArrayLike) -> NDArray[np.float64]:
    loss = np.asarray(loss_ev, np.float64)
    if loss.ndim != 1 or len(loss) < 2 or not np.allclose(np.diff(loss), loss[1] - loss[0], rtol=1e-6):
        raise InvalidParameter("the axis of losses has to be one-dimensional with equal steps")
    if not loss[1] > loss[0]:
        raise InvalidParameter(f"the axis of losses has steps of {loss[1] - loss[0]:g} eV; they must be above 0")
    return loss


def _zero_place(loss_ev: NDArray[np.float64]) -> tuple[int, float]:
    """The channel nearest to zero loss, and how far beyond it that is, in channels (-0.5 to 0.5)."""
    place = -loss_ev[0] / (loss_ev[1] - loss_ev[0])
    zero = round(place)
    if not 0 <= zero < len(loss_ev):
        raise InvalidParameter(f"the axis from {loss_ev[0]:g} to {loss_ev[-1]:g} eV does not hold zero loss")
    beyond = float(place - zero)
    return zero, beyond if abs(beyond) > _SAME_CHANNEL else 0.0


def _shared(spectrum: NDArray[np.float64], back: float) -> NDArray[np.float64]:
    """Moved back by a part of a channel: each channel's electrons are shared with its neighbour, none get lost."""
    if back == 0:
        return spectrum
    return (1 - abs(back)) * spectrum + abs(back) * np.roll(spectrum, -1 if back > 0 else 1)


def _gaussian(loss_ev: NDArray[np.float64], fwhm_ev: float) -> NDArray[np.float64]:
    return np.exp(-4 * np.log(2) * (loss_ev / fwhm_ev) ** 2)


def _padded(count: int) -> int:
    size = scipy.fft.next_fast_len(4 * count, True)
    return size if size is not None else 4 * count


def _from_zero(spectrum: NDArray[np.float64], zero: int, size: int) -> NDArray[np.float64]:
    """Zero loss at index 0; what lies below it at the end."""
    padded = np.zeros(size)
    padded[: len(spectrum)] = spectrum
    return np.roll(padded, -zero)


def _to_axis(spectrum: NDArray[np.complex128], zero: int, count: int) -> NDArray[np.float64]:
    return np.roll(spectrum.real, zero)[:count].astype(np.float64)
