"""What simulate accepts, refuses and returns."""

import json
from types import SimpleNamespace

import ase
import numpy as np
import pytest

from instruments.optics import Coherence, Optics
from simulation import (
    AnnularDetector,
    DeviceUnavailable,
    FrozenPhonons,
    GridScan,
    InvalidParameter,
    InvalidSpecimen,
    MethodUnavailable,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    Simulator,
    simulate,
)
from simulation.backend import backend
from simulation.coherence import is_period
from simulation.errors import ProbeOutgrowsCell
from simulation.phonons import configurations
from simulation.specimens import Specimen

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25)
HERE = PointScan([[0.5, 0.5]])
HAADF = {"haadf": AnnularDetector(60, 100)}


def gold():
    return ase.Atoms("Au", positions=[[5, 5, 1]], cell=(10, 10, 2), pbc=True)


def silver():
    return ase.Atoms("Ag", positions=[[5, 5, 1]], cell=(10, 10, 2), pbc=True)


def lost():
    return ase.Atoms("Au", positions=[[np.inf, 5, 1]], cell=(10, 10, 2), pbc=True)


def image(atoms=None, scan=HERE, detectors=None, optics=OPTICS, **settings):
    settings = {"sampling_nm": 0.02, "device": "cpu"} | settings
    return simulate(
        gold() if atoms is None else atoms, optics, scan, HAADF if detectors is None else detectors, **settings
    )


def test_a_simulator_says_what_it_is():
    simulator = Simulator(gold(), method="prism", grid_shape_px=(64, 48))
    assert repr(simulator) == "Simulator(1 atoms in 1 x 1 x 0.2 nm, method='prism', 64 x 48 waves)"


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (InvalidParameter, "no detectors given", {"detectors": {}}),
        (InvalidParameter, "called 'y' cannot be told", {"detectors": {"y": AnnularDetector(60, 100)}}),
        (
            InvalidParameter,
            "'d' starts at 1600 mrad, beyond the antialias",
            {"detectors": {"d": AnnularDetector(1600, 1700)}},
        ),
        (InvalidParameter, "'d' is a int", {"detectors": {"d": 3}}),
        (InvalidParameter, "exceeds the wave grid", {"detectors": {"d": PixelatedDetector(shape_px=(99, 9))}}),
        (InvalidParameter, "give a GridScan or a PointScan", {"scan": [[0, 0]]}),
        (InvalidParameter, "give instruments.Optics", {"optics": {"beam_energy_ev": 6e4}}),
        (InvalidParameter, "semi-convergence angle 25 mrad is beyond", {"sampling_nm": 0.1}),
        (InvalidParameter, "into more than 1000000 slices", {"slice_thickness_nm": 1e-9}),
        (InvalidParameter, "interpolation = 0", {"interpolation": 0}),
        (InvalidParameter, "unknown aperture 'round'", {"aperture": "round"}),
        (InvalidParameter, "accuracy = 0", {"accuracy": 0}),
        (
            InvalidParameter,
            "needs a GridScan where placement='bilinear'",
            {"coherence": Coherence(source_size_nm=0.1), "placement": "bilinear"},
        ),
        (InvalidParameter, "no rms displacement for Au", {"phonons": FrozenPhonons(2, {"Si": 0.01})}),
        (InvalidParameter, "unknown device 'tpu'", {"device": "tpu"}),
        (MethodUnavailable, "unknown method 'magic'; choose one of auto, multislice, prism", {"method": "magic"}),
        (MethodUnavailable, "knows no diffraction", {"method": "incoherent", "detectors": {"d": PixelatedDetector()}}),
        (
            MethodUnavailable,
            "within the aperture of 25",
            {"method": "incoherent", "detectors": {"d": AnnularDetector(9, 40)}},
        ),
        (InvalidSpecimen, "give at least one", {"phonons": []}),
        (
            InvalidSpecimen,
            r"phonons\[1\] has another cell, 9 x 9 x 2 angstrom, than atoms with 10 x 10 x 2",
            {"phonons": [gold(), ase.Atoms("Au", cell=(9, 9, 2))]},
        ),
        (InvalidSpecimen, r"phonons\[0\] holds Ag 1, and atoms Au 1: .*a copy", {"phonons": [silver()]}),
        (InvalidSpecimen, r"phonons\[0\] holds Au 2, and atoms Au 1", {"phonons": [gold() + gold()]}),
        (InvalidSpecimen, r"phonons\[0\]: atom 0 has a position that is not finite", {"phonons": [lost()]}),
    ],
)
def test_bad_input_is_named(error, message, settings):
    with pytest.raises(error, match=message):
        image(**settings)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ase.Atoms("Au", cell=[[10, 0, 0], [5, 8.7, 0], [0, 0, 2]]), "leans by 5 angstrom.*orthogonal_cell"),
        (lambda: ase.Atoms("Au"), r"cell lengths \(0.0, 0.0, 0.0\).*give the structure a cell"),
        (lambda: SimpleNamespace(numbers=[79], positions=[[1, 1, 1]], cell=np.array([9.0, 9.0, -2])), "-2.0.*positive"),
        (lambda: ase.Atoms("X", cell=(9, 9, 2)), r"atomic number 0; the tables hold 1 to 103 \(H to Lr\): replace"),
        (lambda: ase.Atoms([104], cell=(9, 9, 2)), "atomic number 104"),
        (lambda: ase.Atoms("Au", positions=[[np.nan, 0, 0]], cell=(9, 9, 2)), "atom 0 has a position.*delete it"),
        (lambda: SimpleNamespace(numbers=[79.5], positions=[[1, 1, 1]], cell=np.array([9.0, 9, 2])), "whole.*79.5"),
    ],
)
def test_bad_specimens_are_named(build, message):
    with pytest.raises(InvalidSpecimen, match=message):
        image(build())


