"""Perfect crystals imaged from one unit cell: the same numbers as multislice of the whole cell."""

from dataclasses import replace

import ase
import numpy as np
import pytest

from instruments.optics import Aberrations, Optics
from simulation import (
    AnnularDetector,
    FrozenPhonons,
    GridScan,
    InvalidParameter,
    MethodUnavailable,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    Simulator,
    simulate,
)
from simulation.bloch_matrix import bloch_matrix_bytes, check_bloch_memory
from simulation.crystal_symmetry import lateral_repeats, part_of, symmetries
from simulation.method_choice import Workload, candidates
from simulation.specimens import Specimen
from tests.unit.simulation.reference_cases import case, rms_over_std

OPTICS = Optics(
    beam_energy_ev=100e3,
    semi_convergence_angle_mrad=25,
    defocus_nm=4,
    aberrations=Aberrations(c12_nm=3, phi12_deg=20, c21_nm=40, phi21_deg=50, c30_nm=5e3),
)
DETECTORS = {"adf": AnnularDetector(40, 70), "abf": AnnularDetector(10, 25), "dpc": SegmentedDetector(10, 30, 2, 4)}
SCAN = GridScan(0.03, -0.11, 0.39, 0.4, (5, 4))
SETTINGS = {"sampling_nm": 0.02, "slice_thickness_nm": 0.2, "device": "cpu"}


def crystal(repeats=(3, 3, 2), width=3.9, height=3.9, shift=(0.37, 1.1, 0.3)):
    """Three species; shifted, so that no mirror runs through the origin."""
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    cell = ase.Atoms("SrTiO", scaled_positions=places, cell=(width, height, 3.9), pbc=True)
    cell.positions += shift
    cell.wrap()
    return cell * repeats


def low_crystal():
    """No symmetry but its translations."""
    cell = ase.Atoms(
        "WSeO", positions=[(0.3, 0.5, 0.4), (1.9, 1.1, 1.7), (2.3, 3.0, 0.4)], cell=(3.9, 4.3, 2.1), pbc=True
    )
    return cell * (3, 2, 1)


@pytest.mark.parametrize("atoms", [crystal(), crystal((2, 3, 1), 3.9, 4.4), low_crystal()], ids=["4mm", "2mm", "1"])
@pytest.mark.parametrize("placement", ["exact", "bilinear"])
def test_it_equals_multislice(atoms, placement):
    settings = SETTINGS | {"placement": placement, "grid_shape_px": (60, 60)}
    ours, reference = (
        simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, **settings) for method in ("periodic", "multislice")
    )
    assert ours.attrs["method"] == "periodic"
    assert ours.attrs["error_estimate"] == 0
    for name in DETECTORS:
        assert rms_over_std(ours[name], reference[name]) < 1e-4, name


def test_atoms_spread_over_slices_repeat_too():
    """With pixels of the unit's own, as for whole atoms."""
    settings = SETTINGS | {"projection": "finite", "grid_shape_px": (61, 60)}
    ours, reference = (
        simulate(low_crystal(), OPTICS, SCAN, DETECTORS, method=method, **settings)
        for method in ("periodic", "multislice")
    )
    for name in DETECTORS:
        assert rms_over_std(ours[name], reference[name]) < 1e-4, name


def test_the_reference_arrays_are_met():
    sto = case("03")
    ours = simulate(sto.atoms, sto.optics, sto.scan, sto.detectors, method="periodic", **sto.settings)
    for name in sto.detectors:
        assert rms_over_std(ours[name], sto.image(name)) < 1e-3, name


@pytest.mark.parametrize(
    ("atoms", "side_px", "bound"),
    [(low_crystal(), 60, 1e-9), (crystal(), 60, 2e-6), (low_crystal(), 61, 2e-5), (crystal(), 61, 2e-5)],
    ids=["same pixels, no mirrors", "same pixels, mirrors", "other pixels, no mirrors", "other pixels, mirrors"],
)
def test_what_separates_it_from_multislice_is_where_pixels_lie(atoms, side_px, bound):
    """60 pixels over three or two cells: the unit has the same; 61: its own, and the band limit of the whole.

    Transmission functions depend a little on where atoms lie between pixels, so mirrors hold as well as they do.
    """
    settings = SETTINGS | {"grid_shape_px": (side_px, side_px), "precision": "double"}
    ours, reference = (
        simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, **settings) for method in ("periodic", "multislice")
    )
    for name in DETECTORS:
        assert rms_over_std(ours[name], reference[name]) < bound, name


