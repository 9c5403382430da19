"""PRISM against multislice and reference arrays, and what a Simulator keeps."""

import ase
import numpy as np
import pytest

from instruments.optics import Aberrations, Coherence, Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, PointScan, Simulator, prism, simulate
from simulation import sources as sources_module
from simulation.method_choice import Workload, candidates
from simulation.wave_grid import WaveGrid
from tests.unit.simulation.reference_cases import case, rms_over_std

OPTICS = Optics(
    beam_energy_ev=80e3,
    semi_convergence_angle_mrad=24,
    defocus_nm=3,
    tilt_x_mrad=4,
    aberrations=Aberrations(c12_nm=2, phi12_deg=20),
)
DETECTORS = {"bf": AnnularDetector(0, 10), "abf": AnnularDetector(12, 24), "adf": AnnularDetector(50, 120)}


def small_crystal():
    rng = np.random.default_rng(5)
    return ase.Atoms("SrTiO3S4Mo3", positions=rng.uniform(0, 1, (12, 3)) * (9, 11, 8), cell=(9, 11, 8), pbc=True)


def quarter(atoms):
    """One of the four equal quarters of a cell that repeats twice along x and y."""
    width, height, depth = atoms.cell.lengths()
    inside = (atoms.positions[:, 0] < width / 2) & (atoms.positions[:, 1] < height / 2)
    part = atoms[inside]
    part.set_cell([width / 2, height / 2, depth])
    return part


