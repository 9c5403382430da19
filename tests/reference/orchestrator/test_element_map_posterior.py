"""Poisson processes, kernels and held-out scores against independent calculations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.stats import poisson

from orchestrator.objectives.field_posterior import KernelWeight, MapCounts, choose_kernels, fit_field
from orchestrator.objectives.held_out import held_out_deviance, held_out_error, null_deviance
from orchestrator.objectives.poisson_process import fit_log_rate
from orchestrator.objectives.survey_kernel import KernelChoice, Separations, map_positions

SIDE_PX = 32


def covariance(count: int, variance: float = 0.8) -> np.ndarray:
    place = np.linspace(0, 1, count)[:, None]
    return variance * np.exp(-0.5 * ((place - place.T) / 0.2) ** 2) + 1e-6 * np.eye(count)


def test_the_mode_is_that_of_a_general_minimiser() -> None:
    rng = np.random.default_rng(0)
    prior, exposures = covariance(12), rng.uniform(0.2, 2.0, 12)
    counts = rng.poisson(exposures * 3.0).astype(float)
    fitted = fit_log_rate(counts, exposures, prior)
    inverse = np.linalg.inv(prior)

    def minus_log_posterior(f: np.ndarray) -> float:
        return float(0.5 * (f - fitted.mean) @ inverse @ (f - fitted.mean) - counts @ f + exposures @ np.exp(f))

    found = minimize(minus_log_posterior, np.full(12, fitted.mean), method="BFGS", options={"gtol": 1e-7})
    assert fitted.mode == pytest.approx(found.x, abs=2e-3)
    assert minus_log_posterior(fitted.mode) <= found.fun + 1e-6


def test_the_evidence_of_one_count_is_the_integral() -> None:
    for count, variance in ((0.0, 0.5), (3.0, 0.5), (40.0, 1.5)):
        fitted = fit_log_rate(np.array([count]), np.array([2.0]), np.array([[variance]]))
        f = np.linspace(-8, 8, 20001) * np.sqrt(variance) + fitted.mean
        density = np.exp(-0.5 * (f - fitted.mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        integral = np.trapezoid(density * np.exp(count * f - 2.0 * np.exp(f)), f)
        assert fitted.log_evidence == pytest.approx(np.log(integral), abs=0.02)


def test_prediction_and_left_out_are_those_of_a_fresh_fit() -> None:
    rng = np.random.default_rng(1)
    full, exposures = covariance(15), np.full(15, 50.0)
    counts = rng.poisson(exposures * 2.0).astype(float)
    fitted = fit_log_rate(counts, exposures, full)
    mean, variance = fitted.predict(full, 0.8)
    assert mean == pytest.approx(fitted.mode, abs=1e-6)
    assert (variance < 0.8).all()
    left_mean, left_variance = fitted.left_out()
    others = np.arange(15) != 7
    refitted = fit_log_rate(counts[others], exposures[others], full[np.ix_(others, others)])
    fresh_mean, fresh_variance = refitted.predict(full[others][:, [7]], float(full[7, 7]))
    assert left_mean[7] == pytest.approx(fresh_mean[0], abs=0.02)
    assert left_variance[7] == pytest.approx(fresh_variance[0], rel=0.05)


def test_a_warm_start_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    prior = covariance(20)
    counts = rng.poisson(4.0, 20).astype(float)
    cold = fit_log_rate(counts, np.ones(20), prior)
    warm = fit_log_rate(counts, np.ones(20), prior, start=cold.weights + 0.1 * rng.normal(size=20))
    assert warm.mode == pytest.approx(cold.mode, abs=1e-5)
    assert warm.log_evidence == pytest.approx(cold.log_evidence, abs=1e-7)


def test_extreme_counts_stay_finite() -> None:
    counts = np.array([0.0, 0.0, 5000.0, 0.0])
    fitted = fit_log_rate(counts, np.ones(4), covariance(4, variance=3.2))
    assert np.isfinite(fitted.mode).all()
    assert np.isfinite(fit_log_rate(np.zeros(4), np.ones(4), covariance(4)).log_evidence)


def rate_and_survey(seed: int, *, related: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = (gaussian_filter(rng.normal(size=(SIDE_PX, SIDE_PX)), 2.0, mode="wrap") for _ in range(2))
    survey = first if related else second
    return np.exp(first / first.std() + 0.5), survey / survey.std()


def counted_at_random(rate: np.ndarray, count: int, seed: int) -> MapCounts:
    rng = np.random.default_rng([seed, 9])
    indices = rng.permutation(rate.size)[:count]
    return MapCounts(indices, rng.poisson(rate.ravel()[indices]).astype(float), np.ones(count))


@pytest.mark.parametrize("related", [True, False])
def test_a_survey_is_used_when_it_tells_and_ignored_when_not(related: bool) -> None:
    gains, foreseen = [], []
    for seed in range(5):
        rate, survey = rate_and_survey(seed, related=related)
        counted = counted_at_random(rate, 150, seed)
        missed, predicted = [], []
        for image in (survey, None):
            positions = map_positions(rate.shape, image)
            kernels = choose_kernels(positions, counted)
            assert sum(kernel.weight for kernel in kernels) == pytest.approx(1.0)
            share = sum(kernel.weight * kernel.choice.position_weight for kernel in kernels)
            if image is None:
                assert share == pytest.approx(1.0)
            else:
                assert (share < 0.5) == related
            found = fit_field(positions, counted, kernels).rate_map(np.arange(rate.size))
            missed.append(np.sqrt(np.mean((found.mean - rate.ravel()) ** 2)) / rate.mean())
            predicted.append(found.relative_error)
        gains.append(missed[0] / missed[1])
        foreseen.append(predicted[0] / missed[0])
    assert np.median(gains) < 0.6 if related else max(gains) < 1.1
    assert 0.7 < np.median(foreseen) < 1.6


def test_errors_shrink_with_exposure() -> None:
    rate, survey = rate_and_survey(3, related=True)
    positions, kernels = map_positions(rate.shape, survey), (KernelWeight(KernelChoice(0.8, 0.13, 0.5, 0.8), 1.0),)
    indices = np.arange(0, rate.size, 5)
    errors: list[float] = []
    for exposure in (0.5, 2.0, 8.0):
        counts = np.rint(exposure * rate.ravel()[indices])
        fitted = fit_field(positions, MapCounts(indices, counts, np.full(len(indices), exposure)), kernels)
        errors.append(fitted.rate_map(indices).relative_error)
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_a_grainy_specimen_raises_the_error_it_reports() -> None:
    rng = np.random.default_rng(4)
    smooth, _ = rate_and_survey(4, related=True)
    grainy = smooth * rng.lognormal(-0.32, 0.8, smooth.shape)
    positions, kernels = map_positions(smooth.shape, None), (KernelWeight(KernelChoice(0.8, 0.13, 1.0, 0.2), 1.0),)
    found = [
        fit_field(positions, counted_at_random(20 * rate, 200, 4), kernels).underestimate for rate in (smooth, grainy)
    ]
    assert 1 <= found[0] < 1.3
    assert found[1] > 1.5


def test_kernels_are_positive_definite_and_need_their_survey() -> None:
    positions = map_positions((12, 9), np.arange(108.0).reshape(12, 9) % 17)
    between = Separations(positions, positions)
    for weight in (0.0, 0.5, 1.0):
        matrix = between.covariance(KernelChoice(1.6, 0.2, weight, 0.4))
        assert np.diag(matrix) == pytest.approx(1.6)
        assert np.linalg.eigvalsh(matrix).min() > -1e-10
    blind = map_positions((12, 9), None)
    with pytest.raises(ValueError, match="position_weight 1"):
        Separations(blind, blind).covariance(KernelChoice(1.0, 0.2, 0.5, 0.4))


def test_deviance_is_twice_the_likelihood_ratio() -> None:
    rng = np.random.default_rng(5)
    rate = rng.uniform(0.1, 6, (8, 8))
    counts = rng.poisson(3 * rate)
    saturated = poisson.logpmf(counts, np.maximum(counts, 1e-300)).sum()
    expected = 2 * (saturated - poisson.logpmf(counts, 3 * rate).sum()) / counts.size
    assert held_out_deviance(rate, counts, 3.0) == pytest.approx(expected)
    assert held_out_deviance(counts.astype(float), counts, 1.0) == pytest.approx(0.0, abs=1e-9)
    assert null_deviance(counts) == pytest.approx(held_out_deviance(np.full((8, 8), counts.mean()), counts, 1.0))
    assert null_deviance(counts) > held_out_deviance(rate, counts, 3.0)


def test_the_true_rate_has_deviance_one_and_no_error() -> None:
    rng = np.random.default_rng(6)
    rate = rng.uniform(10, 60, (64, 64))
    counts = rng.poisson(2 * rate)
    assert held_out_deviance(rate, counts, 2.0) == pytest.approx(1.0, abs=0.08)
    assert held_out_error(rate, counts, 2.0) < 0.05
    assert held_out_error(1.3 * rate, counts, 2.0) == pytest.approx(
        0.3 * np.sqrt(np.mean(rate**2)) / rate.mean(), rel=0.05
    )


def test_scores_refuse_what_is_no_rate() -> None:
    counts = np.ones((4, 4), dtype=int)
    with pytest.raises(ValueError, match="differ in shape"):
        held_out_deviance(np.ones((2, 2)), counts, 1.0)
    with pytest.raises(ValueError, match="negative or not finite"):
        held_out_deviance(np.full((4, 4), np.nan), counts, 1.0)
    with pytest.raises(ValueError, match="exposure ratio 0"):
        held_out_error(np.ones((4, 4)), counts, 0.0)
