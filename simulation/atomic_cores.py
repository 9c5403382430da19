"""Radial parts of atoms' potentials, from which transmission functions are put together (`transmission_bands`).

exp(i sigma V) is not band-limited, however finely V is sampled: near a heavy nucleus V diverges, and the alias moves
images by per cents with the sub-pixel position. So each atom's projected potential is split by radius into a sharp
core, a middle that a grid four times finer than the wave's resolves, and a wide rest that the wave's own grid does.
The cores do not overlap, so exp(i sigma sum of cores) = 1 + sum of (exp(i sigma core) - 1), and each term's Fourier
transform is a radial integral, placed by an exact phase ramp. Atoms at one place of one slice (of a column) are one
term; others whose cores would overlap go to separate factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial import KDTree
from scipy.special import j0, roots_legendre, wrightomega

from simulation.atom_parts import AtomPart
from simulation.slices import AtomSlice

OVERSAMPLING = 4
"""Everything but the cores is exponentiated on a grid this much finer than the wave's."""

_SMOOTHING_SHARE = 0.25
_WIDE_SHARE = 0.3125
_REACH_SMOOTHINGS = 2.5
_RADIUS_STEP = 0.02
_LINEAR_FROM_ANGSTROM = 0.3
_SMALLEST_RADIUS_ANGSTROM = 1e-5
_TABLE_COUNT = 800
_QUADRATURE_COUNT = 400
_NO_PHASE_RAD = 1e-5
_ONE_PLACE_ANGSTROM = 1e-3
_MOST_STACKED = 6
"""Columns hold many mixtures of many atoms; each has tables of its own."""


@dataclass(frozen=True, slots=True)
class Forms:
    """Fourier transforms of one atom against |k|: of two parts of its potential, and of exp(i sigma core) - 1.

    The cores are zero beyond `core_radius_angstrom`, the middle beyond `middle_radius_angstrom`. What lies far above or
    below a nucleus has neither: nothing of it is sharp.
    """

    wide: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    middle: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    core: Callable[[NDArray[np.float64]], NDArray[np.complex128]]
    has_core: bool = True
    has_middle: bool = True


def core_radius_angstrom(fine_nyquist_per_angstrom: float) -> float:
    """Where the cores end on a grid of this Nyquist frequency: 20 of its pixels."""
    return _REACH_SMOOTHINGS / (_SMOOTHING_SHARE * fine_nyquist_per_angstrom)


def middle_radius_angstrom(fine_nyquist_per_angstrom: float) -> float:
    """Where the middle parts end: 64 pixels of the finer grid."""
    return core_radius_angstrom(fine_nyquist_per_angstrom) / _WIDE_SHARE


class RadialIntegrals:
    """Integrals with the weight 2 pi J0(2 pi k r) r dr, by the trapezoidal rule, for one grid.

    Radii are spaced evenly in ln r + r / r1: by their logarithm near the nucleus, where potentials diverge, and evenly
    beyond r1, where J0 oscillates. The weights serve all elements and are large: they last as long as somebody holds
    them.
    """

    def __init__(self, fine_nyquist_per_angstrom: float) -> None:
        """Nothing is computed yet."""
        self._far = middle_radius_angstrom(fine_nyquist_per_angstrom)
        self.k: NDArray[np.float64] = np.linspace(0, np.sqrt(2) * fine_nyquist_per_angstrom * 1.001, _TABLE_COUNT)

    @cached_property
    def radii(self) -> NDArray[np.float64]:
        """In angstrom, from next to the nucleus to the end of the middle part."""
        first, last = (np.log(r) + r / _LINEAR_FROM_ANGSTROM for r in (_SMALLEST_RADIUS_ANGSTROM, self._far))
        return _LINEAR_FROM_ANGSTROM * wrightomega(np.arange(first, last, _RADIUS_STEP) - np.log(_LINEAR_FROM_ANGSTROM))

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        radii = self.radii
        areas = 2 * np.pi * radii**2 / (1 + radii / _LINEAR_FROM_ANGSTROM) * _RADIUS_STEP
        return j0(2 * np.pi * self.k[:, None] * radii[None, :]) * areas

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each k that of a function given at the radii."""
        return self._weights @ values


_integrals_in_use: WeakValueDictionary[float, RadialIntegrals] = WeakValueDictionary()


def radial_integrals(fine_nyquist_per_angstrom: float) -> RadialIntegrals:
    """Those that somebody holds already, or new ones."""
    found = _integrals_in_use.get(fine_nyquist_per_angstrom)
    if found is None:
        found = _integrals_in_use[fine_nyquist_per_angstrom] = RadialIntegrals(fine_nyquist_per_angstrom)
    return found


@lru_cache(maxsize=256)
def forms_of(
    part: AtomPart, parametrization: str, interaction_rad_per_v_angstrom: float, fine_nyquist_per_angstrom: float
) -> Forms:
    """Of one part of an atom; whoever wants many forms holds their `radial_integrals` meanwhile."""
    wide = _SMOOTHING_SHARE * fine_nyquist_per_angstrom * _WIDE_SHARE
    far = middle_radius_angstrom(fine_nyquist_per_angstrom)
    integrals = radial_integrals(fine_nyquist_per_angstrom)
    radii, k = integrals.radii, integrals.k
    potential = part.projected_v_angstrom(radii, parametrization)
    smooth = _smoothed(part, parametrization, wide, radii)
    if _is_nothing(interaction_rad_per_v_angstrom * (potential - smooth)):
        return Forms(lambda k: part.scattering_factor(k, parametrization), np.zeros_like, np.zeros_like, False, False)
    core = core_v_angstrom(part, parametrization, fine_nyquist_per_angstrom)
    middle = (potential - core - smooth) * _edge(radii, far)
    rest = part.scattering_factor(k, parametrization) - integrals.of(core + middle)
    phase = interaction_rad_per_v_angstrom * core
    return Forms(CubicSpline(k, rest), CubicSpline(k, integrals.of(middle)), _scattered(phase, integrals),
                 not _is_nothing(phase))  # fmt: skip


@lru_cache(maxsize=256)
def stacked_core(
    parts: tuple[AtomPart, ...],
    parametrization: str,
    interaction_rad_per_v_angstrom: float,
    fine_nyquist_per_angstrom: float,
) -> CubicSpline:
    """As the core of `forms_of`, of atoms at one place: the phases add up before they are exponentiated."""
    cores = [core_v_angstrom(part, parametrization, fine_nyquist_per_angstrom) for part in parts]
    integrals = radial_integrals(fine_nyquist_per_angstrom)
    return _scattered(interaction_rad_per_v_angstrom * np.sum(cores, axis=0), integrals)


def core_v_angstrom(part: AtomPart, parametrization: str, fine_nyquist_per_angstrom: float) -> NDArray[np.float64]:
    """The sharp part of an atom's projected potential at the radii of `radial_integrals`."""
    radii = radial_integrals(fine_nyquist_per_angstrom).radii
    smooth = _smoothed(part, parametrization, _SMOOTHING_SHARE * fine_nyquist_per_angstrom, radii)
    potential = part.projected_v_angstrom(radii, parametrization)
    return (potential - smooth) * _edge(radii, core_radius_angstrom(fine_nyquist_per_angstrom))


