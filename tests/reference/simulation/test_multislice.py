"""Whole images against reference arrays, and laws of propagation."""

import ase
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, PointScan, SegmentedDetector, Simulator, simulate
from simulation.backend import backend
from simulation.multislice import Itinerary, Propagator, fourier_resized, propagate, transmissions
from simulation.potential import PotentialModel
from simulation.probe import position_phases, probe_spectrum
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid
from tests.unit.simulation.reference_cases import case, rms_over_std

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25)
DARK_FIELD = {"adf": AnnularDetector(60, 150)}


def part_of(scan, step):
    """Every step-th probe of a scan, to be quick."""
    return PointScan(scan.points_angstrom()[::step] / 10)


@pytest.mark.parametrize(("number", "step"), [("03", 7), ("04", 3), ("06", 7), ("08", 3)])
def test_images_match_the_reference(number, step):
    reference = case(number)
    points = part_of(reference.scan, step)
    images = simulate(
        reference.atoms, reference.optics, points, reference.detectors, method="multislice", **reference.settings
    )
    for name in reference.detectors:
        assert rms_over_std(images[name], reference.image(name).ravel()[::step]) < 1e-3, name
    assert images.attrs["method"] == "multislice"
    assert images.attrs["error_estimate"] == 0


@pytest.mark.parametrize("number", ["03", "04", "06"])
def test_diffraction_patterns_match_the_reference(number):
    reference = case(number)
    pattern = reference.arrays["cbed"].transpose(0, 2, 1)
    points = np.array(reference.parameters["cbed_positions_A"])[-len(pattern) :] / 10
    detectors = {"pattern": PixelatedDetector(shape_px=pattern.shape[1:])}
    images = simulate(
        reference.atoms, reference.optics, PointScan(points), detectors, method="multislice", **reference.settings
    )
    assert rms_over_std(images["pattern"], pattern) < 1e-3
    assert images["pattern"].dims == ("point", "detector_y", "detector_x")
    middle = (np.array(pattern.shape[1:]) // 2).tolist()
    assert float(images["detector_y"][middle[0]]) == 0
    assert float(images["detector_x"][middle[1]]) == 0


@pytest.mark.parametrize("number", ["03", "04", "06"])
def test_exit_waves_match_the_reference(number):
    """The complex wave, its phase included; stored for every fourth pixel."""
    reference = case(number)
    prepared = Simulator(reference.atoms, method="multislice", **reference.settings).prepared(
        reference.optics.beam_energy_ev
    )
    functions, on, grid = prepared.transmissions[0], prepared.on, prepared.grid
    along_y, along_x = position_phases(grid, np.array(reference.parameters["cbed_positions_A"])[:1])
    incident = probe_spectrum(reference.optics, grid) * along_y[0][:, None] * along_x[0][None, :]
    propagator = Propagator(reference.optics, grid, functions.thickness_angstrom, on)
    exits = propagate(on.asarray(incident[None].astype(on.complex_type)), functions, propagator, on)
    wave = on.to_numpy(on.ifft2(exits))[0]
    assert rms_over_std(wave[::4, ::4], reference.arrays["exit_wave"].T) < 1e-4


def test_prism_without_interpolation_has_the_reference_of_multislice():
    """The peer's own two methods agree to 1e-5, so that what meets one meets the other."""
    multislice, prism = case("03"), case("05")
    for name in multislice.detectors:
        assert rms_over_std(prism.image(f"{name}_f1"), multislice.image(name)) < 1e-5, name


def test_segments_and_source_size_match_the_reference():
    reference = case("08")
    simulator = Simulator(reference.atoms, method="multislice", **reference.settings)
    segmented = simulator.image(reference.optics, reference.scan, {"s": SegmentedDetector(10, 20)})["s"]
    assert segmented.dims == ("y", "x", "ring", "segment")
    assert rms_over_std(segmented, reference.arrays["segmented"].transpose(1, 0, 2, 3)) < 1e-3
    source = Coherence(source_size_nm=0.035 * 2 * np.sqrt(2 * np.log(2)))
    haadf = {"HAADF": reference.detectors["HAADF"]}
    blurred = simulator.image(reference.optics, reference.scan, haadf, coherence=source)["HAADF"]
    assert rms_over_std(blurred, reference.image("HAADF_source")) < 1e-3


def test_frozen_phonons_match_the_reference():
    reference = case("07")
    displaced = []
    for positions in reference.arrays["positions_A"]:
        displaced.append(reference.atoms)
        displaced[-1].positions[:] = positions
    images = simulate(
        reference.atoms,
        reference.optics,
        part_of(reference.scan, 5),
        reference.detectors,
        method="multislice",
        phonons=displaced,
        **reference.settings,
    )
    for name in reference.detectors:
        assert rms_over_std(images[name], reference.image(name).ravel()[::5]) < 1e-3, name
    assert images.attrs["phonon_configurations_count"] == 4
    assert 0 < images.attrs["phonon_standard_error"] < 0.2


def one_atom(symbol, x_nm, y_nm):
    return ase.Atoms(symbol, positions=[[x_nm * 10, y_nm * 10, 1]], cell=(10, 10, 2), pbc=True)


@settings(max_examples=12)
@given(x_px=st.floats(0, 1), y_px=st.floats(0, 1), symbol=st.sampled_from(["S", "Mo", "W"]))
def test_an_atom_and_its_probe_may_stand_anywhere_between_pixels(x_px, y_px, symbol):
    """Moved together by part of a pixel, the image does not change (better than 0.1 %)."""
    images = []
    for x_nm, y_nm in ((0.5, 0.5), (0.5 + 0.01 * x_px, 0.5 + 0.01 * y_px)):
        made = simulate(
            one_atom(symbol, x_nm, y_nm),
            OPTICS,
            PointScan([[x_nm, y_nm], [x_nm + 0.05, y_nm]]),
            DARK_FIELD,
            grid_shape_px=(100, 100),
            device="cpu",
        )
        images.append(np.asarray(made["adf"]))
    np.testing.assert_allclose(images[1], images[0], rtol=1e-3)


@settings(max_examples=12)
@given(x_nm=st.floats(0, 1), y_nm=st.floats(0, 1.2), defocus_nm=st.floats(-10, 10))
def test_vacuum_loses_nothing(x_nm, y_nm, defocus_nm):
    vacuum = ase.Atoms(cell=(10, 12, 20), pbc=True)
    optics = OPTICS.model_copy(update={"defocus_nm": defocus_nm})
    detectors = {"all": AnnularDetector(0, 1e3), "dark": AnnularDetector(40, 100)}
    images = simulate(vacuum, optics, PointScan([[x_nm, y_nm]]), detectors, sampling_nm=0.02, device="cpu")
    assert float(images["all"][0]) == pytest.approx(1, abs=1e-5)
    assert float(images["dark"][0]) < 1e-9
    assert "all" in images.attrs["clipped_outer_mrad"]


def test_matter_loses_only_what_the_antialias_aperture_takes():
    """With the phase object well sampled, the whole beam arrives within the cutoff."""
    images = simulate(
        one_atom("C", 0.5, 0.5),
        OPTICS,
        PointScan([[0.5, 0.5], [0.2, 0.2]]),
        {"all": AnnularDetector(0, 1e3)},
        device="cpu",
    )
    values = np.asarray(images["all"])
    assert (values <= 1 + 1e-5).all()
    assert (values > 0.998).all()


def test_merging_empty_slices_is_exact():
    """Against a walk through every slice, empty ones transmitting 1."""
    assert Itinerary.of((-1, -1, 0, -1, 1)) == Itinerary(((2, 0), (2, 1)), 1)
    atoms = ase.Atoms("MoS", positions=[[2, 3, 2.5], [4, 1, 6.5]], cell=(6, 7, 9), pbc=True)
    on, grid = backend("numpy"), WaveGrid((42, 36), (7.0, 6.0))
    made = transmissions(Specimen.of(atoms), grid, 0.1, PotentialModel(), OPTICS.beam_energy_ev, on)
    assert made.order.count(-1) == 7
    propagator = Propagator(OPTICS, grid, made.thickness_angstrom, on)
    waves = probe_spectrum(OPTICS, grid)[None].astype(np.complex64)
    walked = waves.astype(np.complex128)
    for index in made.order:
        transmitted = np.fft.ifft2(walked) * (1 if index == -1 else made.functions[index])
        walked = np.fft.fft2(transmitted) * propagator.through(1)
    np.testing.assert_allclose(propagate(waves, made, propagator, on), walked, atol=2e-6 * np.abs(walked).max())


@pytest.mark.parametrize("other", ["numpy"])
def test_array_libraries_agree(other):
    reference = case("06")
    points = part_of(reference.scan, 100)
    images = [
        simulate(
            reference.atoms, reference.optics, points, reference.detectors, **(reference.settings | {"device": name})
        )
        for name in ("cpu", other)
    ]
    for name in reference.detectors:
        np.testing.assert_allclose(images[1][name], images[0][name], rtol=2e-4)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    reference = case("06")
    images = [
        simulate(
            reference.atoms,
            reference.optics,
            reference.scan,
            reference.detectors,
            **(reference.settings | {"device": name}),
        )
        for name in ("cpu", "cuda")
    ]
    for name in reference.detectors:
        assert rms_over_std(images[1][name], images[0][name]) < 1e-4


def test_a_run_is_repeated_to_the_bit():
    arguments = (one_atom("W", 0.5, 0.5), OPTICS, GridScan(0.3, 0.3, 0.4, 0.4, (4, 5)), DARK_FIELD)
    one, other = (simulate(*arguments, sampling_nm=0.02, device="cpu") for _ in range(2))
    assert one["adf"].shape == (4, 5)
    assert one["adf"].dtype == np.float32
    np.testing.assert_array_equal(one["adf"], other["adf"])


def test_resizing_a_spectrum_keeps_low_frequencies():
    on = backend("numpy")
    rng = np.random.default_rng(3)
    small = np.fft.fft2(rng.standard_normal((6, 5)))
    small[3] = 0
    grown = fourier_resized(on, on.asarray(small[None]), (9, 8))
    np.testing.assert_allclose(np.fft.ifft2(grown[0])[0, 0] * 72, np.fft.ifft2(small)[0, 0] * 30)
    np.testing.assert_allclose(fourier_resized(on, grown, (6, 5))[0], small)
