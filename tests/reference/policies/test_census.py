"""The census on the toy world keeps its limits and learns; `tests/integration` compares it with its baselines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from policies import InvalidOption, MissingContext, Observation, create
from policies.conformance import check
from policies.fields import dose_of
from policies.windows import cells_inside
from tests.unit.policies.toy_world import ToyWorld, context, play, space

SIZE_NM = 80


def test_keeps_every_limit() -> None:
    world = ToyWorld(7, 0.7, SIZE_NM)
    known = context(SIZE_NM)
    policy = create("census", space(SIZE_NM), seed=7, context=known)
    made = play(policy, world)
    dose = np.zeros_like(world.dose)
    for suggestion in made:
        point = suggestion.point
        assert space(SIZE_NM).violation(point) is None
        json.dumps(suggestion.to_dict(), allow_nan=False)
        view = float(point["field_of_view_nm"])
        dose[cells_inside(world.axis, world.axis, float(point["x_nm"]), float(point["y_nm"]), view)] += dose_of(point)
    assert dose.max() <= known.local_dose_limit_e_per_a2
    assert known.budget is not None
    assert known.budget.pays(world.spent)
    assert world.spent.electrons > 0.7 * known.budget.electrons
    purposes = Counter(suggestion.point["purpose"] for suggestion in made)
    assert purposes["survey"] == 4
    assert purposes["focus"] == 6
    assert purposes["field"] > 10
    assert purposes["revisit"] > 10
    late = made[-1].reason
    assert {"why", "acquisition_value", "alternatives", "plan", "hyperparameters"} <= set(late)
    assert policy.suggest() == []
    assert policy.should_stop()


def test_laws() -> None:
    size = 50
    world = ToyWorld(3, 0.7, size)

    def measure(suggestion, step: int) -> Observation:
        status = {9: "failed", 12: "refused", 15: "unknown"}.get(step)
        if status is not None:
            return Observation(suggestion_id=suggestion.id, point=suggestion.point, status=status)
        return world.expose(suggestion)

    known = context(size)
    made = check(
        lambda: create("census", space(size), seed=3, context=known, focus_count=3), space(size),
        measure=measure, step_count=22,
    )  # fmt: skip
    assert {s.point["purpose"] for s in made} == {"survey", "focus", "field", "revisit"}


def test_a_refused_field_is_not_asked_for_again() -> None:
    world = ToyWorld(1, 0.0, SIZE_NM)
    policy = create("census", space(SIZE_NM), seed=1, context=context(SIZE_NM), focus_count=0)
    for _ in range(4):
        policy.ingest([world.expose(policy.suggest()[0])])
    refused = policy.suggest()[0]
    assert refused.point["purpose"] == "field"
    policy.ingest([Observation(suggestion_id=refused.id, point=refused.point, status="refused")])
    other = policy.suggest()[0]
    apart = max(abs(float(refused.point[k]) - float(other.point[k])) for k in ("x_nm", "y_nm"))
    assert apart > 4.0


def test_focus_is_used_by_later_frames() -> None:
    world = ToyWorld(2, 0.0, SIZE_NM)
    policy = create("census", space(SIZE_NM), seed=2, context=context(SIZE_NM))
    for _ in range(14):
        policy.ingest([world.expose(policy.suggest()[0])])
    suggestion = policy.suggest()[0]
    assert world.contrast(float(suggestion.point["defocus_nm"])) > 0.9
    assert suggestion.prediction["contrast_ratio"][0] > 0.8


def test_a_batch_looks_at_different_places() -> None:
    world = ToyWorld(2, 0.0, SIZE_NM)
    policy = create("census", space(SIZE_NM), seed=2, context=context(SIZE_NM), focus_count=0)
    for _ in range(4):
        policy.ingest([world.expose(policy.suggest()[0])])
    places = [(s.point["x_nm"], s.point["y_nm"]) for s in policy.suggest(4)]
    assert len(set(places)) == 4


def test_what_it_needs() -> None:
    with pytest.raises(MissingContext, match=r"context\.budget, context\.information, context\.species"):
        create("census", space(SIZE_NM), seed=0)
    with pytest.raises(InvalidOption, match="does not know the options"):
        create("census", space(SIZE_NM), seed=0, context=context(SIZE_NM), dose=3)
    with pytest.raises(InvalidOption, match="least_gain_count = -1"):
        create("census", space(SIZE_NM), seed=0, context=context(SIZE_NM), least_gain_count=-1)
    with pytest.raises(InvalidOption, match="no guess for Mo_W"):
        create(
            "census", space(SIZE_NM), seed=0,
            context=context(SIZE_NM, prior_density_per_nm2={"V_Se": 1e-3, "O_Se": 1e-3, "V_Se2": 1e-3}),
        )  # fmt: skip


def test_stops_without_clean_specimen() -> None:
    world = ToyWorld(0, 0.0, SIZE_NM)
    policy = create("census", space(SIZE_NM), seed=0, context=context(SIZE_NM))
    for _ in range(4):
        seen = world.expose(policy.suggest()[0])
        policy.ingest([replace(seen, arrays={**seen.arrays, "clean_map": np.zeros((SIZE_NM, SIZE_NM))})])
    assert policy.suggest() == []
    assert "nothing more can be paid" in str(policy.should_stop())