@pytest.mark.parametrize("value", [0, -0.2, np.nan, np.inf])
def test_slices_and_pixels_have_a_positive_size(value):
    for name in ("slice_thickness_nm", "sampling_nm"):
        with pytest.raises(InvalidParameter, match=f"{name} = {value} must be a positive number of nm"):
            image(**{name: value})


def test_vacuum_is_a_specimen_and_cells_repeat_for_ever():
    """Nothing scatters in an empty cell; a point outside the cell is one of a copy."""
    assert float(image(ase.Atoms(cell=(10, 10, 2)))["haadf"][0]) == pytest.approx(0, abs=1e-9)
    inside, outside = image(scan=PointScan([[0.52, 0.49], [2.52, -0.51]]))["haadf"]
    assert float(inside) == pytest.approx(float(outside), rel=1e-5)


def test_a_probe_needs_room():
    wide = OPTICS.model_copy(update={"defocus_nm": 39.0})
    with pytest.warns(ProbeOutgrowsCell, match=r"1.95 nm wide, more than the cell of 1.00 nm.*repeat.*2 times"):
        image(optics=wide, method="multislice")
    with pytest.raises(InvalidParameter, match=r"more than the window of 1.00 nm.*interpolation 2; use a smaller"):
        image(gold() * (2, 2, 1), optics=wide, method="prism", interpolation=2)
    with pytest.raises(MethodUnavailable, match="no window that holds the probe"):
        image(optics=wide, method="windowed")


def test_more_memory_than_there_is_is_refused_before_it_is_taken():
    thick = ase.Atoms("Au400", positions=np.random.default_rng(0).uniform(0, 400, (400, 3)), cell=(400, 400, 400))
    with pytest.raises(InvalidParameter, match="GiB free on"):
        image(thick, method="multislice", grid_shape_px=(16384, 16384), slice_thickness_nm=0.05)
    wide = ase.Atoms("Au", positions=[[1, 1, 1]], cell=(300, 300, 2))
    with pytest.raises(InvalidParameter, match="use a larger interpolation"):
        image(wide, method="prism")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AnnularDetector(30, 10), "30 to 10 mrad is empty"),
        (lambda: SegmentedDetector(0, 10, segment_count=0), "segment_count = 0 must be .* at least 1"),
        (lambda: PixelatedDetector(max_angle_mrad=-1), "positive"),
        (lambda: PixelatedDetector(shape_px=(0, 3)), "at least one"),
        (lambda: PointScan([]), r"\(n, 2\)"),
        (lambda: PointScan("abc"), "points_nm holds no real numbers: 'abc'"),
        (lambda: PointScan([[0, 1], [2]]), "points_nm is no table"),
        (lambda: PointScan([[0, np.inf]]), "not finite"),
        (lambda: GridScan(0, 0, 0, 1, (2, 2)), "width_nm = 0 must be a positive number of nm"),
        (lambda: GridScan(0, 0, 1, 1, (0, 2)), "at least one"),
        (lambda: GridScan(0, np.nan, 1, 1, (2, 2)), "finite"),
        (lambda: FrozenPhonons(0, 0.01), "at least 1"),
        (lambda: FrozenPhonons(1, {"W": -0.01}), "zero or positive"),
    ],
)
def test_scans_detectors_and_phonons_check_themselves(build, message):
    with pytest.raises(InvalidParameter, match=message):
        build()


def test_devices_that_are_missing_say_so():
    with pytest.raises(DeviceUnavailable, match="choose"):
        backend("cupy" if _missing("cupy") else "cuda")


def _missing(name):
    import importlib.util

    return importlib.util.find_spec(name) is None


