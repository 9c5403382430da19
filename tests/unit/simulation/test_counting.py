"""Counts have the statistics of electrons and detectors; distorted scans stand where they should."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, InvalidParameter, simulate
from simulation.counting import DetectorChain, dose_e_per_a2, electrons_per_pixel, raw_counts
from simulation.noise import count_electrons
from simulation.scan_distortions import ScanDistortion, distorted_scan, pixel_times_s
from simulation.world.drift import Wander

EVEN = np.full((200, 200), 0.2)
SCAN = GridScan(1.0, 2.0, 4.0, 3.0, (30, 40))


def test_current_and_dwell_give_electrons_and_dose():
    assert electrons_per_pixel(1.0, 1.0) == pytest.approx(6.241509, rel=1e-6)
    assert dose_e_per_a2(electrons_per_pixel(10, 16), (0.1, 0.1)) == pytest.approx(998.64, rel=1e-4)
    with pytest.raises(InvalidParameter, match="negative"):
        electrons_per_pixel(-1, 1)


def test_a_perfect_chain_counts_the_same_electrons_as_the_simulated_microscope():
    ideal = raw_counts(EVEN, 50.0, DetectorChain(), np.random.default_rng(4))
    assert (ideal == count_electrons(EVEN, 50.0, np.random.default_rng(4))).all()
    again = raw_counts(EVEN, 50.0, DetectorChain(), np.random.default_rng(4))
    assert (ideal == again).all()


def test_mean_and_variance_of_a_real_chain():
    """Mean = g n q + offset; variance = g^2 n q (1 + spread^2) + read noise^2 + 1/12 of rounding."""
    chain = DetectorChain(
        quantum_efficiency=0.6,
        gain_counts_per_electron=20,
        gain_spread_fraction=0.5,
        offset_counts=100,
        read_noise_counts=7,
    )
    counts = raw_counts(EVEN, 80.0, chain, np.random.default_rng(1)).astype(float)
    registered = 0.2 * 80 * 0.6
    assert counts.mean() == pytest.approx(20 * registered + 100, rel=0.01)
    assert counts.var() == pytest.approx(400 * registered * 1.25 + 49 + 1 / 12, rel=0.03)


def test_saturation_and_the_dark():
    chain = DetectorChain(gain_counts_per_electron=10, saturation_counts=255)
    assert raw_counts(EVEN, 1e4, chain, np.random.default_rng(1)).max() == 255
    dark = raw_counts(-EVEN, 1e4, DetectorChain(gain_spread_fraction=1, read_noise_counts=3), np.random.default_rng(1))
    assert dark.min() == 0
    assert dark.mean() == pytest.approx(3 / np.sqrt(2 * np.pi), rel=0.03)


@pytest.mark.parametrize("wrong", [{"quantum_efficiency": 1.2}, {"read_noise_counts": -1}, {"saturation_counts": 0}])
def test_impossible_chains_are_refused(wrong):
    with pytest.raises(InvalidParameter):
        DetectorChain(**wrong)


def test_an_undistorted_scan_is_the_raster():
    points = distorted_scan(SCAN, ScanDistortion(), np.random.default_rng(0), dwell_time_us=2).points_nm
    np.testing.assert_allclose(points, SCAN.points_angstrom() / 10, atol=1e-12)
    times = pixel_times_s(SCAN, 2.0, 50.0)
    assert times[1, 0] == pytest.approx((40 * 2 + 50) * 1e-6)


def test_each_distortion_moves_what_it_should():
    still = (SCAN.points_angstrom() / 10).reshape(30, 40, 2)

    def moved(seed=7, **values):
        scan = distorted_scan(
            SCAN,
            ScanDistortion(**values),
            np.random.default_rng(seed),
            dwell_time_us=10,
            flyback_time_us=100,
            start_s=2,
        )
        return scan.points_nm.reshape(30, 40, 2) - still

    jitter = moved(row_jitter_nm=0.05)
    assert np.ptp(jitter, axis=1).max() < 1e-12  # a row moves as a whole
    assert jitter[:, 0].std() == pytest.approx(0.05, rel=0.3)
    assert (jitter == moved(row_jitter_nm=0.05)).all()
    flyback = moved(flyback_error_nm=0.2, flyback_settling_us=30.0)
    np.testing.assert_allclose(flyback[:, :4, 0], 0.2 * np.exp(-np.arange(4) / 3)[None, :].repeat(30, 0), atol=1e-12)
    assert np.abs(flyback[..., 1]).max() < 1e-12
    drift = moved(drift_x_nm_per_s=1.0, drift_y_nm_per_s=-0.5)
    np.testing.assert_allclose(drift[3, 5], np.array([1.0, -0.5]) * (2 + 3 * 500e-6 + 5 * 10e-6), atol=1e-12)
    wander = Wander.draw(2.0, 1.0, np.random.default_rng(3))
    np.testing.assert_allclose(moved(wander_y=wander)[0, 0], [0, wander.at(2.0)], atol=1e-12)


def test_a_drifting_atom_is_imaged_where_the_probe_met_it():
    atoms = Atoms("Au", [[5, 5, 1]], cell=[10, 10, 2], pbc=True)
    optics = Optics(beam_energy_ev=1e5, semi_convergence_angle_mrad=20)
    scan = GridScan(0.2, 0.2, 0.6, 0.6, (12, 12))
    drift = ScanDistortion(drift_x_nm_per_s=0.1)
    positions = distorted_scan(scan, drift, np.random.default_rng(0), dwell_time_us=1.0, start_s=1.0)
    options = {"grid_shape_px": (80, 80), "method": "multislice", "device": "numpy"}
    detectors = {"haadf": AnnularDetector(50, 100)}
    image = simulate(atoms, optics, positions, detectors, **options)["haadf"].values.reshape(scan.shape_px)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (row, column) == (6, 4)  # 0.1 nm, two pixels, to the left of (6, 6)
