"""Laws of search spaces: encode and decode are inverse on the actuators' steps; rounding is idempotent."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policies import Choice, Continuous, Integer, SearchSpace


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    low = draw(st.floats(-1e3, 1e3))
    width = draw(st.floats(0.5, 1e3))
    resolution = draw(st.none() | st.floats(0.01, 0.4))
    choices = tuple(draw(st.lists(st.sampled_from(["maadf", "haadf", "abf", "bf"]), min_size=1, unique=True)))
    first = draw(st.integers(-5, 5))
    return SearchSpace(
        {
            "x_nm": Continuous(low, low + width, resolution),
            "mode": Choice(choices),
            "frame_count": Integer(first, first + draw(st.integers(0, 6)), {"mode": list(choices[:1])}),
        }
    )


@given(spaces(), st.integers(0, 2**31))
def test_decode_inverts_encode(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [space.sample(rng) for _ in range(5)]
    codes = space.encode(points)
    assert codes.shape == (5, space.encoded_count)
    assert ((codes >= -1e-9) & (codes <= 1 + 1e-9)).all()
    for point, again in zip(points, space.decode(codes), strict=True):
        assert again.keys() == point.keys()
        assert again["mode"] == point["mode"]
        assert again.get("frame_count") == point.get("frame_count")
        np.testing.assert_allclose(again["x_nm"], point["x_nm"], rtol=1e-9, atol=1e-9)


@given(spaces(), st.integers(0, 2**31))
def test_samples_and_their_rounding_lie_inside(space: SearchSpace, seed: int) -> None:
    point = space.sample(np.random.default_rng(seed))
    assert space.violation(point) is None
    assert space.round(space.round(point)) == space.round(point)
    assert space.violation(space.round(point)) is None


@given(spaces(), st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_unit_cube_maps_into_the_space(space: SearchSpace, row: list[float]) -> None:
    assert space.violation(space.from_unit_cube(np.array(row))) is None
