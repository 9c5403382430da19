"""Atoms that scatter on their own, against multislice and against themselves."""

import ase
import numpy as np
import pytest

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan, PointScan, SegmentedDetector, simulate
from simulation.coherence import FWHM_PER_SIGMA
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


def test_a_layer_is_multislices_to_some_ten_percent():
    rng = np.random.default_rng(1)
    places = rng.uniform((0, 0, 1), (30, 30, 1.01), (40, 3))
    layer = ase.Atoms("W20S20", positions=places, cell=(30, 30, 3))
    points = PointScan(rng.uniform(0, 3.0, (144, 2)))
    exact, ours = (
        simulate(layer, OPTICS, points, HAADF, method=method, **SETTINGS)["haadf"]
        for method in ("multislice", "incoherent")
    )
    assert np.isnan(ours.attrs.get("error_estimate", np.nan))
    assert float(np.sqrt(((ours - exact) ** 2).mean()) / exact.std()) < 0.15
    assert float(ours.mean() / exact.mean()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("method", ["incoherent", "periodic"])
def test_a_source_taken_in_is_that_of_a_blurred_fine_image(method):
    """Methods that take the size of the source in, at steps far too wide to blur pixels, averaged over defoci."""
    crystal = ase.Atoms("WS", positions=[[0.5, 0.7, 1], [2.1, 2.9, 2]], cell=(3.5, 4.5, 3), pbc=True) * (3, 3, 1)
    source, n = Coherence(source_size_nm=0.1, focal_spread_nm=2), 9
    settings = SETTINGS | {"method": method, "sampling_nm": 0.0125}
    wide, fine = GridScan(0, 0, 1.05, 1.35, (6, 5)), GridScan(0, 0, 1.05, 1.35, (6 * n, 5 * n))
    found = simulate(crystal, OPTICS, wide, HAADF, coherence=source, **settings)["haadf"]
    sharp = simulate(crystal, OPTICS, fine, HAADF, coherence=Coherence(focal_spread_nm=2), **settings)["haadf"]
    ky, kx = (np.fft.fftfreq(count * n, side / (count * n)) for count, side in ((6, 1.35), (5, 1.05)))
    factor = np.exp(-2 * (np.pi * 0.1 / FWHM_PER_SIGMA) ** 2 * (ky[:, None] ** 2 + kx**2))
    expected = np.fft.ifft2(np.fft.fft2(sharp.values.astype(float)) * factor).real[::n, ::n]
    np.testing.assert_allclose(found, expected, atol=2e-4 * expected.std())


def test_places_wrap_and_atoms_add_up():
    one = ase.Atoms("W", positions=[[0.2, 49.9, 1]], cell=(50, 50, 2))
    two = one + ase.Atoms("W", positions=[[9.0, 44.0, 1]])
    points = PointScan([[0.02, 4.99], [5.02, -0.01], [0.9, 4.4]])
    alone, both = (
        simulate(atoms, OPTICS, points, HAADF, method="incoherent", **SETTINGS)["haadf"] for atoms in (one, two)
    )
    assert float(alone[0]) == pytest.approx(float(alone[1]), rel=1e-5)
    assert float(both[2]) == pytest.approx(float(alone[2] + alone[0]), rel=0.05)
    parts = simulate(one, OPTICS, points, {"parts": SegmentedDetector(60, 130, 2, 4)}, method="incoherent", **SETTINGS)
    np.testing.assert_allclose(parts["parts"].sum(("ring", "segment")), alone, rtol=1e-5)


def test_an_atom_may_stand_anywhere_between_pixels():
    """And its raster with it: the image of many probes stays (better than 0.1 %), and is that of a few."""
    images: list[np.ndarray] = []
    for shift_nm in (0.0, 0.0031, 0.0072):
        atom = ase.Atoms("W", positions=[[10 + 10 * shift_nm, 9 + 5 * shift_nm, 1]], cell=(20, 20, 2), pbc=True)
        scan = GridScan(0.8 + shift_nm, 0.7 + shift_nm / 2, 0.4, 0.4, (160, 160))
        images.append(simulate(atom, OPTICS, scan, HAADF, method="incoherent", **SETTINGS)["haadf"].values)
        few = PointScan(scan.points_angstrom()[::171] / 10)
        alone = simulate(atom, OPTICS, few, HAADF, method="incoherent", **SETTINGS)["haadf"].values
        np.testing.assert_allclose(alone, images[-1].ravel()[::171], atol=1e-4 * images[0].max())
    np.testing.assert_allclose(images[1:], np.broadcast_to(images[0], (2, 160, 160)), atol=1e-3 * images[0].max())
    assert images[0].min() >= 0


def test_a_micrometre_is_no_trouble():
    """Thirty nanometres wide and a thousand long, two gold atoms a square nanometre."""
    rng = np.random.default_rng(2)
    places = rng.uniform((0, 0, 0), (300, 10_000, 10), (60_000, 3))
    strip = ase.Atoms(f"Au{len(places)}", positions=places, cell=(300, 10_000, 10))
    image = simulate(strip, OPTICS, GridScan(0, 0, 30, 1000, (60, 40)), HAADF, method="incoherent", **SETTINGS)
    expected = 60_000 / 3e6 * cross_section_angstrom2(79, OPTICS, (60, 130))
    assert float(image["haadf"].mean()) == pytest.approx(expected, rel=0.2)
