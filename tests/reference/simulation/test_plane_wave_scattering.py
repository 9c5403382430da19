"""One atom as a phase object, against the integral over its radius, which knows no grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.special import j0

from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.plane_wave_scattering import PhaseObjects
from simulation.scattering_factors import projected_scattering_factor
from simulation.structure_columns import Supercell, SupercellAtoms
from tests.unit.simulation.lattice_cases import lattice_images

BEAM_ENERGY_EV = 60e3


def projected_potential_v_angstrom(number: int, radii_angstrom: np.ndarray) -> np.ndarray:
    """2 pi times the integral of f(k) J0(2 pi k r) k dk: the tail of f beyond 400 per angstrom is below 1e-4 of V."""
    k = np.concatenate([np.linspace(0, 4, 4001), np.geomspace(4, 400, 60001)[1:]])
    factor = projected_scattering_factor(number, k) * k
    return np.array([2 * np.pi * np.trapezoid(factor * j0(2 * np.pi * k * r), k) for r in radii_angstrom])


@pytest.fixture(scope="module")
def radial() -> tuple[np.ndarray, np.ndarray]:
    """Radii and exp(i sigma V) - 1 of one W atom."""
    radii, nodes = np.geomspace(2e-3, 8.0, 1500), np.geomspace(2e-3, 8.0, 400)
    potential = CubicSpline(np.log(nodes), projected_potential_v_angstrom(74, nodes))(np.log(radii))
    return radii, np.exp(1j * interaction_parameter(BEAM_ENERGY_EV) * potential) - 1


@pytest.mark.parametrize(("angle_mrad", "tolerance"), [(50, 0.01), (100, 0.01), (150, 0.03), (200, 0.07)])
def test_tungsten_scatters_as_the_radial_integral_says(
    radial: tuple[np.ndarray, np.ndarray], angle_mrad: float, tolerance: float
) -> None:
    """Intensities, with the atom anywhere between the pixels."""
    supercell: Supercell = lattice_images()._supercell
    height, width = supercell.extent_angstrom
    objects = PhaseObjects(supercell, BEAM_ENERGY_EV, 0.0016, "lobato")
    index = round(angle_mrad * 1e-3 / wavelength_angstrom(BEAM_ENERGY_EV) * width)
    radii, scattered = radial
    kernel = scattered * j0(2 * np.pi * index / width * radii) * radii**2
    core = np.pi * radii[0] ** 2 * scattered[0]  # within the smallest radius
    expected = abs(2 * np.pi * np.trapezoid(kernel, np.log(radii)) + core) ** 2 / (width * height) ** 2
    for x, y in ((5.0, 5.0), (5.0041, 5.0077), (5.008, 5.0121)):
        spectrum = objects.spectrum(SupercellAtoms(np.array([74]), np.array([[x, y, 0.0]])))
        assert abs(spectrum[0, index]) ** 2 == pytest.approx(expected, rel=tolerance)


def test_vacuum_transmits_everything() -> None:
    supercell = lattice_images()._supercell
    spectrum = PhaseObjects(supercell, BEAM_ENERGY_EV, 0.005, "lobato").spectrum(
        SupercellAtoms(np.array([0]), np.zeros((1, 3)))
    )
    assert spectrum[0, 0] == 1
    assert np.count_nonzero(spectrum) == 1


def test_the_sum_of_all_scattering_is_the_beam() -> None:
    supercell = lattice_images()._supercell
    spectrum = PhaseObjects(supercell, BEAM_ENERGY_EV, 0.0025, "lobato").spectrum(supercell.atoms())
    assert np.sum(np.abs(spectrum.astype(np.complex128)) ** 2) == pytest.approx(1, abs=1e-5)
