"""Every built-in policy keeps the laws of `policies.conformance`, and the laws catch policies that do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policies import Context, Cost, Observation, Policy, SearchSpace, Suggestion, create
from policies.conformance import LawBroken, check

PLANE = SearchSpace.from_dict({name: {"low": -100, "high": 100, "resolution": 0.1} for name in ("x_nm", "y_nm")})
MIXED = SearchSpace.from_dict(
    {
        "x_nm": {"low": -100, "high": 100, "resolution": 0.1},
        "y_nm": {"low": -100, "high": 100, "resolution": 0.1},
        "mode": {"choices": ["maadf", "haadf"]},
        "defocus_nm": {"low": -10, "high": 10, "resolution": 0.5, "when": {"mode": ["haadf"]}},
        "frame_count": {"low": 1, "high": 4, "kind": "integer"},
    }
)
FOCUS = SearchSpace.from_dict({"defocus_nm": {"low": -15, "high": 15, "resolution": 0.5}})
RANKING = np.column_stack([np.linspace(-90, 90, 30), np.linspace(90, -90, 30), np.arange(30.0)])

CASES: dict[str, tuple[SearchSpace, Callable[[], Policy]]] = {
    "raster": (PLANE, lambda: create("raster", PLANE, seed=1, step_nm=60.0)),
    "random": (MIXED, lambda: create("random", MIXED, seed=1)),
    "listed": (PLANE, lambda: create("listed", PLANE, seed=1, points=[{"x_nm": x, "y_nm": 0.0} for x in range(5)])),
    "sobol": (MIXED, lambda: create("sobol", MIXED, seed=1)),
    "ranked": (PLANE, lambda: create("ranked", PLANE, seed=1, context=Context(survey_rank=RANKING))),
    "oracle": (PLANE, lambda: create("oracle", PLANE, seed=1, context=Context(known_value=RANKING))),
    "focus_series": (FOCUS, lambda: create("focus_series", FOCUS, seed=1, count=4, dwell_time_us=2.0)),
    "bayesian": (MIXED, lambda: create("bayesian", MIXED, seed=1, initial_count=4)),
}


@pytest.mark.parametrize("name", CASES)
def test_laws(name: str) -> None:
    space, factory = CASES[name]
    assert check(factory, space)


class Forgetful:
    """Wraps a policy and breaks one law."""

    def __init__(self, law: str) -> None:
        self.law = law
        self.inner = create("random", PLANE, seed=1)
        self.asked = 0

    def suggest(self, count: int = 1) -> list[Suggestion]:
        self.asked += 1
        made = self.inner.suggest(count)
        if self.law == "asked twice":
            return self.inner.suggest(count + self.asked)[self.asked :]
        replace = {
            "outside the space": {"point": {"x_nm": 1e6, "y_nm": 0.0}},
            "id given twice": {"id": "one"},
            "no sentence": {"reason": {}},
            "not JSON": {"reason": {"why": "x", "array": np.zeros(2)}},
        }.get(self.law, {})
        return [
            Suggestion(**{"id": s.id, "point": s.point, "cost": Cost(), "reason": s.reason, **replace}) for s in made
        ]

    def ingest(self, observations: list[Observation]) -> None:
        self.inner.ingest(observations)

    def should_stop(self) -> str | None:
        return None

    def snapshot(self) -> dict:
        return self.inner.snapshot()

    def restore(self, state: dict) -> None:
        if self.law != "restored":
            self.inner.restore(state)


@pytest.mark.parametrize(
    "law", ["asked twice", "outside the space", "id given twice", "no sentence", "not JSON", "restored"]
)
def test_broken_laws_are_found(law: str) -> None:
    with pytest.raises(LawBroken, match=law):
        check(lambda: Forgetful(law), PLANE)
