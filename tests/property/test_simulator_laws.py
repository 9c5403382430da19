"""Laws that every simulated image keeps: energy, reciprocity, translation, linearity, convergence, independence."""

import json
import os
import subprocess
import sys

import ase
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments.optics import Aberrations, Coherence, Optics
from simulation import AnnularDetector, GridScan, PointScan, SegmentedDetector, Simulator, simulate
from simulation.backend import backend
from simulation.counting import DetectorChain, raw_counts
from simulation.multislice import Propagator, propagate, transmissions
from simulation.potential import PotentialModel
from simulation.probe import position_phases, probe_spectrum
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid
from tests.unit.simulation.reference_cases import rms_over_std

OPTICS = Optics(
    beam_energy_ev=100e3,
    semi_convergence_angle_mrad=22,
    defocus_nm=3,
    aberrations=Aberrations(c12_nm=2, phi12_deg=20, c21_nm=30, phi21_deg=70),
)
DETECTORS = {"adf": AnnularDetector(35, 60), "abf": AnnularDetector(10, 22), "dpc": SegmentedDetector(0, 22)}
EVERYTHING = {"all": AnnularDetector(0, 1e4)}
CELL = (9.0, 8.0, 12.0)
DOUBLE = backend("numpy", "double")


def glass(seed=3, count=14):
    rng = np.random.default_rng(seed)
    numbers = rng.choice([6, 14, 42, 74], count)
    return ase.Atoms(numbers, positions=rng.uniform(0, CELL, (count, 3)), cell=CELL, pbc=True)


def crossed(atoms, waves, grid, optics=OPTICS):
    """Exit waves in double precision, with the transmission functions and propagator used."""
    made = transmissions(Specimen.of(atoms), grid, 0.1, PotentialModel(), optics.beam_energy_ev, DOUBLE)
    propagator = Propagator(optics, grid, made.thickness_angstrom, DOUBLE)
    return propagate(waves.copy(), made, propagator, DOUBLE), made, propagator


@settings(max_examples=3)
@given(seed=st.integers(0, 99), x_nm=st.floats(0, 0.9), y_nm=st.floats(0, 0.8))
def test_what_is_lost_is_what_the_band_limit_took(seed, x_nm, y_nm):
    """Counted slice by slice: power beyond the antialias aperture, and what band-limited functions fail to transmit."""
    grid = WaveGrid((48, 54), CELL[1::-1])
    incident = probe_spectrum(OPTICS, grid) * _ramp(grid, x_nm, y_nm)
    exits, made, propagator = crossed(glass(seed), incident[None], grid)
    wave, lost = incident, 0.0
    for index in made.order:
        here = np.fft.ifft2(wave)
        after = here if index == -1 else here * made.functions[index]
        lost += grid.shape_px[0] * grid.shape_px[1] * np.sum(np.abs(here) ** 2 - np.abs(after) ** 2)
        spectrum = np.fft.fft2(after)
        lost += np.sum((1 - grid.antialias_aperture() ** 2) * np.abs(spectrum) ** 2)
        wave = spectrum * propagator.through(1)
    assert np.sum(np.abs(exits) ** 2) == pytest.approx(1 - lost, abs=1e-12)
    points = PointScan([[x_nm, y_nm]])
    image = simulate(
        glass(seed), OPTICS, points, EVERYTHING, method="multislice", grid_shape_px=grid.shape_px,
        slice_thickness_nm=0.1, precision="double", device="numpy",
    )  # fmt: skip
    assert float(image["all"][0]) == pytest.approx(1 - lost, abs=1e-9)


def _ramp(grid, x_nm, y_nm):
    along_y, along_x = position_phases(grid, np.array([[x_nm, y_nm]]) * 10)
    return along_y[0][:, None] * along_x[0][None, :]


def test_a_smooth_phase_object_loses_nothing():
    """Its transmission function fits the band: every electron arrives, to the last digits."""
    grid = WaveGrid((64, 64), (10.0, 10.0))
    y, x = np.meshgrid(np.arange(64) / 64, np.arange(64) / 64, indexing="ij")
    smooth = np.exp(0.2j * np.cos(2 * np.pi * x) + 0.3j * np.sin(2 * np.pi * (y + x)))
    propagator = Propagator(OPTICS, grid, 2.0, DOUBLE)
    wave = probe_spectrum(OPTICS, grid)
    for _ in range(5):
        wave = np.fft.fft2(np.fft.ifft2(wave) * smooth) * propagator.through(1)
    assert np.sum(np.abs(wave) ** 2) == pytest.approx(1, abs=1e-13)


