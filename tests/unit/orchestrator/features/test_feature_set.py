"""Features survive storage, and the same features are the same bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from orchestrator.features import Feature, FeatureSet, UnknownExtractor, create, extractors


def example() -> FeatureSet:
    values = {
        "a_nm": Feature(value=1.5, std=0.25, probability=0.5, reason="why"),
        "margin": Feature(value=float("inf"), reason="nan"),
        "b": Feature(value=float("nan")),
    }
    arrays = {
        "x_nm": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 4)),
        "n": np.array([1], np.int8),
    }
    return FeatureSet(extractor="example", action_id="a-1", values=values, arrays=arrays)


def test_round_trip() -> None:
    before = example()
    after = FeatureSet.from_bytes(before.to_bytes())
    assert (after.extractor, after.action_id) == ("example", "a-1")
    assert after.values["a_nm"] == before.values["a_nm"]
    assert after.values["margin"] == before.values["margin"]
    assert np.isnan(after.values["b"].value)
    assert set(after.arrays) == set(before.arrays)
    for name, array in before.arrays.items():
        assert after.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(after.arrays[name], array)


def test_bytes_do_not_depend_on_order_or_time() -> None:
    one = example()
    other = FeatureSet(
        extractor=one.extractor,
        action_id=one.action_id,
        values=dict(reversed(one.values.items())),
        arrays=dict(reversed(one.arrays.items())),
    )
    assert one.to_bytes() == other.to_bytes()


def test_numpy_reads_the_arrays() -> None:
    with np.load(io.BytesIO(example().to_bytes())) as stored:
        np.testing.assert_array_equal(stored["x_nm"], example().arrays["x_nm"])


def test_built_in_extractors_are_known_and_others_refused() -> None:
    assert {"lattice_sites", "survey"} <= set(extractors())
    with pytest.raises(UnknownExtractor, match=r"nothing_such.*lattice_sites"):
        create("nothing_such")
