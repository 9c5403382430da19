"""Centre of mass, DPC, integration, virtual detectors and side bands against what theory says they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from xarray import DataArray

from instruments.optics import Aberrations, Optics
from simulation import (
    AnnularDetector,
    GridScan,
    InvalidParameter,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    projected_potential,
    simulate,
)
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.phase_contrast import (
    VectorField,
    centre_of_mass,
    centre_of_mass_from_segments,
    disc_shift_from_segments,
    integrate,
    phase_from_field,
    single_side_band,
    virtual_image,
)
from simulation.probe import probe_spectrum
from simulation.wave_grid import WaveGrid

ENERGY_EV = 100e3
GRID = WaveGrid((64, 48), (16.0, 12.0))
OPTICS = Optics(
    beam_energy_ev=ENERGY_EV,
    semi_convergence_angle_mrad=25,
    defocus_nm=4,
    aberrations=Aberrations(c12_nm=3, phi12_deg=30, c21_nm=150, phi21_deg=70, c30_nm=2e4),
)


def smooth_phase(strength_rad: float, reach_per_angstrom: float = 1.0) -> np.ndarray:
    """A random real phase with frequencies up to a limit, mean 0, as large as given."""
    rng = np.random.default_rng(5)
    spectrum = np.fft.fft2(rng.standard_normal(GRID.shape_px))
    spectrum *= GRID.squared_frequencies() < reach_per_angstrom**2
    spectrum[0, 0] = 0
    phase = np.fft.ifft2(spectrum).real
    return strength_rad * phase / np.abs(phase).max()


def recorded(
    phase: np.ndarray, optics: Optics, step_px: int, aperture: str = "soft"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patterns of exp(i phase), the probe on every `step_px`-th pixel, and their angles (y, x) in mrad."""
    wave = np.fft.ifft2(probe_spectrum(optics, replace(GRID, aperture_edge=aperture)))
    rows, columns = (range(0, count, step_px) for count in GRID.shape_px)
    object_wave = np.exp(1j * phase)
    exits = [[np.roll(wave, (row, column), (0, 1)) * object_wave for column in columns] for row in rows]
    patterns = np.fft.fftshift(np.abs(np.fft.fft2(np.array(exits))) ** 2, axes=(-2, -1))
    ky, kx = GRID.frequencies_per_angstrom()
    scale = 1e3 * wavelength_angstrom(optics.beam_energy_ev)
    return patterns, np.fft.fftshift(ky.ravel()) * scale, np.fft.fftshift(kx.ravel()) * scale


def blurred(image: np.ndarray, optics: Optics) -> np.ndarray:
    """The image as seen through the probe's intensity: sum over r of I(r - r0) image(r)."""
    intensity = np.abs(np.fft.ifft2(probe_spectrum(optics, GRID))) ** 2
    intensity /= intensity.sum()
    return np.fft.ifft2(np.fft.fft2(image) * np.fft.fft2(intensity).conj()).real


@pytest.fixture(scope="module")
def strong():
    phase = smooth_phase(1.5, reach_per_angstrom=0.4)  # so that neither the wave grid nor the scan folds anything
    return phase, *recorded(phase, OPTICS, 4)


def test_centre_of_mass_is_the_gradient_seen_through_the_probe(strong):
    phase, patterns, y_mrad, x_mrad = strong
    field = centre_of_mass(patterns, y_mrad, x_mrad)
    ky, kx = GRID.frequencies_per_angstrom()
    scale = 1e3 * wavelength_angstrom(ENERGY_EV) / (2 * np.pi)
    for found, k in ((field.x_mrad, kx), (field.y_mrad, ky)):
        gradient = np.fft.ifft2(2j * np.pi * k * np.fft.fft2(phase)).real
        expected = scale * blurred(gradient, OPTICS)[::4, ::4]
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_integrated_centre_of_mass_is_the_phase_seen_through_the_probe(strong):
    phase, patterns, y_mrad, x_mrad = strong
    found = phase_from_field(centre_of_mass(patterns, y_mrad, x_mrad), (0.1, 0.1), ENERGY_EV)
    expected = blurred(phase, OPTICS)[::4, ::4]
    expected = expected - expected.mean()
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01 * expected.std()


def test_torch_answers_in_torch_and_the_same(strong):
    _, patterns, y_mrad, x_mrad = strong
    own, other = patterns, torch.asarray(patterns)
    expected, found = centre_of_mass(own, y_mrad, x_mrad), centre_of_mass(other, y_mrad, x_mrad)
    np.testing.assert_allclose(found.x_mrad.numpy(), expected.x_mrad, atol=1e-10)
    for boundary in ("periodic", "free"):
        maps = [phase_from_field(each, (0.1, 0.1), ENERGY_EV, boundary=boundary) for each in (expected, found)]
        np.testing.assert_allclose(maps[1].numpy(), maps[0], atol=1e-10)
    bands = [single_side_band(each, y_mrad, x_mrad, (0.1, 0.1), OPTICS) for each in (own, other)]
    np.testing.assert_allclose(bands[1].numpy(), bands[0], atol=1e-10)


