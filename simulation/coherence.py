"""Partial coherence: focal spread as an average over defocus. Neighbour: `source_blur`, for the size of the source."""

from __future__ import annotations

from math import ceil, log, pi, sqrt

import numpy as np

from instruments.optics import Optics
from simulation.atom_places import AtomPlaces
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.specimens import Specimen

_FEWEST_FOCAL_NODES, _MOST_FOCAL_NODES = 7, 151
_LEAST_WEIGHT = 2e-6
_SAME_LENGTH_ANGSTROM = 1e-3
_FIRST_LOOKED_AT_COUNT = 8
FWHM_PER_SIGMA = 2 * sqrt(2 * log(2))


def focal_quadrature(
    beam_energy_ev: float, semi_convergence_angle_mrad: float, focal_spread_nm: float
) -> list[tuple[float, float]]:
    """Nodes in units of sqrt(2) standard deviations, and weights, that average over a Gaussian (Gauss-Hermite).

    One standard deviation of defocus turns the phase at the edge of the aperture by pi alpha^2 / lambda times itself.
    There are as many nodes as it takes to average waves of that phase to 1e-4, an odd number: the middle one is 0.
    Far ones of no weight are left out, whose probes would be wide.
    """
    wavelength_nm = wavelength_angstrom(beam_energy_ev) / 10
    turn = pi * (semi_convergence_angle_mrad * 1e-3) ** 2 / wavelength_nm * focal_spread_nm
    count = max(_FEWEST_FOCAL_NODES, ceil(1 + 3.2 * turn + 0.2 * turn**2)) | 1
    if count > _MOST_FOCAL_NODES:
        raise InvalidParameter(
            f"a focal_spread_nm of {focal_spread_nm:g} turns the phase at the edge of an aperture of"
            f" {semi_convergence_angle_mrad:g} mrad by {turn:.0f} rad and would take {count} defoci, more than"
            f" {_MOST_FOCAL_NODES}; it is a standard deviation in nm: give a smaller one, or a smaller aperture"
        )
    nodes, weights = np.polynomial.hermite.hermgauss(count)
    kept = weights > _LEAST_WEIGHT * weights.sum()
    return list(zip(nodes[kept].tolist(), (weights[kept] / weights[kept].sum()).tolist(), strict=True))


def focal_nodes(optics: Optics, focal_spread_nm: float) -> list[tuple[Optics, float]]:
    """Optics and weights whose average is that over a Gaussian of defocus (Gauss-Hermite)."""
    if focal_spread_nm == 0:
        return [(optics, 1.0)]
    return [
        (optics.model_copy(update={"defocus_nm": optics.defocus_nm + sqrt(2) * focal_spread_nm * node}), weight)
        for node, weight in focal_quadrature(optics.beam_energy_ev, optics.semi_convergence_angle_mrad, focal_spread_nm)
    ]


def is_period(specimen: Specimen, axis: int, length_angstrom: float) -> bool:
    """Whether the specimen looks the same when moved by a length along an axis (0: x, 1: y)."""
    period = specimen.cell_angstrom[axis]
    turns = length_angstrom / period
    if abs(turns - round(turns)) * period < _SAME_LENGTH_ANGSTROM and ceil(turns) >= 1:
        return True
    if length_angstrom > period or len(specimen.numbers) == 0:
        return len(specimen.numbers) == 0
    moved = specimen.positions_angstrom.copy()
    moved[:, axis] += length_angstrom
    places = AtomPlaces.of(specimen.positions_angstrom, specimen.numbers, specimen.cell_angstrom)
    first = np.unique(np.linspace(0, len(moved) - 1, _FIRST_LOOKED_AT_COUNT).astype(int))
    return bool(all(places.hold(moved[some], specimen.numbers[some]).all() for some in (first, slice(None))))
