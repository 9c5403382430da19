"""Writing a frame and reading it again is the identity."""

from __future__ import annotations

import io
from dataclasses import replace

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments import Frame
from orchestrator.catalogue.nexus import encode
from orchestrator.catalogue.nexus_reader import decode
from tests.unit.orchestrator import microscope_frames as microscope
from tests.unit.orchestrator.test_nexus_files import record

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["u1", "u2", "u4", "u8"]),
    seed=st.integers(0, 2**32 - 1),
    dose=st.floats(0, 1e300),
    notes=st.dictionaries(
        st.sampled_from([".", "a/b", "a_b", "", "..", "drift_nm"]) | TEXT,
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
            lambda inner: st.lists(inner, max_size=3),
        ),
        max_size=4,
    ),
)
def test_encode_and_decode_are_inverse(shape, dtype, seed, dose, notes) -> None:
    counts = np.random.default_rng(seed).integers(0, min(np.iinfo(dtype).max, 2**61), shape, dtype=dtype, endpoint=True)
    asked = microscope.command("a1", shape_px=shape[1:], subframe_count=shape[0])
    original = replace(microscope.frame(asked), counts={"bf": counts}, dose_e_per_a2=dose, context=notes)
    data = encode(original, record())
    again = decode(data, "frame")
    assert again.counts["bf"].dtype == counts.dtype
    np.testing.assert_array_equal(again.counts["bf"], counts)
    for name in Frame.__dataclass_fields__:
        assert name == "counts" or getattr(again, name) == getattr(original, name)
    with h5py.File(io.BytesIO(data)) as file:
        summed = file["entry1/measurement/event1/image_bf/image_2d/real"][()]
    np.testing.assert_array_equal(summed.astype(object), counts.astype(object).sum(axis=0))
