"""The blur by the source against a scan fine enough to be blurred by a Fourier transform, for steps of any width."""

from functools import cache

import numpy as np
import pytest
from ase.build import mx2
from scipy.ndimage import gaussian_filter

from instruments.optics import Coherence, Optics
from simulation import (
    AnnularDetector,
    GridScan,
    PixelatedDetector,
    PointScan,
    Simulator,
    SourceUnresolved,
    simulate,
)
from simulation.builders import perovskite
from simulation.coherence import FWHM_PER_SIGMA
from simulation.specimens import orthogonal_cell
from tests.unit.simulation.reference_cases import rms_over_std

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=30)  # steps of 0.021 nm hold what its images hold
DETECTORS = {"haadf": AnnularDetector(60, 120), "abf": AnnularDetector(10, 28)}
SETTINGS = {"sampling_nm": 0.013, "device": "cpu", "threads": 1}
STEPS_NM = {"MoS2": 0.1, "SrTiO3": 0.15}
FINER = 8
"""Steps of the reference are so much finer."""
TRUE = 1e-4


@cache
def simulator(name):
    layer = orthogonal_cell(mx2("MoS2", a=3.18, thickness=3.13, vacuum=2)) * (3, 2, 1)
    cube = perovskite("SrTiO3", thickness_nm=1.2, width_nm=0.75, height_nm=0.75).atoms
    return Simulator({"MoS2": layer, "SrTiO3": cube}[name], method="prism", **SETTINGS)


@cache
def wide_scan(name):
    height, width = np.asarray(simulator(name).grid.extent_angstrom) / 10
    return GridScan(0, 0, width, height, (round(height / STEPS_NM[name]), round(width / STEPS_NM[name])))


@cache
def fine_image(name, detector):
    scan = wide_scan(name)
    rows, columns = scan.shape_px
    fine = GridScan(0, 0, scan.width_nm, scan.height_nm, (FINER * rows, FINER * columns))
    return simulator(name).image(OPTICS, fine, DETECTORS)[detector].values.astype(float)


def blurred(name, detector, size_nm):
    """The fine image times a Gaussian in Fourier space, of which every eighth pixel is left."""
    image, (dy, dx) = fine_image(name, detector), wide_scan(name).pixel_nm
    ky, kx = np.fft.fftfreq(image.shape[0], dy / FINER), np.fft.fftfreq(image.shape[1], dx / FINER)
    factor = np.exp(-2 * (np.pi * size_nm / FWHM_PER_SIGMA) ** 2 * (ky[:, None] ** 2 + kx**2))
    return np.fft.ifft2(np.fft.fft2(image) * factor).real[::FINER, ::FINER]


def part_of(scan, rows, columns):
    """Some of its pixels as a scan of their own."""
    dy, dx = scan.pixel_nm
    shape = rows.stop - rows.start, columns.stop - columns.start
    return GridScan(columns.start * dx, rows.start * dy, shape[1] * dx, shape[0] * dy, shape)


@pytest.mark.parametrize("size_nm", [0.03, 0.08, 0.15])
@pytest.mark.parametrize("name", STEPS_NM)
def test_pixels_far_apart_are_those_of_the_blurred_image(name, size_nm):
    """Whole periods, a part, one row, and points; each against the pixels of the fine image after its blur."""
    whole, source = wide_scan(name), Coherence(source_size_nm=size_nm)
    rows, columns = slice(1, 3), slice(2, 5)
    few = part_of(whole, rows, columns)
    cases = {
        "whole": (whole, np.s_[:, :]),
        "part": (few, np.s_[rows, columns]),
        "row": (part_of(whole, slice(2, 3), slice(0, whole.shape_px[1])), np.s_[2:3, :]),
        "points": (PointScan(few.points_angstrom()[:3] / 10), np.s_[1, 2:5]),
    }
    for kind, (scan, kept) in cases.items():
        images = simulator(name).image(OPTICS, scan, DETECTORS, coherence=source)
        for detector in DETECTORS:
            expected = blurred(name, detector, size_nm)
            error = np.sqrt(np.mean((images[detector].values - expected[kept]) ** 2)) / expected.std()
            assert error < TRUE, (kind, detector, error)
        assert images.attrs["probes_per_pixel"] > 4, kind