@pytest.mark.parametrize("projection", ["infinite", "finite"])
def test_atoms_put_on_pixels_need_the_same_pixels(projection):
    """63 = 3 x 21 pixels, and no FFT likes 21; 61 columns are one part as they are."""
    settings = SETTINGS | {"placement": "bilinear", "projection": projection}
    for shape_px in ((63, 63), (60, 61)):
        ours, reference = (
            simulate(crystal((3, 3, 1)), OPTICS, SCAN, DETECTORS, method=method, grid_shape_px=shape_px, **settings)
            for method in ("periodic", "multislice")
        )
        for name in DETECTORS:
            assert rms_over_std(ours[name], reference[name]) < 2e-4, (shape_px, name)


def test_nearly_square_cells_do_not_exchange_axes():
    ours, reference = (
        simulate(crystal((3, 3, 1), 3.9, 3.9009), OPTICS, SCAN, DETECTORS, method=method, **SETTINGS)
        for method in ("periodic", "multislice")
    )
    for name in DETECTORS:
        assert rms_over_std(ours[name], reference[name]) < 2e-4, name


def test_atoms_of_few_digits():
    """Repeats hold within rounding, mirrors for some atoms only: images follow, and atoms keep their slices."""
    rng = np.random.default_rng(1)
    atoms = crystal((3, 3, 1))
    atoms.positions += rng.uniform(-4e-4, 4e-4, atoms.positions.shape)
    ours, reference = (
        simulate(atoms, OPTICS, SCAN, DETECTORS, method=method, **SETTINGS) for method in ("periodic", "multislice")
    )
    for name in DETECTORS:
        assert rms_over_std(ours[name], reference[name]) < ours.attrs["error_estimate"], name
    assert 0.002 < ours.attrs["error_estimate"] < 0.1
    on_a_boundary = crystal((3, 3, 1), shift=(0.37, 1.1, 0.0))
    on_a_boundary.positions += rng.uniform(-4e-5, 4e-5, atoms.positions.shape)
    with pytest.raises(MethodUnavailable, match="needs a crystal that repeats"):
        simulate(on_a_boundary, OPTICS, SCAN, DETECTORS, method="periodic", **SETTINGS)


@pytest.mark.parametrize(("noise_angstrom", "taken"), [(5e-4, False), (5e-5, True)])
def test_auto_takes_a_noisy_crystal_for_perfect_only_within_the_accuracy(noise_angstrom, taken):
    """The error stated is within 1 %, or another method is used."""
    atoms = crystal((3, 3, 6))
    atoms.positions += np.random.default_rng(4).uniform(-noise_angstrom, noise_angstrom, atoms.positions.shape)
    wide = GridScan(0, 0, 1.17, 1.17, (16, 16))
    images = simulate(atoms, OPTICS, wide, {"adf": AnnularDetector(40, 70)}, accuracy=0.01, **SETTINGS)
    assert (images.attrs["method"] == "periodic") == taken
    assert images.attrs["error_estimate"] <= 0.01
    if taken:
        assert images.attrs["error_estimate"] > 1e-4


def test_patterns_and_a_tilted_beam():
    tilted = OPTICS.model_copy(update={"tilt_x_mrad": 8.0, "tilt_y_mrad": -3.0})
    scan, detectors = (
        PointScan([[0.1, 0.2], [0.55, 0.3]]),
        {"cbed": PixelatedDetector(), "adf": AnnularDetector(30, 60)},
    )
    ours, reference = (
        simulate(crystal(), tilted, scan, detectors, method=method, **SETTINGS) for method in ("periodic", "multislice")
    )
    for name in detectors:
        assert rms_over_std(ours[name], reference[name]) < 1e-4, name


