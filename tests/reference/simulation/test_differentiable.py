"""Derivatives of images: the same numbers as `simulate`, slopes as by finite differences, a lens found again."""

from dataclasses import replace

import ase
import numpy as np
import pytest
import torch

from instruments.optics import Aberrations, Coherence, Optics
from simulation import (
    AnnularDetector,
    DeviceUnavailable,
    FrozenPhonons,
    GridScan,
    InvalidParameter,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    Simulator,
)
from simulation.aberrations import TERMS
from simulation.differentiable import DifferentiableImages, differentiable_ronchigram
from simulation.lens_tensors import LensTensors
from simulation.ronchigram import amorphous_phase, ronchigram

CELL = (9.0, 8.0, 12.0)
_POWERS = (0, 1, 1, 3, 2, 2, 3, 3, 3, 5, 5, 5, 5)
MAGNITUDES_NM = {f"c{n}{m}": 10.0**power for (n, m), power in zip(TERMS, _POWERS, strict=True)}
POLAR = {f"{name}_nm": 2 * value for name, value in MAGNITUDES_NM.items()} | {
    f"phi{name[1:]}_deg": 10.0 + 3 * index for index, name in enumerate(MAGNITUDES_NM) if name[2] != "0"
}
OPTICS = Optics(
    beam_energy_ev=100e3, semi_convergence_angle_mrad=22, defocus_nm=3, tilt_x_mrad=3, tilt_y_mrad=-5,
    aberrations=Aberrations(**POLAR),
)  # fmt: skip
DETECTORS = {"pattern": PixelatedDetector(), "adf": AnnularDetector(35, 60), "dpc": SegmentedDetector(0, 22)}


def glass():
    rng = np.random.default_rng(3)
    return ase.Atoms(rng.choice([6, 14, 42, 74], 14), positions=rng.uniform(0, CELL, (14, 3)), cell=CELL, pbc=True)


def simulator(**changes):
    return Simulator(glass(), **({"method": "multislice", "sampling_nm": 0.016, "device": "cpu"} | changes))


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-12), ("single", 1e-6)])
def test_images_are_those_of_simulate(precision, tolerance):
    """Every term of the lens, a raster that ends within the cell, vibration, a leaning specimen."""
    coherence = Coherence(source_size_nm=0.03, focal_spread_nm=1.5)
    made = simulator(precision=precision, phonons=FrozenPhonons(2, 0.005), specimen_tilt_mrad=(4, 2))
    scan = GridScan(0.1, 0.05, 0.3, 0.3, (1, 2))
    expected = made.image(OPTICS, scan, DETECTORS, coherence=coherence)
    ours = DifferentiableImages(made, 100e3).image(LensTensors.of(OPTICS, coherence), scan, DETECTORS)
    for name in DETECTORS:
        assert ours[name].shape == expected[name].shape
        assert np.abs(ours[name].numpy() - expected[name].values).max() < tolerance, name
        assert np.abs(ours[name].numpy() - expected[name].values).max() < 2e-5 * float(expected[name].std()), name


def test_pairs_are_polar_coefficients_in_another_form():
    pairs = {}
    for name in MAGNITUDES_NM:
        turn = np.radians(int(name[2]) * POLAR.get(f"phi{name[1:]}_deg", 0.0))
        suffixes = ("a", "b") if name[2] != "0" else ("",)
        for suffix, share in zip(suffixes, (np.cos(turn), np.sin(turn)), strict=False):
            pairs[f"{name}{suffix}_nm"] = POLAR[f"{name}_nm"] * share
    images = DifferentiableImages(simulator(precision="double"), 100e3)
    lens, points = LensTensors.of(OPTICS), torch.tensor([[0.3, 0.2]])
    one, other = (images.signals(each, points, DETECTORS)["dpc"] for each in (lens, replace(lens, aberrations=pairs)))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


PAIRS = [f"c{n}{m}{part}_nm" for n, m in TERMS if m for part in ("a", "b")]
SCALES = {name: MAGNITUDES_NM[name[:3]] if name[0] == "c" else 10.0 for name in (*POLAR, *PAIRS)}


def test_slopes_are_those_of_finite_differences():
    """Of every coefficient in both forms, defocus, tilt, positions: torch's check in double precision."""
    made = simulator(precision="double", sampling_nm=0.05, slice_thickness_nm=0.4)
    images = DifferentiableImages(made, 100e3)
    detectors = {"inner": SegmentedDetector(0, 12, rotation_deg=20), "outer": SegmentedDetector(12, 24)}

    def signals(numbers, rest, points):
        aberrations = dict(zip(SCALES, numbers * torch.tensor(list(SCALES.values())), strict=True))
        lens = LensTensors(
            beam_energy_ev=100e3, semi_convergence_angle_mrad=22, defocus_nm=rest[0], tilt_x_mrad=10 * rest[1],
            tilt_y_mrad=10 * rest[2], aberrations=aberrations,
        )  # fmt: skip
        found = images.signals(lens, points, detectors)
        return torch.stack([found[name].flatten() for name in detectors])

    rng = np.random.default_rng(0)
    numbers = torch.tensor(rng.uniform(0.5, 1.5, len(SCALES)), requires_grad=True)
    rest = torch.tensor([2.0, 0.4, -0.3], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0.31, 0.22]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(signals, (numbers, rest, points), eps=1e-5, atol=1e-8, rtol=1e-5)


