"""Transmission functions that do not depend on where atoms lie between pixels.

exp(i sigma V) is not band-limited, however finely V is sampled: near a heavy nucleus V diverges, and the alias moves
images by per cents with the sub-pixel position. So each atom's projected potential is split by radius into a sharp
core and a smooth rest. The rest of all atoms is summed and exponentiated on a finer grid, where it does not alias.
The cores do not overlap, so exp(i sigma sum of cores) = 1 + sum of (exp(i sigma core) - 1), and each term's Fourier
transform is a radial integral, placed by an exact phase ramp. Atoms whose cores would overlap go to separate factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial import KDTree
from scipy.special import j0, roots_legendre

from simulation.backend import Array, Backend
from simulation.electron import interaction_parameter
from simulation.placement import StructureFactor
from simulation.scattering_factors import projected_potential_v_angstrom, projected_scattering_factor
from simulation.slices import AtomSlice
from simulation.wave_grid import WaveGrid

OVERSAMPLING = 4
"""The rest is exponentiated on a grid this much finer than the wave's."""

_SMOOTHING_SHARE = 0.25
_CORE_RADIUS_SMOOTHINGS = 2.5
_RADIUS_LOG_STEP = 0.002
_SMALLEST_RADIUS_ANGSTROM = 1e-5
_TABLE_COUNT = 800
_QUADRATURE_COUNT = 400


@dataclass(frozen=True, slots=True)
class _Forms:
    """Fourier transforms of one atom against |k|: of the smooth potential, and of exp(i sigma core) - 1."""

    smooth: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    core: Callable[[NDArray[np.float64]], NDArray[np.complex128]]


class ExactTransmission:
    """exp(i sigma V) of slices on a finer grid, its frequencies below the wave's Nyquist right to 0.1 %."""

    def __init__(self, grid: WaveGrid, parametrization: str, beam_energy_ev: float, on: Backend) -> None:
        """`grid` is the wave's."""
        self.grid = grid.finer(OVERSAMPLING)
        self._parametrization = parametrization
        self._interaction = interaction_parameter(beam_energy_ev)
        self._on = on
        dy, dx = self.grid.sampling_angstrom
        self._pixel_area = dy * dx
        nyquist = 0.5 / max(dy, dx)
        self._smoothing_per_angstrom = _SMOOTHING_SHARE * nyquist
        self.core_radius_angstrom = _CORE_RADIUS_SMOOTHINGS / self._smoothing_per_angstrom
        self._half = StructureFactor(self.grid, on, half=True)
        self._full = StructureFactor(self.grid, on, half=False)
        self._smooth_forms: dict[int, Array] = {}
        self._core_forms: dict[int, Array] = {}

    def of(self, atoms: AtomSlice) -> Array:
        """(rows, columns) of the finer grid."""
        on = self._on
        smooth = on.irfft2(self._spectrum(atoms, self._half, self._smooth_form), self.grid.shape_px)
        phase = self._interaction * smooth
        wave = on.xp.cos(phase) + 1j * on.xp.sin(phase)
        for layer in layers_without_overlap(atoms, 2 * self.core_radius_angstrom, self.grid.extent_angstrom):
            wave = wave * (1 + on.ifft2(self._spectrum(layer, self._full, self._core_form)))
        return wave

    def _spectrum(self, atoms: AtomSlice, structure: StructureFactor, form: Callable[[int], Array]) -> Array:
        total: Any = 0.0
        for number in np.unique(atoms.numbers).tolist():
            total = total + structure.of(atoms.xy_angstrom[atoms.numbers == number]) * form(number)
        return total

    def _smooth_form(self, number: int) -> Array:
        if number not in self._smooth_forms:
            forms = self._forms(number)
            self._smooth_forms[number] = self._half.radial(
                lambda k: forms.smooth(k) / self._pixel_area, self._on.real_type
            )
        return self._smooth_forms[number]

    def _core_form(self, number: int) -> Array:
        if number not in self._core_forms:
            forms = self._forms(number)
            self._core_forms[number] = self._full.radial(
                lambda k: forms.core(k) / self._pixel_area, self._on.complex_type
            )
        return self._core_forms[number]

    def _forms(self, number: int) -> _Forms:
        largest = float(np.hypot(np.abs(self._full.ky_per_angstrom).max(), np.abs(self._full.kx_per_angstrom).max()))
        return _forms(number, self._parametrization, self._interaction, self._smoothing_per_angstrom, largest)


