"""Maps from few points: the growing posterior is exact, the survey is used where it helps, errors are honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from policies import Context, Cost, MissingContext, Observation, SearchSpace, create
from policies.conformance import check
from policies.field_kernel import FieldPlaces, KernelShape
from policies.field_model import FieldData, FieldModel, choose_shape
from policies.incremental import IncrementalGP
from policies.mapping import Mapping

SIDE = 32
AXIS = (np.arange(SIDE) - (SIDE - 1) / 2) * 52.3
SPACE = SearchSpace.from_dict(
    {
        "purpose": {"choices": ["survey", "field"]},
        "x_nm": {"low": -850, "high": 850},
        "y_nm": {"low": -850, "high": 850},
        "field_of_view_nm": {"low": 52.3, "high": 1674},
        "mode": {"choices": ["survey", "eds"]},
        "dwell_time_us": {"low": 1, "high": 2170},
    }
)


def truth_and_survey(seed: int, informative: bool = True) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    z, other = (gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3) for _ in range(2))
    z, other = z / z.std(), other / other.std()
    survey = (z if informative else other) + 0.2 * rng.standard_normal((SIDE, SIDE))
    return {"Fe": 6 * np.exp(0.7 * z), "Mg": 4 + 2 * np.tanh(z)}, survey


def measure(suggestion, truth: dict[str, np.ndarray], survey: np.ndarray, rng: np.random.Generator) -> Observation:
    point = suggestion.point
    if point["purpose"] == "survey":
        arrays = {"survey": survey, "grid_x_nm": AXIS, "grid_y_nm": AXIS}
        return Observation(suggestion_id=suggestion.id, point=point, arrays=arrays)
    row, column = (int(np.argmin(np.abs(AXIS - float(point[name])))) for name in ("y_nm", "x_nm"))
    outcomes = {f"counts_{line}": (float(rng.poisson(rate[row, column])), 1.0) for line, rate in truth.items()}
    return Observation(suggestion_id=suggestion.id, point=point, outcomes=outcomes, cost=Cost(0, 0.1))


def mapped(seed: int, count: int, informative: bool = True, **options) -> tuple[Mapping, dict[str, np.ndarray]]:
    truth, survey = truth_and_survey(seed, informative)
    rng = np.random.default_rng([seed, 1])
    policy = Mapping(SPACE, seed=seed, **options)
    for _ in range(count):
        if policy.should_stop() is not None:
            break
        policy.ingest([measure(policy.suggest()[0], truth, survey, rng)])
    return policy, truth


def error(policy: Mapping, truth: dict[str, np.ndarray], line: str) -> float:
    rate = policy.posterior()[line][0]
    return float(np.sqrt(np.mean((rate - truth[line]) ** 2)) / truth[line].mean())


def grown(cells: np.ndarray, values: np.ndarray, noise: np.ndarray, shape: KernelShape, places: FieldPlaces):
    process = IncrementalGP(
        lambda cell: places.block(shape, np.array([cell]), slice(None))[0], np.full(SIDE**2, shape.variance)
    )
    for cell, value, variance in zip(cells, values, noise, strict=True):
        process.add(int(cell), float(value), float(variance))
    return process


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [5, 150])
def test_grown_posterior_is_the_fresh_one(count: int, together: bool) -> None:
    rng = np.random.default_rng(count)
    _, survey = truth_and_survey(1)
    places = FieldPlaces(AXIS, AXIS, survey)
    shape = KernelShape(2.0, 0.15, 0.4, 0.8)
    cells, values = rng.integers(0, SIDE**2, count), rng.standard_normal(count)
    noise = rng.uniform(0.1, 0.5, count)
    process = grown(cells, values, noise, shape, places)
    everything = np.arange(SIDE**2)
    if together:
        process = IncrementalGP(
            lambda cell: places.block(shape, np.array([cell]), slice(None))[0], np.full(SIDE**2, shape.variance)
        )
        rows = places.block(shape, cells[:-2], everything)
        process.start(cells[:-2], values[:-2], noise[:-2], rows)
        for i in (-2, -1):
            process.add(int(cells[i]), float(values[i]), float(noise[i]))
    gram = places.block(shape, cells, cells) + np.diag(noise)
    cross = places.block(shape, everything, cells)
    np.testing.assert_allclose(process.mean, cross @ np.linalg.solve(gram, values), atol=1e-8)
    prior = places.block(shape, everything, everything)
    covariance = prior - cross @ np.linalg.solve(gram, cross.T)
    np.testing.assert_allclose(process.variance, np.diag(covariance), atol=1e-8)
    some, others = everything[::97], everything[::31]
    np.testing.assert_allclose(
        process.covariance_with(prior[np.ix_(some, others)], some, others), covariance[np.ix_(some, others)], atol=1e-8
    )
    fit = -0.5 * values @ np.linalg.solve(gram, values) - 0.5 * np.linalg.slogdet(2 * np.pi * gram)[1]
    assert process.log_evidence == pytest.approx(fit, abs=1e-8)
    np.testing.assert_allclose(process.residual_weights(), np.linalg.solve(gram, values), atol=1e-8)


def test_grown_posterior_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    places = FieldPlaces(AXIS, AXIS, None)
    cells = rng.choice(SIDE**2, 60, replace=False)
    values, noise = rng.standard_normal(60), rng.uniform(0.1, 0.5, 60)
    process = grown(cells, values, noise, KernelShape(1.7, 0.2), places)
    kernel = ConstantKernel(1.7, "fixed") * Matern(0.2, "fixed", nu=2.5)
    fresh = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(places.positions[cells], values)
    mean, std = fresh.predict(places.positions, return_std=True)
    np.testing.assert_allclose(process.mean, mean, atol=1e-8)
    np.testing.assert_allclose(np.sqrt(process.variance), std, atol=1e-8)


def test_evidence_takes_or_leaves_the_survey() -> None:
    for informative, most in ((True, 0.5), (False, 1.0)):
        weights = []
        for seed in range(4):
            truth, survey = truth_and_survey(seed, informative)
            rng = np.random.default_rng([seed, 5])
            data = FieldData()
            for cell in rng.choice(SIDE**2, 90, replace=False):
                data.add_counts(int(cell), float(rng.poisson(truth["Fe"].ravel()[cell])), 1.0)
            weights.append(choose_shape(FieldPlaces(AXIS, AXIS, survey), data, 90)[0].position_weight)
        assert np.median(weights) <= most
        assert (np.median(weights) > 0.5) == (not informative)


def test_rate_inverts_the_stabiliser_on_average() -> None:
    rng = np.random.default_rng(0)
    places = FieldPlaces(AXIS, AXIS, None)
    for rate, exposure in ((0.3, 1.0), (3.0, 1.0), (20.0, 0.5)):
        data = FieldData()
        for cell in range(SIDE**2):
            data.add_counts(cell, float(rng.poisson(rate * exposure)), exposure)
        model = FieldModel(places, data, SIDE**2)
        assert model.rate()[0].mean() == pytest.approx(rate, rel=0.08)


def test_predicted_error_is_honest_and_falls() -> None:
    results = []
    for seed in range(3):
        few, truth = mapped(seed, 30)
        many, _ = mapped(seed, 120)
        results.append([error(few, truth, "Fe"), error(many, truth, "Fe"), many.relative_errors()["Fe"]])
    few_error, many_error, predicted = np.median(results, axis=0)
    assert many_error < 0.8 * few_error
    assert 0.6 < predicted / many_error < 1.6


def test_beats_spread_points_of_equal_number() -> None:
    """The same model of the same count of points, chosen by the policy or by a Sobol sequence."""
    ours, theirs = [], []
    for seed in range(3):
        adaptive, truth = mapped(seed, 100)
        spread, _ = mapped(seed, 100, initial_count=99)
        ours.append(error(adaptive, truth, "Fe"))
        theirs.append(error(spread, truth, "Fe"))
    assert np.median(ours) < 1.02 * np.median(theirs)


def test_stops_at_the_target_and_says_which_errors() -> None:
    policy, _ = mapped(0, 400, target_error=0.3)
    assert len(policy.history) < 250
    assert "every map reached a predicted relative error of 0.3: Fe 0." in str(policy.should_stop())
    assert "Mg" in str(policy.should_stop())


def test_survey_first_then_cells_of_the_grid_once_each() -> None:
    policy, _ = mapped(0, 60)
    points = [o.point for o in policy.history.observations]
    assert points[0]["purpose"] == points[0]["mode"] == "survey"
    assert points[0]["field_of_view_nm"] == 1674
    places = [(p["x_nm"], p["y_nm"]) for p in points[17:]]
    assert len(set(places)) == len(places)
    assert all(p["dwell_time_us"] == 2170 and p["mode"] == "eds" for p in points[1:])
    assert all(np.abs(AXIS - float(p["x_nm"])).min() < 1e-9 for p in points[1:])


def test_laws() -> None:
    truth, survey = truth_and_survey(3)

    def answer(suggestion, step: int) -> Observation:
        if step in (5, 14):
            status = "refused" if step == 5 else "failed"
            return Observation(suggestion_id=suggestion.id, point=suggestion.point, status=status)
        return measure(suggestion, truth, survey, np.random.default_rng([step, 3]))

    check(lambda: create("mapping", SPACE, seed=3, initial_count=6), SPACE, measure=answer, step_count=20)


def test_needs_a_grid() -> None:
    bare = SearchSpace.from_dict({name: {"low": 0, "high": 9} for name in ("x_nm", "y_nm")})
    with pytest.raises(MissingContext, match="grid_x_nm"):
        create("mapping", bare, seed=0).suggest()
    grid = Context(grid_x_nm=np.arange(10.0), grid_y_nm=np.arange(10.0))
    point = create("mapping", bare, seed=0, context=grid).suggest()[0].point
    assert set(point) == {"x_nm", "y_nm"}