def test_raw_counts_are_as_good_as_fractions(strong):
    """Whole numbers of any width, of numpy, torch and xarray; angles are not rounded to them."""
    _, patterns, y_mrad, x_mrad = strong
    counts = np.rint(patterns / patterns[0, 0].sum() * 5e5).astype(np.uint16)
    wanted = centre_of_mass(counts.astype(float), y_mrad, x_mrad)
    named = DataArray(counts, dims=("y", "x", "detector_y", "detector_x"))
    for given in (counts, counts.astype(np.int64), torch.asarray(counts.astype(np.int32)), named):
        found = centre_of_mass(given, y_mrad, x_mrad)
        np.testing.assert_allclose(np.asarray(found.x_mrad), wanted.x_mrad, atol=1e-4)
    own, exact = (virtual_image(each, y_mrad, x_mrad, AnnularDetector(0, 40)) for each in (counts, 1.0 * counts))
    np.testing.assert_allclose(own, exact, rtol=1e-5)
    quarters = virtual_image(counts, y_mrad, x_mrad, SegmentedDetector(0, 60)).astype(np.uint32)
    exact = centre_of_mass_from_segments(quarters.astype(float), SegmentedDetector(0, 60))
    found = centre_of_mass_from_segments(quarters, SegmentedDetector(0, 60))
    np.testing.assert_allclose(found.y_mrad, exact.y_mrad, atol=1e-4)


def test_a_pattern_without_electrons_has_no_centre():
    field = centre_of_mass(np.zeros((2, 3, 3)), [-1, 0, 1], [-1, 0, 1])
    assert np.isnan(field.x_mrad).all()


def test_axes_that_do_not_fit_are_refused():
    with pytest.raises(InvalidParameter, match="do not fit"):
        centre_of_mass(np.zeros((2, 3, 3)), [0, 1], [-1, 0, 1])


def test_a_carbon_atom_simulated_gives_its_projected_potential_seen_through_the_probe():
    atoms = Atoms("C", [[5, 5, 1]], cell=[10, 10, 2], pbc=True)
    optics = Optics(beam_energy_ev=ENERGY_EV, semi_convergence_angle_mrad=20)
    scan = GridScan(0, 0, 1, 1, (20, 20))
    options = {"grid_shape_px": (80, 80), "device": "cpu"}
    images = simulate(atoms, optics, scan, {"4d": PixelatedDetector()}, method="multislice", **options)
    axes = images["detector_y"].values, images["detector_x"].values
    found = phase_from_field(centre_of_mass(images["4d"].values, *axes), scan.pixel_nm, ENERGY_EV)
    potential = projected_potential(atoms, grid_shape_px=(80, 80)).sum(axis=0)
    grid = WaveGrid((80, 80), (10.0, 10.0))
    intensity = np.abs(np.fft.ifft2(probe_spectrum(optics, grid))) ** 2
    seen = np.fft.ifft2(np.fft.fft2(potential) * np.fft.fft2(intensity / intensity.sum()).conj()).real
    expected = interaction_parameter(ENERGY_EV) * (seen - seen.mean())[::4, ::4]
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.04 * expected.std()


@pytest.mark.parametrize("rotation_deg", [0, 45, 20])
def test_segments_see_the_shift_of_a_disc(rotation_deg):
    detector = SegmentedDetector(0, 40, ring_count=2, segment_count=4, rotation_deg=rotation_deg)
    axis = np.linspace(-40, 40, 801)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    disc = (np.hypot(y + 0.4, x - 0.8) < 25.03).astype(float)
    signals = virtual_image(disc / disc.sum(), axis, axis, detector)
    field = disc_shift_from_segments(signals, detector, 25)
    assert field.x_mrad == pytest.approx(0.8, rel=0.05)
    assert field.y_mrad == pytest.approx(-0.4, rel=0.05)


def test_many_small_segments_see_the_centre_of_mass(strong):
    _, patterns, y_mrad, x_mrad = strong
    detector = SegmentedDetector(0, 74, ring_count=16, segment_count=16)
    few = SegmentedDetector(0, 74, ring_count=1, segment_count=4)
    whole = centre_of_mass(patterns, y_mrad, x_mrad).x_mrad
    errors = [
        np.std(centre_of_mass_from_segments(virtual_image(patterns, y_mrad, x_mrad, each), each).x_mrad - whole)
        for each in (detector, few)
    ]
    assert errors[0] < 0.1 * np.std(whole) < errors[1]


def test_segments_that_see_no_edge_are_refused():
    with pytest.raises(InvalidParameter, match="no segment sees"):
        disc_shift_from_segments(np.zeros((1, 4)), SegmentedDetector(0, 20), 25)


