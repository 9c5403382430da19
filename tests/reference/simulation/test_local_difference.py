"""Thick crystals with a dopant or a vacancy: the stated error holds at every focus, and patterns are multislice's."""

import numpy as np
import pytest

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, PointScan, Simulator
from simulation.builders import crystal, zone_axis
from tests.unit.simulation.reference_cases import rms_over_std

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=22)
DETECTORS = {"haadf": AnnularDetector(60, 110), "abf": AnnularDetector(9, 22)}
ACCURACY = 0.02


def doped_perovskite():
    """Hafnium for titanium, where the beam has just begun to channel."""
    atoms = zone_axis(crystal("SrTiO3"), (0, 0, 1), thickness_nm=5.8, width_nm=1.1, height_nm=1.1)
    titanium = np.flatnonzero(atoms.numbers == 22)
    chosen = titanium[np.argmin(np.abs(atoms.positions[titanium] - (5.8, 5.8, 12)).sum(axis=1))]
    atoms.numbers[chosen] = 72
    return atoms, atoms.positions[chosen], 0.1953


def silicon_with_a_vacancy():
    """In one atom of a dumbbell, half way down."""
    atoms = zone_axis(crystal("Si"), (1, 1, 0), thickness_nm=6.0, width_nm=1.1, height_nm=1.6)
    away = np.abs(atoms.positions - atoms.cell.lengths() / 2).sum(axis=1)
    gone = int(np.argmin(away))
    place = atoms.positions[gone].copy()
    del atoms[gone]
    return atoms, place, 0.192


@pytest.mark.parametrize("structure", [doped_perovskite, silicon_with_a_vacancy])
def test_the_stated_error_holds_at_every_focus(structure):
    atoms, place, slice_nm = structure()
    settings = {"sampling_nm": 0.0075, "slice_thickness_nm": slice_nm, "device": "cpu"}
    ours = Simulator(atoms, method="local_difference", accuracy=ACCURACY, **settings)
    exact = Simulator(atoms, method="multislice", **settings)
    x, y = place[:2] / 10
    scan = GridScan(x - 0.25, y - 0.25, 0.5, 0.5, (5, 5))
    for defocus_nm in (-10.0, 0.0, 10.0):
        optics = OPTICS.model_copy(update={"defocus_nm": defocus_nm})
        image, reference = ours.image(optics, scan, DETECTORS), exact.image(optics, scan, DETECTORS)
        true = max(rms_over_std(image[name], reference[name]) for name in DETECTORS)
        assert true <= image.attrs["error_estimate"] <= ACCURACY
    points, patterns = PointScan([(x, y), (x + 0.1, y)]), {"cbed": PixelatedDetector(max_angle_mrad=50)}
    both = [each.image(OPTICS, points, patterns)["cbed"] for each in (ours, exact)]
    assert rms_over_std(*both) < ACCURACY
