"""Atoms that scatter on their own, against multislice and against themselves."""

import ase
import numpy as np
import pytest

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan, PointScan, SegmentedDetector, simulate
from simulation.incoherent import cross_section_angstrom2

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=3)
HAADF = {"haadf": AnnularDetector(60, 130)}
SETTINGS = {"sampling_nm": 0.01, "device": "cpu"}


@pytest.mark.parametrize(("symbol", "number"), [("W", 74), ("S", 16)])
def test_a_cross_section_is_the_sum_of_a_multislice_image(symbol, number):
    atom = ase.Atoms(symbol, positions=[[9, 8, 1]], cell=(16, 16, 2))
    scan = GridScan(0, 0, 1.6, 1.6, (20, 20))
    ring = {"ring": AnnularDetector(60, 110)}
    image = simulate(atom, OPTICS, scan, ring, method="multislice", sampling_nm=0.0125, device="cpu")["ring"]
    found = cross_section_angstrom2(number, OPTICS, (60, 110))
    assert float(image.sum()) * 0.8**2 == pytest.approx(found, rel=0.03)


@pytest.mark.filterwarnings("ignore::simulation.SourceUnresolved")
def test_a_layer_is_multislices_to_some_ten_percent():
    rng = np.random.default_rng(1)
    places = rng.uniform((0, 0, 1), (30, 30, 1.01), (40, 3))
    layer = ase.Atoms("W20S20", positions=places, cell=(30, 30, 3))
    scan = GridScan(0, 0, 3.0, 3.0, (12, 12))
    source = Coherence(source_size_nm=0.08)
    exact, ours = (
        simulate(layer, OPTICS, scan, HAADF, method=method, coherence=source, **SETTINGS)["haadf"]
        for method in ("multislice", "incoherent")
    )
    assert np.isnan(ours.attrs.get("error_estimate", np.nan))
    assert float(np.sqrt(((ours - exact) ** 2).mean()) / exact.std()) < 0.15
    assert float(ours.mean() / exact.mean()) == pytest.approx(1, abs=0.03)


def test_places_wrap_and_atoms_add_up():
    one = ase.Atoms("W", positions=[[0.2, 49.9, 1]], cell=(50, 50, 2))
    two = one + ase.Atoms("W", positions=[[9.0, 44.0, 1]])
    points = PointScan([[0.02, 4.99], [5.02, -0.01], [0.9, 4.4]])
    alone, both = (
        simulate(atoms, OPTICS, points, HAADF, method="incoherent", **SETTINGS)["haadf"] for atoms in (one, two)
    )
    assert float(alone[0]) == pytest.approx(float(alone[1]), rel=1e-5)
    assert float(both[2]) == pytest.approx(float(alone[2] + alone[0]), rel=0.05)
    parts = simulate(one, OPTICS, points, {"ring": SegmentedDetector(60, 130, 2, 4)}, method="incoherent", **SETTINGS)
    np.testing.assert_allclose(parts["ring"].sum(("ring", "segment")), alone, rtol=1e-5)


def test_a_micrometre_is_no_trouble():
    """Thirty nanometres wide and a thousand long, two gold atoms a square nanometre."""
    rng = np.random.default_rng(2)
    places = rng.uniform((0, 0, 0), (300, 10_000, 10), (60_000, 3))
    strip = ase.Atoms(f"Au{len(places)}", positions=places, cell=(300, 10_000, 10))
    image = simulate(strip, OPTICS, GridScan(0, 0, 30, 1000, (60, 40)), HAADF, method="incoherent", **SETTINGS)
    expected = 60_000 / 3e6 * cross_section_angstrom2(79, OPTICS, (60, 130))
    assert float(image["haadf"].mean()) == pytest.approx(expected, rel=0.2)
