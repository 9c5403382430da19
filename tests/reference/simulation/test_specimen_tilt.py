"""Leaning specimens: sheared propagation against atoms that were really rotated, in every method."""

import ase
import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from instruments.optics import Aberrations, Optics
from simulation import AnnularDetector, GridScan, InvalidParameter, PointScan, Simulator, simulate
from tests.unit.simulation.reference_cases import case, rms_over_std

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
DETECTORS = {"haadf": AnnularDetector(50, 80), "abf": AnnularDetector(10, 20)}


def leaning(atoms, tilt_mrad, pivot_angstrom):
    """Atoms rotated about a point so that their +z points along (tan x, tan y, 1)."""
    axis = np.append(np.tan(np.array(tilt_mrad) * 1e-3), 1.0)
    turn, _ = Rotation.align_vectors([axis / np.linalg.norm(axis)], [[0.0, 0.0, 1.0]])
    rotated = atoms.copy()
    rotated.positions[:] = turn.apply(atoms.positions - pivot_angstrom) + pivot_angstrom
    return rotated


def test_a_column_of_ten_nanometres_leans_as_if_its_atoms_were_rotated():
    """20 mrad and 12 mrad carry its foot by 0.2 nm and 0.12 nm; slices so thin that no atom is moved along the beam."""
    z = np.arange(25) * 4.08 + 1.0
    column = ase.Atoms("Au25", positions=np.column_stack([z * 0 + 8, z * 0 + 8, z]), cell=(16, 16, 104), pbc=True)
    tilt_mrad = (20.0, -12.0)
    scan = GridScan(0.4, 0.4, 0.8, 0.8, (8, 8))
    settings = {"method": "multislice", "sampling_nm": 0.01, "slice_thickness_nm": 0.01, "device": "cpu"}
    simulator = Simulator(column, specimen_tilt_mrad=tilt_mrad, **settings)
    ours = simulator.image(OPTICS, scan, DETECTORS)
    opposite = simulator.image(OPTICS, scan, DETECTORS, specimen_tilt_mrad=(-20.0, 12.0))
    rotated = simulate(leaning(column, tilt_mrad, (8.0, 8.0, 0.0)), OPTICS, scan, DETECTORS, **settings)
    assert rms_over_std(ours["haadf"], rotated["haadf"]) < 0.02
    assert rms_over_std(ours["abf"], rotated["abf"]) < 0.003
    assert rms_over_std(opposite["haadf"], rotated["haadf"]) > 0.5
    seen, expected = (np.array(center_of_mass(np.asarray(each["haadf"]))) * 0.1 for each in (ours, rotated))
    np.testing.assert_allclose(seen, expected, atol=0.001)  # nm
    assert ours.attrs["specimen_tilt_mrad"] == [20.0, -12.0]
    assert Optics.model_validate_json(ours.attrs["optics"]) == OPTICS


@pytest.mark.filterwarnings("ignore::simulation.errors.AccuracyMissed")
@pytest.mark.parametrize(
    "method", ["multislice", "prism", "partitioned_prism", "periodic", "local_difference", "windowed", "incoherent"]
)
def test_every_method_leans_the_same_way_and_undoes_a_tilted_beam(method):
    """A column of carbon whose foot lies 0.05 nm towards +x: the signal moves there, as with the beam to -x."""
    z = np.arange(12) * 2.08 + 0.5
    column = ase.Atoms("C12", positions=np.column_stack([z * 0 + 3, z * 0 + 3, z]), cell=(6, 6, 25), pbc=True)
    atoms = column * (2, 2, 1)
    if method == "local_difference":
        atoms.numbers[-1] = 14
    points = PointScan([[0.22, 0.3], [0.26, 0.3], [0.3, 0.3], [0.34, 0.3], [0.38, 0.3]])
    detectors = {"adf": AnnularDetector(30, 41)}
    simulator = Simulator(atoms, method=method, sampling_nm=0.02, accuracy=0.05, device="cpu")
    tilted_beam = OPTICS.model_copy(update={"tilt_x_mrad": -20.0})
    leaning, by_beam, undone, upright = (
        np.asarray(simulator.image(optics, points, detectors, specimen_tilt_mrad=(tilt, 0.0))["adf"])
        for optics, tilt in ((OPTICS, 20.0), (tilted_beam, 0.0), (tilted_beam, -20.0), (OPTICS, 0.0))
    )
    offsets = points.points_nm[:, 0] - 0.3
    assert offsets @ leaning / leaning.sum() > 0.01
    assert abs(offsets @ upright / upright.sum()) < 0.001
    np.testing.assert_allclose(by_beam, leaning, rtol=1e-6)
    np.testing.assert_allclose(undone, upright, rtol=1e-6)


def test_the_reference_of_a_tilted_beam_is_met_by_a_specimen_leaning_the_other_way():
    reference = case("08")
    upright = reference.optics.model_copy(update={"tilt_x_mrad": 0.0, "tilt_y_mrad": 0.0})
    tilt = (-reference.optics.tilt_x_mrad, -reference.optics.tilt_y_mrad)
    points = PointScan(reference.scan.points_angstrom()[::9] / 10)
    images = simulate(
        reference.atoms, upright, points, reference.detectors, method="multislice", specimen_tilt_mrad=tilt,
        **reference.settings,
    )  # fmt: skip
    for name in reference.detectors:
        assert rms_over_std(images[name], reference.image(name).ravel()[::9]) < 1e-3, name


def test_estimates_name_the_commanded_optics():
    atoms = ase.Atoms("W", positions=[[1.5, 1.7, 1]], cell=(4, 4, 2), pbc=True) * (4, 4, 1)
    optics = OPTICS.model_copy(update={"tilt_y_mrad": 3.0, "aberrations": Aberrations(c12_nm=2)})
    images = simulate(
        atoms, optics, PointScan([[0.1, 0.2], [0.3, 0.3]]), DETECTORS, method="prism", interpolation=2,
        sampling_nm=0.01, specimen_tilt_mrad=(10, 0), device="cpu",
    )  # fmt: skip
    assert Optics.model_validate_json(images.attrs["error_estimate_optics"]) == optics


@pytest.mark.parametrize(
    ("tilt", "message"),
    [((120.0, 0.0), "rotate the atoms"), ((1.0,), "two finite angles"), ((np.nan, 0.0), "two finite angles")],
)
def test_large_and_meaningless_tilts_are_refused(tilt, message):
    atoms = ase.Atoms("W", positions=[[2, 2, 1]], cell=(4, 4, 2), pbc=True)
    with pytest.raises(InvalidParameter, match=message):
        Simulator(atoms, specimen_tilt_mrad=tilt, device="cpu")
