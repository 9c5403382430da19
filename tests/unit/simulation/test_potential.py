"""Projected potentials against reference arrays, and what exact placement promises."""

import ase
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation import DebyeWaller, InvalidParameter, InvalidSpecimen, projected_potential
from simulation.scattering_factors import atomic_potential_v
from tests.unit.simulation.reference_cases import case, rms_over_std

ATOMS = [name for name in case("01").arrays if name.startswith("atom_")]


def one_atom(symbol, x, y, cell=(8.0, 8.0, 4.0)):
    return ase.Atoms(symbol, positions=[[x, y, cell[2] / 2]], cell=cell, pbc=True)


@pytest.mark.parametrize("name", ATOMS)
def test_single_atoms_match_the_reference(name):
    _, symbol, parametrization = name.split("_")
    atoms = one_atom(symbol, 4.03, 3.98)
    made = projected_potential(atoms, slice_thickness_nm=0.4, parametrization=parametrization, placement="bilinear")
    assert made.shape == (1, 160, 160)
    assert made.dtype == np.float32
    assert rms_over_std(made[0], case("01").arrays[name].T) < 1e-4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sto_cell_slices", {"slice_thickness_nm": 0.19525}),
        ("sto_cell_slices_kirkland", {"slice_thickness_nm": 0.19525, "parametrization": "kirkland"}),
    ],
)
def test_slices_match_the_reference(name, settings):
    made = projected_potential(case("01").atoms, grid_shape_px=(80, 80), placement="bilinear", **settings)
    assert rms_over_std(made, case("01").arrays[name].transpose(0, 2, 1)) < 1e-4


def test_finite_projection_matches_the_reference():
    """Values at the pixels, atoms cut by the boundaries of slices: what `bilinear` is for."""
    made = projected_potential(
        case("01").atoms, grid_shape_px=(80, 80), slice_thickness_nm=0.097625, projection="finite", placement="bilinear"
    )
    assert rms_over_std(made, case("01").arrays["sto_cell_slices_finite"].transpose(0, 2, 1)) < 1e-4


@pytest.mark.parametrize("parametrization", ["lobato", "kirkland"])
@pytest.mark.parametrize("slice_thickness_nm", [0.03, 0.1, 0.4])
def test_finite_slices_add_up_to_the_whole(parametrization, slice_thickness_nm):
    """Also of atoms next to the entrance, which reach out of the cell."""
    atoms = ase.Atoms("AuCSr", positions=[[1, 1, 0.02], [2.1, 3, 1.9], [3, 1.2, 2.0]], cell=(4, 4, 4), pbc=True)
    settings = {"sampling_nm": 0.01, "slice_thickness_nm": slice_thickness_nm, "parametrization": parametrization}
    whole, parts = (
        projected_potential(atoms, projection=projection, **settings).sum(0) for projection in ("infinite", "finite")
    )
    assert rms_over_std(parts, whole) < 1e-6


def test_a_finite_slice_holds_the_integral_over_its_depth():
    """In the slices above and below an atom, where nothing is sharp: sums over z in real space, images among them."""
    atoms = ase.Atoms("Au", positions=[[4.03, 3.98, 4.3]], cell=(8, 8, 8.1), pbc=True)
    made = projected_potential(atoms, sampling_nm=0.01, slice_thickness_nm=0.09, projection="finite")
    offsets = np.array([-8, 0, 8])
    dy, dx = (np.arange(80) * 0.1 - at for at in (3.98, 4.03))
    rho = np.hypot(dy[:, None, None, None] + offsets[:, None], dx[None, :, None, None] + offsets[None, None, :])
    for step in (1, 2):
        nodes, weights = np.polynomial.legendre.leggauss(12)
        layers = zip(0.9 * (step + nodes / 2), 0.45 * weights, strict=True)
        expected = sum(share * atomic_potential_v("Au", np.hypot(rho, z)).sum((2, 3)) for z, share in layers)
        assert rms_over_std(made[4 + step], expected) < 1e-5
        np.testing.assert_allclose(made[4 + step], made[4 - step], atol=1e-6 * made.max())


def test_exact_placement_on_grid_differs_from_the_reference_by_its_sinc_alone():
    """Atoms on pixels: the reference divides by sin(q)/q, q = |k * pixel|; exact placement does not."""
    reference = case("01").arrays["sto_cell_slices"].transpose(0, 2, 1)
    step = 3.905 / 80
    k = np.fft.fftfreq(80, step)
    q = np.hypot(k[:, None] * step, k[None, :] * step)
    expected = np.fft.ifft2(np.fft.fft2(reference) * np.sinc(q / np.pi)).real
    made = projected_potential(case("01").atoms, grid_shape_px=(80, 80), slice_thickness_nm=0.19525)
    assert rms_over_std(made, expected) < 1e-4


@given(x=st.floats(0, 8), y=st.floats(0, 8))
def test_exact_placement_is_a_fourier_shift(x, y):
    """The spectrum of a moved atom is that of the atom at the origin times a phase ramp, below Nyquist."""
    here = np.fft.fft2(projected_potential(one_atom("Mo", x, y), sampling_nm=0.02).sum(0))
    origin = np.fft.fft2(projected_potential(one_atom("Mo", 0, 0), sampling_nm=0.02).sum(0))
    k = np.fft.fftfreq(40, 0.2)
    ramp = np.exp(-2j * np.pi * (k[None, :] * x + k[:, None] * y))
    inside = (np.abs(k)[:, None] < 2.49) & (np.abs(k)[None, :] < 2.49)
    assert np.abs(here - origin * ramp)[inside].max() < 3e-6 * np.abs(origin).max()


