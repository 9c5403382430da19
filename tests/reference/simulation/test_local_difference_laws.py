"""Crystals with changed sites: multislice's numbers, within the error stated."""

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
from simulation.defective_crystal import DefectiveCrystal
from simulation.difference_cost import check_difference_memory
from simulation.error_check import ErrorCheck
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid
from tests.unit.simulation.reference_cases import rms_over_std

SIDE = 3.2
OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=24)
DETECTORS = {"adf": AnnularDetector(30, 48), "abf": AnnularDetector(10, 24)}
SETTINGS = {"sampling_nm": 0.025, "slice_thickness_nm": 0.16, "device": "cpu"}


def crystal(depth=4):
    """Strontium and oxygen in unlike columns, four by four cells across."""
    cell = ase.Atoms("SrO", positions=[[0.4, 0.3, 0.8], [2.0, 1.9, 2.4]], cell=(SIDE, SIDE, SIDE), pbc=True)
    return cell * (4, 4, depth)


def site(atoms, number, place):
    own = np.flatnonzero(atoms.numbers == number)
    return int(own[np.argmin(np.sum((atoms.positions[own] - place) ** 2, axis=1))])


def substituted():
    atoms = crystal()
    atoms.numbers[site(atoms, 38, (6.8, 6.7, 4))] = 72
    return atoms


def vacant_with_moved_neighbours():
    atoms = crystal()
    gone = site(atoms, 8, (5.2, 5.1, 5.6))
    away = atoms.positions - atoms.positions[gone]
    near = (np.linalg.norm(away, axis=1) < 3.0) & (np.arange(len(atoms)) != gone)
    atoms.positions[near] += 0.05 * away[near]
    del atoms[gone]
    return atoms


def several_with_an_interstitial_at_the_edge():
    atoms = crystal()
    atoms.numbers[site(atoms, 38, (3.6, 6.7, 1))] = 72
    atoms.numbers[site(atoms, 38, (6.8, 6.7, 10))] = 8
    return atoms + ase.Atoms("Sr", positions=[[0.05, 12.75, 7.0]])


def detected(atoms):
    grid = WaveGrid.for_cell(4 * SIDE, 4 * SIDE, 0.025, None)
    return DefectiveCrystal.of(Specimen.of(atoms), grid, SETTINGS["slice_thickness_nm"])


@pytest.mark.parametrize(
    ("atoms", "changed", "slices"),
    [
        (crystal(), 0, 0),
        (substituted(), 2, 1),
        (vacant_with_moved_neighbours(), 1 + 2 * 8, 3),
        (several_with_an_interstitial_at_the_edge(), 5, 3),
    ],
)
def test_what_most_cells_have_is_the_crystal(atoms, changed, slices):
    found = detected(atoms)
    assert found.crystal.repeats == (4, 4)
    assert sorted(found.perfect.numbers) == sorted(crystal().numbers)
    assert len(found.changed_angstrom) == changed
    assert len(found.slices) == slices


