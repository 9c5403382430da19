"""A rule is a policy: it keeps the laws, and sees what it was promised."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from policies import (
    Choice,
    Context,
    Continuous,
    Cost,
    InvalidOption,
    Observation,
    SearchSpace,
    Seen,
    conformance,
    rule,
)

ROOT = Path(__file__).resolve().parents[3]
SPACE = SearchSpace(
    {
        "purpose": Choice(("survey", "field")),
        "x_nm": Continuous(-20, 20, resolution=0.5),
        "y_nm": Continuous(-20, 20, resolution=0.5),
        "field_of_view_nm": Continuous(2, 40),
        "dwell_time_us": Continuous(1, 100),
    }
)
FIELD = {"field_of_view_nm": 10, "dwell_time_us": 10}
SURVEY = {"purpose": "survey", "x_nm": 0.0, "y_nm": 0.0, "field_of_view_nm": 40.0, "dwell_time_us": 1.0}


@rule
def brightest(seen: Seen, *, least=-100.0):
    """The brightest place not yet taken."""
    places = seen.places_nm()
    bright = np.where(seen.taken(places), -1e3, seen.survey_at(places))
    if bright.max() < least:
        return None
    best = bright.argmax()
    return {"x_nm": places[best, 0], "y_nm": places[best, 1]}, {"why": "the brightest", "bright": bright[best]}


def surveyed(names: tuple[str, str, str] = ("clean_map", "clean_map_x_nm", "clean_map_y_nm")) -> Observation:
    """A survey that brightens to the right and upwards, unknown in one corner."""
    axis = np.arange(-19.5, 20)
    image = axis[None, :] + 0.1 * axis[:, None]
    image[:2, :2] = np.nan
    return Observation(suggestion_id="s", point=SURVEY, arrays=dict(zip(names, (image, axis, axis), strict=True)))


def seen_with(*observations: Observation, pending: tuple[dict, ...] = (), context: Context | None = None) -> Seen:
    return Seen(
        space=SPACE,
        context=context or Context(),
        fixed={**FIELD, "purpose": "field"},
        observations=observations,
        pending=pending,
        rng=np.random.default_rng(0),
    )


def field(x_nm: float, y_nm: float, **changed: object) -> Observation:
    return Observation(suggestion_id="f", point={**FIELD, "purpose": "field", "x_nm": x_nm, "y_nm": y_nm}, **changed)


def designed() -> ModuleType:
    path = ROOT / "examples" / "plugin_policy" / "belief_map_policy.py"
    specification = importlib.util.spec_from_file_location("belief_map_policy", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("make", [brightest, designed().belief_map], ids=["brightest", "belief_map"])
@pytest.mark.parametrize("prelude", [(), (SURVEY,)], ids=["no prelude", "prelude"])
def test_keeps_the_laws(make, prelude: tuple) -> None:
    made = conformance.check(lambda: make(SPACE, seed=3, prelude=prelude, **FIELD), SPACE, step_count=14)
    assert len(made) == 14
    assert {s.policy for s in made} == {make.name}
    assert len({(s.point["x_nm"], s.point["y_nm"]) for s in made if s.point["purpose"] == "field"}) >= 13


def test_goes_from_bright_to_dark_after_its_survey() -> None:
    policy = brightest(SPACE, seed=0, prelude=[SURVEY], **FIELD)
    (first,) = policy.suggest()
    assert first.point == SURVEY
    policy.ingest([surveyed()])
    points = [(s.point["x_nm"], s.point["y_nm"]) for s in policy.suggest(16)]
    assert points[:4] == [(15, 15), (15, 5), (15, -5), (15, -15)]
    assert len(set(points)) == 16
    assert policy.suggest()[0].reason["bright"] == pytest.approx(16.5)


def test_survey_tiles_come_first() -> None:
    context = Context(budget=Cost(electrons=1e9, seconds=1e3))
    survey = {"field_of_view_nm": 20, "pixel_size_nm": 1.0, "dwell_time_us": 1.0}
    policy = brightest(SPACE, seed=0, context=context, survey=survey, **FIELD)
    points = [s.point for s in policy.suggest(5)]
    assert [point["purpose"] for point in points] == ["survey"] * 4 + ["field"]
    assert {point["field_of_view_nm"] for point in points[:4]} == {20}


def test_a_rule_that_has_nothing_left_ends_the_run() -> None:
    policy = brightest(SPACE, seed=0, least=1e9, **FIELD)
    assert policy.suggest() == []
    assert "finished" in str(policy.should_stop())


def test_a_rule_without_a_reason_is_told_so() -> None:
    @rule
    def silent(seen: Seen):
        return {"x_nm": 0.0, "y_nm": 0.0}, {}

    with pytest.raises(InvalidOption, match="silent gave no reason"):
        silent(SPACE, seed=0, **FIELD).suggest()


def test_options_nobody_knows_are_refused() -> None:
    with pytest.raises(InvalidOption, match="leest"):
        brightest(SPACE, seed=0, leest=1.0, **FIELD)
    with pytest.raises(InvalidOption, match="dwell_time_us"):
        brightest(SPACE, seed=0, field_of_view_nm=10)


def test_fields_are_what_was_measured_for_the_question() -> None:
    focus = Observation(suggestion_id="a", point={**SURVEY, "purpose": "focus"}, outcomes={"found": (9.0, 1.0)})
    lost = field(5, 5, status="failed")
    one, two = field(-5, 5, outcomes={"found": (2.0, 1.0)}), field(15, 5, outcomes={"clean": (0.5, 0.0)})
    seen = seen_with(surveyed(), focus, one, lost, two)
    assert seen.fields == [one, two]
    assert seen.fields_nm.tolist() == [[-5, 5], [15, 5]]
    assert seen.outcomes("found", "counts_") == ["found"]
    assert seen.values("found").tolist() == [2, 0]
    assert seen.values("clean", missing_value=1.0).tolist() == [1, 0.5]


def test_places_tile_the_area_or_lie_inside_it() -> None:
    seen = seen_with()
    assert len(seen.places_nm()) == 16
    fine = seen.places_nm(2.0)
    assert np.abs(fine).max() == 15
    assert len(fine) == 16 * 16


def test_places_are_the_cells_of_a_map_within_the_area() -> None:
    axis = np.array([-25.0, -15.0, -5.0, 5.0, 15.0, 25.0])
    told = Observation(
        suggestion_id="s", point=SURVEY, arrays={"survey": np.ones((6, 6)), "grid_x_nm": axis, "grid_y_nm": axis}
    )
    places = seen_with(told).places_nm()
    assert len(places) == 16
    assert set(places[:, 0]) == {-15, -5, 5, 15}


def test_survey_is_averaged_over_the_field_and_zero_where_unknown() -> None:
    seen = seen_with(surveyed())
    assert seen.survey_at(np.array([[10.0, 0.0]]))[0] == pytest.approx(10.0)
    assert seen.survey_at(np.array([[-20.0, -20.0]]))[0] == pytest.approx(
        np.nansum(surveyed().arrays["clean_map"][:5, :5]) / 25
    )
    assert seen_with().survey_at(np.zeros((3, 2))).tolist() == [0, 0, 0]


def test_taken_are_places_asked_for_whatever_came_of_it() -> None:
    places = np.array([[0.0, 0.0], [7.0, 0.0], [8.0, 0.0], [0.0, 15.0], [-15.0, 0.0]])
    seen = seen_with(field(0, 0, status="refused"), pending=({**FIELD, "x_nm": 0.0, "y_nm": 15.0},))
    assert seen.taken(places).tolist() == [True, True, False, True, False]
    assert not seen_with(surveyed()).taken(places).any()
