"""Weights of probes beside a pixel: every frequency of an image gets the factor of a Gaussian source."""

import numpy as np
import pytest
import torch

from instruments.optics import Optics
from simulation import GridScan, PointScan
from simulation.source_blur import SourceBlur
from simulation.source_stencils import fitted, sampled, sparsest
from simulation.specimens import Specimen

BAND_PER_NM = 20.0
OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=25)
BOX = Specimen(np.array([6]), np.array([[1.0, 2.0, 0.5]]), (20.0, 30.0, 1.0))


def factors(stencil, sigma_nm, frequencies):
    weights = stencil.weights(np.asarray(sigma_nm))
    return np.cos(2 * np.pi * frequencies[:, None] * stencil.offsets_nm) @ weights


@pytest.mark.parametrize("sigma_nm", [0.001, 0.01, 0.04, 0.15])
@pytest.mark.parametrize("step_share", [0.2, 0.85, None])
def test_frequencies_get_the_factor_of_a_gaussian(sigma_nm, step_share):
    """Of steps far below and just below the widest, and of a stencil's own choice."""
    widest_nm = 1 / (2 * BAND_PER_NM)
    chosen = sparsest(sigma_nm, BAND_PER_NM)
    made = chosen if step_share is None else fitted(sigma_nm, step_share * widest_nm, BAND_PER_NM)
    assert made is not None
    assert made.weights(np.asarray(sigma_nm)).sum() == pytest.approx(1, abs=1e-12)
    frequencies = np.linspace(0, BAND_PER_NM, 333)
    wanted = np.exp(-2 * (np.pi * sigma_nm * frequencies) ** 2)
    error = np.abs(factors(made, sigma_nm, frequencies) - wanted)
    assert (error * np.maximum(1 - frequencies / BAND_PER_NM, 0.1)).max() < 4e-6
    assert len(chosen.offsets_nm) <= len(made.offsets_nm)
    beyond = np.linspace(BAND_PER_NM, 10 * BAND_PER_NM, 999)
    assert np.abs(factors(made, sigma_nm, beyond)).max() < 1.2


def test_a_source_of_many_steps_needs_no_fit():
    made = fitted(0.2, 0.004, BAND_PER_NM)
    assert made is not None
    frequencies = np.linspace(0, BAND_PER_NM, 333)
    wanted = np.exp(-2 * (np.pi * 0.2 * frequencies) ** 2)
    np.testing.assert_allclose(factors(made, 0.2, frequencies), wanted, atol=1e-6)


def test_a_source_of_no_size_takes_one_probe():
    for made in (fitted(0.0, 0.02, BAND_PER_NM), sparsest(0.0, BAND_PER_NM)):
        assert made is not None
        assert made.offsets_nm.tolist() == [0]
        assert made.weights(np.asarray(0.0)).tolist() == [1]


def test_weights_have_derivatives():
    for made in (
        fitted(0.03, 0.02, BAND_PER_NM),
        sparsest(0.03, BAND_PER_NM),
        sampled(0.03, 0.02),
        sampled(0.005, 0.02),
    ):
        assert made is not None
        sigma_nm = 0.005 if len(made.offsets_nm) == 3 else 0.03
        tensor = torch.tensor(sigma_nm, dtype=torch.float64, requires_grad=True)
        found = made.weights(tensor)
        np.testing.assert_allclose(found.detach().numpy(), made.weights(np.asarray(sigma_nm)), atol=1e-14)
        assert torch.autograd.gradcheck(made.weights, tensor)


def test_sampled_kernels_have_the_variance_asked_for():
    for sigma_nm in (0.1, 0.3, 0.49, 0.9, 2.5):
        made = sampled(sigma_nm, 1.0)
        assert made.weights(np.asarray(sigma_nm)) @ made.offsets_nm**2 == pytest.approx(sigma_nm**2, rel=0.01)


@pytest.mark.parametrize(
    ("scan", "fewest"),
    [
        (GridScan(0, 0, 2, 3, (300, 200)), 1),  # fine enough as it is, and a whole period
        (GridScan(0, 0, 2, 3, (30, 20)), 25),  # shared by neighbours
        (GridScan(0.1, 0.2, 1.5, 2.5, (2, 2)), 100),  # each on its own
        (PointScan([[0.3, 0.4], [1.0, 2.0], [9.0, -3.0]]), 60),
    ],
)
def test_probes_add_up_to_the_blur_of_waves(scan, fewest):
    """Of an image known as a formula, in batches of odd sizes; two channels."""
    blur = SourceBlur(scan, 0.08, OPTICS, BOX)

    def image(places_nm, sigma_nm=0.0):
        x, y = places_nm.T
        value = np.ones(len(x))
        for qx, qy, phase in ((3.0, 1 / 3, 0.2), (0.5, 5.0, 0.7), (-11.0, 2.0, 1.1)):
            damping = np.exp(-2 * (np.pi * sigma_nm) ** 2 * (qx**2 + qy**2))
            value += 0.3 * damping * np.cos(2 * np.pi * (qx * x + qy * y) + phase)
        return np.column_stack([value, 2 * value])

    sums, seen = blur.sums((2,)), 0
    for start, points in blur.strips():
        for first in range(0, len(points), 10_007):
            part = points[first : first + 10_007]
            sums.add(start + first, image(part / 10))
            seen += len(part)
    assert seen == blur.probe_count == len(blur.places_nm())
    assert blur.probe_count / np.prod(scan.shape) >= fewest
    expected = image(scan.points_angstrom() / 10, blur.sigma_nm).reshape(*scan.shape, 2)
    np.testing.assert_allclose(sums.image(), expected, atol=2e-5)


def test_some_places_are_spread_over_all():
    blur = SourceBlur(GridScan(0.1, 0.2, 1.5, 2.5, (5, 5)), 0.08, OPTICS, BOX)
    some, all_places = blur.places_nm(50), blur.places_nm()
    assert len(some) == 50 < len(all_places)
    assert np.ptp(some[:, 1]) == pytest.approx(np.ptp(all_places[:, 1]))
