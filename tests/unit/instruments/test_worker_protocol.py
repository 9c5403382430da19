"""Messages of workers over a socket pair: as they were sent, or nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from instruments.workers.protocol import HEADER, SHARED_FROM_BYTES, Broken, Silent, receive, send

Pair = tuple[socket.socket, socket.socket]
_DTYPES = ("u1", "<u2", ">u4", "<i8", "<f4", "<f8", "<c16", "?")


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def soon() -> float:
    return time.monotonic() + 60


def carried(message: Any) -> Any:
    here, there = socket.socketpair()
    with here, there:
        sending = threading.Thread(target=send, args=(here, message))  # a large one fills the line
        sending.start()
        found = receive(there, soon())
        sending.join()
        return found


@given(
    st.lists(
        st.sampled_from(_DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        ),
        max_size=4,
    )
)
def test_arrays_arrive_with_every_bit(values: list[np.ndarray]) -> None:
    found = carried({"values": values, "words": [1, None, 2.5, "ä"]})
    assert found["words"] == [1, None, 2.5, "ä"]
    for sent, got in zip(values, found["values"], strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


@pytest.mark.parametrize("size_bytes", [SHARED_FROM_BYTES - 1, SHARED_FROM_BYTES, 300_000])
def test_arrays_around_the_size_from_which_memory_is_shared(size_bytes: int) -> None:
    values = np.random.default_rng(1).integers(0, 255, size_bytes, np.uint8)
    turned = values[: 2 * (size_bytes // 2)].reshape(2, -1).T  # not contiguous
    found = carried([values, turned])
    assert np.array_equal(found[0], values)
    assert np.array_equal(found[1], turned)
    assert not found[0].flags.writeable


def test_what_is_no_value_is_not_sent(pair: Pair) -> None:
    here, there = pair
    for wrong in (object(), np.array([object()]), {1, 2}):
        with pytest.raises(TypeError, match="cannot cross"):
            send(here, wrong)
    send(here, "whole")
    assert receive(there, soon()) == "whole"


def test_silence_and_half_a_message(pair: Pair) -> None:
    here, there = pair
    with pytest.raises(Silent):
        receive(there, time.monotonic() + 0.01)
    here.sendall(HEADER.pack(10, 0, False) + b"[]\n")
    with pytest.raises(Silent, match="middle"):
        receive(there, time.monotonic() + 0.01)
    here.close()
    with pytest.raises(Broken, match="hung up"):
        receive(there, soon())


@pytest.mark.parametrize(
    "text",
    [
        b"no json",
        b"[]\n{",
        json.dumps([["<f8", [2, 2], 0]]).encode() + b"\n[]",  # an array that is not there
        json.dumps([["O", [1], 0]]).encode() + b"\n[]",
        b'[]\n{"$array": 3}',
    ],
)
def test_garbage_is_no_message(pair: Pair, text: bytes) -> None:
    here, there = pair
    here.sendall(HEADER.pack(len(text), 0, False) + text)
    with pytest.raises(Broken):
        receive(there, soon())


def test_memory_that_was_announced_and_did_not_come(pair: Pair) -> None:
    here, there = pair
    here.sendall(HEADER.pack(4, 1 << 20, True) + b"[]\n1")
    with pytest.raises(Broken, match="did not come"):
        receive(there, soon())
    here.sendall(HEADER.pack(1 << 30, 0, False))
    with pytest.raises(Broken, match="announced"):
        receive(there, soon())


def test_a_line_that_another_thread_closes_is_noticed_long_before_the_deadline(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wakes who waits at it: the system keeps it open for as long as somebody does."""
    monkeypatch.setattr("instruments.workers.protocol.LOOK_S", 0.02)
    here, there = pair
    ended: list[Exception] = []

    def wait() -> None:
        try:
            receive(here, time.monotonic() + 600)
        except (Broken, Silent) as error:
            ended.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    here.close()
    waiting.join(120)
    assert [type(error) for error in ended] == [Broken]
    assert there.fileno() != -1