def _scattered(phase_rad: NDArray[np.float64], integrals: RadialIntegrals) -> CubicSpline:
    """The Fourier transform of exp(i phase) - 1."""
    found = 1j * integrals.of(np.sin(phase_rad)) - 2 * integrals.of(np.sin(phase_rad / 2) ** 2)
    return CubicSpline(integrals.k, found)


def _is_nothing(phase_rad: NDArray[np.float64]) -> bool:
    return bool(np.abs(phase_rad).max() < _NO_PHASE_RAD)


def _smoothed(
    part: AtomPart, parametrization: str, smoothing_per_angstrom: float, radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The potential less its frequencies above about `smoothing_per_angstrom`; V*angstrom."""
    k, weights, kernel = _quadrature(smoothing_per_angstrom, float(radii[-1]))
    low_pass = np.exp(-((k / smoothing_per_angstrom) ** 2))
    integrand = part.scattering_factor(k, parametrization) * low_pass * 2 * np.pi * k
    return CubicSpline(np.linspace(0, radii[-1], _QUADRATURE_COUNT), kernel @ (integrand * weights))(radii)


@lru_cache(maxsize=4)
def _quadrature(
    smoothing_per_angstrom: float, reach_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, their weights, and J0(2 pi k r) on even radii (rows) and these frequencies."""
    nodes, weights = roots_legendre(_QUADRATURE_COUNT)
    k = 3 * smoothing_per_angstrom * (nodes + 1)
    coarse = np.linspace(0, reach_angstrom, _QUADRATURE_COUNT)
    return k, weights * 3 * smoothing_per_angstrom, j0(2 * np.pi * coarse[:, None] * k[None, :])


def _edge(radii: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """1 up to half the reach, 0 from the reach on, a raised cosine between."""
    return 0.5 * (1 + np.cos(np.pi * np.clip(2 * radii / reach - 1, 0, 1)))


def stacks(atoms: AtomSlice, extent_angstrom: tuple[float, float]) -> list[NDArray[np.int64]]:
    """Indices of atoms that the beam meets at one point together, two to `_MOST_STACKED` of them at each place."""
    height, width = extent_angstrom
    points = np.mod(np.mod(atoms.xy_angstrom, (width, height)), (width, height))
    pairs = KDTree(points, boxsize=(width, height)).query_pairs(_ONE_PLACE_ANGSTROM, output_type="ndarray")
    if len(pairs) == 0:
        return []
    first = np.arange(len(points))
    for lower, upper in sorted(np.sort(pairs, axis=1).tolist()):
        first[upper] = min(first[upper], first[lower])
    order = np.argsort(first, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    pieces = [place[i : i + _MOST_STACKED] for place in places for i in range(0, len(place), _MOST_STACKED)]
    return [piece for piece in pieces if len(piece) > 1]


def layers_without_overlap(
    atoms: AtomSlice, distance_angstrom: float, extent_angstrom: tuple[float, float]
) -> list[AtomSlice]:
    """The atoms parted into as few groups as a greedy colouring finds, none with two atoms closer than a distance."""
    height, width = extent_angstrom
    if len(atoms.numbers) == 0:
        return []
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
