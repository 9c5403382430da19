"""Diffraction patterns averaged over all probe positions, at several thicknesses: plane waves added as intensities.

Over all positions of a period the interference between two plane waves of the aperture averages out, so that
PACBED(K) = sum over k of |A(k)|^2 |S_k(K)|^2: neither defocus, aberrations nor source size matter. Each wave
needs one unit of the specimen only, its frequencies moved by what it lacks to a reciprocal lattice vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.backend import Backend
from simulation.crystal_symmetry import Crystal
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.fingerprints.depth_series import waves_at_depths
from simulation.multislice import Propagator, transmissions
from simulation.potential import PotentialModel
from simulation.probe import aperture_function
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid


def position_averaged_patterns(
    specimen: Specimen,
    slice_thickness_nm: float,
    cuts: Sequence[int],
    optics: Optics,
    *,
    step_mrad: float,
    shape_px: tuple[int, int],
    sampling_nm: float,
    model: PotentialModel,
    on: Backend,
) -> NDArray[np.float64]:
    """(cuts, rows, columns), fractions of the beam on each pixel of a detector with zero angle at index n // 2."""
    width, height, _ = specimen.cell_angstrom
    grid = WaveGrid.for_cell(width, height, sampling_nm, None)
    crystal = Crystal.of(specimen, grid, slice_thickness_nm)
    unit, grid = (specimen, grid) if crystal is None else (crystal.unit, crystal.unit_grid)
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    _check_reach(grid, wavelength, step_mrad, shape_px)
    repeats = np.array([max(1, round(wavelength * 1e3 / step_mrad / extent + 0.5)) for extent in grid.extent_angstrom])
    beams, shares = _beams(optics, grid, repeats)
    canvas = _Canvas.of(grid, repeats, wavelength, step_mrad, shape_px, len(cuts))
    functions = transmissions(unit, grid, slice_thickness_nm, model, optics.beam_energy_ev, on)
    remainders = np.mod(beams, repeats)
    for remainder in np.unique(remainders, axis=0):
        own = np.flatnonzero((remainders == remainder).all(axis=1))
        bloch = np.where(remainder > repeats // 2, remainder - repeats, remainder)
        offset = bloch / repeats / np.asarray(grid.extent_angstrom)
        propagator = Propagator(optics, grid, functions.thickness_angstrom, on, (float(offset[0]), float(offset[1])))
        entering = np.mod((beams[own] - bloch) // repeats, grid.shape_px)
        count = on.batch_count(on.complex_bytes * grid.shape_px[0] * grid.shape_px[1])
        for start in range(0, len(own), count):
            places = entering[start : start + count]
            waves = np.zeros((len(places), *grid.shape_px), on.complex_type)
            waves[np.arange(len(waves)), *places.T] = 1.0
            share = on.asarray(shares[own[start : start + count]].astype(on.real_type))[:, None, None]
            for index, seen in enumerate(waves_at_depths(on.asarray(waves), functions, cuts, propagator, on)):
                intensity = on.xp.sum(share * (on.xp.real(seen) ** 2 + on.xp.imag(seen) ** 2), axis=0)
                canvas.add(index, on.to_numpy(intensity), bloch)
    return rebinned(canvas.patterns, *canvas.axes_mrad, step_mrad, shape_px)


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Patterns (cuts, rows, columns) on the lattice of all plane waves, zero angle in the middle."""

    patterns: NDArray[np.float64]
    steps_mrad: tuple[float, float]
    grid: WaveGrid
    repeats: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        grid: WaveGrid,
        repeats: NDArray[np.int64],
        wavelength: float,
        step_mrad: float,
        shape_px: tuple[int, int],
        cut_count: int,
    ) -> _Canvas:
        """Empty, a pixel of the detector larger on every side."""
        rows, columns = (1e3 * wavelength / (np.asarray(grid.extent_angstrom) * repeats)).tolist()
        sides = [
            2 * int((n / 2 + 1) * step_mrad / own) + 3 for n, own in zip(shape_px, (rows, columns), strict=True)
        ]  # fmt: skip
        return cls(np.zeros((cut_count, *sides)), (rows, columns), grid, repeats)

    @property
    def axes_mrad(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Angles (y, x)."""
        shape = self.patterns.shape[1:]
        rows, columns = ((np.arange(n) - n // 2) * step for n, step in zip(shape, self.steps_mrad, strict=True))
        return rows, columns

    def add(self, index: int, intensity: NDArray[np.floating[Any]], bloch: NDArray[np.int64]) -> None:
        """What a unit's grid holds goes to the plane waves bloch + repeats * g that it stands for."""
        targets, inside = [], []
        for axis, side in enumerate(self.patterns.shape[1:]):
            count = self.grid.shape_px[axis]
            g = np.rint(np.fft.fftfreq(count) * count).astype(np.int64)
            at = g * self.repeats[axis] + bloch[axis] + side // 2
            inside.append(np.flatnonzero((at >= 0) & (at < side)))
            targets.append(at[inside[-1]])
        self.patterns[index][np.ix_(*targets)] += intensity[np.ix_(*inside)]


def rebinned(
    patterns: NDArray[np.float64],
    y_mrad: NDArray[np.float64],
    x_mrad: NDArray[np.float64],
    step_mrad: float,
    shape_px: tuple[int, int],
) -> NDArray[np.float64]:
    """(..., rows, columns) on the detector's pixels: what a pixel of the given even axes holds is shared by area."""
    along_y = _shares(y_mrad, step_mrad, shape_px[0])
    along_x = _shares(x_mrad, step_mrad, shape_px[1])
    return along_y @ patterns @ along_x.T


def _shares(angles_mrad: NDArray[np.float64], step_mrad: float, count: int) -> NDArray[np.float64]:
    """(pixels of the detector, given pixels): share of each given pixel that lies on each pixel of the detector."""
    width = angles_mrad[1] - angles_mrad[0]
    edges = (np.arange(count + 1) - count // 2 - 0.5) * step_mrad
    low = np.maximum(edges[:-1, None], angles_mrad[None, :] - width / 2)
    high = np.minimum(edges[1:, None], angles_mrad[None, :] + width / 2)
    return np.maximum(high - low, 0) / width


def _beams(optics: Optics, grid: WaveGrid, repeats: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Plane waves (iy, ix) of the aperture on the lattice of `repeats` units, and the share of the beam in each."""
    shape = (int(grid.shape_px[0] * repeats[0]), int(grid.shape_px[1] * repeats[1]))
    extent = (grid.extent_angstrom[0] * int(repeats[0]), grid.extent_angstrom[1] * int(repeats[1]))
    aperture = aperture_function(optics, WaveGrid(shape, extent))
    rows, columns = np.nonzero(aperture)
    signed = [np.where(i >= (n + 1) // 2, i - n, i) for i, n in zip((rows, columns), shape, strict=True)]
    shares = aperture[rows, columns] ** 2
    return np.column_stack(signed), shares / shares.sum()


def _check_reach(grid: WaveGrid, wavelength: float, step_mrad: float, shape_px: tuple[int, int]) -> None:
    reach, cutoff = max(shape_px) / 2 * step_mrad, grid.cutoff_mrad(wavelength)
    if reach > cutoff:
        raise InvalidParameter(
            f"a pattern of {shape_px} pixels of {step_mrad:g} mrad reaches {reach:.1f} mrad, beyond the antialias"
            f" cutoff {cutoff:.1f} mrad of this grid; use a finer sampling_nm or fewer pixels"
        )
