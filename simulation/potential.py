"""Projected potentials in Fourier space.

With "infinite" projection an atom lies as a whole in one slice; with "finite" it is spread over those that it reaches
(`finite_potential`). Its place is either `exact` (Fourier shift; the neighbour `atomic_cores` makes transmission
functions as exactly) or `bilinear`, which reproduces abTEM 1.0: delta functions spread over four pixels and divided by
a radial sinc, or values at the pixels (`tabulated_potential`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.atom_parts import AtomPart
from simulation.backend import Array, Backend, backend
from simulation.errors import InvalidParameter
from simulation.finite_potential import parted_slices, reaches_of
from simulation.phonons import DebyeWaller
from simulation.placement import StructureFactor
from simulation.scattering_factors import PARAMETRIZATIONS
from simulation.slices import EMPTY, AtomSlice, Slices, slices_of
from simulation.specimens import Atoms, Specimen
from simulation.tabulated_potential import tabulated_slices
from simulation.wave_grid import WaveGrid

PLACEMENTS = ("exact", "bilinear")
PROJECTIONS = ("infinite", "finite")
PartOf = Callable[[int], AtomPart]


@dataclass(frozen=True, slots=True)
class PotentialModel:
    """Which atomic potential, and how it is put on a grid."""

    parametrization: str = "lobato"
    placement: str = "exact"
    projection: str = "infinite"
    rms_angstrom: tuple[tuple[int, float], ...] = ()
    """(atomic number, rms displacement per axis) of the elements that Debye-Waller factors smear."""

    def __post_init__(self) -> None:
        """Refuse unknown words, naming the known ones."""
        for name, known in (
            ("parametrization", PARAMETRIZATIONS),
            ("placement", PLACEMENTS),
            ("projection", PROJECTIONS),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise InvalidParameter(f"unknown {name} {value!r}; choose one of {', '.join(known)}")
        if self.rms_angstrom and self.projection == "finite":
            raise InvalidParameter("projection='finite' knows no DebyeWaller; use FrozenPhonons, or 'infinite'")

    @property
    def is_tabulated(self) -> bool:
        """Whether potentials are values at the pixels, of tables, in every slice others."""
        return self.projection == "finite" and self.placement == "bilinear"

    def slices(self, specimen: Specimen, slice_thickness_nm: float) -> tuple[Slices, PartOf]:
        """What each slice holds, and of which atom its numbers stand for which part."""
        if self.projection == "infinite" or self.is_tabulated:
            return slices_of(specimen, slice_thickness_nm), self._smeared
        parted = parted_slices(specimen, slice_thickness_nm, self.parametrization)
        return parted.slices, parted.parts.__getitem__

    def reaches(self, specimen: Specimen, slice_thickness_nm: float) -> dict[int, int]:
        """How many slices beyond its own an atom of each element reaches; none where atoms lie in one slice."""
        if self.projection == "infinite":
            return {}
        return reaches_of(specimen, slice_thickness_nm, self.parametrization)

    def _smeared(self, number: int) -> AtomPart:
        return AtomPart(number, rms_angstrom=dict(self.rms_angstrom).get(number, 0.0))


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
    phonons: DebyeWaller | None = None,
) -> NDArray[np.float32]:
    """Projected potential of each slice, (slices, rows, columns), V*angstrom; the mean is kept.

    `infinite`: V(k) = sum of K f_e(k) exp(-2 pi i k.r) over the atoms, all frequencies of the grid.
    `finite`: each atom's potential integrated over the depth of every slice, as if the nucleus lay in the middle of
    its own; with `bilinear` where it lies, evaluated at the pixels in real space. Slices are equal here. `phonons`
    smears it (`infinite` only).
    """
    if not isinstance(phonons, DebyeWaller | None):
        raise InvalidParameter(
            f"phonons is a {type(phonons).__name__}; give DebyeWaller(sigmas_nm), or the potential of displaced atoms"
        )
    specimen = Specimen.of(atoms)
    rms_angstrom = () if phonons is None else phonons.rms_angstrom(specimen)
    model = PotentialModel(parametrization, placement, projection, rms_angstrom)
    width, height, _ = specimen.cell_angstrom
    grid = WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px)
    if model.is_tabulated:
        return np.stack(list(tabulated_slices(specimen, grid, slice_thickness_nm, parametrization))).astype(np.float32)
    slices, part_of = model.slices(specimen, slice_thickness_nm)
    on = backend(device)
    synthesizer = PotentialSynthesizer(grid, model, on, part_of)
    distinct = [on.to_numpy(synthesizer.potential(atoms)) for atoms in slices.distinct]
    empty = np.zeros(grid.shape_px, dtype=np.float32)
    return np.stack([empty if index == EMPTY else distinct[index] for index in slices.order])


class PotentialSynthesizer:
    """Builds slice potentials on one grid, keeping the form factors of the elements (or parts) it has met."""

    def __init__(self, grid: WaveGrid, model: PotentialModel, on: Backend, part_of: PartOf = AtomPart) -> None:
        """`on` is where the arrays live."""
        self.grid = grid
        self._model = model
        self._on = on
        self._part_of = part_of
        self._structure = StructureFactor(grid, on, half=True)
        self._form_factors: dict[int, Array] = {}

    def potential(self, atoms: AtomSlice) -> Array:
        """(rows, columns), V*angstrom."""
        spectrum: Any = 0.0
        for number in np.unique(atoms.numbers).tolist():
            xy = atoms.xy_angstrom[atoms.numbers == number]
            spectrum = spectrum + self._structure_factor(xy) * self._form_factor(number)
        return self._on.irfft2(spectrum, self.grid.shape_px)

    def _form_factor(self, number: int) -> Array:
        """Projected scattering factor per pixel area on the half spectrum."""
        if number not in self._form_factors:
            dy, dx = self.grid.sampling_angstrom
            factor = self._structure.radial(
                lambda k: self._part_of(number).scattering_factor(k, self._model.parametrization) / (dx * dy),
                self._on.real_type,
            )
            if self._model.placement == "bilinear":
                ky, kx = self._structure.ky_per_angstrom[:, None], self._structure.kx_per_angstrom[None, :]
                spread = np.sinc(np.hypot(ky * dy, kx * dx) / np.pi)
                factor = factor / self._on.asarray(spread.astype(self._on.real_type))
            self._form_factors[number] = factor
        return self._form_factors[number]

    def _structure_factor(self, xy_angstrom: NDArray[np.float64]) -> Array:
        if self._model.placement == "exact":
            return self._structure.of(xy_angstrom)
        spread = bilinear_deltas(xy_angstrom, self.grid)
        return self._on.asarray(np.fft.rfft2(spread).astype(self._on.complex_type))


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