@settings(max_examples=3)
@given(seed=st.integers(0, 99))
def test_source_and_detector_may_change_places(seed):
    """A point detector on the axis sees of a probe what a plane wave leaves at its place behind the reversed specimen.

    The reversed microscope filters with the same lens; the specimen is met back to front.
    """
    atoms, points = glass(seed), np.array([[0.21, 0.37], [0.6, 0.05]])
    grid, depth = WaveGrid((48, 54), CELL[1::-1]), CELL[2]
    on_axis = {"centre": AnnularDetector(0, 0.1)}
    scanned = simulate(
        atoms, OPTICS, PointScan(points), on_axis, method="multislice", grid_shape_px=grid.shape_px,
        slice_thickness_nm=0.1, precision="double", device="numpy",
    )["centre"]  # fmt: skip
    reversed_atoms = atoms.copy()
    slice_angstrom = depth / 12
    middles = (np.floor(atoms.positions[:, 2] / slice_angstrom) + 0.5) * slice_angstrom
    reversed_atoms.positions[:, 2] = depth - middles
    plane = np.zeros((1, *grid.shape_px), complex)
    plane[0, 0, 0] = 1.0
    exits, _, propagator = crossed(reversed_atoms, plane, grid)
    aperture = grid.antialias_aperture()
    last_step = np.where(aperture > 0.99, propagator.through(1), 1)  # the reversed walk ends at the last atoms
    seen = probe_spectrum(OPTICS, grid)
    seen = np.roll(seen[::-1, ::-1], (1, 1), (0, 1)) * exits[0] / last_step
    ky, kx = grid.frequencies_per_angstrom()
    for point, value in zip(points * 10, np.asarray(scanned), strict=True):
        there = np.sum(seen * np.exp(2j * np.pi * (ky * point[1] + kx * point[0])))
        assert abs(there) ** 2 == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("energy_ev", [60e3, 200e3])
@pytest.mark.parametrize("symbol", ["S", "Mo", "W"])
def test_dark_field_of_an_atom_does_not_depend_on_the_pixels(symbol, energy_ev):
    """Atom and probe moved together by quarters of a pixel: better than 0.1 %."""
    optics = Optics(beam_energy_ev=energy_ev, semi_convergence_angle_mrad=30)
    steps_nm = np.array([0, 0.25, 0.5, 0.75]) * 0.005
    values = []
    for step_nm in steps_nm:
        x_nm = 0.4 + step_nm
        atom = ase.Atoms(symbol, positions=[[x_nm * 10, x_nm * 10, 1]], cell=(8, 8, 2), pbc=True)
        made = simulate(
            atom, optics, PointScan([[x_nm, x_nm]]), {"haadf": AnnularDetector(80, 150)}, method="multislice",
            grid_shape_px=(160, 160), device="cpu",
        )  # fmt: skip
        values.append(float(made["haadf"][0]))
    assert (max(values) - min(values)) / np.mean(values) < 1e-3


