"""Slices begin at layers of atoms, keep their distances, and say how far atoms were moved where there are none."""

import pickle

import ase
import numpy as np
import pytest

from instruments.optics import Optics
from simulation import AnnularDetector, FrozenPhonons, InvalidParameter, PointScan, Simulator
from simulation.atom_layers import Cut
from simulation.builders import amorphous_film, bilayer, monolayer, nanoparticle, on_film, zone_axis
from simulation.multislice import step_count
from simulation.phonons import configurations
from simulation.slices import owners, slices_of
from simulation.specimens import Specimen

GOLD = zone_axis("Au", (1, 1, 0), thickness_nm=3)
ON_CARBON = on_film(nanoparticle("Au", diameter_nm=1.2, axis=(1, 1, 0)), film_thickness_nm=0.8, margin_nm=0.2)


def cut(atoms, thickness_nm=0.2, moved=()):
    rest = Specimen.of(atoms)
    return rest, Cut.at_layers(rest, [rest, *moved], thickness_nm)


@pytest.mark.parametrize(
    ("atoms", "layers"),
    [
        (GOLD, len(np.unique(GOLD.positions[:, 2].round(3)))),
        (monolayer("MoS2", width_nm=0.5, height_nm=0.5), 3),
        (bilayer("MoS2", width_nm=0.5, height_nm=0.5), 6),
        (ase.Atoms("Au", [(1, 1, 1.234)], cell=(2, 2, 2)), 1),
        (ase.Atoms("Au2", [(1, 1, 0), (1, 1, 1.97)], cell=(2, 2, 2)), 2),
    ],
    ids=["gold", "monolayer", "bilayer", "atom", "faces"],
)
def test_layers_keep_their_heights(atoms, layers):
    rest, found = cut(atoms)
    put = found.specimens[0]
    np.testing.assert_allclose(put.positions_angstrom, rest.positions_angstrom, atol=0.02)
    assert found.rounding_nm < 0.002
    assert step_count(slices_of(put, found.thickness_nm).order) == layers


def test_equal_distances_are_equal_numbers_of_slices():
    _, found = cut(GOLD)
    filled = np.unique(owners(found.specimens[0], found.thickness_nm))
    assert len(np.unique(np.diff(filled))) == 1


def test_vibrating_atoms_stay_in_their_layers():
    rest = Specimen.of(GOLD)
    moved = configurations(rest, FrozenPhonons(2, 0.008), 1)
    _, found = cut(GOLD, moved=moved)
    for own, put in zip(moved, found.specimens[1:], strict=True):
        np.testing.assert_array_equal(put.positions_angstrom[:, 2], found.specimens[0].positions_angstrom[:, 2])
        np.testing.assert_array_equal(put.positions_angstrom[:, :2], own.positions_angstrom[:, :2])
    _, snapshot = cut(ase.Atoms(moved[0].numbers, moved[0].positions_angstrom, cell=moved[0].cell_angstrom))
    layers = np.unique(GOLD.positions[:, 2].round(3))
    assert len(np.unique(snapshot.specimens[0].positions_angstrom[:, 2])) == len(layers)


def test_a_particle_keeps_its_layers_on_a_film_that_has_none():
    rest, found = cut(ON_CARBON)
    gold = rest.numbers == 79
    moved = np.abs(found.specimens[0].positions_angstrom - rest.positions_angstrom)[:, 2]
    assert moved[gold].max() < 0.05
    assert 0.5 < moved.max() < 1.05
    assert found.rounding_nm == pytest.approx(moved.max() / 10)


@pytest.mark.parametrize(
    "atoms", [amorphous_film("C", width_nm=1, height_nm=1, thickness_nm=0.8), None], ids=["film", "no atoms"]
)
def test_what_has_no_layers_is_cut_equally(atoms):
    rest, found = cut(ase.Atoms(cell=(2, 2, 2)) if atoms is None else atoms)
    assert found.specimens == [rest]
    assert found.thickness_nm == 0.2
    assert (found.rounding_nm > 0.1) == (atoms is not None)


def test_no_atom_is_moved_farther_than_the_slices_asked_for():
    rng = np.random.default_rng(2)
    snapshot = GOLD.copy()
    snapshot.positions[:, 2] = np.clip(GOLD.positions[:, 2] + rng.normal(0, 0.08, len(GOLD)), 0, GOLD.cell[2, 2])
    assert cut(snapshot)[1].rounding_nm > 0.01
    assert cut(snapshot, thickness_nm=0.004)[1].rounding_nm < 0.0045


@pytest.mark.parametrize(
    "changes", [{"placement": "bilinear"}, {"projection": "finite"}, {"method": "incoherent"}, {"slicing": "even"}]
)
def test_what_has_no_slices_at_layers_is_refused(changes):
    with pytest.raises(InvalidParameter, match=r"slicing '(layers|even)'"):
        Simulator(GOLD, sampling_nm=0.02, device="numpy", **{"slicing": "layers", **changes})


def test_slices_are_equal_unless_layers_are_asked_for():
    atoms = ase.Atoms("Au3", [(1, 1, 0.3), (1, 1, 1.7), (1, 1, 3.1)], cell=(5, 5, 4))
    optics, scan = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25), PointScan([(0.1, 0.1)])
    images = {
        slicing: Simulator(atoms, method="multislice", sampling_nm=0.02, device="numpy", slicing=slicing).image(
            optics, scan, {"adf": AnnularDetector(30, 50)}
        )
        for slicing in ("equal", "layers")
    }
    assert images["equal"].attrs["height_rounding_nm"] == pytest.approx(0.17)
    assert images["layers"].attrs["height_rounding_nm"] < 0.002
    assert {name: image.attrs["slicing"] for name, image in images.items()} == {"equal": "equal", "layers": "layers"}
    assert images["equal"].attrs["slice_count"] == 2


def test_a_pickled_simulator_makes_the_same_image():
    atoms = monolayer("MoS2", width_nm=0.9, height_nm=0.9)
    simulator = Simulator(
        atoms,
        method="multislice",
        sampling_nm=0.03,
        device="numpy",
        phonons=FrozenPhonons(1, {"Mo": 0.005, "S": 0.006}),
    )
    optics, scan = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25), PointScan([(0.2, 0.3)])
    detectors = {"adf": AnnularDetector(30, 50)}
    here = simulator.image(optics, scan, detectors)["adf"]
    atoms.positions += 0.5  # a pickle holds what the simulator was made of
    there = pickle.loads(pickle.dumps(simulator)).image(optics, scan, detectors)["adf"]
    np.testing.assert_array_equal(here, there)