def test_prism_of_a_quarter_matches_the_interpolated_reference():
    """The reference's structure repeats with half its cell, so its images at f = 2 are those of a quarter at f = 1."""
    reference = case("05")
    rows, columns = reference.settings["grid_shape_px"]
    settings = reference.settings | {"grid_shape_px": (rows // 2, columns // 2)}
    images = simulate(
        quarter(reference.atoms), reference.optics, reference.scan, reference.detectors, method="prism", **settings
    )
    for name in reference.detectors:
        assert rms_over_std(images[name], reference.image(f"{name}_f2")) < 1e-3, name


def test_interpolation_of_a_repeated_cell_is_prism_of_the_cell():
    cell = small_crystal()
    points = PointScan([[0.13, 0.27], [0.89, 1.09], [1.7, 0.4], [-0.2, 2.3]])
    settings = {"placement": "bilinear", "method": "prism", "device": "cpu"}
    one = simulate(cell, OPTICS, points, DETECTORS, grid_shape_px=(72, 60), **settings)
    four = simulate(cell * (2, 2, 1), OPTICS, points, DETECTORS, grid_shape_px=(144, 120), interpolation=2, **settings)
    for name in DETECTORS:
        assert rms_over_std(four[name], one[name]) < 1e-4, name
    assert four.attrs["interpolation"] == 2
    assert four.attrs["error_estimate"] > 0.05


def test_an_estimate_is_not_passed_on_to_images_that_were_not_checked():
    cell = small_crystal() * (2, 2, 1)
    simulator = Simulator(cell, method="prism", interpolation=2, grid_shape_px=(144, 120), device="cpu")
    points = PointScan([[0.13, 0.27], [0.89, 1.09], [1.7, 0.4], [-0.2, 2.3]])
    first = simulator.image(OPTICS, points, DETECTORS).attrs["error_estimate"]
    defocused = OPTICS.model_copy(update={"defocus_nm": OPTICS.defocus_nm + 1})
    for changed in (
        (defocused, points, DETECTORS),
        (OPTICS, PointScan([[0.1, 0.2], [0.3, 0.3]]), DETECTORS),
        (OPTICS, points, {"other": AnnularDetector(5, 12)}),
    ):
        attributes = simulator.image(*changed).attrs
        assert np.isnan(attributes["error_estimate"])
        assert Optics.model_validate_json(attributes["error_estimate_optics"]) == OPTICS
    assert simulator.image(OPTICS, points, DETECTORS).attrs["error_estimate"] == first


def test_the_estimate_is_that_of_the_blurred_image():
    """A source takes more from what varies in an image than from the error of windows and of interpolation."""
    cell = small_crystal() * (2, 2, 1)
    scan = GridScan(0, 0, 1.8, 2.2, (11, 9))
    settings = {"grid_shape_px": (144, 120), "device": "cpu", "coherence": Coherence(source_size_nm=0.4)}
    exact = simulate(cell, OPTICS, scan, DETECTORS, method="multislice", **settings)
    blurred = simulate(cell, OPTICS, scan, DETECTORS, method="prism", interpolation=2, **settings)
    sharp = simulate(
        cell, OPTICS, scan, DETECTORS, method="prism", interpolation=2, **settings | {"coherence": Coherence()}
    )
    true = max(rms_over_std(blurred[name], exact[name]) for name in DETECTORS)
    assert true <= blurred.attrs["error_estimate"]
    assert blurred.attrs["error_estimate"] > 1.5 * sharp.attrs["error_estimate"]


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_without_interpolation_prism_is_multislice(device):
    scan = GridScan(0.1, -0.2, 0.9, 1.1, (5, 7))
    patterns = DETECTORS | {"pattern": PixelatedDetector()}
    settings = {"sampling_nm": 0.015, "device": device}
    multislice = simulate(small_crystal(), OPTICS, scan, patterns, method="multislice", **settings)
    summed = simulate(small_crystal(), OPTICS, scan, patterns, method="prism", **settings)
    for name in patterns:
        assert rms_over_std(summed[name], multislice[name]) < 1e-4, name
    assert summed["pattern"].dims == ("y", "x", "detector_y", "detector_x")
    np.testing.assert_allclose(summed["detector_x"], multislice["detector_x"])


def test_windows_are_cut_around_the_probe():
    """A supercell with one different cell: only probes near it may differ from the perfect crystal's.

    Off-grid probe positions on all sides of the cell, so that windows wrap round its edges.
    """
    perfect = ase.Atoms("W", positions=[[1.5, 1.7, 1]], cell=(4, 4, 2), pbc=True) * (8, 6, 1)
    doped = perfect.copy()
    doped.numbers[0] = 6
    optics = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
    detectors = {"adf": AnnularDetector(40, 100)}
    near, far = [[0.16, 0.18]], [[1.73, 1.39], [1.34, 0.97], [2.93, 1.01], [1.62, 2.31], [3.17, 0.99]]
    made = {
        name: np.asarray(
            simulate(
                atoms,
                optics,
                PointScan(near + far),
                detectors,
                method="prism",
                interpolation=2,
                sampling_nm=0.02,
                device="cpu",
            )["adf"]
        )
        for name, atoms in (("perfect", perfect), ("doped", doped))
    }
    assert made["doped"][0] < 0.2 * made["perfect"][0]
    np.testing.assert_allclose(made["doped"][1:], made["perfect"][1:], rtol=0.02)
    whole = simulate(
        doped, optics, PointScan(near + far), detectors, method="multislice", sampling_nm=0.02, device="cpu"
    )
    assert rms_over_std(made["doped"], whole["adf"]) < 0.15


def test_re_imaging_propagates_nothing(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    original = prism.propagate
    monkeypatch.setattr(prism, "propagate", counted)
    monkeypatch.setattr(sources_module, "propagate", counted)
    simulator = Simulator(small_crystal(), method="prism", sampling_nm=0.02, device="cpu")
    points = PointScan([[0.1, 0.2], [0.5, 0.5]])
    simulator.image(OPTICS, points, DETECTORS)
    assert calls
    calls.clear()
    other = OPTICS.model_copy(update={"defocus_nm": -4.0, "semi_convergence_angle_mrad": 20.0})
    again = simulator.image(other, GridScan(0, 0, 0.9, 1.1, (3, 3)), {"haadf": AnnularDetector(45, 69)})
    simulator.diffraction(other, [[0.3, 0.3]])
    assert not calls
    fresh = simulate(
        small_crystal(),
        other,
        GridScan(0, 0, 0.9, 1.1, (3, 3)),
        {"haadf": AnnularDetector(45, 69)},
        method="multislice",
        sampling_nm=0.02,
        device="cpu",
    )
    assert rms_over_std(again["haadf"], fresh["haadf"]) < 1e-4


def test_diffraction_sums_to_the_annular_signal():
    simulator = Simulator(small_crystal(), method="prism", sampling_nm=0.02, device="cpu")
    points = [[0.1, 0.2], [0.5, 0.5]]
    patterns = simulator.diffraction(OPTICS, points, max_angle_mrad=60)
    assert patterns.dims == ("point", "detector_y", "detector_x")
    angle = np.hypot(patterns["detector_y"], patterns["detector_x"])
    bright = np.asarray(patterns.where(angle < 30, 0).sum(("detector_y", "detector_x")))
    expected = simulator.image(OPTICS, PointScan(points), {"bf": AnnularDetector(0, 30)})["bf"]
    np.testing.assert_allclose(bright, expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::simulation.errors.ProbeOutgrowsCell")
@pytest.mark.parametrize("spread_nm", [7.5, 15.0])
def test_a_wide_focal_spread_is_averaged_as_well(spread_nm):
    """Seven defoci would be too few: at 60 kV and 30 mrad 7.5 nm turn the phase at the aperture's edge by 4 rad."""
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=2)
    simulator = Simulator(small_crystal(), method="prism", sampling_nm=0.025, device="cpu")
    points = PointScan(np.random.default_rng(1).uniform(0, 1, (8, 2)))
    detectors = {"bf": AnnularDetector(0, 10), "abf": AnnularDetector(12, 30)}
    ours = simulator.image(optics, points, detectors, coherence=Coherence(focal_spread_nm=spread_nm))
    steps = np.linspace(-4.5, 4.5, 145)
    weights = np.exp(-(steps**2) / 2) / np.exp(-(steps**2) / 2).sum()
    foci = [optics.model_copy(update={"defocus_nm": 2 + spread_nm * step}) for step in steps.tolist()]
    images = [simulator.image(each, points, detectors) for each in foci]
    for name in detectors:
        mean = sum(weight * image[name].values for weight, image in zip(weights, images, strict=True))
        assert rms_over_std(ours[name], mean) < 1e-3, name


@pytest.mark.filterwarnings("ignore::simulation.errors.ProbeOutgrowsCell")
def test_focal_spread_is_the_average_over_defocus():
    """Against a dense Gaussian average of single-defocus images."""
    simulator = Simulator(small_crystal(), method="prism", sampling_nm=0.02, device="cpu")
    points = PointScan([[0.1, 0.2], [0.5, 0.5], [0.7, 0.3]])
    spread = simulator.image(OPTICS, points, DETECTORS, coherence=Coherence(focal_spread_nm=4.0))
    offsets = np.linspace(-18, 18, 37)
    weights = np.exp(-0.5 * (offsets / 4) ** 2)
    for name in DETECTORS:
        images = [
            np.asarray(simulator.image(OPTICS.model_copy(update={"defocus_nm": 3 + step}), points, DETECTORS)[name])
            for step in offsets
        ]
        np.testing.assert_allclose(spread[name], np.average(images, axis=0, weights=weights), rtol=2e-3)


def test_auto_says_what_it_chose_and_keeps_its_promise():
    scan = GridScan(0, 0, 0.9, 1.1, (24, 24))
    chosen = simulate(small_crystal(), OPTICS, scan, DETECTORS, sampling_nm=0.02, accuracy=0.02, device="cpu")
    exact = simulate(small_crystal(), OPTICS, scan, DETECTORS, method="multislice", sampling_nm=0.02, device="cpu")
    assert chosen.attrs["requested_method"] == "auto"
    assert chosen.attrs["method"] == "prism"
    assert chosen.attrs["error_estimate"] <= 0.02
    for name in DETECTORS:
        assert rms_over_std(chosen[name], exact[name]) < 0.03


def test_auto_prefers_multislice_for_few_probes_and_prism_for_many():
    def best(probe_count, kept=frozenset()):
        workload = Workload(WaveGrid((256, 256), (25.0, 25.0)), OPTICS, 20, probe_count, 2**36)
        return candidates(workload, kept)[0]

    assert best(4).method == "multislice"
    assert best(100_000).method == "prism"
    assert best(4, frozenset({1})).method == "prism"
    assert candidates(Workload(WaveGrid((256, 256), (25.0, 25.0)), OPTICS, 20, 10**5, 10), frozenset())[0].is_exact