@settings(max_examples=10)
@given(
    dose=st.floats(100, 1e4),
    factor=st.floats(1.5, 20),
    efficiency=st.floats(0.3, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_mean_counts_grow_in_proportion_to_the_dose(dose, factor, efficiency, seed):
    """Over a thousand exposures, to five standard errors; so does their variance, which shot noise makes."""
    fractions = np.array([[0.02, 0.1], [0.3, 0.004]])
    chain, rng = DetectorChain(quantum_efficiency=efficiency, saturation_counts=2**31), np.random.default_rng(seed)
    for scale in (1.0, factor):
        counts = raw_counts(np.broadcast_to(fractions, (1000, 2, 2)), dose * scale, chain, rng)
        expected = fractions * dose * scale * efficiency
        assert (np.abs(counts.mean(axis=0) - expected) < 5 * np.sqrt(expected / 1000) + 1e-9).all()
        assert (np.abs(counts.var(axis=0) / expected - 1) < 5 * np.sqrt((2 + 1 / expected) / 1000)).all()


def test_images_converge_in_first_order_with_the_slice_thickness():
    """Atoms on boundaries of slices stay, those between move up by half of one: a third of it, a third of the error."""
    z = np.array([3.0, 6.0, 10.5, 7.5])
    atoms = ase.Atoms("MoSiCW", positions=[[4, 4, z[0]], [4.5, 4.2, z[1]], [3.8, 4.3, z[2]], [4.2, 3.6, z[3]]])
    atoms.set_cell((8, 8, 12))
    points = PointScan([[0.4, 0.4], [0.42, 0.4], [0.45, 0.42], [0.37, 0.44]])
    detectors = {"abf": AnnularDetector(10, 22), "bf": AnnularDetector(0, 10)}

    def image(thickness_nm):
        made = simulate(
            atoms, OPTICS, points, detectors, method="multislice", sampling_nm=0.016, slice_thickness_nm=thickness_nm,
            precision="double", device="numpy",
        )  # fmt: skip
        return np.concatenate([made["abf"], made["bf"]])

    exact = image(0.05)  # every atom on a boundary
    errors = [float(np.linalg.norm(image(thickness) - exact)) for thickness in (0.3 / 3, 0.3 / 9, 0.3 / 27)]
    orders = np.log(np.array(errors[:-1]) / errors[1:]) / np.log(3)
    np.testing.assert_allclose(orders, 1.0, atol=0.1)


def test_images_converge_with_the_sampling_at_least_in_second_order():
    """What is scattered beyond the band and back falls with its square or faster."""
    places = [[4, 4, 1], [4.3, 3.9, 3], [3.8, 4.2, 5], [4, 4.1, 7]]
    atoms = ase.Atoms("Mo4", positions=places, cell=(8, 8, 8), pbc=True)
    points = PointScan([[0.4, 0.4], [0.42, 0.4], [0.45, 0.42], [0.37, 0.44]])
    detectors = {"adf": AnnularDetector(40, 60), "bf": AnnularDetector(0, 10)}
    counts = (72, 144, 288)
    images = [
        simulate(
            atoms, OPTICS, points, detectors, method="multislice", grid_shape_px=(count, count), precision="double",
            device="numpy",
        )
        for count in counts
    ]  # fmt: skip
    for name in detectors:
        coarse, fine = (float(np.linalg.norm(each[name] - images[-1][name])) for each in images[:2])
        assert np.log2(coarse / fine) > 2, name


SMALL = {"sampling_nm": 0.02, "device": "cpu"}
SCAN = GridScan(0.05, 0.02, 0.9, 0.8, (4, 5))


ALL_WAVES = ("multislice", "prism", "partitioned_prism", "periodic", "windowed")


@pytest.mark.filterwarnings("ignore::simulation.errors.AccuracyMissed")
@pytest.mark.parametrize("method", ALL_WAVES)
def test_single_precision_is_good_to_a_millionth_of_the_beam(method):
    atoms = glass(count=6) * (2, 2, 1)
    single, double = (
        simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, precision=precision, **SMALL)
        for precision in ("single", "double")
    )
    for name in DETECTORS:
        assert single[name].dtype == np.float32
        assert double[name].dtype == np.float64
        assert np.abs(single[name] - double[name]).max() < 1e-6, name
    assert (single.attrs["precision"], double.attrs["precision"]) == ("single", "double")


def test_methods_and_array_libraries_agree_in_double_precision():
    atoms, made = glass(count=6) * (2, 2, 1), {}
    for device, method in (("numpy", "multislice"), ("cpu", "multislice"), ("cpu", "prism"), ("cpu", "periodic")):
        settings = SMALL | {"device": device, "precision": "double", "method": method}
        made[device, method] = simulate(atoms, OPTICS, SCAN, DETECTORS, **settings)
    first = made.pop(("numpy", "multislice"))
    for each in made.values():
        for name in DETECTORS:
            assert rms_over_std(each[name], first[name]) < 1e-9, (name, each.attrs["method"])


@pytest.mark.filterwarnings("ignore::simulation.errors.AccuracyMissed")
@pytest.mark.parametrize("method", ALL_WAVES)
def test_how_many_waves_are_batched_does_not_matter(method, monkeypatch):
    atoms = glass(count=6) * (2, 2, 1)
    many = simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, **SMALL)
    monkeypatch.setattr("simulation.backend._CPU_BATCH_BYTES", 1)
    one = simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, **SMALL)
    for name in DETECTORS:
        assert np.abs(one[name] - many[name]).max() < 2e-6, name


_CHILD = """
import json, sys, torch
from tests.property.test_simulator_laws import threaded_images
made = {}
for count in (1, 2):
    torch.set_num_threads(count)
    made[count] = threaded_images()
print(json.dumps(made))
"""


def threaded_images():
    """Bytes of images as text, by method."""
    found = {}
    for method in ("multislice", "prism"):
        images = Simulator(glass(count=6) * (2, 2, 1), method=method, **SMALL).image(OPTICS, SCAN, DETECTORS)
        found[method] = {name: np.asarray(images[name]).tobytes().hex() for name in DETECTORS}
    wide, many = GridScan(0, 0, 0.9, 0.8, (3, 4)), GridScan(0, 0, 0.9, 0.8, (80, 90))
    for method, scan in (("prism", wide), ("incoherent", many), ("incoherent", wide)):
        simulator = Simulator(glass(count=6), method=method, coherence=Coherence(source_size_nm=0.08), **SMALL)
        image = simulator.image(OPTICS, scan, {"adf": DETECTORS["adf"]})["adf"]
        found[f"{method} {scan.shape_px}"] = np.asarray(image).tobytes().hex()
    return found


def test_another_process_and_two_threads_give_the_same_bits():
    environment = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    theirs, ours = json.loads(child.stdout), threaded_images()
    assert theirs["1"] == ours
    assert theirs["2"] == ours