@lru_cache(maxsize=256)
def _forms(
    number: int, parametrization: str, interaction: float, smoothing_per_angstrom: float, largest_k: float
) -> _Forms:
    """Radial integrals with the weight 2 pi J0(2 pi k r) r dr, on radii spaced evenly in their logarithm."""
    reach = _CORE_RADIUS_SMOOTHINGS / smoothing_per_angstrom
    radii = np.exp(np.arange(np.log(_SMALLEST_RADIUS_ANGSTROM), np.log(reach), _RADIUS_LOG_STEP))
    core = _core_potential(number, parametrization, smoothing_per_angstrom, radii, reach)
    k = np.linspace(0, largest_k * 1.001, _TABLE_COUNT)
    weight = 2 * np.pi * radii**2 * _RADIUS_LOG_STEP
    kernel = j0(2 * np.pi * k[:, None] * radii[None, :]) * weight
    smooth = CubicSpline(k, projected_scattering_factor(number, k, parametrization) - kernel @ core)
    return _Forms(smooth, CubicSpline(k, kernel @ np.expm1(1j * interaction * core)))


def _core_potential(
    number: int, parametrization: str, smoothing_per_angstrom: float, radii: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """The potential less its Gaussian smoothing, brought to zero between half the reach and the reach; V*angstrom."""
    nodes, weights = roots_legendre(_QUADRATURE_COUNT)
    k = 3 * smoothing_per_angstrom * (nodes + 1)
    low_pass = np.exp(-((k / smoothing_per_angstrom) ** 2))
    integrand = projected_scattering_factor(number, k, parametrization) * low_pass * 2 * np.pi * k
    coarse = np.linspace(0, reach, _QUADRATURE_COUNT)
    smoothed = j0(2 * np.pi * coarse[:, None] * k[None, :]) @ (integrand * weights * 3 * smoothing_per_angstrom)
    difference = projected_potential_v_angstrom(number, radii, parametrization) - CubicSpline(coarse, smoothed)(radii)
    edge = np.clip(2 * radii / reach - 1, 0, 1)
    return difference * 0.5 * (1 + np.cos(np.pi * edge))


def layers_without_overlap(
    atoms: AtomSlice, distance_angstrom: float, extent_angstrom: tuple[float, float]
) -> list[AtomSlice]:
    """The atoms parted into as few groups as a greedy colouring finds, none with two atoms closer than a distance."""
    height, width = extent_angstrom
    if distance_angstrom >= min(height, width) / 2:
        return [AtomSlice(atoms.numbers[i : i + 1], atoms.xy_angstrom[i : i + 1]) for i in range(len(atoms.numbers))]
    points = np.mod(np.mod(atoms.xy_angstrom, (width, height)), (width, height))
    pairs = KDTree(points, boxsize=(width, height)).query_pairs(distance_angstrom)
    neighbours: list[list[int]] = [[] for _ in range(len(points))]
    for first, second in pairs:
        neighbours[max(first, second)].append(min(first, second))
    layer = np.zeros(len(points), dtype=int)
    for index, earlier in enumerate(neighbours):
        taken = {int(layer[other]) for other in earlier}
        layer[index] = next(count for count in range(len(taken) + 1) if count not in taken)
    return [
        AtomSlice(atoms.numbers[layer == index], atoms.xy_angstrom[layer == index]) for index in range(layer.max() + 1)
    ]
