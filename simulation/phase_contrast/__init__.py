"""Signals that need where electrons went, not only how far: centre of mass, DPC, their integrals, side bands.

All take data as `simulate` returns them for pixelated and segmented detectors, (..., detector_y, detector_x) or
(..., ring, segment), of numpy, torch or CuPy, and answer in the same library.
"""

from simulation.phase_contrast.fields import VectorField, centre_of_mass
from simulation.phase_contrast.integration import integrate, phase_from_field
from simulation.phase_contrast.segments import centre_of_mass_from_segments, disc_shift_from_segments
from simulation.phase_contrast.single_side_band import single_side_band
from simulation.phase_contrast.virtual import detector_masks, virtual_image

__all__ = [
    "VectorField",
    "centre_of_mass",
    "centre_of_mass_from_segments",
    "detector_masks",
    "disc_shift_from_segments",
    "integrate",
    "phase_from_field",
    "single_side_band",
    "virtual_image",
]
