"""Each baseline does the one simple thing it says, in the census form."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Context, Cost, InvalidOption, MissingContext, Observation, Policy, SearchSpace, create
from policies.fields import dose_of, electrons_of

SPACE = SearchSpace.from_dict(
    {
        "x_nm": {"low": -100, "high": 100, "resolution": 0.1},
        "y_nm": {"low": -100, "high": 100, "resolution": 0.1},
        "field_of_view_nm": {"low": 2, "high": 64},
        "pixel_size_nm": {"low": 0.03, "high": 0.5},
        "mode": {"choices": ["maadf", "haadf"]},
        "dwell_time_us": {"low": 0.5, "high": 100},
        "probe_current_pa": {"low": 10, "high": 100},
        "defocus_nm": {"low": -15, "high": 15, "resolution": 0.5},
    }
)
FIELD = {"field_of_view_nm": 20.0, "pixel_size_nm": 0.04, "mode": "maadf", "probe_current_pa": 30.0, "defocus_nm": 0.0}
BUDGET = Cost(2.2e9, 600.0)


def answer(policy: Policy, **arrays: np.ndarray) -> dict:
    """Take the next suggestion as done at its forecast cost; its point."""
    suggestion = policy.suggest()[0]
    policy.ingest(
        [Observation(suggestion_id=suggestion.id, point=suggestion.point, cost=suggestion.cost, arrays=arrays)]
    )
    return suggestion.point


def take(policy: Policy, limit: int = 1000) -> list[dict]:
    points = []
    while policy.should_stop() is None and len(points) < limit:
        points.append(answer(policy))
    return points


def test_raster_is_a_serpentine_without_gaps() -> None:
    points = take(create("raster", SPACE, seed=0, dwell_time_us=1.0, **FIELD))
    assert len(points) == 100
    xy = np.array([(p["x_nm"], p["y_nm"]) for p in points])
    np.testing.assert_allclose(np.abs(np.diff(xy, axis=0)).sum(axis=1), 20.0)
    assert np.unique(xy, axis=0).shape == (100, 2)
    assert set(points[0]) == {
        "purpose", "x_nm", "y_nm", "field_of_view_nm", "pixel_size_nm", "mode", "dwell_time_us", "probe_current_pa",
        "defocus_nm",
    }  # fmt: skip
    rows = take(create("raster", SPACE, seed=0, dwell_time_us=1.0, order="rows", step_nm=50.0, **FIELD))
    assert [p["x_nm"] for p in rows[:8]] == [-75, -25, 25, 75] * 2


def test_thin_raster_spends_the_electrons_on_the_whole_area() -> None:
    policy = create("thin_raster", SPACE, seed=0, context=Context(budget=BUDGET), budget_fraction=0.9, **FIELD)
    points = take(policy)
    assert len(points) == 100
    assert sum(electrons_of(p) for p in points) == pytest.approx(0.9 * BUDGET.electrons, rel=0.01)
    assert dose_of(points[0]) == pytest.approx(0.9 * BUDGET.electrons / 4e6, rel=0.01)


def test_thin_raster_takes_larger_pixels_before_it_breaks_the_shortest_dwell() -> None:
    settings = {**FIELD, "probe_current_pa": 100.0}
    points = take(create("thin_raster", SPACE, seed=0, context=Context(budget=Cost(1e9, 600.0)), **settings))
    assert points[0]["dwell_time_us"] == pytest.approx(0.5)
    assert points[0]["pixel_size_nm"] > 0.04
    assert sum(electrons_of(p) for p in points) <= 1e9
    with pytest.raises(InvalidOption, match="lower probe_current_pa"):
        create("thin_raster", SPACE, seed=0, context=Context(budget=Cost(1e6, 600.0)), **settings)


def test_full_raster_gives_the_dose_and_stops_at_the_budget() -> None:
    policy = create("full_raster", SPACE, seed=0, context=Context(budget=BUDGET), dose_e_per_a2=2700.0, **FIELD)
    points = take(policy)
    assert dose_of(points[0]) == pytest.approx(2700.0)
    assert len(points) == int(BUDGET.electrons // electrons_of(points[0]))
    assert "cannot pay" in str(policy.should_stop())


def test_random_and_sobol_depend_on_the_seed_and_keep_what_is_fixed() -> None:
    for name in ("random", "sobol"):
        first, again, other = (
            take(create(name, SPACE, seed=seed, dwell_time_us=2.0, **FIELD), 20) for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other
        assert {p["dwell_time_us"] for p in first} == {2.0}
        assert all(SPACE.contains(SPACE.project(p)) for p in first)


def test_sobol_covers_better_than_random() -> None:
    def empty_cells(name: str, seed: int) -> int:
        points = take(create(name, SPACE, seed=seed, dwell_time_us=2.0, **FIELD), 64)
        cells = {(int((p["x_nm"] + 100) // 25.1), int((p["y_nm"] + 100) // 25.1)) for p in points}
        return 64 - len(cells)

    assert max(empty_cells("sobol", s) for s in range(5)) < min(empty_cells("random", s) for s in range(5))


def test_ranked_and_oracle_follow_the_value() -> None:
    table = np.array([[0.0, 0.0, 1.0], [10.0, 0.0, 3.0], [0.0, 10.0, 2.0]])
    context = Context(survey_rank=table, known_value=lambda x_nm, y_nm: -((x_nm - 50) ** 2) - y_nm**2)
    ranked = take(create("ranked", SPACE, seed=0, context=context, dwell_time_us=1.0, **FIELD))
    assert [(p["x_nm"], p["y_nm"]) for p in ranked] == [(10, 0), (0, 10), (0, 0)]
    oracle = take(create("oracle", SPACE, seed=0, context=context, dwell_time_us=1.0, **FIELD))
    distances = [(p["x_nm"] - 50) ** 2 + p["y_nm"] ** 2 for p in oracle]
    assert distances == sorted(distances)
    with pytest.raises(MissingContext, match=r"context\.survey_rank"):
        create("ranked", SPACE, seed=0, dwell_time_us=1.0, **FIELD)


def test_survey_rank_surveys_then_visits_the_cleanest_once() -> None:
    policy = create("survey_rank", SPACE, seed=0, context=Context(budget=BUDGET), dwell_time_us=1.0, **FIELD)
    axis = np.arange(-99.5, 100.0)
    clean = np.zeros((200, 200), dtype=np.float32)
    clean[20:60, 100:140] = 1.0
    arrays = {"clean_map": clean, "clean_map_x_nm": axis, "clean_map_y_nm": axis}
    points = [answer(policy, **arrays) for _ in range(16)]
    assert {p["purpose"] for p in points} == {"survey"}
    assert sum(electrons_of(p) for p in points) == pytest.approx(0.02 * BUDGET.electrons, rel=0.05)
    fields = [answer(policy, **arrays) for _ in range(4)]
    assert {p["purpose"] for p in fields} == {"field"}
    assert sorted((p["x_nm"], p["y_nm"]) for p in fields) == [(10, -70), (10, -50), (30, -70), (30, -50)]
    assert "finished" in str(policy.should_stop())


def test_options_are_checked() -> None:
    with pytest.raises(InvalidOption, match="say what dwell_time_us should be"):
        create("raster", SPACE, seed=0, **FIELD)
    with pytest.raises(InvalidOption, match=r"dwell_time_us: 0\.1 is outside 0.5 to 100"):
        create("raster", SPACE, seed=0, dwell_time_us=0.1, **FIELD)
    with pytest.raises(InvalidOption, match="magnification"):
        create("raster", SPACE, seed=0, dwell_time_us=1.0, magnification=1e6, **FIELD)
    with pytest.raises(InvalidOption, match="order 'spiral'"):
        create("raster", SPACE, seed=0, dwell_time_us=1.0, order="spiral", **FIELD)
