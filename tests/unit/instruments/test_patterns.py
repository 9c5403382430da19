"""Patterns: sums in whole numbers, whatever the blocks; readers who cannot hold up the instrument."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from instruments import AcquisitionFailed
from instruments.patterns import PatternBlock, PatternFeed, PatternGeometry, PatternSums, centres_of_mass_px

SHAPE = (6, 8)
GEOMETRY = PatternGeometry(shape_px=SHAPE, centre_y_px=3, centre_x_px=4, mrad_per_px=10.0)


def sums_of(counts: np.ndarray, edges: Sequence[int]) -> PatternSums:
    sums = PatternSums(len(counts), SHAPE, {"inner": GEOMETRY.ring(0, 15), "outer": GEOMETRY.ring(15, 40)})
    for first, end in sorted(pairwise(edges), key=lambda pair: pair[0] % 3):  # in no order
        sums.add(first, counts[first:end])
    return sums


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_blocks_of_any_size_give_the_same_bits_and_the_right_ones(dtype: type[np.unsignedinteger]) -> None:
    largest = int(np.iinfo(dtype).max)
    counts = np.random.default_rng(1).integers(0, largest, (70, *SHAPE), dtype=dtype, endpoint=True)
    at_once, piecewise = sums_of(counts, [0, 70]), sums_of(counts, [0, 1, 2, 40, 69, 70])
    wide = counts.astype(object)  # Python's integers, which never overflow
    assert at_once.there_count == piecewise.there_count == 70
    for name, ring in (("inner", GEOMETRY.ring(0, 15)), ("outer", GEOMETRY.ring(15, 40))):
        assert np.array_equal(at_once.image(name), piecewise.image(name))
        assert at_once.image(name).tolist() == [int(one[ring].sum()) for one in wide]
    assert np.array_equal(at_once.moments(), piecewise.moments())
    rows = np.arange(SHAPE[0])[:, None]
    assert at_once.moments()[1].tolist() == [int((one * rows).sum()) for one in wide]


def test_the_centre_of_one_bright_pixel_is_there() -> None:
    counts = np.zeros((2, *SHAPE), np.uint16)
    counts[0, 2, 7] = 9
    sums = sums_of(counts, [0, 2])
    centres = centres_of_mass_px(sums.moments())
    assert centres[:, 0].tolist() == [2.0, 7.0]
    assert np.isnan(centres[:, 1]).all(), "where nothing was counted there is no centre"


def test_a_pattern_is_added_once_and_where_it_belongs() -> None:
    counts = np.ones((4, *SHAPE), np.uint16)
    sums = PatternSums(4, SHAPE)
    sums.add(0, counts[:2])
    for first, block in ((1, counts[:1]), (3, counts[:2]), (2, counts[:1, 1:]), (2, counts[:1].astype(np.float32))):
        with pytest.raises(ValueError, match="pattern"):
            sums.add(first, block)
    assert sums.there_count == 2


def test_rings_meet_without_a_gap() -> None:
    rings = [GEOMETRY.ring(inner, outer) for inner, outer in ((0, 15), (15, 40), (40, 1e9))]
    assert np.array_equal(np.sum(rings, axis=0), np.ones(SHAPE))


def block(first: int, total: int = 4) -> PatternBlock:
    return PatternBlock("a", first, total, np.zeros((1, *SHAPE), np.uint16))


def test_readers_get_all_and_the_end_or_are_told() -> None:
    feed = PatternFeed()
    with feed.subscribe() as reader, feed.subscribe(limit_bytes=150) as slow:
        for first in range(3):
            feed.publish(block(first))
        feed.end()
        assert [one.first for one in reader.blocks(1.0)] == [0, 1, 2]
        with pytest.raises(AcquisitionFailed, match="read too slowly"):
            list(slow.blocks(1.0))
    with feed.subscribe() as reader:
        feed.publish(block(0))
        feed.end("the beam went away")
        with pytest.raises(AcquisitionFailed, match="the beam went away"):
            list(reader.blocks(1.0))
    with feed.subscribe() as reader, pytest.raises(AcquisitionFailed, match="no pattern came"):
        list(reader.blocks(0.01))