def test_steps_unlike_along_x_and_y():
    """Fine along x, wide along y: lines are added along y only."""
    whole = wide_scan("SrTiO3")
    unlike = GridScan(0, 0, whole.width_nm, whole.height_nm, (whole.shape_px[0], 2 * FINER * whole.shape_px[1]))
    image = simulator("SrTiO3").image(OPTICS, unlike, DETECTORS, coherence=Coherence(source_size_nm=0.08))
    assert 4 < image.attrs["probes_per_pixel"] <= FINER + 1
    for detector in DETECTORS:
        expected = blurred("SrTiO3", detector, 0.08)
        assert rms_over_std(image[detector].values[:, :: 2 * FINER], expected) < TRUE


def test_a_perfect_crystal_takes_no_more_probes_than_pixels():
    atoms = perovskite("SrTiO3", thickness_nm=1.2, width_nm=0.75, height_nm=0.75).atoms
    scan, source = wide_scan("SrTiO3"), Coherence(source_size_nm=0.08, focal_spread_nm=2)
    images = simulate(atoms, OPTICS, scan, DETECTORS, method="periodic", coherence=source, **SETTINGS)
    assert images.attrs["probes_per_pixel"] == 1
    summed = simulator("SrTiO3").image(OPTICS, scan, DETECTORS, coherence=source)
    for detector in DETECTORS:
        assert rms_over_std(images[detector], summed[detector]) < TRUE


@pytest.mark.filterwarnings("ignore::simulation.errors.AccuracyMissed")
def test_the_stated_error_holds_for_the_blurred_image():
    """Windows, whose error is found from sharp probes, at pixels far apart."""
    atoms = orthogonal_cell(mx2("MoS2", a=3.18, thickness=3.13, vacuum=2)) * (6, 3, 1)
    scan, source = GridScan(0.1, 0.2, 0.6, 0.6, (4, 4)), Coherence(source_size_nm=0.08)
    settings = SETTINGS | {"sampling_nm": 0.02}
    dark = {"haadf": DETECTORS["haadf"]}
    optics = OPTICS.model_copy(update={"beam_energy_ev": 80e3})
    windowed = simulate(atoms, optics, scan, dark, method="windowed", accuracy=0.03, coherence=source, **settings)
    exact = simulate(atoms, optics, scan, dark, method="prism", coherence=source, **settings)
    assert windowed.attrs["method"] == "windowed"
    assert rms_over_std(windowed["haadf"], exact["haadf"]) <= windowed.attrs["error_estimate"]


def test_patterns_are_blurred_as_the_images_that_they_hold():
    """4D data of pixels far apart keep no pattern of the probes between; their rings are the detectors'."""
    scan, source = part_of(wide_scan("SrTiO3"), slice(1, 3), slice(2, 4)), Coherence(source_size_nm=0.08)
    ring = {"adf": AnnularDetector(33, 42)}
    seen = simulator("SrTiO3").image(OPTICS, scan, ring | {"patterns": PixelatedDetector()}, coherence=source)
    angles = np.hypot(seen["detector_y"].values[:, None], seen["detector_x"].values)
    summed = (seen["patterns"].values * ((angles >= 33) & (angles < 42))).sum(axis=(2, 3))
    np.testing.assert_allclose(summed, seen["adf"], rtol=1e-5)
    assert float(seen["patterns"].min()) >= 0


def test_a_finished_image_is_blurred_where_another_program_is_compared_with():
    """Its kernel is sampled at the pixels, and steps too wide for that warn. (Reference case 08 is such an image.)"""
    atoms = orthogonal_cell(mx2("MoS2", a=3.18, thickness=3.13, vacuum=2))
    compared = Simulator(atoms, method="prism", placement="bilinear", sampling_nm=0.02, device="cpu")
    optics, dark = OPTICS.model_copy(update={"semi_convergence_angle_mrad": 12}), {"adf": AnnularDetector(20, 40)}
    height, width = np.asarray(compared.grid.extent_angstrom) / 10
    scan, source = GridScan(0, 0, width, height, (10, 6)), Coherence(source_size_nm=0.11)
    sharp, found = (compared.image(optics, scan, dark, coherence=each) for each in (Coherence(), source))
    assert found.attrs["probes_per_pixel"] == 1
    sigmas_px = [0.11 / FWHM_PER_SIGMA / step for step in scan.pixel_nm]
    expected = gaussian_filter(sharp["adf"].values.astype(float), sigmas_px, mode="wrap")
    np.testing.assert_allclose(found["adf"], expected, rtol=1e-5)
    wide = GridScan(0, 0, width, height, (5, 3))
    with pytest.warns(SourceUnresolved, match=r"steps of 0\.11 nm are too wide .* at most 0\.052 nm"):
        compared.image(optics, wide, dark, coherence=source)