def test_another_image_propagates_nothing(monkeypatch):
    simulator = Simulator(crystal(), method="periodic", **SETTINGS)
    simulator.image(OPTICS, SCAN, DETECTORS)
    monkeypatch.setattr("simulation.bloch_waves.propagate", None)
    changed = OPTICS.model_copy(update={"defocus_nm": -6.0, "aberrations": Aberrations(c12_nm=5)})
    again = simulator.image(changed, SCAN, {"other": AnnularDetector(20, 50)})
    monkeypatch.undo()
    fresh = simulate(crystal(), changed, SCAN, {"other": AnnularDetector(20, 50)}, method="multislice", **SETTINGS)
    assert rms_over_std(again["other"], fresh["other"]) < 1e-4


def test_products_of_many_detectors_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("simulation.bloch_matrix._KEPT_GRAM_BYTES", 30_000)
    simulator = Simulator(crystal(), method="periodic", **SETTINGS)
    first = simulator.image(OPTICS, SCAN, DETECTORS)
    matrix = simulator._sources.bloch_matrix(0, OPTICS)
    sizes = []
    for outer in range(40, 60):
        simulator.image(OPTICS, SCAN, {"adf": AnnularDetector(35, outer)})
        sizes.append(matrix.bytes_count)
    assert len(set(sizes)) == 1
    again = simulator.image(OPTICS, SCAN, DETECTORS)
    for name in DETECTORS:
        np.testing.assert_array_equal(again[name], first[name])


def test_a_matrix_too_large_is_not_taken():
    """A large unit that repeats twice has few Bloch vectors, hence large products."""
    atoms = crystal((1, 2, 1), 16.0, 8.0)
    simulator = Simulator(atoms, method="auto", **SETTINGS)
    unit, on = simulator._sources.crystal(0), simulator._on
    needed = bloch_matrix_bytes(simulator.grid, OPTICS, unit)
    small = replace(on, memory_bytes=int(needed))
    with pytest.raises(InvalidParameter, match="use fewer repeats"):
        check_bloch_memory(simulator.grid, OPTICS, unit, small)
    check_bloch_memory(simulator.grid, OPTICS, unit, on)
    for memory_bytes, is_there in ((needed, False), (on.memory_bytes, True)):
        workload = Workload(simulator.grid, OPTICS, 2, 10**6, memory_bytes, unit)
        assert ("periodic" in [each.method for each in candidates(workload, frozenset())]) is is_there


def test_auto_takes_it_where_it_can():
    wide = GridScan(0, 0, 1.17, 1.17, (16, 16))
    images = simulate(crystal((3, 3, 6)), OPTICS, wide, {"adf": AnnularDetector(40, 70)}, **SETTINGS)
    assert images.attrs["method"] == "periodic"
    flawed = crystal((3, 3, 6))
    del flawed[7]
    images = simulate(flawed, OPTICS, wide, {"adf": AnnularDetector(40, 70)}, **SETTINGS)
    assert images.attrs["method"] != "periodic"


def test_what_does_not_repeat_is_refused():
    flawed = crystal()
    del flawed[4]
    for atoms, phonons in ((flawed, None), (crystal(), FrozenPhonons(1, 0.005))):
        with pytest.raises(MethodUnavailable, match="needs a crystal that repeats"):
            simulate(atoms, OPTICS, SCAN, DETECTORS, method="periodic", phonons=phonons, **SETTINGS)


def test_repeats_and_symmetries_are_found():
    specimen = Specimen.of(crystal((4, 6, 2)))
    assert lateral_repeats(specimen) == (6, 4)
    unit = part_of(specimen, (6, 4))
    np.testing.assert_allclose(unit.cell_angstrom, (3.9, 3.9, 7.8))
    assert len(unit.numbers) == 6
    assert len(symmetries(unit)) == 8
    assert len(symmetries(part_of(Specimen.of(crystal((2, 2, 1), 3.9, 4.4)), (2, 2)))) == 4
    assert len(symmetries(part_of(Specimen.of(low_crystal()), (2, 3)))) == 1
    rng = np.random.default_rng(0)
    glass = ase.Atoms("C5000", positions=rng.uniform(0, 60, (5000, 3)), cell=(60, 60, 60), pbc=True) * (2, 1, 1)
    assert len(symmetries(part_of(Specimen.of(glass), (1, 2)))) == 1
    moved = crystal()
    moved.positions[5] += (0.0, 0.0, 0.4)
    assert lateral_repeats(Specimen.of(moved)) == (1, 1)
