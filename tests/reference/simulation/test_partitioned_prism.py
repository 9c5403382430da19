"""A few parent plane waves against multislice: exact when all are parents, worse as they get fewer."""

import ase
import numpy as np
import pytest
from ase.build import bulk

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, PointScan, Simulator, simulate
from simulation.check_probes import atoms_under, drawn, unusual
from simulation.method_choice import Workload, candidates
from simulation.partitioned_prism import interpolation_weights, parent_beams, partitioned_counts
from simulation.prism import scattering_matrix_bytes
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid
from tests.unit.simulation.reference_cases import rms_over_std

OPTICS = Optics(beam_energy_ev=80e3, semi_convergence_angle_mrad=28, defocus_nm=3, tilt_x_mrad=2)
DETECTORS = {"adf": AnnularDetector(50, 110), "abf": AnnularDetector(12, 28)}
SCAN = GridScan(0.1, 0.07, 1.5, 1.4, (5, 6))
SETTINGS = {"sampling_nm": 0.02, "slice_thickness_nm": 0.25, "device": "cpu"}


def crystal():
    places = np.random.default_rng(5).uniform(0, 1, (60, 3)) * (18, 17, 10)
    return ase.Atoms(f"Ti{len(places)}", positions=places, cell=(18, 17, 10), pbc=True)


def partitioned(interpolation):
    return simulate(
        crystal(), OPTICS, SCAN, DETECTORS, method="partitioned_prism", interpolation=interpolation, **SETTINGS
    )


@pytest.fixture(scope="module")
def exact():
    return simulate(crystal(), OPTICS, SCAN, DETECTORS, method="multislice", **SETTINGS)


def test_more_parents_are_nearer_and_all_are_exact(exact):
    errors = []
    for interpolation in (5, 3, 2, 1):
        made = partitioned(interpolation)
        errors.append(max(rms_over_std(made[name], exact[name]) for name in DETECTORS))
        if interpolation > 1:
            assert made.attrs["method"] == "partitioned_prism"
            assert errors[-1] <= made.attrs["error_estimate"] < 5 * errors[-1]
    assert errors[-1] < 1e-4
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2], errors
    assert errors[2] < 0.02


def test_the_stated_error_holds_where_one_column_has_most_of_it():
    """Drawn alike, the probes that are compared miss that column in one of ten draws."""
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (3, 3, 4)
    middle = int(np.argmin(np.abs(salt.positions - salt.cell.lengths() / 2).sum(axis=1)))
    salt.numbers[middle] = 53
    x_nm, y_nm = salt.positions[middle, :2] / 10
    scan = GridScan(x_nm - 0.3, y_nm - 0.25, 0.56, 0.42, (9, 11))
    optics = Optics(beam_energy_ev=120e3, semi_convergence_angle_mrad=24, defocus_nm=1)
    seen = {
        method: simulate(
            salt, optics, scan, {"haadf": AnnularDetector(45, 60)}, method=method, interpolation=factor,
            sampling_nm=0.018, slice_thickness_nm=0.282, device="cpu",
        )["haadf"].values.ravel()
        for method, factor in (("partitioned_prism", 2), ("multislice", 1))
    }  # fmt: skip
    squares = (seen["partitioned_prism"] - seen["multislice"]).astype(float) ** 2
    doubts = unusual(atoms_under(Specimen.of(salt), scan.points_angstrom())[:, None])
    for known, (least, most) in ((doubts, (0.98, 1.0)), (np.ones(len(doubts)), (0.0, 0.97))):
        probes = [drawn(known, np.random.default_rng(seed)) for seed in range(200)]
        bounds = np.array([each.upper_rms(squares[each.chosen]) for each in probes])
        assert least <= np.mean(bounds >= np.sqrt(squares.mean())) <= most


def test_re_imaging_and_patterns():
    simulator = Simulator(crystal(), method="partitioned_prism", interpolation=1, **SETTINGS)
    simulator.image(OPTICS, PointScan([[0.3, 0.4]]), DETECTORS)
    other = OPTICS.model_copy(update={"defocus_nm": -4.0, "semi_convergence_angle_mrad": 20.0})
    points, detector = PointScan([[0.3, 0.4], [1.1, 1.3]]), {"cbed": PixelatedDetector(max_angle_mrad=60)}
    fresh = simulate(crystal(), other, points, detector, method="multislice", **SETTINGS)
    made = simulator.image(other, points, detector)["cbed"]
    angles = {axis: fresh["cbed"][axis] for axis in ("detector_y", "detector_x")}
    np.testing.assert_allclose(made, fresh["cbed"].sel(angles), atol=1e-5 * float(fresh["cbed"].max()))


def test_an_image_does_not_depend_on_what_was_imaged_before():
    """To the last bit: with a smaller and a larger aperture, another defocus and patterns in between."""
    points, smaller = PointScan([[0.3, 0.4], [1.1, 1.3]]), OPTICS.model_copy(update={"semi_convergence_angle_mrad": 20})
    settings = SETTINGS | {"method": "partitioned_prism", "interpolation": 3}
    used = Simulator(crystal(), **settings)
    for optics in (OPTICS, smaller, OPTICS.model_copy(update={"defocus_nm": 5.0}), OPTICS, smaller):
        made = used.image(optics, points, DETECTORS)
        fresh = simulate(crystal(), optics, points, DETECTORS, **settings)
        for name in DETECTORS:
            np.testing.assert_array_equal(made[name], fresh[name])


def test_memory_and_work_fall_with_the_parents():
    grid = WaveGrid((400, 400), (20.0, 20.0))
    optics = OPTICS.model_copy(update={"tilt_x_mrad": 0.0})
    beams, parents, pixels = partitioned_counts(grid, optics, 4)
    assert parents < beams / 9
    assert 8 * parents * pixels < scattering_matrix_bytes(grid, optics, 1) / 6
    thick = candidates(Workload(grid, optics, 400, 256, 2**40), frozenset())
    assert any(each.method == "partitioned_prism" for each in thick)
    few = candidates(Workload(grid, optics, 4, 4, 2**40), frozenset())
    assert not any(each.method == "partitioned_prism" for each in few)


def test_weights_hold_for_parents_and_linear_functions():
    side = np.arange(-9, 10)
    vectors = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    vectors = vectors[np.hypot(*vectors.T) <= 9]
    parents = parent_beams(vectors, 4)
    weights = interpolation_weights(vectors, vectors[parents])
    np.testing.assert_allclose(weights[parents], np.eye(len(parents)), atol=1e-9)
    np.testing.assert_allclose(weights @ vectors[parents], vectors, atol=1e-9)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-9)
    assert len(parent_beams(vectors, 1)) == len(vectors)
