"""Costs, suggestions, observations, the registry and snapshots."""

from __future__ import annotations

import json

import numpy as np
import pytest

from policies import (
    Continuous,
    Cost,
    InvalidObservation,
    InvalidOption,
    Observation,
    SearchSpace,
    StateMismatch,
    UnknownPolicy,
    create,
    names,
)

SPACE = SearchSpace({"x_nm": Continuous(0, 10), "y_nm": Continuous(0, 10)})


def test_cost_arithmetic_and_shares() -> None:
    budget = Cost(100.0, 10.0)
    assert budget.minus(Cost(30, 20)) == Cost(70, 0)
    assert budget.pays(Cost(100, 10))
    assert not budget.pays(Cost(1, 10.1))
    assert Cost(10, 1).share_of(budget) == pytest.approx(0.2)
    assert Cost(0, 1).share_of(Cost(5, 0)) == float("inf")
    with pytest.raises(InvalidObservation):
        Cost(-1, 0)


@pytest.mark.parametrize("dtype", ["float32", "int8", "float64", "bool"])
def test_observation_survives_json(dtype: str) -> None:
    array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    one = Observation(
        suggestion_id="a", point={"x_nm": 1.0}, outcomes={"score": (1.0, 0.1)}, arrays={"map": array}, cost=Cost(1, 2)
    )
    again = Observation.from_dict(json.loads(json.dumps(one.to_dict())))
    np.testing.assert_array_equal(again.arrays["map"], array)
    assert again.arrays["map"].dtype == array.dtype
    assert (again.outcomes, again.cost, again.point) == (one.outcomes, one.cost, one.point)


def test_observations_that_cannot_be() -> None:
    with pytest.raises(InvalidObservation, match="has no outcomes"):
        Observation(suggestion_id="a", point={}, outcomes={"score": (1, 1)}, status="failed")
    with pytest.raises(InvalidObservation, match="not usable"):
        Observation(suggestion_id="a", point={}, outcomes={"score": (float("nan"), 1)})
    with pytest.raises(InvalidObservation, match="status 'lost'"):
        Observation(suggestion_id="a", point={}, status="lost")  # type: ignore[arg-type]


def test_registry() -> None:
    assert {"raster", "random", "sobol", "ranked", "survey_rank", "full_raster", "thin_raster", "oracle"} < set(names())
    with pytest.raises(UnknownPolicy, match="no policy is called 'magic'; known: bayesian"):
        create("magic", SPACE, seed=0)
    with pytest.raises(InvalidOption, match="does not take these options"):
        create("bayesian", SPACE, seed=0, magic=True)
    with pytest.raises(InvalidOption, match="seed -1"):
        create("sobol", SPACE, seed=-1)


def test_a_snapshot_fits_only_its_own_policy() -> None:
    state = create("sobol", SPACE, seed=1).snapshot()
    for other in (create("random", SPACE, seed=1), create("sobol", SPACE, seed=2)):
        with pytest.raises(StateMismatch):
            other.restore(state)
    with pytest.raises(StateMismatch, match="space"):
        create("sobol", SearchSpace({"x_nm": Continuous(0, 1)}), seed=1).restore(state)
