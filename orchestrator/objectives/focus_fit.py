"""The defocus of best contrast from the ring powers of a defocus series, with an honest error.

Neighbours: `features.sharpness` makes the ring powers; `focus` is the objective that asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

_STEP_NM = 0.05
_WIDTHS = np.exp(np.linspace(np.log(0.5), np.log(2.0), 25))  # about the width expected of the optics
_WIDTH_LOG_STD = 0.25
_PER_DEPTH_OF_FOCUS = 0.7  # standard deviation of the sharpness curve over wavelength / angle squared
_LEAST_GAIN = 30.0  # chi2 by which a peak must beat none at all; the highest of 1,500 series of pure noise had 25
_MODEL_FRACTION = 0.02  # of the highest sharpness: what a Gaussian curve does not describe


def expected_width_nm(wavelength_nm: float, semi_convergence_angle_mrad: float) -> float:
    """Standard deviation of the sharpness curve to expect: 0.7 of the depth of focus, wavelength / angle^2.

    >>> round(expected_width_nm(0.004866, 31.5), 2)
    3.43
    """
    return _PER_DEPTH_OF_FOCUS * wavelength_nm / (semi_convergence_angle_mrad * 1e-3) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusFit:
    """Where the curve peaks, how sure that is, and how the peak stands out.

    `gain` is the chi2 by which a peak beats no peak; `is_significant` says whether that is more than noise does.
    `std_nm` includes what the curve's width leaves open and is widened where the curve fits badly (`chi2_ratio` > 1).
    `weights` (rings,) turn ring powers into the sharpness that the fit used, 1 at the peak.
    """

    defocus_nm: float
    std_nm: float
    width_nm: float
    gain: float
    is_significant: bool
    chi2_ratio: float
    weights: np.ndarray

    def curve(self, defocus_nm: np.ndarray) -> np.ndarray:
        """Sharpness over its highest value, as fitted."""
        return np.exp(-0.5 * ((np.asarray(defocus_nm) - self.defocus_nm) / self.width_nm) ** 2)


def fit_focus(
    defocus_nm: np.ndarray, power: np.ndarray, variance: np.ndarray, width_nm: float, reach_nm: float | None = None
) -> FocusFit:
    """Posterior of the peak for (frames,) defoci, (frames, rings) ring powers and their variances.

    Every ring follows one Gaussian of defocus with an amplitude >= 0 of its own (fitted, linear): rings in which this
    specimen has structure count, empty ones do not. Flat prior of the peak over the range tried and `reach_nm` beyond
    it, log-normal prior (25 %) of the width about `width_nm`; both are summed over on a grid.
    """
    reach = 2 * width_nm if reach_nm is None else reach_nm
    peaks = np.arange(defocus_nm.min() - reach, defocus_nm.max() + reach + _STEP_NM / 2, _STEP_NM)
    model_variance = (_MODEL_FRACTION * np.maximum(power.max(axis=0), 0.0)) ** 2
    weight = 1.0 / (variance + model_variance)
    log_posterior = np.empty((len(_WIDTHS), len(peaks)))
    gains = np.empty_like(log_posterior)
    for number, factor in enumerate(_WIDTHS):
        shape = np.exp(-0.5 * ((defocus_nm[:, None] - peaks[None, :]) / (factor * width_nm)) ** 2)  # (frames, peaks)
        along, norm = shape.T @ (weight * power), (shape**2).T @ weight
        gains[number] = (np.maximum(along, 0.0) ** 2 / np.maximum(norm, 1e-300)).sum(axis=1)
        log_posterior[number] = 0.5 * gains[number] - 0.5 * (np.log(factor) / _WIDTH_LOG_STD) ** 2
    row, column = np.unravel_index(int(np.argmax(log_posterior)), log_posterior.shape)
    gain = float(gains[row, column])
    freedom = power.size - power.shape[1] - 2  # one amplitude a ring, peak and width
    chi2_ratio = (float((weight * power**2).sum()) - gain) / freedom if freedom > 0 else 1.0
    posterior = np.exp((log_posterior - log_posterior[row, column]) / max(chi2_ratio, 1.0))
    posterior /= posterior.sum()
    along_peaks, along_widths = posterior.sum(axis=0), posterior.sum(axis=1)
    mean = float(along_peaks @ peaks)
    std = sqrt(max(float(along_peaks @ (peaks - mean) ** 2), _STEP_NM**2 / 12))
    width = float(along_widths @ (_WIDTHS * width_nm))
    return FocusFit(
        defocus_nm=mean,
        std_nm=std,
        width_nm=width,
        gain=gain,
        is_significant=gain > _LEAST_GAIN,
        chi2_ratio=chi2_ratio,
        weights=_ring_weights(defocus_nm, power, weight, mean, width),
    )


def _ring_weights(
    defocus_nm: np.ndarray, power: np.ndarray, weight: np.ndarray, peak_nm: float, width_nm: float
) -> np.ndarray:
    """The matched filter over rings: amplitude over variance, scaled to give 1 at the peak."""
    shape = np.exp(-0.5 * ((defocus_nm - peak_nm) / width_nm) ** 2)[:, None]
    amplitude = np.maximum((shape * weight * power).sum(axis=0), 0.0) / np.maximum(
        (shape**2 * weight).sum(axis=0), 1e-300
    )
    filter_ = amplitude * weight.mean(axis=0)
    total = float(filter_ @ amplitude)
    return filter_ / total if total > 0 else np.zeros_like(amplitude)
