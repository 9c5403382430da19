"""The power law under an edge: fitted before it, subtracted beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A (E / E0)^-r: counts at the reference loss, and the exponent (Egerton, 3rd ed., section 4.4.1)."""

    amplitude: float
    exponent: float
    reference_ev: float

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        check_fields(self)

    def at(self, loss_ev: ArrayLike) -> NDArray[np.float64]:
        """Value at losses above 0, same shape."""
        return self.amplitude * (np.asarray(loss_ev, np.float64) / self.reference_ev) ** -self.exponent


@kinds_checked
def fit_power_law(loss_ev: ArrayLike, spectrum: ArrayLike, window_ev: tuple[float, float]) -> PowerLaw:
    """The power law nearest to a spectrum within a window, by straight-line fit of logarithms.

    Channels are weighted by their counts, which is right for shot noise. Holds over windows of some tens of percent of
    the loss and extrapolates about as far.
    """
    loss, values = np.asarray(loss_ev, np.float64), np.asarray(spectrum, np.float64)
    if loss.shape != values.shape:
        raise InvalidParameter(f"a spectrum of shape {values.shape} does not fit losses of shape {loss.shape}")
    inside = (loss >= window_ev[0]) & (loss < window_ev[1]) & (values > 0)
    if window_ev[0] <= 0 or np.count_nonzero(inside) < 2:
        raise InvalidParameter(
            f"the window {window_ev[0]:g} to {window_ev[1]:g} eV holds {np.count_nonzero(inside)} channels with counts;"
            " it has to begin above 0 and hold two or more"
        )
    reference = float(np.sqrt(window_ev[0] * window_ev[1]))
    slope, offset = np.polyfit(np.log(loss[inside] / reference), np.log(values[inside]), 1, w=np.sqrt(values[inside]))
    return PowerLaw(float(np.exp(offset)), float(-slope), reference)