def test_coordinates_are_those_of_the_scan():
    scan = GridScan(0.1, -0.2, 0.6, 0.4, (4, 3))
    images = image(scan=scan)
    assert images["haadf"].dims == ("y", "x")
    np.testing.assert_allclose(images["x"], [0.1, 0.3, 0.5])
    np.testing.assert_allclose(images["y"], [-0.2, -0.1, 0.0, 0.1])
    by_points = image(scan=PointScan(scan.points_angstrom() / 10))
    np.testing.assert_allclose(np.asarray(images["haadf"]).ravel(), by_points["haadf"], rtol=1e-5)


def test_attributes_tell_the_whole_story():
    images = image(detectors={"haadf": AnnularDetector(60, 500)}, phonons=FrozenPhonons(2, 0.005, seed=4), seed=9)
    attributes = images.attrs
    assert attributes["grid_shape_px"] == [50, 50]
    assert attributes["clipped_outer_mrad"].startswith('{"haadf": 81.1')
    assert attributes["phonon_sigmas_nm"] == "0.005"
    assert attributes["seed"] == 9
    assert Optics.model_validate_json(attributes["optics"]) == OPTICS
    assert images["haadf"].attrs["outer_mrad"] == 500
    assert images.to_netcdf is not None


def test_segments_add_up_to_the_ring_and_turn_with_rotation():
    detectors = {
        "ring": AnnularDetector(10, 60),
        "parts": SegmentedDetector(10, 60, ring_count=2, segment_count=4),
        "turned": SegmentedDetector(10, 60, ring_count=2, segment_count=4, rotation_deg=90),
    }
    images = image(scan=PointScan([[0.45, 0.53]]), detectors=detectors)
    parts, turned = np.asarray(images["parts"])[0], np.asarray(images["turned"])[0]
    assert images["parts"].dims == ("point", "ring_parts", "segment_parts")
    assert parts.sum() == pytest.approx(float(images["ring"][0]), rel=1e-5)
    np.testing.assert_allclose(turned, np.roll(parts, -1, axis=1))


def test_a_beam_left_of_an_atom_is_drawn_to_the_right():
    """The nucleus attracts electrons: the centre of mass moves towards it, along x and along y."""
    detectors = {"parts": SegmentedDetector(0, 40, segment_count=4, rotation_deg=-45)}
    images = image(scan=PointScan([[0.46, 0.5], [0.5, 0.46]]), detectors=detectors)
    right, up, left, down = np.moveaxis(np.asarray(images["parts"])[:, 0], 1, 0)
    assert right[0] > 1.2 * left[0]
    assert up[1] > 1.2 * down[1]
    assert up[0] == pytest.approx(down[0], rel=0.1)


def test_phonons_are_seeded_and_spread_as_asked():
    specimen = Specimen.of(gold() * (4, 4, 12))
    phonons = FrozenPhonons(3, {"Au": 0.01}, seed=7)
    one, other = phonons.configurations(specimen), phonons.configurations(specimen, seed=99)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.positions_angstrom, b.positions_angstrom)
    moved = one[0].positions_angstrom[:, :2] - specimen.positions_angstrom[:, :2]
    assert np.std(moved) == pytest.approx(0.1, rel=0.1)
    assert not np.allclose(one[0].positions_angstrom, one[1].positions_angstrom)
    more = FrozenPhonons(5, {"Au": 0.01}, seed=7).configurations(specimen)
    np.testing.assert_array_equal(more[2].positions_angstrom, one[2].positions_angstrom)


def test_given_displacements_keep_a_surface_atom_on_its_side():
    """A layer that vibrates at the entrance face does not reappear at the exit, as a rule or as a list."""
    layer = ase.Atoms("Au2", [(2, 2, 0), (5, 5, 0)], cell=(10, 10, 8))
    drawn = configurations(Specimen.of(layer), FrozenPhonons(3, 0.01, seed=5), 0)
    rng = [np.random.default_rng([5, index]) for index in range(3)]
    shifted = [layer.positions + 0.1 * each.standard_normal((2, 3)) for each in rng]
    assert min(positions[:, 2].min() for positions in shifted) < 0
    listed = configurations(
        Specimen.of(layer), [ase.Atoms("Au2", positions, cell=(10, 10, 8)) for positions in shifted], 0
    )
    for one, other in zip(drawn, listed, strict=True):
        np.testing.assert_allclose(one.positions_angstrom, other.positions_angstrom, atol=1e-12)


