"""From fractions of the beam to raw counts: current, dwell time, and what a detector chain adds.

Its neighbours are `noise`, which draws the electrons, and `scan_distortions`, which moves the probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.errors import InvalidParameter
from simulation.noise import poisson_electrons

ELECTRONS_PER_PA_US = 1e-18 / 1.602176634e-19
"""Electrons that 1 pA brings in 1 microsecond."""


_MOST_ELECTRONS = 1e15


@kinds_checked
def electrons_per_pixel(probe_current_pa: float, dwell_time_us: float) -> float:
    """Mean number of electrons on one pixel.

    >>> round(electrons_per_pixel(30.0, 4.0), 1)
    749.0
    """
    if not (probe_current_pa >= 0 and dwell_time_us >= 0):
        raise InvalidParameter(
            f"probe_current_pa = {probe_current_pa} and dwell_time_us = {dwell_time_us} must not be negative"
        )
    return probe_current_pa * dwell_time_us * ELECTRONS_PER_PA_US


@kinds_checked
def dose_e_per_a2(electrons_e_per_px: float, pixel_nm: tuple[float, float]) -> float:
    """Electrons per square angstrom of a raster whose pixels are (y, x) apart.

    >>> round(dose_e_per_a2(100.0, (0.02, 0.02)))
    2500
    """
    if not (0 <= electrons_e_per_px < inf and all(0 < side < inf for side in pixel_nm)):
        raise InvalidParameter(
            f"electrons_e_per_px = {electrons_e_per_px} must be 0 or more and pixel_nm = {pixel_nm} positive"
        )
    return electrons_e_per_px / (pixel_nm[0] * pixel_nm[1] * 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChain:
    """What lies between electrons and stored counts; the default counts every electron once.

    `quantum_efficiency`: share of electrons that are registered. `gain_counts_per_electron`, `gain_spread_fraction`:
    mean counts of a registered electron, and their standard deviation over that mean (0: all alike; an exponential
    pulse height has 1). `offset_counts` and `read_noise_counts` (rms) are added to each pixel. Counts are rounded to
    whole numbers and end at `saturation_counts`.
    """

    quantum_efficiency: float = 1.0
    gain_counts_per_electron: float = 1.0
    gain_spread_fraction: float = 0.0
    offset_counts: float = 0.0
    read_noise_counts: float = 0.0
    saturation_counts: int = 2**16 - 1

    def __post_init__(self) -> None:
        """Refuse what no detector does."""
        check_fields(self)
        if not 0 <= self.quantum_efficiency <= 1:
            raise InvalidParameter(f"quantum_efficiency = {self.quantum_efficiency} must lie between 0 and 1")
        others = (self.gain_counts_per_electron, self.gain_spread_fraction, self.read_noise_counts)
        if not all(isfinite(value) and value >= 0 for value in others) or not isfinite(self.offset_counts):
            raise InvalidParameter(
                f"gain_counts_per_electron, gain_spread_fraction and read_noise_counts = {others} must be finite,"
                " 0 or more"
            )
        if not 1 <= self.saturation_counts < 2**32:
            raise InvalidParameter(f"saturation_counts = {self.saturation_counts} must lie between 1 and 2^32 - 1")


@kinds_checked
def raw_counts(
    image: np.ndarray, electrons_e_per_px: float, chain: DetectorChain, rng: np.random.Generator
) -> np.ndarray:
    """What is stored, uint32, same shape, for an image in fractions of the beam of any shape, patterns included.

    Electrons arrive independently: the number registered is Poisson with mean image * electrons * efficiency. With a
    spread of gain, n electrons give n * gain with variance n * (gain * spread)^2, drawn as a gamma distribution.
    A negative image reads as 0; a negative sum of offset and noise is stored as 0.
    """
    image = np.asarray(image)
    if not 0 <= electrons_e_per_px < inf:
        raise InvalidParameter(f"electrons_e_per_px = {electrons_e_per_px} must be 0 or more, and finite")
    if not np.isfinite(image).all():
        raise InvalidParameter("the image to count holds a value that is not finite")
    most = float(np.max(image, initial=0.0)) * electrons_e_per_px
    if most > _MOST_ELECTRONS:
        raise InvalidParameter(
            f"the image has {most:.3g} electrons on a pixel, more than {_MOST_ELECTRONS:g}; give it as fractions of the"
            " beam, and electrons_e_per_px in electrons"
        )
    electrons = poisson_electrons(image, electrons_e_per_px * chain.quantum_efficiency, rng)
    counts = electrons * chain.gain_counts_per_electron + chain.offset_counts
    if chain.gain_spread_fraction > 0:
        shape = np.maximum(electrons, 0) / chain.gain_spread_fraction**2
        scale = chain.gain_counts_per_electron * chain.gain_spread_fraction**2
        counts = rng.gamma(shape, 1.0) * scale + chain.offset_counts
    if chain.read_noise_counts > 0:
        counts = counts + rng.normal(0.0, chain.read_noise_counts, electrons.shape)
    return np.clip(np.rint(counts), 0, chain.saturation_counts).astype(np.uint32)
