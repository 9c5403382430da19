"""What the local differences of a crystal with changed sites will cost, before any is computed."""

from __future__ import annotations

from math import log2, pi

import numpy as np

from instruments.optics import Optics
from simulation.backend import Backend
from simulation.defective_crystal import DefectiveCrystal
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.probe import aperture_function
from simulation.wave_grid import WaveGrid

_ELEMENTWISE_FLOPS = 30.0
_MATRIX_PRODUCT_GAIN = 3.0
_RADIUS_ANGSTROM = 2.3
"""Of the disc whose illumination matters to a changed site, at the usual tolerance."""
_USUAL_TOLERANCE = 0.02
_GROWTH_WITH_TOLERANCE = 0.5
_SAMPLED_PER_KEPT = 6.0
"""Sums of plane waves tried until they span what is kept; and some more at each slice, to know that they do."""
_SAMPLED_AT_LEAST = 24
_FLOPS_PER_AMPLITUDE = 400.0
"""Of all plane waves at a changed slice, put together from those that symmetry leaves."""
_SAME_COLUMN_ANGSTROM = 1.5
_COPIES = 3
_LARGEST_MEMORY_SHARE = 0.8


def wave_count(defective: DefectiveCrystal, grid: WaveGrid, optics: Optics, tolerance: float) -> float:
    """About how many waves the differences will be summed from: those an aperture holds within a disc, each column."""
    if not len(defective.changed_angstrom):
        return 0.0
    radius = _RADIUS_ANGSTROM * (_USUAL_TOLERANCE / tolerance) ** _GROWTH_WITH_TOLERANCE
    aperture = optics.semi_convergence_angle_mrad * 1e-3 / wavelength_angstrom(optics.beam_energy_ev)
    each = 1 + (pi * aperture * radius) ** 2
    return min(each * defective.column_count(_SAME_COLUMN_ANGSTROM), np.count_nonzero(aperture_function(optics, grid)))


def difference_bytes(defective: DefectiveCrystal, grid: WaveGrid, optics: Optics, tolerance: float) -> int:
    """Memory in single precision that the waves take while they are found."""
    pixels = np.count_nonzero(grid.squared_frequencies() <= grid.cutoff_per_angstrom**2)
    return int(_COPIES * 8 * wave_count(defective, grid, optics, tolerance) * pixels)


def check_difference_memory(
    defective: DefectiveCrystal, grid: WaveGrid, optics: Optics, tolerance: float, on: Backend
) -> None:
    """Refuse waves too many for the device, before any is computed."""
    needed = difference_bytes(defective, grid, optics, tolerance) * on.complex_bytes // 8
    if needed > _LARGEST_MEMORY_SHARE * on.memory_bytes:
        columns = defective.column_count(_SAME_COLUMN_ANGSTROM)
        raise InvalidParameter(
            f"the waves of method 'local_difference' need about {needed / 2**30:.1f} GiB for {columns} columns with"
            f" changed sites, above {_LARGEST_MEMORY_SHARE:.0%} of the {on.memory_bytes / 2**30:.1f} GiB free on"
            f" {on.name}; use a smaller cell, a larger accuracy, or method='windowed' or 'multislice'"
        )


def difference_flops(
    defective: DefectiveCrystal, grid: WaveGrid, optics: Optics, step_count: int, tolerance: float
) -> float:
    """Beyond the perfect crystal's: finding the waves at each slice that differs, and taking them to the exit."""
    waves = wave_count(defective, grid, optics, tolerance)
    if not waves:
        return 0.0
    crystal = defective.crystal
    unit, whole = (shape[0] * shape[1] for shape in (crystal.unit_grid.shape_px, grid.shape_px))
    vectors = crystal.repeats[0] * crystal.repeats[1]
    below = 1 - float(np.min(defective.changed_angstrom[:, 2])) / defective.perfect.cell_angstrom[2]
    down = below * step_count * vectors * unit * (10 * log2(unit) + _ELEMENTWISE_FLOPS)
    beams = np.count_nonzero(aperture_function(optics, grid))
    waves_each = np.count_nonzero(grid.squared_frequencies() <= grid.cutoff_per_angstrom**2) / vectors
    sampled = 2 * (whole * (5 * log2(whole) + _ELEMENTWISE_FLOPS) + 8.0 * beams * waves_each / _MATRIX_PRODUCT_GAIN)
    samples = _SAMPLED_PER_KEPT * waves + _SAMPLED_AT_LEAST * len(defective.slices)
    gathered = (len(defective.slices) + 1) * _FLOPS_PER_AMPLITUDE * beams * waves_each
    return float(waves * down + samples * sampled + gathered)
