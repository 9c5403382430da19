"""Sharpness is what structure adds to Poisson noise: nothing on average without structure, the right amount with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.features import FeatureError, NormalisedCounts
from orchestrator.features.sharpness import RingPower, Sharpness, ring_power
from tests.unit.orchestrator.microscope_frames import command, frame

PIXEL_NM, LIMIT_PER_NM = 0.04, 12.9


def lattice(amplitude: float, side_px: int = 96) -> np.ndarray:
    """1 + a sum of cosines at 3.5 and 6.1 per nm; its variance over the squared mean is a^2."""
    x = np.arange(side_px) * PIXEL_NM
    return 1 + amplitude * (np.cos(2 * np.pi * 3.5 * x)[None, :] + np.cos(2 * np.pi * 6.1 * x)[:, None])


def draws(mean: np.ndarray, count: int = 60) -> list[RingPower]:
    rng = np.random.default_rng(7)
    return [ring_power(rng.poisson(mean), PIXEL_NM, LIMIT_PER_NM) for _ in range(count)]


@pytest.mark.parametrize("mean_counts", [0.05, 0.5, 5.0, 50.0])
def test_noise_alone_has_no_sharpness_at_any_dose(mean_counts: float) -> None:
    found = draws(np.full((96, 96), mean_counts))
    sharpness = np.array([one.power.sum() for one in found])
    stated = np.sqrt(np.mean([one.variance.sum() for one in found]))
    assert abs(sharpness.mean()) < 4 * stated / np.sqrt(len(found))
    assert sharpness.std() == pytest.approx(stated, rel=0.3)


@pytest.mark.parametrize(("mean_counts", "amplitude"), [(1.0, 0.3), (20.0, 0.1), (20.0, 0.3)])
def test_structure_counts_what_it_is_worth_whatever_the_dose(mean_counts: float, amplitude: float) -> None:
    found = draws(mean_counts * lattice(amplitude))
    sharpness = np.array([one.power.sum() for one in found])
    stated = np.sqrt(np.mean([one.variance.sum() for one in found]))
    assert sharpness.mean() == pytest.approx(amplitude**2, rel=0.05, abs=4 * stated / np.sqrt(len(found)))
    assert sharpness.std() == pytest.approx(stated, rel=0.3)


def test_structure_appears_in_its_rings() -> None:
    one = ring_power(np.random.default_rng(1).poisson(200 * lattice(0.3)), PIXEL_NM, LIMIT_PER_NM)
    strong = one.frequency_per_nm[one.power > 0.1 * one.power.max()]
    assert all(min(abs(f - 3.5), abs(f - 6.1)) < 0.8 for f in strong)


def test_slow_changes_are_not_sharpness() -> None:
    """A film that is twice as thick at one side, and an edge outside the window's middle."""
    ramp = 20 * (1 + np.linspace(0, 1, 96))[None, :] * np.ones((96, 1))
    found = draws(ramp, 30)
    stated = np.sqrt(np.mean([one.variance.sum() for one in found]))
    assert abs(np.mean([one.power.sum() for one in found])) < 5 * stated / np.sqrt(len(found))


def test_of_a_frame() -> None:
    asked = command("a", shape_px=(64, 64))
    features = Sharpness().extract(frame(asked))
    sharp = features.values["sharpness"]
    assert sharp.std is not None
    assert abs(sharp.value) < 5 * sharp.std
    assert features.values["commanded_defocus_nm"].value == asked.optics.defocus_nm
    assert features.arrays["ring_power"].sum() == pytest.approx(sharp.value)
    assert features.from_bytes(features.to_bytes()).values == features.values


def test_says_what_it_needs() -> None:
    bare = frame(command("a"))
    bright = replace(bare, counts={"bf": bare.counts["bf"]})
    with pytest.raises(FeatureError, match=r"inner angle is at least the convergence angle 31\.5 mrad"):
        Sharpness().extract(bright)
    with pytest.raises(NormalisedCounts, match="raw counts"):
        Sharpness().extract(replace(bare, counts={name: c.astype(float) for name, c in bare.counts.items()}))
    with pytest.raises(FeatureError, match="12 x 12 px"):
        Sharpness().extract(frame(command("a", shape_px=(12, 12))))