def test_configurations_are_averaged_and_their_scatter_is_told():
    moved = [gold(), gold(), gold()]
    for atoms, x in zip(moved, (4.9, 5.0, 5.15), strict=True):
        atoms.positions[0, 0] = x
    seen = {"adf": AnnularDetector(40, 75), "4d": PixelatedDetector(max_angle_mrad=60)}
    settings = {"sampling_nm": 0.02, "method": "multislice", "scan": PointScan([[0.5, 0.5], [0.52, 0.45]])}
    together = image(gold(), detectors=seen, phonons=moved, **settings)
    each = [image(atoms, detectors=seen, **settings) for atoms in moved]
    ratios = []
    for name in seen:
        stack = np.stack([one[name].values for one in each]).astype(float)
        np.testing.assert_allclose(together[name].values, stack.mean(axis=0), rtol=2e-6, atol=1e-12)
        ratios.append(np.sqrt(stack.var(axis=0, ddof=1).mean() / 3) / stack.mean(axis=0).std())
    assert together.attrs["phonon_standard_error"] == pytest.approx(max(ratios), rel=1e-4)
    assert together["4d"].dtype == np.float32


def test_vibration_broadens_the_column_and_weakens_its_centre():
    scan = PointScan([[0.5, 0.5]])
    still = float(image(scan=scan, sampling_nm=0.01)["haadf"][0])
    hot = float(image(scan=scan, sampling_nm=0.01, phonons=FrozenPhonons(6, 0.02, seed=1))["haadf"][0])
    assert 0.3 * still < hot < 0.95 * still


def test_source_size_outside_a_period_uses_the_neighbourhood_of_the_scan():
    """A scan of part of the cell is blurred with what lies around it, as if cut from the blurred whole."""
    source = Coherence(source_size_nm=0.1)
    whole = image(scan=GridScan(0, 0, 1, 1, (20, 20)), coherence=source)["haadf"]
    part = image(scan=GridScan(0.3, 0.4, 0.35, 0.25, (5, 7)), coherence=source)["haadf"]
    np.testing.assert_allclose(part, whole[8:13, 6:13], rtol=1e-4)
    sharp = image(scan=GridScan(0, 0, 1, 1, (20, 20)))["haadf"]
    assert float(whole.sum()) == pytest.approx(float(sharp.sum()), rel=1e-5)
    assert float(whole.max()) < 0.8 * float(sharp.max())


def test_periods_are_found_in_the_structure():
    crystal = Specimen.of(ase.Atoms("WC", positions=[[0, 0, 1], [1, 1, 1]], cell=(3, 4, 2), pbc=True) * (4, 2, 1))
    assert is_period(crystal, 0, 3.0)
    assert is_period(crystal, 0, 12.0)
    assert not is_period(crystal, 0, 4.0)
    assert is_period(crystal, 1, 4.0)
    crystal.numbers[0] = 8
    assert not is_period(crystal, 0, 3.0)


def test_only_waves_are_clipped_at_the_cutoff():
    """A ring beyond the cutoff of the grid ends there, but not for atoms that scatter without a grid."""
    wide = {"d": AnnularDetector(60, 400)}
    clipped = image(detectors=wide, method="multislice")
    assert json.loads(clipped.attrs["clipped_outer_mrad"]) == {"d": pytest.approx(81.1, abs=0.1)}
    whole = image(detectors=wide, method="incoherent")
    assert json.loads(whole.attrs["clipped_outer_mrad"]) == {}
    narrow = image(detectors={"d": AnnularDetector(60, 81.1)}, method="incoherent")
    assert whole["d"].item() > 1.5 * narrow["d"].item()


@pytest.mark.parametrize("method", ["multislice", "prism", "periodic"])
def test_a_hard_aperture_cuts_the_beam_at_its_angle(method):
    crystal = ase.Atoms("Au", positions=[[2.5, 2.5, 1]], cell=(5, 5, 2), pbc=True) * (4, 4, 1)
    detectors = {"patterns": PixelatedDetector()} | HAADF
    soft, hard = (
        image(crystal, detectors=detectors, method=method, aperture=edge, precision="double")
        for edge in ("soft", "hard")
    )
    vacuum = image(ase.Atoms(cell=(20, 20, 2), pbc=True), detectors=detectors, method="multislice", aperture="hard")
    angle = np.hypot(vacuum["patterns"].detector_y, vacuum["patterns"].detector_x).to_numpy()
    beam = vacuum["patterns"].to_numpy()[0]
    inside = angle <= OPTICS.semi_convergence_angle_mrad
    np.testing.assert_allclose(beam, inside / inside.sum(), atol=1e-7)
    reference = image(crystal, detectors=detectors, method="multislice", aperture="hard", precision="double")
    np.testing.assert_allclose(hard["patterns"], reference["patterns"], atol=1e-9)
    assert hard.attrs["aperture"] == "hard"
    assert float(abs(hard["haadf"] - soft["haadf"]).max()) > 1e-3 * float(soft["haadf"].max())
