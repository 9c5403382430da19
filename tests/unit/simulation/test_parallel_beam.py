"""A parallel beam through atoms, against formulas that do not use it."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
from ase import Atoms

from instruments import Aberrations, Optics
from simulation.backend import backend
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.parallel_beam import ObjectiveLens, diffraction, exit_wave, on_camera
from simulation.scattering_factors import projected_scattering_factor
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

ENERGY_EV = 200e3
SIDE = 24.0  # angstrom
GRID = WaveGrid((96, 96), (SIDE, SIDE))
LENS = Optics(
    beam_energy_ev=ENERGY_EV, semi_convergence_angle_mrad=1.0, probe_current_pa=1.0, defocus_nm=40.0,
    aberrations=Aberrations(c30_nm=1e6, c12_nm=8.0, phi12_deg=30.0),
)  # fmt: skip


def wave_of(symbols: str, *places: tuple[float, float, float]) -> np.ndarray:
    atoms = Atoms(symbols, positions=list(places), cell=(SIDE, SIDE, 2.0))
    return exit_wave(Specimen.of(atoms), GRID, ENERGY_EV, backend("numpy", "double"))


def test_an_image_of_a_light_atom_is_its_potential_times_the_contrast_transfer() -> None:
    """I(k) = 2 sigma V(k) sin chi(k) for a weak phase; 1.0 nm-1 to 6 nm-1, astigmatism and spherical aberration in."""
    image = ObjectiveLens(LENS).image([wave_of("H", (9.0, 14.0, 0.0))], GRID)
    ky, kx = GRID.frequencies_per_angstrom()
    k2, azimuth = ky**2 + kx**2, np.arctan2(ky, kx)
    wavelength = wavelength_angstrom(ENERGY_EV)
    astigmatism = 80.0 * np.cos(2 * (azimuth - pi / 6))
    phase = pi * wavelength * k2 * (-400.0 + astigmatism) + 0.5 * pi * 1e7 * wavelength**3 * k2**2
    potential = projected_scattering_factor("H", np.sqrt(k2)) * np.exp(-2j * pi * (kx * 9.0 + ky * 14.0)) / SIDE**2
    expected = 2 * interaction_parameter(ENERGY_EV) * potential * np.sin(phase)
    compared = (k2 > 0.1**2) & (k2 < 0.6**2)
    found = np.fft.fft2(image, norm="forward")
    error = np.abs(found - expected)[compared].max() / np.abs(expected)[compared].max()
    assert error < 0.03


def test_nothing_is_lost_without_an_aperture() -> None:
    wave = wave_of("AuSi", (6.0, 6.0, 0.0), (15.0, 11.0, 0.5))
    assert np.sum(np.abs(wave) ** 2) == pytest.approx(1, abs=2e-3)
    total = np.sum(np.abs(wave) ** 2)
    assert ObjectiveLens(LENS).image([wave], GRID).mean() == pytest.approx(total, rel=1e-4)
    assert diffraction([wave], np.ones(GRID.shape_px)).sum() == pytest.approx(total, rel=1e-9)
    dark = ObjectiveLens(LENS, aperture_mrad=5.0).image([wave], GRID).mean()
    assert dark < total - 1e-4


def test_foci_average_intensities() -> None:
    """A spread of focus damps the linear contrast by exp(-(pi lambda s k2)^2 / 2)."""
    wave = wave_of("H", (9.0, 14.0, 0.0))
    sharp, blurred = (np.fft.fft2(ObjectiveLens(LENS, 15.0, spread_nm).image([wave], GRID)) for spread_nm in (0.0, 6.0))
    ky, kx = GRID.frequencies_per_angstrom()
    k2 = ky**2 + kx**2
    damping = np.exp(-((pi * wavelength_angstrom(ENERGY_EV) * 60.0 * k2) ** 2) / 2)
    shown = (np.abs(sharp) > 0.1 * np.abs(sharp[k2 > 0]).max()) & (k2 > 0) & (k2 < 0.5**2)
    assert np.abs(blurred - damping * sharp)[shown].max() < 0.02 * np.abs(sharp[shown]).max()


def test_spots_of_a_grating_lie_where_bragg_says() -> None:
    """Lines of atoms 3 angstrom apart along x: sin(angle) = wavelength / 3 angstrom, along x alone."""
    places = [(x, y, 0.0) for x in np.arange(0, SIDE, 3.0) for y in np.arange(0, SIDE, 1.0)]
    pattern = diffraction([wave_of(f"C{len(places)}", *places)], np.ones(GRID.shape_px))
    pitch_mrad = wavelength_angstrom(ENERGY_EV) / SIDE * 1e3
    seen = on_camera(np.fft.fftshift(pattern), (48, 48), (9, 97), (0.25 / pitch_mrad, 0.25 / pitch_mrad))
    seen[:, 40:57] = 0
    at_mrad = (np.arange(97) - 48) * 0.25
    angle_mrad = np.sum(seen * np.abs(at_mrad)) / seen.sum()
    assert seen.sum() > 5e-4
    assert angle_mrad == pytest.approx(wavelength_angstrom(ENERGY_EV) / 3 * 1e3, rel=1e-3)
    assert np.sum(seen * at_mrad) / seen.sum() == pytest.approx(0, abs=0.01)
    assert seen[(0, 8), :].sum() < 1e-6 * seen.sum()  # along x alone


def test_a_camera_shares_what_lies_on_a_border() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert on_camera(values, (1.0, 1.5), (3, 4), (1.0, 1.0)) == pytest.approx(values)
    assert on_camera(values, (1.0, 1.5), (8, 10), (0.7, 0.7)).sum() == pytest.approx(values.sum())
    one = on_camera(np.ones((3, 4)), (1.0, 1.5), (1, 1), (0.5, 0.5))
    assert one.item() == pytest.approx(0.25)
