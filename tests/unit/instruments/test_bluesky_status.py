"""What Bluesky writes down of an exposure that was refused; without Bluesky."""

from __future__ import annotations

from concurrent.futures import Future

from instruments import CommandRefused
from instruments.adapters.bluesky_device import BlueskyMicroscope
from instruments.adapters.bluesky_status import FutureStatus
from tests.unit.instruments.envelope_bench import frame, guard


def test_a_status_says_in_words_what_became_of_it() -> None:
    future: Future[None] = Future()
    status = FutureStatus(future)
    assert repr(status) == "<not done yet>"
    future.set_exception(CommandRefused("stage x 3 nm is above the limit 1 nm"))
    assert repr(status) == "<CommandRefused: stage x 3 nm is above the limit 1 nm>"
    assert not status.success


def test_an_axis_asked_for_twice_is_one_device_that_knows_where_it_stands() -> None:
    stem = BlueskyMicroscope(guard(), frame(), name="stem")
    try:
        stem.axis("x_nm").set(3.0).wait(10.0)
        stem.axis("x_nm").set(5.0).wait(10.0)
        assert stem.axis("x_nm").position == 5.0
        assert stem.axis("x_nm") is stem.axis("x_nm")
    finally:
        stem.close()
