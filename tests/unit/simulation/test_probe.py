"""Probes against reference arrays, signs, and normalisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruments.optics import Aberrations, Optics
from simulation import InvalidParameter, probe
from simulation.aberrations import chi
from simulation.electron import wavelength_angstrom
from tests.unit.simulation.reference_cases import case, optics, rms_over_std

REFERENCE = case("02")
GRID = {"shape_px": (256, 256), "sampling_nm": 2 / 256}


def reference_optics(aberrations):
    return optics(REFERENCE.parameters["energy_eV"], REFERENCE.parameters["semiangle_cutoff_mrad"], aberrations)


@pytest.mark.parametrize("name", list(REFERENCE.parameters["aberrations"]))
def test_aberrated_probes_match_the_reference(name):
    wave = probe(reference_optics(REFERENCE.parameters["aberrations"][name]), x_nm=1, y_nm=1, **GRID)
    intensity = np.abs(wave[64:192, 64:192]) ** 2
    assert rms_over_std(intensity, REFERENCE.arrays[f"intensity_{name}"].T) < 1e-4
    if f"psi_{name}" in REFERENCE.arrays:
        assert rms_over_std(wave[96:160, 96:160], REFERENCE.arrays[f"psi_{name}"].T) < 1e-4


def test_hard_aperture_and_probe_off_the_grid_match_the_reference():
    hard = probe(reference_optics({}), x_nm=1, y_nm=1, aperture="hard", **GRID)
    moved = probe(reference_optics({}), x_nm=0.7313, y_nm=1.1871, **GRID)
    for wave, name in ((hard, "hard_aperture"), (moved, "offgrid")):
        assert rms_over_std(np.abs(wave[64:192, 64:192]) ** 2, REFERENCE.arrays[f"intensity_{name}"].T) < 1e-4


def test_a_step_in_x_moves_columns():
    still = probe(reference_optics({}), x_nm=1, y_nm=1, **GRID)
    moved = probe(reference_optics({}), x_nm=1 + 10 * GRID["sampling_nm"], y_nm=1, **GRID)
    np.testing.assert_allclose(moved, np.roll(still, 10, axis=1), atol=1e-8)


TERMS = [name for name in Aberrations.model_fields if name.startswith("c")]


@given(
    angle=st.floats(-np.pi, np.pi),
    alpha_mrad=st.floats(0, 40),
    magnitudes=st.lists(st.floats(-1e4, 1e4), min_size=len(TERMS), max_size=len(TERMS)),
    azimuth_deg=st.floats(-180, 180),
)
def test_polynomial_phase_equals_the_polar_definition(angle, alpha_mrad, magnitudes, azimuth_deg):
    """chi = 2 pi / lambda sum alpha^(n+1) C_nm cos(m (phi - phi_nm)) / (n+1), C10 = -defocus."""
    values = dict(zip(TERMS, magnitudes, strict=True))
    azimuths = {f"phi{name[1:]}".replace("_nm", "_deg"): azimuth_deg for name in TERMS if name[2] != "0"}
    given_optics = Optics(
        beam_energy_ev=8e4,
        semi_convergence_angle_mrad=30,
        defocus_nm=12.5,
        aberrations=Aberrations(**values, **azimuths),
    )
    wavelength, alpha = wavelength_angstrom(8e4), alpha_mrad * 1e-3
    expected = -125.0 * alpha**2 / 2
    for name, value in values.items():
        order, symmetry = int(name[1]), int(name[2])
        turn = np.cos(symmetry * (angle - np.radians(azimuth_deg)))
        expected += value * 10 * alpha ** (order + 1) * turn / (order + 1)
    kx, ky = (np.array([alpha / wavelength * f(angle)]) for f in (np.cos, np.sin))
    assert chi(given_optics, kx, ky)[0] == pytest.approx(2 * np.pi / wavelength * expected, rel=1e-9, abs=1e-6)


@given(x_nm=st.floats(-3, 3), y_nm=st.floats(-3, 3), defocus_nm=st.floats(-20, 20), angle_mrad=st.floats(0, 40))
def test_the_probe_is_normalised_wherever_it_stands(x_nm, y_nm, defocus_nm, angle_mrad):
    wave = probe(
        Optics(beam_energy_ev=6e4, semi_convergence_angle_mrad=angle_mrad, defocus_nm=defocus_nm),
        shape_px=(48, 60),
        sampling_nm=(0.02, 0.025),
        x_nm=x_nm,
        y_nm=y_nm,
    )
    assert np.sum(np.abs(np.fft.fft2(wave)) ** 2) == pytest.approx(1, abs=1e-5)


def test_bad_arguments_are_named():
    ordinary = reference_optics({})
    with pytest.raises(InvalidParameter, match="'square'; choose one of soft, hard"):
        probe(ordinary, aperture="square", **GRID)
    with pytest.raises(InvalidParameter, match="sampling_nm"):
        probe(ordinary, shape_px=(8, 8), sampling_nm=-1.0)
    with pytest.raises(InvalidParameter, match="shape_px"):
        probe(ordinary, shape_px=(0, 8), sampling_nm=0.01)
    with pytest.raises(InvalidParameter, match="x_nm = nan must be a finite number of nm"):
        probe(ordinary, x_nm=float("nan"), **GRID)
    with pytest.raises(InvalidParameter, match="finer sampling_nm"):
        probe(ordinary, shape_px=(8, 8), sampling_nm=1.0)
