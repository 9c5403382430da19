"""Ronchigrams against geometrical optics: magnification, its sign, and what two-fold astigmatism does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from instruments.optics import Aberrations, Optics
from simulation import InvalidParameter
from simulation.electron import interaction_parameter
from simulation.ronchigram import amorphous_phase, ronchigram, shadow_nm
from simulation.scattering_factors import projected_scattering_factor

PIXEL_NM = 0.03
SHAPE = (512, 512)
OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=30)


def with_focus(defocus_nm: float, **aberrations: float) -> Optics:
    return OPTICS.model_copy(update={"defocus_nm": defocus_nm, "aberrations": Aberrations(**aberrations)})


def blob(y_nm: float, x_nm: float) -> np.ndarray:
    """A weak smooth bump of phase, relative to the middle."""
    y, x = ((np.arange(count) - count // 2) * PIXEL_NM for count in SHAPE)
    return 0.1 * np.exp(-((y[:, None] - y_nm) ** 2 + (x[None, :] - x_nm) ** 2) / (2 * 0.15**2))


def feature_mrad(optics: Optics, phase: np.ndarray) -> tuple[float, float]:
    """Centre (y, x) of what the object changes in the disc."""
    with_object, without = (ronchigram(optics, each, PIXEL_NM) for each in (phase, np.zeros(SHAPE)))
    change = (with_object - without).values.astype(float) ** 2
    y, x = with_object["detector_y"].values, with_object["detector_x"].values
    inside = np.hypot(y[:, None], x[None, :]) < 0.9 * optics.semi_convergence_angle_mrad
    change *= inside
    return float(change.sum(1) @ y / change.sum()), float(change.sum(0) @ x / change.sum())


@pytest.mark.parametrize("defocus_nm", [150.0, -150.0])
def test_defocus_magnifies_and_underfocus_inverts(defocus_nm):
    y, x = feature_mrad(with_focus(defocus_nm), blob(1.2, -2.4))
    assert y == pytest.approx(-1.2 / defocus_nm * 1e3, abs=0.4)
    assert x == pytest.approx(2.4 / defocus_nm * 1e3, abs=0.4)


def test_shadows_follow_aberrations_of_higher_order():
    optics = with_focus(120.0, c12_nm=30, phi12_deg=20, c21_nm=800, phi21_deg=-50, c30_nm=3e4)
    angles = np.array(-9.0), np.array(14.0)
    y, x = (float(each) for each in shadow_nm(optics, *angles))
    found = feature_mrad(optics, blob(y, x))
    np.testing.assert_allclose(found, angles, atol=0.8)


def test_shadow_of_defocus_and_astigmatism_by_hand():
    y, x = shadow_nm(with_focus(100.0, c12_nm=40.0), [10.0], [20.0])
    np.testing.assert_allclose(x, (-100 + 40) * 20e-3, rtol=1e-6)
    np.testing.assert_allclose(y, (-100 - 40) * 10e-3, rtol=1e-6)


@pytest.mark.parametrize("azimuth_deg", [0.0, 30.0])
def test_two_fold_astigmatism_magnifies_differently_along_and_across(azimuth_deg):
    """theta = r / (C10 + C12) along phi12 and r / (C10 - C12) across; contrast is the Laplacian weighted likewise."""
    c10, c12 = 150.0, -75.0
    optics = with_focus(-c10, c12_nm=c12, phi12_deg=azimuth_deg)
    k = np.fft.fftfreq(SHAPE[0], PIXEL_NM)
    ky, kx = k[:, None], k[None, :]
    noise = np.fft.fft2(np.random.default_rng(3).standard_normal(SHAPE)) * np.exp(-((np.hypot(ky, kx) / 0.6) ** 2))
    phase = np.fft.ifft2(noise).real
    image = ronchigram(optics, 0.02 * phase / phase.std(), PIXEL_NM)
    y, x = np.meshgrid(image["detector_y"], image["detector_x"], indexing="ij")
    window = np.hypot(y, x) < 22
    twice = 2 * np.radians(azimuth_deg)
    weights = c10 * (kx**2 + ky**2) + c12 * (np.cos(twice) * (kx**2 - ky**2) + 2 * np.sin(twice) * kx * ky)
    at = [each / PIXEL_NM + SHAPE[0] // 2 for each in shadow_nm(optics, y, x)]
    expected = map_coordinates(np.fft.ifft2(noise * weights).real, at, mode="wrap")
    correlation = np.corrcoef(image.values[window], expected[window])[0, 1]
    assert correlation > 0.9


def test_the_disc_is_even_without_an_object_and_holds_the_beam():
    image = ronchigram(with_focus(80.0), np.zeros(SHAPE), PIXEL_NM)
    assert float(image.sum()) == pytest.approx(1.0, abs=1e-4)
    inside = np.hypot(image["detector_y"], image["detector_x"]).values < 28
    values = image.values[inside]
    assert values.std() < 1e-4 * values.mean()


def test_amorphous_phase_has_the_power_of_independent_atoms():
    """Variance = atoms per area times the integral of the squared phase of one atom (Campbell)."""
    phase = amorphous_phase(SHAPE, PIXEL_NM, beam_energy_ev=1e5, thickness_nm=3, rng=np.random.default_rng(1))
    k = np.fft.fftfreq(SHAPE[0], PIXEL_NM * 10)
    factor = projected_scattering_factor("C", np.hypot(k[:, None], k[None, :]))
    one = interaction_parameter(1e5) ** 2 * np.sum(factor.ravel()[1:] ** 2) * (k[1] - k[0]) ** 2
    assert phase.var() == pytest.approx(90 * 3 * 1e-2 * one, rel=0.05)


def test_a_beam_wider_than_the_object_is_refused():
    with pytest.raises(InvalidParameter, match="wider one"):
        ronchigram(with_focus(1e4), np.zeros((64, 64)), PIXEL_NM)
