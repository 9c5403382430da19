"""The defocus of best contrast from noisy series: right, with an honest error, and silent where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.features.sharpness import NAME, ring_power
from orchestrator.objectives.focus import FocusSearch
from orchestrator.objectives.focus_fit import FocusFit, fit_focus
from orchestrator.objectives.objective import FrameFacts, Score

PIXEL_NM, LIMIT_PER_NM, WIDTH_NM = 0.04, 12.9, 3.4
SERIES_NM = np.linspace(-10, 10, 6)


def image(defocus_nm: float, best_nm: float, counts: float, contrast: float = 0.5) -> np.ndarray:
    """A lattice whose contrast falls off with defocus, finer rows faster than coarse ones; mean counts on a pixel."""
    x = np.arange(80) * PIXEL_NM
    rows = [(3.5, 5.5), (6.1, 4.2)]  # frequency per nm, standard deviation of the contrast over defocus
    pattern = np.ones((80, 80))
    for frequency, width_nm in rows:
        fall = contrast * np.exp(-0.5 * ((defocus_nm - best_nm) / width_nm) ** 2)
        pattern += fall * (np.cos(2 * np.pi * frequency * x)[None, :] + np.cos(2 * np.pi * frequency * x)[:, None]) / 2
    return counts * pattern


def fitted(best_nm: float, counts: float, rng: np.random.Generator, contrast: float = 0.5) -> FocusFit:
    rings = [
        ring_power(rng.poisson(image(value, best_nm, counts, contrast)), PIXEL_NM, LIMIT_PER_NM) for value in SERIES_NM
    ]
    power, variance = np.array([one.power for one in rings]), np.array([one.variance for one in rings])
    return fit_focus(SERIES_NM, power, variance, WIDTH_NM)


@pytest.mark.parametrize("counts", [1.0, 3.0])
def test_found_between_the_frames_within_its_error(counts: float) -> None:
    rng = np.random.default_rng(3)
    truth = rng.uniform(-6, 6, 24)
    found = [fitted(best, counts, rng) for best in truth]
    error = np.array([fit.defocus_nm for fit in found]) - truth
    stated = np.array([fit.std_nm for fit in found])
    assert all(fit.is_significant for fit in found)
    sharpest_nm = 4 / np.sqrt(12)  # of who takes the best of frames 4 nm apart, without any noise
    assert np.sqrt(np.mean(error**2)) < 0.5 * sharpest_nm
    assert 0.6 < np.std(error / stated) < 1.6


def test_noise_is_not_a_focus() -> None:
    rng = np.random.default_rng(4)
    assert not any(fitted(0.0, 2.0, rng, contrast=0.0).is_significant for _ in range(30))


def test_few_counts_are_not_a_focus_and_more_are() -> None:
    rng = np.random.default_rng(5)
    assert not fitted(1.0, 0.02, rng).is_significant
    assert fitted(1.0, 1.0, rng).is_significant


def fed(best_nm: float, counts: float, values_nm: Sequence[float], step_nm: float = 0.5) -> tuple[FocusSearch, Score]:
    rng = np.random.default_rng(6)
    search = FocusSearch(WIDTH_NM, step_nm)
    score = Score(value=0.0, std=0.0, statement="")
    for number, value in enumerate(values_nm):
        found = ring_power(rng.poisson(image(value, best_nm, counts)), PIXEL_NM, LIMIT_PER_NM)
        features = FeatureSet(
            extractor=NAME,
            action_id=f"a{number}",
            values={
                "sharpness": Feature(value=float(found.power.sum()), std=float(np.sqrt(found.variance.sum()))),
                "commanded_defocus_nm": Feature(value=value),
            },
            arrays={"ring_power": found.power, "ring_variance": found.variance},
        )
        score = search.update({}, facts(f"a{number}"), features)
    return search, score


def facts(action_id: str) -> FrameFacts:
    return FrameFacts(
        action_id=action_id, purpose="calibrate", mode="maadf", x_nm=0.0, y_nm=0.0, width_nm=3.2, height_nm=3.2,
        pixel_size_nm=PIXEL_NM, subframe_count=1, dose_e_per_a2=100.0, electrons=1e5, started_s=0.0, ended_s=0.1,
        exposure_s=0.1,
    )  # fmt: skip


def test_objective_says_where_and_how_sure() -> None:
    search, score = fed(2.3, 3.0, SERIES_NM)
    assert search.outcome() == "found"
    assert search.found_nm == pytest.approx(2.3, abs=0.5)
    value, std = score.outcomes["best_defocus_nm"]
    assert value == search.found_nm
    assert std > 0.5 / np.sqrt(12), "the step of the lens is part of the error"
    focus = search.summary()["focus"]
    assert focus["dose_e_per_a2"] == pytest.approx(600.0)
    assert focus["action_ids"] == [f"a{n}" for n in range(6)]
    maps = search.maps()
    top = maps["focus_curve_nm"][np.argmax(maps["focus_curve"])]
    assert top == pytest.approx(search.found_nm, abs=0.2)
    assert maps["focus_sharpness"].max() == pytest.approx(1.0, abs=0.25)


def test_objective_says_when_the_best_lies_outside() -> None:
    search, score = fed(7.0, 3.0, (-10.0, -5.0, 0.0, 5.0))
    assert search.outcome() == "outside"
    assert search.found_nm is None
    assert score.outcomes["best_defocus_nm"][0] > 5.0
    assert search.summary()["focus"]["defocus_nm"] is None


def test_objective_without_structure_or_frames() -> None:
    search, score = fed(0.0, 0.01, SERIES_NM)
    assert search.outcome() == "nothing"
    assert "best_defocus_nm" not in score.outcomes
    assert FocusSearch(WIDTH_NM).maps() == {}
    assert FocusSearch(WIDTH_NM).summary()["focus"]["frames"] == 0


def test_a_frame_that_could_not_be_measured_says_why() -> None:
    search = FocusSearch(WIDTH_NM)
    dark = FeatureSet(
        extractor="none", action_id="a", values={"measured": Feature(value=0.0, reason="no counts")}, arrays={}
    )
    assert search.update({}, facts("a"), dark).statement == "no sharpness: no counts"