def test_neither_noise_nor_alloys_are_crystals_with_few_changed_sites():
    rng = np.random.default_rng(1)
    assert detected(ase.Atoms("Au80", positions=rng.uniform(0, 12.8, (80, 3)), cell=(12.8, 12.8, 12.8))) is None
    alloy = crystal()
    alloy.numbers[rng.permutation(len(alloy))[: len(alloy) // 3]] = 72
    assert detected(alloy) is None
    assert detected(ase.Atoms(cell=(12.8, 12.8, 12.8))) is None


@pytest.mark.parametrize(
    ("atoms", "corner_nm", "accuracy"),
    [
        (substituted(), (0.5, 0.5), 0.05),
        (substituted(), (0.5, 0.5), 0.003),
        (vacant_with_moved_neighbours(), (0.4, 0.4), 0.03),
        (several_with_an_interstitial_at_the_edge(), (-0.15, -0.15), 0.03),
    ],
)
def test_images_are_multislices_within_the_error_stated(atoms, corner_nm, accuracy):
    optics = OPTICS.model_copy(update={"defocus_nm": 3.0, "aberrations": Aberrations(c12_nm=1.0, phi12_deg=20)})
    scan = GridScan(*corner_nm, 0.35, 0.35, (5, 5))
    simulator = Simulator(atoms, method="local_difference", accuracy=accuracy, **SETTINGS)
    ours = simulator.image(optics, scan, DETECTORS)
    exact = simulate(atoms, optics, scan, DETECTORS, method="multislice", **SETTINGS)
    true = max(rms_over_std(ours[name], exact[name]) for name in DETECTORS)
    assert ours.attrs["method"] == "local_difference"
    assert true <= ours.attrs["error_estimate"] <= accuracy


def changed_at(kind):
    """Three cells across and two deep, with one site changed in the first slice, the middle or the last slice."""
    atoms = crystal(2)[[atom.index for atom in crystal(2) if max(atom.position[:2]) < 3 * SIDE]]
    atoms.set_cell((3 * SIDE, 3 * SIDE, 2 * SIDE))
    if kind == "heavy at the entrance":
        atoms.numbers[site(atoms, 38, (3.6, 3.5, 0.8))] = 72
    elif kind == "missing in the middle":
        del atoms[site(atoms, 8, (5.2, 5.1, 2.4))]
    else:
        atoms += ase.Atoms("Ti", positions=[[4.5, 5.3, 6.2]])
    return atoms


@pytest.mark.parametrize("kind", ["heavy at the entrance", "missing in the middle", "added at the exit"])
def test_finite_projection_changes_every_slice_that_an_atom_reaches(kind):
    atoms, scan = changed_at(kind), GridScan(0.25, 0.25, 0.35, 0.35, (4, 4))
    settings = SETTINGS | {"sampling_nm": 0.032, "projection": "finite"}
    simulator = Simulator(atoms, method="local_difference", accuracy=0.05, **settings)
    ours = simulator.image(OPTICS, scan, DETECTORS)
    exact = simulate(atoms, OPTICS, scan, DETECTORS, method="multislice", **settings)
    true = max(rms_over_std(ours[name], exact[name]) for name in DETECTORS)
    assert true <= ours.attrs["error_estimate"] <= 0.05
    assert len(simulator._sources.defective(0).slices) >= 3


def test_segments_patterns_tilt_and_pixels_that_do_not_divide():
    atoms = substituted()
    settings = SETTINGS | {"grid_shape_px": (72, 75), "accuracy": 0.01}
    optics = OPTICS.model_copy(update={"tilt_x_mrad": 3.0})
    points = PointScan([(0.68, 0.67), (0.61, 0.73), (0.05, 1.2)])
    detectors = {"dpc": SegmentedDetector(8, 24, 1, 4), "cbed": PixelatedDetector(max_angle_mrad=34)}
    ours, exact = (
        simulate(atoms, optics, points, detectors, method=method, **settings)
        for method in ("local_difference", "multislice")
    )
    assert rms_over_std(ours["cbed"], exact["cbed"]) < 0.01
    alone = simulate(atoms, optics, points, {"dpc": detectors["dpc"]}, method="local_difference", **settings)
    np.testing.assert_allclose(alone["dpc"], exact["dpc"], atol=1e-3 * float(exact["dpc"].mean()))


def test_bilinear_potentials_and_double_precision():
    atoms, points = substituted(), PointScan([(0.68, 0.67), (0.61, 0.73)])
    settings = SETTINGS | {"placement": "bilinear", "precision": "double", "accuracy": 1e-4}
    ours, exact = (
        simulate(atoms, OPTICS, points, DETECTORS, method=method, **settings)
        for method in ("local_difference", "multislice")
    )
    for name in DETECTORS:
        np.testing.assert_allclose(ours[name], exact[name], rtol=1e-4)


def test_imaging_again_propagates_nothing(monkeypatch):
    simulator = Simulator(substituted(), method="local_difference", accuracy=0.01, **SETTINGS)
    scan = GridScan(0.5, 0.5, 0.32, 0.32, (4, 4))
    simulator.image(OPTICS, scan, DETECTORS)
    other = OPTICS.model_copy(update={"defocus_nm": 4.0})
    exact = simulate(substituted(), other, scan, DETECTORS, method="multislice", **SETTINGS)
    for module in ("bloch_waves", "sources"):
        monkeypatch.setattr(f"simulation.{module}.propagate", None)
    again = simulator.image(other, scan, DETECTORS)
    assert max(rms_over_std(again[name], exact[name]) for name in DETECTORS) <= again.attrs["error_estimate"] <= 0.01


def test_a_perfect_crystal_is_imaged_too():
    scan = GridScan(0.5, 0.5, 0.32, 0.32, (3, 3))
    ours, exact = (
        simulate(crystal(), OPTICS, scan, DETECTORS, method=method, **SETTINGS)
        for method in ("local_difference", "periodic")
    )
    for name in DETECTORS:
        np.testing.assert_allclose(ours[name], exact[name], rtol=1e-4)


def test_finer_waves_are_used_where_the_stated_error_is_too_large(monkeypatch):
    estimate = ErrorCheck.estimate
    seen = []

    def doubled_until_fine(self, candidate, *rest, **bound):
        seen.append(candidate.tolerance)
        found = estimate(self, candidate, *rest, **bound)
        return found if len(seen) > 1 else type(found)(1.0, found.optics)

    monkeypatch.setattr(ErrorCheck, "estimate", doubled_until_fine)
    images = simulate(
        substituted(), OPTICS, PointScan([(0.68, 0.67), (0.6, 0.6)]), DETECTORS, method="local_difference", **SETTINGS
    )
    assert seen == pytest.approx([0.02, 0.005])
    assert images.attrs["error_estimate"] < 0.01


def test_auto_takes_it_for_many_probes_only():
    many = GridScan(0.5, 0.5, 0.32, 0.32, (64, 64))
    thick = crystal(16)
    thick.numbers[site(thick, 38, (6.8, 6.7, 25))] = 72
    simulator = Simulator(thick, accuracy=0.05, **SETTINGS)
    assert [c.method for c in simulator._trial.candidates(OPTICS, 4, DETECTORS)] == ["multislice"]
    assert simulator._trial.candidates(OPTICS, 64**2, DETECTORS)[0].method == "local_difference"
    images = simulator.image(OPTICS, many, DETECTORS)
    assert images.attrs["method"] == "local_difference"
    assert images.attrs["error_estimate"] <= 0.05


def test_too_many_waves_for_the_memory_are_refused_before_any_is_computed():
    simulator = Simulator(substituted(), method="local_difference", **SETTINGS)
    small = replace(simulator._on, memory_bytes=2**20)
    defective = simulator._sources.defective(0)
    with pytest.raises(InvalidParameter, match=r"GiB for 1 columns with changed sites, above 80% .* larger accuracy"):
        check_difference_memory(defective, simulator.grid, OPTICS, 1e-3, small)


def test_what_is_no_crystal_with_changed_sites_is_refused():
    scan = GridScan(0.5, 0.5, 0.32, 0.32, (2, 2))
    lone = ase.Atoms("Au", positions=[[5, 5, 1]], cell=(12, 12, 2))
    for atoms, more in (
        (lone, {}),
        (substituted(), {"phonons": FrozenPhonons(2, 0.006)}),
        (substituted(), {"projection": "finite", "placement": "bilinear"}),
    ):
        with pytest.raises(MethodUnavailable, match=r"needs a crystal that repeats .* repeat the unit cell"):
            simulate(atoms, OPTICS, scan, DETECTORS, method="local_difference", **SETTINGS, **more)
