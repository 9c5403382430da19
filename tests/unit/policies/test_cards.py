"""Spaces, suggestions, observations and contexts show and draw themselves."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest

from policies import Choice, Context, Continuous, Cost, Integer, InvalidOption, Observation, SearchSpace, Suggestion
from tests.unit.instruments.test_cards import NASTY, tags

SPACE = SearchSpace(
    {
        "x_nm": Continuous(-10, 10, resolution=0.1),
        "y_nm": Continuous(-10, 10),
        "mode": Choice(("maadf", NASTY)),
        "repeat_count": Integer(1, 4, {"mode": ("maadf",)}),
    }
)


@pytest.fixture(autouse=True)
def quiet_figures() -> Iterator[None]:
    mpl.use("Agg")
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def test_a_space_shows_bounds_steps_and_conditions() -> None:
    text = tags(SPACE._repr_html_()).text
    for words in ("x_nm", "-10 to 10", "0.1", NASTY, "mode maadf", "4 dimensions"):
        assert words in text


def test_a_suggestion_shows_where_and_why() -> None:
    suggestion = Suggestion(
        id="s-1", point={"x_nm": 1.23456}, policy=NASTY, prediction={"found": (0.5, 0.25)}, cost=Cost(1e6, 2.0),
        reason={"why": NASTY, "worth": 3.0, "alternatives": [1, 2]},
    )  # fmt: skip
    parsed = tags(suggestion._repr_html_())
    assert parsed.text.count(NASTY) == 2
    for words in ("1.235", "0.5 ± 0.25", "1e+06 electrons, 2 s", "worth"):
        assert words in parsed.text
    assert repr(suggestion).startswith("Suggestion(id='s-1'")


def test_an_observation_shows_outcomes_and_arrays() -> None:
    seen = Observation(
        suggestion_id=NASTY, point={"x_nm": 1.0}, outcomes={"found": (2.0, 0.5)}, arrays={"map": np.zeros((3, 4))}
    )
    text = tags(seen._repr_html_()).text
    for words in (NASTY, "2 ± 0.5", "3 x 4 float64", "done"):
        assert words in text


def test_a_context_says_what_was_given_and_what_not() -> None:
    context = Context(budget=Cost(1e6, 60.0), survey=np.zeros((5, 6)), cost=lambda point, previous: Cost())
    text = tags(context._repr_html_()).text
    for words in ("array of 5 x 6", "a function", "not given", "information"):
        assert words in text


def test_points_are_drawn_as_fields_of_their_size() -> None:
    points = [
        {"x_nm": 0.0, "y_nm": 0.0, "field_of_view_nm": 20.0, "purpose": "survey"},
        {"x_nm": 3.0, "y_nm": -2.0, "field_of_view_nm": 4.0, "purpose": "field"},
        {"x_nm": 1.0, "y_nm": 1.0},
        {"mode": "maadf"},
    ]
    axes = SPACE.plot(points)
    assert [(p.get_x(), p.get_y(), p.get_width()) for p in axes.patches] == [(-10, -10, 20), (1, -4, 4)]
    assert [text.get_text() for text in axes.texts] == ["2", "3"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["survey (1)", "field (1)"]
    assert (axes.get_xlabel(), axes.get_aspect()) == ("x (nm)", 1.0)


def test_a_space_without_places_is_not_drawn() -> None:
    with pytest.raises(InvalidOption, match="x_nm"):
        SearchSpace({"gain_fraction": Continuous(0, 1)}).plot()
