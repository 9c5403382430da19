"""Debye-Waller factors: the smeared potential, Bragg beams of a thin layer, one image by every way."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from scipy.special import ive

from instruments import Optics
from simulation import (
    AnnularDetector,
    DebyeWaller,
    GridScan,
    InvalidParameter,
    MethodUnavailable,
    PixelatedDetector,
    PointScan,
    simulate,
)
from simulation.atom_parts import AtomPart
from simulation.builders import crystal
from simulation.specimens import orthogonal_cell

OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=25)
RINGS = {"adf": AnnularDetector(40, 70), "abf": AnnularDetector(12, 25)}


@pytest.mark.parametrize(("number", "rms_angstrom"), [(6, 0.08), (14, 0.01), (79, 0.05)])
def test_a_smeared_potential_is_the_mean_over_displacements(number, rms_angstrom):
    radii = np.array([1e-4, 0.02, 0.1, 0.5, 2.0])
    smeared = AtomPart(number, rms_angstrom=rms_angstrom).projected_v_angstrom(radii, "lobato")
    rho = np.exp(np.linspace(np.log(1e-7), np.log(12), 6000))
    ring = rho**2 * np.log(rho[1] / rho[0]) * AtomPart(number).projected_v_angstrom(rho, "lobato") / rms_angstrom**2
    across = radii[:, None], (rho - radii[:, None]) ** 2 / (2 * rms_angstrom**2)
    mean = (ring * ive(0, rho * across[0] / rms_angstrom**2) * np.exp(-across[1])).sum(axis=1)
    np.testing.assert_allclose(smeared, mean, rtol=2e-6)


@pytest.mark.filterwarnings("ignore::simulation.ProbeOutgrowsCell")  # a plane wave is meant
def test_bragg_beams_of_a_layer_fade_by_the_factor():
    rms_nm, layer = 0.01, orthogonal_cell(graphene(vacuum=1.0)) * (2, 1, 1)
    beam = Optics(beam_energy_ev=300e3, semi_convergence_angle_mrad=0.3)
    settings = {"method": "multislice", "sampling_nm": 0.01, "precision": "double", "device": "cpu"}
    camera, point = {"p": PixelatedDetector(max_angle_mrad=45)}, PointScan([[0.1, 0.1]])
    at_rest, smeared = (
        simulate(layer, beam, point, camera, phonons=phonons, **settings)["p"][0]
        for phonons in (None, DebyeWaller({"C": rms_nm}))
    )
    angle_mrad = np.hypot(at_rest["detector_y"].values[:, None], at_rest["detector_x"].values[None, :])
    beams = (at_rest.values > 1e-9) & (angle_mrad > 5)
    per_nm = angle_mrad[beams] * 1e-3 / 1.9687e-3  # wavelength in nm
    assert beams.sum() > 30
    assert per_nm.max() > 20
    fading = np.exp(-((2 * np.pi * rms_nm * per_nm) ** 2))
    np.testing.assert_allclose(smeared.values[beams] / at_rest.values[beams], fading, rtol=0.02)


def test_one_image_by_every_way():
    atoms = crystal("MgO") * (2, 2, 2)
    scan, smeared = GridScan(0, 0, 0.4213, 0.4213, (3, 3)), DebyeWaller({"Mg": 0.007, "O": 0.009})
    settings = {"sampling_nm": 0.015, "device": "cpu"}
    full = simulate(atoms, OPTICS, scan, RINGS, method="multislice", phonons=smeared, **settings)
    assert full.attrs["thermal_motion"] == "DebyeWaller"
    assert full.attrs["phonon_configurations_count"] == 0
    assert full.attrs["phonon_sigmas_nm"] == '{"Mg": 0.007, "O": 0.009}'
    for other in ({"method": "periodic"}, {"method": "prism"}, {"method": "multislice", "precision": "double"}):
        image = simulate(atoms, OPTICS, scan, RINGS, phonons=smeared, **settings | other)
        for name in RINGS:
            np.testing.assert_allclose(image[name], full[name], rtol=1e-4)
    at_rest = simulate(atoms, OPTICS, scan, RINGS, method="periodic", **settings)
    assert full["adf"].mean() < 0.8 * at_rest["adf"].mean()


def test_a_smeared_atom_does_not_know_where_pixels_lie():
    seen = []
    for shift_angstrom, placement in ((0.0, "exact"), (0.033, "exact"), (0.0, "bilinear")):
        atom = Atoms("Au", [[4 + shift_angstrom, 4 + shift_angstrom, 1]], cell=[8, 8, 2], pbc=True)
        scan = PointScan(atom.positions[:, :2] / 10)
        settings = {"grid_shape_px": (160, 160), "phonons": DebyeWaller(0.008), "device": "cpu"}
        image = simulate(atom, OPTICS, scan, RINGS, method="multislice", placement=placement, **settings)
        seen.append(float(image["adf"][0]))
    assert seen[1] == pytest.approx(seen[0], rel=1e-5)
    assert seen[2] == pytest.approx(seen[0], rel=5e-3)  # on a pixel, no core is left to alias


@pytest.mark.parametrize(
    ("sigmas_nm", "settings", "error", "message"),
    [
        (0.008, {"projection": "finite"}, InvalidParameter, "projection='finite' knows no DebyeWaller"),
        (0.008, {"method": "incoherent"}, MethodUnavailable, "'incoherent' knows no DebyeWaller"),
        (1e-4, {}, InvalidParameter, "0.0001 nm is below 0.001 nm"),
        ({"O": 0.008}, {}, InvalidParameter, "no rms displacement for Mg"),
    ],
)
def test_what_cannot_be_smeared_is_refused(sigmas_nm, settings, error, message):
    with pytest.raises(error, match=message):
        simulate(crystal("MgO"), OPTICS, PointScan([[0, 0]]), RINGS, phonons=DebyeWaller(sigmas_nm), **settings)
