"""Finite projection as a widely used code tabulates it, for comparison: `finite_potential` is the one for physics.

Evaluated at the pixels in real space from radial tables, without a band limit. The integral diverges on the
nucleus, so radii below half a pixel count as half a pixel; atoms repeat along the beam.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from simulation.atom_parts import depth_integral
from simulation.finite_potential import radius_angstrom
from simulation.slices import slice_count
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

_POTENTIAL_TOLERANCE_V = 1e-4
_TAPER_START = 0.85


def tabulated_slices(
    specimen: Specimen, grid: WaveGrid, slice_thickness_nm: float, parametrization: str
) -> Iterator[NDArray[np.float64]]:
    """One (rows, columns) potential in V*angstrom for each slice from the entrance."""
    depth = specimen.cell_angstrom[2]
    count = slice_count(depth, slice_thickness_nm)
    thickness = depth / count
    cutoffs = {
        int(z): radius_angstrom(int(z), _POTENTIAL_TOLERANCE_V, parametrization) for z in np.unique(specimen.numbers)
    }
    for index in range(count):
        yield _one_slice(specimen, grid, (index * thickness, (index + 1) * thickness), cutoffs, parametrization)


def radial_table(
    number: int,
    from_nucleus_angstrom: tuple[float, float],
    step_angstrom: float,
    cutoff_angstrom: float,
    parametrization: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii and the integral of V over z between two heights above the nucleus, tapered to 0 at the cutoff."""
    radii = np.geomspace(step_angstrom / 2, cutoff_angstrom, ceil(2 * cutoff_angstrom / step_angstrom))
    values = depth_integral(number, radii, *from_nucleus_angstrom, parametrization)
    edge = np.clip((radii / cutoff_angstrom - _TAPER_START) / (1 - _TAPER_START), 0, 1)
    return radii, values * 0.5 * (1 + np.cos(np.pi * edge))


def _one_slice(
    specimen: Specimen,
    grid: WaveGrid,
    bounds_angstrom: tuple[float, float],
    cutoffs: dict[int, float],
    parametrization: str,
) -> NDArray[np.float64]:
    total = np.zeros(grid.shape_px)
    depth = specimen.cell_angstrom[2]
    step = min(grid.sampling_angstrom)
    tables: dict[tuple[int, float], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for number, (x, y, z) in zip(specimen.numbers, specimen.positions_angstrom, strict=True):
        cutoff = cutoffs[int(number)]
        reach = ceil(cutoff / depth)
        for image in range(-reach, reach + 1):
            nucleus = z + image * depth
            if not -cutoff <= nucleus <= depth + cutoff or not _reaches(nucleus, bounds_angstrom, cutoff):
                continue
            key = (int(number), round(nucleus, 9))
            if key not in tables:
                above = (bounds_angstrom[0] - nucleus, bounds_angstrom[1] - nucleus)
                tables[key] = radial_table(int(number), above, step, cutoff, parametrization)
            _add_radial(total, grid, (x, y), *tables[key])
    return total


def _reaches(nucleus_angstrom: float, bounds_angstrom: tuple[float, float], cutoff: float) -> bool:
    return bounds_angstrom[0] - cutoff < nucleus_angstrom < bounds_angstrom[1] + cutoff


def _add_radial(
    total: NDArray[np.float64],
    grid: WaveGrid,
    centre_angstrom: tuple[float, float],
    radii: NDArray[np.float64],
    values: NDArray[np.float64],
) -> None:
    """Add a radial function around a point of the periodic plane to `total`, in place."""
    (rows, columns), (dy, dx) = grid.shape_px, grid.sampling_angstrom
    x, y = centre_angstrom
    cutoff = radii[-1]
    row = np.arange(floor((y - cutoff) / dy), ceil((y + cutoff) / dy) + 1)
    column = np.arange(floor((x - cutoff) / dx), ceil((x + cutoff) / dx) + 1)
    rho = np.hypot((row * dy - y)[:, None], (column * dx - x)[None, :])
    patch = np.interp(np.maximum(rho, radii[0]), radii, values, right=0.0)
    np.add.at(total, ((row % rows)[:, None], (column % columns)[None, :]), patch)