@pytest.mark.parametrize("shape", [(32, 24), (31, 25)])
def test_periodic_integration_inverts_the_gradient(shape):
    y, x = np.meshgrid(np.arange(shape[0]) / shape[0], np.arange(shape[1]) / shape[1], indexing="ij")
    truth = np.cos(2 * np.pi * (2 * x + 3 * y)) + 0.3 * np.sin(2 * np.pi * (5 * x - y))
    gx = -4 * np.pi * np.sin(2 * np.pi * (2 * x + 3 * y)) + 3 * np.pi * np.cos(2 * np.pi * (5 * x - y))
    gy = -6 * np.pi * np.sin(2 * np.pi * (2 * x + 3 * y)) - 0.6 * np.pi * np.cos(2 * np.pi * (5 * x - y))
    found = integrate(gx, gy, (1 / shape[0], 1 / shape[1]))
    np.testing.assert_allclose(found, truth, atol=1e-10)
    damped = integrate(gx, gy, (1 / shape[0], 1 / shape[1]), longest_period_nm=0.2)
    wave = np.cos(2 * np.pi * (2 * x + 3 * y))
    share = 2 * np.mean(damped * wave)
    assert share == pytest.approx(13 / (13 + 25), rel=1e-6)  # k^2 / (k^2 + 1 / L^2)


def test_free_integration_of_a_bowl_is_exact():
    y, x = np.meshgrid(np.arange(20) * 0.1, np.arange(31) * 0.2, indexing="ij")
    truth = 3 * x**2 - 2 * x * y + y**2 + x
    found = integrate(6 * x - 2 * y + 1, -2 * x + 2 * y, (0.1, 0.2), boundary="free")
    np.testing.assert_allclose(found, truth - truth.mean(), atol=1e-9)


def test_an_unknown_boundary_is_refused():
    with pytest.raises(InvalidParameter, match="periodic, free"):
        integrate(np.zeros((4, 4)), np.zeros((4, 4)), (1, 1), boundary="hard")
    with pytest.raises(InvalidParameter, match="must be equal"):
        phase_from_field(VectorField(np.zeros((4, 4)), np.zeros((3, 4))), (1, 1), ENERGY_EV)


def test_virtual_detectors_record_what_real_ones_would():
    atoms = Atoms("Au", [[4, 5, 1]], cell=[8, 10, 2], pbc=True)
    optics = Optics(beam_energy_ev=ENERGY_EV, semi_convergence_angle_mrad=20)
    detectors = {
        "ring": AnnularDetector(25, 60),
        "parts": SegmentedDetector(10, 30, ring_count=2, segment_count=4, rotation_deg=15),
        "4d": PixelatedDetector(max_angle_mrad=70),
    }
    images = simulate(
        atoms, optics, PointScan([[0.3, 0.3], [0.4, 0.5]]), detectors, grid_shape_px=(100, 80), device="cpu"
    )
    assert list(images.data_vars) == list(detectors)
    axes = images["detector_y"].values, images["detector_x"].values
    for name in ("ring", "parts"):
        found = virtual_image(images["4d"].values, *axes, detectors[name])
        np.testing.assert_allclose(found, images[name].values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("optics", [OPTICS, OPTICS.model_copy(update={"defocus_nm": -10.0})])
def test_side_bands_recover_the_phase_of_a_weak_object(optics):
    phase = smooth_phase(0.02)
    found = single_side_band(*recorded(phase, optics, 2), (0.05, 0.05), optics)
    reach = 1.8 * 0.025 / wavelength_angstrom(ENERGY_EV)
    assert reach > 1.0  # all of the object's frequencies pass
    assert np.sqrt(np.mean((found - phase[::2, ::2]) ** 2)) < 0.03 * phase.std()


def test_side_bands_of_a_hard_aperture_are_divided_by_a_hard_one():
    phase = smooth_phase(0.02)
    patterns = recorded(phase, OPTICS, 2, "hard")
    right, wrong = (
        np.sqrt(np.mean((single_side_band(*patterns, (0.05, 0.05), OPTICS, aperture=edge) - phase[::2, ::2]) ** 2))
        for edge in ("hard", "soft")
    )
    assert right < 0.001 * phase.std()
    assert wrong > 5 * right
    with pytest.raises(InvalidParameter, match="soft, hard"):
        single_side_band(*patterns, (0.05, 0.05), OPTICS, aperture="round")


def test_side_bands_need_the_aberrations():
    phase = smooth_phase(0.02)
    flat = OPTICS.model_copy(update={"defocus_nm": 0.0, "aberrations": Aberrations()})
    found = single_side_band(*recorded(phase, OPTICS, 2), (0.05, 0.05), flat)
    assert np.sqrt(np.mean((found - phase[::2, ::2]) ** 2)) > 0.2 * phase.std()
