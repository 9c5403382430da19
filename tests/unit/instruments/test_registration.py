"""Displacements between images to a fraction of a pixel, and the transform of a frame that follows from them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from instruments.errors import AcquisitionFailed
from instruments.registration import Move, displacement, measure_transform
from instruments.transforms import FrameTransform

PIXEL_NM = 0.5
SPECTRUM = np.fft.fft2(gaussian_filter(np.random.default_rng(7).normal(size=(192, 192)), 1.5))


def field(x_px: float, y_px: float, noise: float, seed: int) -> np.ndarray:
    """A specimen seen with its content moved by (x, y) px, with noise in units of its contrast."""
    moved = np.fft.ifft2(fourier_shift(SPECTRUM, (y_px, x_px))).real[32:160, 32:160]
    return moved / moved.std() + noise * np.random.default_rng(seed).normal(size=moved.shape)


def moves(matrix: np.ndarray, noise: float = 0.3) -> list[Move]:
    """What a frame of reference with this transform to the scan frame shows, for four moves."""
    made: list[Move] = []
    for seed, wanted in enumerate(((4.0, 0.0), (0.0, 4.0), (-3.0, 2.0), (2.0, 3.0))):
        x_px, y_px = -(matrix @ wanted) / PIXEL_NM
        made.append(Move(*wanted, before=field(0, 0, noise, seed), after=field(x_px, y_px, noise, 100 + seed)))
    return made


def measured(matrix: np.ndarray) -> FrameTransform:
    return measure_transform(moves(matrix), pixel_size_nm=PIXEL_NM, source="stage", calibration_id="c1")


@pytest.mark.parametrize(
    ("x_px", "y_px", "noise"), [(0.3, -1.7, 0.0), (5.25, 9.5, 0.3), (-12.1, 3.3, 0.5), (30, -20, 0.3), (0, 0, 0.3)]
)
def test_displacements_to_a_tenth_of_a_pixel(x_px: float, y_px: float, noise: float) -> None:
    found = displacement(field(0, 0, noise, 1), field(x_px, y_px, noise, 2))
    assert (found.x_px, found.y_px) == pytest.approx((x_px, y_px), abs=0.1)


def test_images_of_other_shapes_are_no_pair() -> None:
    with pytest.raises(ValueError, match="cannot be registered"):
        displacement(np.zeros((4, 4)), np.zeros((4, 5)))


def test_where_there_is_nothing_in_common_no_number_is_given() -> None:
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(30):
        try:
            displacement(rng.poisson(3, (64, 64)), rng.poisson(3, (64, 64)))
        except AcquisitionFailed:
            refused += 1
    assert refused >= 29
    with pytest.raises(AcquisitionFailed, match="too little in common"):
        displacement(np.ones((16, 16)), np.ones((16, 16)))


def test_a_calibrated_stage_is_the_identity_within_its_uncertainty() -> None:
    transform = measured(np.eye(2))
    assert transform.disagreements() == []
    error = np.abs(np.array(transform.matrix) - np.eye(2))
    assert (error <= 4 * np.array(transform.uncertainty)).all()
    assert 0 < transform.uncertainty[0][0] < 0.02


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ([[-1, 0], [0, 1]], "x of stage has the wrong sign"),
        ([[1, 0], [0, -1]], "y of stage has the wrong sign"),
        ([[0, 1], [1, 0]], "x and y of stage are swapped"),
        ([[1.2, 0], [0, 1.2]], "lengths 1.2\\d* and 1.2\\d*, turned by"),
        ([[0.94, -0.34], [0.34, 0.94]], "turned by 19.* deg"),
    ],
)
def test_what_is_wrong_with_a_stage_is_named(matrix: list[list[float]], words: str) -> None:
    transform = measured(np.array(matrix, dtype=float))
    assert np.array(transform.matrix) == pytest.approx(np.array(matrix), abs=0.03)
    (fault, *more) = transform.disagreements()
    assert not more
    assert re.search(words, fault)


def test_there_and_back_is_the_identity() -> None:
    transform = measured(np.array([[1.1, 0.2], [-0.1, 0.9]]))
    back = transform.inverse()
    assert back.carry(*transform.carry(3.0, -4.0)) == pytest.approx((3.0, -4.0))
    assert (back.source, back.target) == ("scan", "stage")
    assert min(transform.std(10.0, 0.0)) > 0
    flat = transform.model_copy(update={"matrix": ((1.0, 1.0), (1.0, 1.0))})
    with pytest.raises(ValueError, match="loses a direction"):
        flat.inverse()


def test_moves_along_one_line_show_no_transform() -> None:
    one = moves(np.eye(2))[0]
    for few in ([], [one], [one, Move(8.0, 0.0, one.before, one.after)]):
        with pytest.raises(ValueError, match="along one line"):
            measure_transform(few, pixel_size_nm=1.0, source="stage", calibration_id="c")


def particles(x_nm: float, seed: int) -> np.ndarray:
    """Counts of soft particles, 3 to 9 nm, at 1 nm a pixel, about 20 electrons where one is."""
    rng, grid_nm = np.random.default_rng(11), np.arange(96.0)
    mean = np.full((96, 96), 1.0)
    for centre_x, centre_y, radius_nm in rng.uniform((-20, 0, 3), (140, 96, 9), (60, 3)):
        across = np.exp(-((grid_nm - centre_y) ** 2) / (2 * radius_nm**2))
        mean += 20 * np.outer(across, np.exp(-((grid_nm + x_nm - centre_x) ** 2) / (2 * radius_nm**2)))
    return np.random.default_rng(seed).poisson(mean)


def test_soft_particles_are_placed_within_half_a_pixel() -> None:
    found = [displacement(particles(0, seed), particles(19.2, 100 + seed)) for seed in range(12)]
    errors = np.array([(one.x_px + 19.2, one.y_px) for one in found])
    assert np.abs(errors).max() < 0.5, errors
    assert np.sqrt((errors**2).mean()) < 0.2, errors
