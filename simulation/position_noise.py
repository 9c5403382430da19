"""What it costs an image to take atoms for equally placed that are not quite: positions come rounded from files."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi

from instruments.optics import Optics
from simulation.detectors import Detector, PixelatedDetector
from simulation.electron import wavelength_angstrom

_NO_NOISE_ANGSTROM = 1e-7
"""Digits beyond these are those of binary numbers, not of a file."""
_SHARE = 0.75
"""Of the largest turn of a phase."""


def error_from_noise(
    deviation_angstrom: float, optics: Optics, detectors: Mapping[str, Detector], cutoff_mrad: float
) -> float:
    """Bound for the rms error over the spread of the image if atoms are up to `deviation_angstrom` from their places.

    An atom moved by d turns the phase of a wave scattered by q through 2 pi q d. The largest q goes from one edge of
    the aperture to the outer edge of the outermost detector. The
    deviation is the largest and atoms err in all directions: errors measured with SrTiO3 (1 and 10 nm), gold and MoS2,
    in bright and dark field, were below a third of this.
    """
    if deviation_angstrom < _NO_NOISE_ANGSTROM:
        return 0.0
    outer_mrad = max(
        cutoff_mrad if isinstance(each, PixelatedDetector) else min(each.outer_mrad, cutoff_mrad)
        for each in detectors.values()
    )
    q = (outer_mrad + optics.semi_convergence_angle_mrad) * 1e-3 / wavelength_angstrom(optics.beam_energy_ev)
    return _SHARE * 2 * pi * q * deviation_angstrom