def test_the_focal_spread_has_a_slope():
    images = DifferentiableImages(simulator(precision="double", sampling_nm=0.05), 100e3)

    def spread(focal_spread):
        lens = replace(LensTensors.of(OPTICS), focal_spread_nm=focal_spread)
        return images.signals(lens, torch.tensor([[0.31, 0.22]]), {"bf": AnnularDetector(0, 15)})["bf"]

    assert torch.autograd.gradcheck(spread, torch.tensor(2.0, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("size_nm", [0.05, 0.2])
def test_the_source_size_has_a_slope(size_nm):
    """A raster over the whole cell wraps, another is widened, points have probes around them."""
    images = DifferentiableImages(simulator(precision="double", sampling_nm=0.05), 100e3)
    for scan in (GridScan(0, 0, 0.9, 0.8, (6, 6)), GridScan(0.1, 0.1, 0.3, 0.4, (3, 4)), PointScan([[0.1, 0.2]])):

        def blurred(size, scan=scan):
            lens = replace(LensTensors.of(OPTICS), source_size_nm=size)
            return images.image(lens, scan, {"bf": AnnularDetector(0, 15)})["bf"]

        assert torch.autograd.gradcheck(blurred, torch.tensor(size_nm, dtype=torch.float64, requires_grad=True))


def test_batches_do_not_change_slopes(monkeypatch):
    slopes = []
    for batch_bytes in (None, 1):
        if batch_bytes:
            monkeypatch.setattr("simulation.backend._CPU_BATCH_BYTES", batch_bytes)
        defocus = torch.tensor(3.0, requires_grad=True, dtype=torch.float64)
        images = DifferentiableImages(simulator(precision="double"), 100e3)
        lens = replace(LensTensors.of(OPTICS), defocus_nm=defocus)
        images.image(lens, GridScan(0, 0, 0.9, 0.8, (3, 3)), DETECTORS)["adf"].var().backward()
        slopes.append(float(defocus.grad))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)
    assert slopes[0] != 0


def test_ronchigrams_are_the_same():
    optics = OPTICS.model_copy(update={"defocus_nm": 20.0, "tilt_x_mrad": 0.0, "tilt_y_mrad": 0.0})
    phase = amorphous_phase((96, 96), 0.03, beam_energy_ev=100e3, thickness_nm=4, rng=np.random.default_rng(1))
    expected = ronchigram(optics, phase, 0.03)
    whole = differentiable_ronchigram(LensTensors.of(optics), phase, 0.03).numpy()
    rows, columns = (96 // 2 - count // 2 for count in expected.shape)
    ours = whole[rows : rows + expected.shape[0], columns : columns + expected.shape[1]]
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert whole.sum() == pytest.approx(1)


@pytest.mark.parametrize("start_nm", [35.0, 44.0])
def test_a_lens_is_found_again_from_a_noisy_ronchigram(start_nm):
    """Defocus 40 nm, C12 2.5 nm, coma 72 nm, from a defocus 4 or 5 nm off and nothing else; a million electrons."""
    names, scale = ("c12a_nm", "c12b_nm", "c21a_nm", "c21b_nm"), torch.tensor([1, 1, 1, 30, 30], dtype=torch.float64)
    truth = torch.tensor([40.0, 2.0, -1.5, 60.0, -40.0], dtype=torch.float64)
    film = amorphous_phase((192, 192), 0.024, beam_energy_ev=1e5, thickness_nm=5, rng=np.random.default_rng(5))

    def expected(numbers):
        lens = LensTensors(
            beam_energy_ev=1e5, semi_convergence_angle_mrad=30, defocus_nm=numbers[0],
            aberrations=dict(zip(names, numbers[1:], strict=True)),
        )  # fmt: skip
        return 1e6 * differentiable_ronchigram(lens, film, 0.024)

    counts = torch.as_tensor(np.random.default_rng(1).poisson(expected(truth).numpy()), dtype=torch.float64)
    numbers = (torch.tensor([start_nm, 0, 0, 0, 0], dtype=torch.float64) / scale).requires_grad_()
    search = torch.optim.LBFGS([numbers], max_iter=40, line_search_fn="strong_wolfe")

    def mismatch():
        """Of square roots, whose noise is the same everywhere."""
        search.zero_grad()
        loss = torch.mean((torch.sqrt(expected(numbers * scale) + 0.375) - torch.sqrt(counts + 0.375)) ** 2)
        loss.backward()
        return loss

    search.step(mismatch)
    found = (numbers * scale).detach().numpy()
    assert (np.abs(found - truth.numpy()) < [0.05, 0.05, 0.05, 4.0, 4.0]).all()


def test_what_has_no_derivatives_is_refused():
    with pytest.raises(DeviceUnavailable, match=r"numpy has no derivatives.*device='cpu'"):
        DifferentiableImages(simulator(device="numpy"), 100e3)
    with pytest.raises(InvalidParameter, match="unknown aberrations c13a_nm; give polar names"):
        LensTensors(beam_energy_ev=1e5, semi_convergence_angle_mrad=20, aberrations={"c13a_nm": 1.0})
    images, points = DifferentiableImages(simulator(), 100e3), PointScan([[0.1, 0.1]])
    with pytest.raises(InvalidParameter, match="at 80000 eV and the specimen was prepared for 100000 eV"):
        images.image(LensTensors(beam_energy_ev=8e4, semi_convergence_angle_mrad=20), points, DETECTORS)
    blurring = DifferentiableImages(simulator(placement="bilinear"), 100e3)
    with pytest.raises(InvalidParameter, match="needs a GridScan"):
        blurring.image(replace(LensTensors.of(OPTICS), source_size_nm=0.1), points, DETECTORS)
