"""Projected potentials in Fourier space; `finite_potential` integrates over a slice instead.

With "infinite" projection an atom lies as a whole in one slice. Its place is either `exact` (Fourier shift; on the
wave grid, or on a finer one for transmission functions) or `bilinear` (delta functions spread over four pixels and
divided by a radial sinc, which reproduces abTEM 1.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend, backend
from simulation.errors import InvalidParameter
from simulation.finite_potential import finite_slices
from simulation.scattering_factors import PARAMETRIZATIONS, projected_scattering_factor
from simulation.slices import EMPTY, AtomSlice, slices_of
from simulation.specimens import Atoms, Specimen
from simulation.wave_grid import WaveGrid

PLACEMENTS = ("exact", "bilinear")
PROJECTIONS = ("infinite", "finite")
_ATOMS_PER_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class PotentialModel:
    """Which atomic potential, and how it is put on a grid."""

    parametrization: str = "lobato"
    placement: str = "exact"
    projection: str = "infinite"

    def __post_init__(self) -> None:
        """Refuse unknown words, naming the known ones."""
        for name, known in (
            ("parametrization", PARAMETRIZATIONS),
            ("placement", PLACEMENTS),
            ("projection", PROJECTIONS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InvalidParameter(f"unknown {name} {value!r}; choose one of {', '.join(known)}")


def projected_potential(
    atoms: Atoms,
    *,
    sampling_nm: float = 0.005,
    slice_thickness_nm: float = 0.2,
    parametrization: str = "lobato",
    placement: str = "exact",
    projection: str = "infinite",
    grid_shape_px: tuple[int, int] | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Projected potential of each slice, (slices, rows, columns), V*angstrom; the mean is kept.

    `infinite`: V(k) = sum of K f_e(k) exp(-2 pi i k.r) over the atoms, all frequencies of the grid.
    `finite`: each atom's potential integrated over the slice, evaluated at the pixels in real space.
    """
    model = PotentialModel(parametrization, placement, projection)
    specimen = Specimen.of(atoms)
    width, height, _ = specimen.cell_angstrom
    grid = WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px)
    if projection == "finite":
        return np.stack(list(finite_slices(specimen, grid, slice_thickness_nm, parametrization))).astype(np.float32)
    slices = slices_of(specimen, slice_thickness_nm)
    on = backend(device)
    synthesizer = PotentialSynthesizer(grid, model, on)
    distinct = [on.to_numpy(synthesizer.potential(atoms)) for atoms in slices.distinct]
    empty = np.zeros(grid.shape_px, dtype=np.float32)
    return np.stack([empty if index == EMPTY else distinct[index] for index in slices.order])


class PotentialSynthesizer:
    """Builds slice potentials on one grid, keeping the form factors of the elements it has met."""

    def __init__(self, grid: WaveGrid, model: PotentialModel, on: Backend) -> None:
        """`on` is where the arrays live."""
        self.grid = grid
        self._model = model
        self._on = on
        rows, columns = grid.shape_px
        ky, kx = grid.frequencies_per_angstrom()
        self._ky, self._kx = ky[:, 0], np.abs(kx[0, : columns // 2 + 1])
        self._form_factors: dict[int, Array] = {}
        self._row_is_nyquist = rows % 2 == 0
        self._column_is_nyquist = columns % 2 == 0

    def potential(self, atoms: AtomSlice) -> Array:
        """(rows, columns), float32, V*angstrom."""
        spectrum: Any = 0.0
        for number in np.unique(atoms.numbers):
            xy = atoms.xy_angstrom[atoms.numbers == number]
            spectrum = spectrum + self._structure_factor(xy) * self._form_factor(int(number))
        return self._on.irfft2(spectrum, self.grid.shape_px)

    def _form_factor(self, number: int) -> Array:
        """Projected scattering factor per pixel area on the half spectrum, float32."""
        if number not in self._form_factors:
            dy, dx = self.grid.sampling_angstrom
            k = np.sqrt(self._ky[:, None] ** 2 + self._kx[None, :] ** 2)
            factor = projected_scattering_factor(number, k, self._model.parametrization) / (dx * dy)
            if self._model.placement == "bilinear":
                q = np.sqrt((self._ky[:, None] * dy) ** 2 + (self._kx[None, :] * dx) ** 2)
                factor = factor / np.sinc(q / np.pi)
            self._form_factors[number] = self._on.asarray(factor.astype(np.float32))
        return self._form_factors[number]

    def _structure_factor(self, xy_angstrom: NDArray[np.float64]) -> Array:
        if self._model.placement == "bilinear":
            spread = bilinear_deltas(xy_angstrom, self.grid)
            return self._on.asarray(np.fft.rfft2(spread).astype(np.complex64))
        total: Any = 0.0
        for along_y, along_x in self._separable(xy_angstrom):
            total = total + self._on.xp.matmul(self._on.asarray(along_y), self._on.asarray(along_x))
        return total

    def _separable(
        self, xy_angstrom: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.complex64], NDArray[np.complex64]]]:
        """exp(-2 pi i k.r) as products of a column and a row; atoms of equal x (or y) share one."""
        x, y = xy_angstrom[:, 0], xy_angstrom[:, 1]
        for block in range(0, len(x), _ATOMS_PER_BLOCK):
            part = slice(block, block + _ATOMS_PER_BLOCK)
            yield _shared_columns(self._ramp(y[part], self._ky, self._row_is_nyquist), x[part], self._ramp_x)

    def _ramp_x(self, x_angstrom: NDArray[np.float64]) -> NDArray[np.complex128]:
        return self._ramp(x_angstrom, self._kx, self._column_is_nyquist)

    @staticmethod
    def _ramp(
        position_angstrom: NDArray[np.float64], k_per_angstrom: NDArray[np.float64], has_nyquist: bool
    ) -> NDArray[np.complex128]:
        """exp(-2 pi i k r) as (frequencies, atoms), real at the Nyquist frequency so that the potential is real."""
        ramp = np.exp(-2j * np.pi * k_per_angstrom[:, None] * position_angstrom[None, :])
        if has_nyquist:
            row = int(np.argmax(np.abs(k_per_angstrom)))
            ramp[row] = ramp[row].real
        return ramp


def _shared_columns(
    along_y: NDArray[np.complex128], x_angstrom: NDArray[np.float64], ramp_x: Any
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Sum the y factors of atoms with the same x before the large product."""
    distinct, member = np.unique(np.round(x_angstrom, 9), return_inverse=True)
    if len(distinct) == len(x_angstrom):
        return along_y.astype(np.complex64), ramp_x(x_angstrom).T.astype(np.complex64)
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(len(distinct)))
    summed = np.add.reduceat(along_y[:, order], starts, axis=1)
    return summed.astype(np.complex64), ramp_x(distinct).T.astype(np.complex64)


def bilinear_deltas(xy_angstrom: NDArray[np.float64], grid: WaveGrid) -> NDArray[np.float64]:
    """One delta per atom, spread over the four pixels around it; (rows, columns), summing to the number of atoms."""
    rows, columns = grid.shape_px
    dy, dx = grid.sampling_angstrom
    u, v = xy_angstrom[:, 0] / dx, xy_angstrom[:, 1] / dy
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = u - left, v - top
    total = np.zeros(rows * columns)
    for row_step, row_weight in ((0, 1 - b), (1, b)):
        for column_step, column_weight in ((0, 1 - a), (1, a)):
            pixel = ((top + row_step) % rows) * columns + (left + column_step) % columns
            total += np.bincount(pixel, weights=row_weight * column_weight, minlength=rows * columns)
    return total.reshape(rows, columns)