@given(x=st.floats(0, 8), y=st.floats(0, 8), symbols=st.tuples(*[st.sampled_from(["S", "W"])] * 2))
def test_potentials_add(x, y, symbols):
    together = ase.Atoms(symbols, positions=[[x, y, 1], [2, 3, 1]], cell=(8, 8, 4), pbc=True)
    alone = sum(projected_potential(together[i : i + 1], sampling_nm=0.02).astype(float) for i in (0, 1))
    made = projected_potential(together, sampling_nm=0.02)
    np.testing.assert_allclose(made, alone, atol=1e-5 * np.abs(alone).max())


def test_atoms_of_one_column_share_a_factor_without_changing_the_sum():
    """Repeated x coordinates are summed before the product; a tiny tilt of the lattice makes them all different."""
    lattice = [[i * 2.0, j * 2.0, 1.0] for i in range(4) for j in range(4)]
    straight = ase.Atoms("W16", positions=lattice, cell=(8, 8, 2), pbc=True)
    tilted = straight.copy()
    tilted.positions[:, 0] += np.arange(16) * 1e-6
    one, other = (projected_potential(atoms, sampling_nm=0.02) for atoms in (straight, tilted))
    assert rms_over_std(one, other) < 1e-4


def test_an_atom_on_a_boundary_belongs_to_the_slice_that_starts_there():
    atoms = ase.Atoms("Au4", positions=[[1, 1, z] for z in (0.0, 1.0, 3.0 - 1e-9, 4.0)], cell=(4, 4, 4), pbc=True)
    made = projected_potential(atoms, sampling_nm=0.02, slice_thickness_nm=0.1)
    np.testing.assert_allclose(made.sum((1, 2)) / made[1].sum(), [2, 1, 0, 1], atol=1e-5)


def test_the_mean_is_kept():
    """The mean of V times the area is f_p(0)."""
    made = projected_potential(one_atom("Au", 1.23, 4.56), sampling_nm=0.01)
    assert float(made.mean(dtype=float)) * made.shape[0] * 64 == pytest.approx(506.34, rel=1e-4)


def test_the_grid_is_fft_friendly_unless_it_is_given():
    atoms = one_atom("C", 1, 1, cell=(15.62, 3.905, 2.0))
    assert projected_potential(atoms).shape == (1, 80, 320)
    assert projected_potential(atoms, grid_shape_px=(79, 313)).shape == (1, 79, 313)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_nm": -0.01}, r"sampling_nm = -0.01 must be a positive number of nm"),
        ({"sampling_nm": 1e-8}, "is too fine for this cell"),
        ({"slice_thickness_nm": 0}, r"slice_thickness_nm = 0 must be a positive number of nm"),
        ({"parametrization": "peng"}, "'peng'; choose one of lobato, kirkland"),
        ({"placement": "nearest"}, "'nearest'; choose one of exact, bilinear"),
        ({"projection": "half"}, "'half'; choose one of infinite, finite"),
        ({"grid_shape_px": (2, 64)}, r"\(rows, columns\)"),
    ],
)
def test_bad_arguments_are_named(settings, message):
    with pytest.raises(InvalidParameter, match=message):
        projected_potential(one_atom("C", 1, 1), **settings)


def test_bad_specimens_are_named():
    atoms = one_atom("C", 1, 1)
    atoms.positions[0, 1] = np.nan
    with pytest.raises(InvalidSpecimen, match="atom 0 has a position that is not finite"):
        projected_potential(atoms)
    with pytest.raises(InvalidSpecimen, match="orthogonal"):
        projected_potential(ase.Atoms("C", cell=[[3, 0, 0], [1.5, 2.6, 0], [0, 0, 5]], pbc=True))
    with pytest.raises(InvalidSpecimen, match="give the structure a cell"):
        projected_potential(ase.Atoms("C"))
    with pytest.raises(InvalidSpecimen, match="atomic number 0"):
        projected_potential(ase.Atoms("X", cell=(4, 4, 4)))


def test_thermal_motion_smears_without_changing_the_mean():
    atoms = ase.Atoms("Au", [(2, 2, 1)], cell=(4, 4, 2))
    sharp, smeared = (
        projected_potential(atoms, grid_shape_px=(40, 40), phonons=phonons)[0] for phonons in (None, DebyeWaller(0.01))
    )
    k = np.fft.fftfreq(40, 0.1)
    factor = np.exp(-2 * np.pi**2 * 0.1**2 * (k[:, None] ** 2 + k**2))
    np.testing.assert_allclose(smeared, np.fft.ifft2(np.fft.fft2(sharp) * factor).real, atol=1e-3)
    with pytest.raises(InvalidParameter, match="phonons is a float; give DebyeWaller"):
        projected_potential(atoms, phonons=0.01)
    with pytest.raises(InvalidParameter, match="projection='finite' knows no DebyeWaller"):
        projected_potential(atoms, phonons=DebyeWaller(0.01), projection="finite")
