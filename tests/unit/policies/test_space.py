"""Search spaces refuse what cannot be and round-trip what can."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Choice, Continuous, EmptySpace, Integer, InvalidSpace, SearchSpace

SPEC = {
    "x_nm": {"low": -100, "high": 100, "resolution": 0.1},
    "mode": {"choices": ["maadf", "haadf"]},
    "n_count": {"low": 1, "high": 5, "kind": "integer"},
    "defocus_nm": {"low": -15, "high": 15, "resolution": 0.5, "when": {"mode": ["haadf"]}},
}


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.from_dict(SPEC)


def test_from_dict_and_back(space: SearchSpace) -> None:
    assert space.to_dict() == SPEC
    assert SearchSpace.from_dict(space.to_dict()).to_dict() == SPEC


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 100, "high": -100}, "x_nm: low 100 lies above high -100"),
        ({"low": float("nan"), "high": 1}, "must be finite"),
        ({"low": 0, "high": 1, "resolution": 2}, "resolution 2 is larger than the range 1"),
        ({"low": 0, "high": 1, "resolution": 0}, "above 0"),
        ({"low": 0, "high": 1, "step": 2}, "unknown keys"),
        ({"low": "0", "high": 1}, "low must be a number"),
        ({"low": 0}, "high must be a number, not None"),
        ({"low": 0, "high": 1, "kind": "real"}, "kind 'real'"),
        ({"choices": "ab"}, "must be a list"),
        ({"choices": ["a", "a"]}, "must differ"),
        ({"low": 0.5, "high": 1, "kind": "integer"}, "whole numbers"),
        ({"low": 0, "high": 1, "when": {"y_nm": [1]}}, "no choice of this space"),
    ],
)
def test_refusals_name_dimension_and_value(entry: dict, message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        SearchSpace.from_dict({"x_nm": entry})


@pytest.mark.parametrize("data", [{}, {"x_nm": {"choices": []}}, {"x_nm": {"low": 1, "high": 1}}])
def test_empty_spaces(data: dict) -> None:
    with pytest.raises(EmptySpace):
        SearchSpace.from_dict(data)


def test_a_continuous_name_carries_a_unit() -> None:
    with pytest.raises(InvalidSpace, match="width carries no unit"):
        SearchSpace({"width": Continuous(0, 1)})
    SearchSpace({"mode": Choice(("a",)), "frame_count": Integer(1, 2)})


def test_conditions(space: SearchSpace) -> None:
    inactive = {"x_nm": 1.0, "mode": "maadf", "n_count": 2}
    assert space.contains(inactive)
    assert "does not apply" in str(space.violation({**inactive, "defocus_nm": 0.0}))
    assert "defocus_nm missing" in str(space.violation({**inactive, "mode": "haadf"}))
    circle = {name: Choice((0, 1), {other: [1]}) for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(InvalidSpace, match="circle"):
        SearchSpace(circle)
    with pytest.raises(InvalidSpace, match="give a list of"):
        SearchSpace({"a": Choice((0, 1)), "x_nm": Continuous(0, 1, when={"a": [2]})})


def test_contains_is_strict_and_never_clips(space: SearchSpace) -> None:
    point = {"x_nm": 1.0, "mode": "maadf", "n_count": 2}
    assert space.violation({**point, "x_nm": 100.2}) == "x_nm: 100.2 is outside -100 to 100 (nm)"
    assert space.violation({**point, "n_count": 2.5}) is not None
    assert space.violation({**point, "mode": "abf"}) is not None
    assert space.violation({**point, "x_nm": float("nan")}) is not None
    assert space.round({**point, "x_nm": 117.03})["x_nm"] == 117.0


def test_rounding_stays_inside_an_uneven_range() -> None:
    space = SearchSpace({"x_nm": Continuous(0.0, 1.0, resolution=0.3)})
    assert space.round({"x_nm": 1.0}) == {"x_nm": 0.9}
    assert space.contains(space.round({"x_nm": 1.0}))


def test_encoding(space: SearchSpace) -> None:
    codes = space.encode(
        [
            {"x_nm": -100.0, "mode": "maadf", "n_count": 5},
            {"x_nm": 100.0, "mode": "haadf", "n_count": 1, "defocus_nm": 15.0},
        ]
    )
    np.testing.assert_allclose(codes, [[0, 1, 0, 1, 0.5], [1, 0, 1, 0, 1]])
    assert space.category_columns == (1, 2)
    assert space.encode([]).shape == (0, 5)


def test_sampling_fills_the_space(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(400)]
    assert all(space.contains(p) for p in points)
    assert {p["mode"] for p in points} == {"maadf", "haadf"}
    assert {p["n_count"] for p in points} == {1, 2, 3, 4, 5}
    assert min(p["x_nm"] for p in points) < -90 < 90 < max(p["x_nm"] for p in points)
