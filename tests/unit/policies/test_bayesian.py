"""The Bayesian optimiser weighs cost and says why; `tests/integration` compares it with random points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from policies import Context, Cost, Observation, Point, SearchSpace, create
from policies.acquisition_functions import log_expected_improvement

PLANE = SearchSpace.from_dict({name: {"low": -100, "high": 100, "resolution": 0.1} for name in ("x_nm", "y_nm")})
MIXED = SearchSpace.from_dict(
    {
        "x_nm": {"low": -100, "high": 100, "resolution": 0.1},
        "mode": {"choices": ["maadf", "haadf", "bf"]},
        "defocus_nm": {"low": -10, "high": 10, "when": {"mode": ["haadf"]}},
        "frame_count": {"low": 1, "high": 5, "kind": "integer"},
    }
)


def two_hills(point: Point) -> float:
    x, y = float(point["x_nm"]), float(point["y_nm"])
    narrow = np.exp(-((x - 37) ** 2 + (y + 52) ** 2) / (2 * 30**2))
    return float(narrow + 0.5 * np.exp(-((x + 60) ** 2 + (y - 50) ** 2) / (2 * 40**2)))


def mixed_hill(point: Point) -> float:
    height = {"maadf": 0.3, "haadf": 0.6, "bf": 0.1}[str(point["mode"])]
    value = height * np.exp(-((float(point["x_nm"]) - 20) ** 2) / (2 * 40**2))
    if point["mode"] == "haadf":
        value += 0.4 * np.exp(-((float(point["defocus_nm"]) - 4) ** 2) / (2 * 3**2))
    return float(value - 0.05 * abs(float(point["frame_count"]) - 3))


def best_of(name: str, space: SearchSpace, truth, seed: int, count: int = 40) -> float:
    policy = create(name, space, seed=seed)
    rng = np.random.default_rng(seed)
    best = -np.inf
    for _ in range(count):
        suggestion = policy.suggest()[0]
        value = truth(suggestion.point)
        best = max(best, value)
        noisy = value + 0.01 * rng.standard_normal()
        policy.ingest(
            [Observation(suggestion_id=suggestion.id, point=suggestion.point, outcomes={"score": (noisy, 0.01)})]
        )
    return best


def test_cost_moves_the_choice() -> None:
    """Two equal hills; the one on the right costs a hundred times more."""

    def hills(point: Point) -> float:
        return float(np.exp(-((abs(float(point["x_nm"])) - 50) ** 2) / 800))

    def cost(point: Point, previous_point: Point | None) -> Cost:
        return Cost(1e5 if float(point["x_nm"]) > 0 else 1e3, 1.0)

    line = SearchSpace.from_dict({"x_nm": {"low": -100, "high": 100}})
    policy = create("bayesian", line, seed=0, context=Context(cost=cost, budget=Cost(1e7, 1e6)), initial_count=4)
    chosen = []
    for _ in range(14):
        suggestion = policy.suggest()[0]
        chosen.append(float(suggestion.point["x_nm"]))
        policy.ingest(
            [
                Observation(
                    suggestion_id=suggestion.id,
                    point=suggestion.point,
                    outcomes={"score": (hills(suggestion.point), 0.01)},
                    cost=suggestion.cost,
                )
            ]
        )
    assert np.mean(np.array(chosen[4:]) < 0) > 0.6
    assert suggestion.cost in (Cost(1e5, 1.0), Cost(1e3, 1.0))


def test_reason_holds_the_numbers() -> None:
    policy = create("bayesian", MIXED, seed=5, initial_count=4)
    for _ in range(6):
        suggestion = policy.suggest()[0]
        policy.ingest(
            [
                Observation(
                    suggestion_id=suggestion.id,
                    point=suggestion.point,
                    outcomes={"score": (mixed_hill(suggestion.point), 0.01)},
                )
            ]
        )
    reason = policy.suggest()[0].reason
    assert "largest expected improvement" in reason["why"]
    assert len(reason["alternatives"]) == 3
    assert all(other["acquisition_value"] <= reason["acquisition_value"] for other in reason["alternatives"])
    assert len(reason["hyperparameters"]["length_scale_fractions"]) == MIXED.encoded_count


def test_leaves_global_torch_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    best_of("bayesian", PLANE, two_hills, seed=0, count=8)
    assert torch.equal(torch.rand(3), expected)


def test_stops_at_the_number_of_points_and_at_the_budget() -> None:
    policy = create("bayesian", PLANE, seed=0, point_count=2)
    paid = create(
        "bayesian", PLANE, seed=0, context=Context(budget=Cost(5, 5), cost=lambda point, previous_point: Cost(3, 1))
    )
    for _ in range(2):
        assert policy.should_stop() is None
        policy.ingest([Observation(suggestion_id="a", point={"x_nm": 0.0, "y_nm": 0.0}, cost=Cost(3, 1))])
    assert "as many as asked for" in str(policy.should_stop())
    assert paid.should_stop() is None
    paid.ingest([Observation(suggestion_id="a", point={"x_nm": 0.0, "y_nm": 0.0}, cost=Cost(3, 1))])
    assert "cannot pay" in str(paid.should_stop())


@pytest.mark.parametrize("z", [3.0, 0.0, -2.0, -5.0, -20.0, -36.0])
def test_log_expected_improvement_is_the_integral(z: float) -> None:
    top = max(z, 0) + 2.0 + 30 / (1 + abs(z))
    integral = quad(lambda f: f * norm.pdf(f, z, 1.0), 0.0, top, epsabs=0, epsrel=1e-12, limit=200)[0]
    ours = log_expected_improvement(np.array([z]), np.array([1.0]), 0.0)[0]
    assert ours == pytest.approx(np.log(integral), rel=1e-8)


def test_log_expected_improvement_falls_smoothly_far_away() -> None:
    z = np.linspace(-80, 3, 400)
    values = log_expected_improvement(z, np.ones_like(z), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
