"""What crosses to another process arrives as it was sent; what is no message is refused; who may is remembered."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from instruments import CommandRefused, Detector, Frame, InstrumentFault, MicroscopeState, Mode, Optics, StagePosition
from instruments.commands import AcquireFrame
from instruments.remote.endpoint import Endpoint, endpoint_path, read_endpoint, write_endpoint
from instruments.remote.ownership import Ownership
from instruments.remote.status import Lock
from instruments.remote.wire import UnsendableError, WireError, receive, send
from instruments.scans import ScanPattern

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def crossed(value: Any) -> Any:
    """`value` after it went through a pipe."""
    there, here = Pipe()
    with there, here:
        sender = Thread(target=send, args=(there, value))
        sender.start()
        result = receive(here)
        sender.join()
    return result


def same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape) == (two.dtype, two.shape) and one.tobytes() == two.tobytes()
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (one != one and two != two)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
DTYPES = st.sampled_from(["<f8", ">f4", "<i8", "|u1", "|b1", "<c16", "<U5", "|S3", "<u2"]).map(np.dtype)
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
KEYS = st.text() | st.just("$") | st.integers()
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(VALUES)
def test_values_arrive_as_they_were_sent(value: Any) -> None:
    assert same(crossed(value), value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.0, 5e-324, 0.1 + 0.2, np.float64(1 / 3), np.str_("é"), 2**80])
def test_awkward_numbers(value: Any) -> None:
    assert same(crossed(value), value)


@pytest.mark.parametrize("array", [np.asfortranarray(np.eye(3)), np.arange(12)[::-2], np.zeros((0, 3)), np.array(7)])
def test_arrays_of_every_layout(array: np.ndarray) -> None:
    arrived = crossed(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.flags.writeable


def test_a_frame_crosses_whole() -> None:
    scan = ScanPattern(field_of_view_nm=1 / 3, shape_px=(2, 3), dwell_time_us=0.7)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5)
    command = AcquireFrame(action_id="a", deadline_s=1.0, optics=optics, scan=scan, mode="m")
    frame = Frame(
        action_id="a",
        requested=command,
        state=MicroscopeState(time_s=0.1 + 0.2, stage=StagePosition(), optics=optics, undetermined={"x": "why"}),
        mode=Mode(name="m", detectors=(Detector(name="haadf", inner_mrad=80.0),)),
        counts={"haadf": np.arange(12, dtype=np.uint16).reshape(2, 2, 3)},
        pixel_size_nm=1 / 9,
        dose_e_per_a2=1e-300,
        electrons=3.3,
        started_s=0.0,
        ended_s=1.0,
        instrument="x",
        simulated=True,
        context={"pair": (1, 2), "deep": [{"nan": math.nan}], "map": np.eye(2)},
    )
    arrived = crossed(frame)
    assert isinstance(arrived, Frame)
    assert all(same(getattr(arrived, name), getattr(frame, name)) for name in Frame.__dataclass_fields__)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.array([object()]), np.array([(1, 2)], dtype="i4,i4")])
def test_what_cannot_cross_is_said_before_anything_is_sent(value: Any) -> None:
    there, here = Pipe()
    with there, here:
        with pytest.raises(UnsendableError, match="cannot cross"):
            send(there, {"first": np.zeros(3), "then": value})
        assert not here.poll(0)


def pipe_with(*messages: bytes) -> tuple[Connection, Connection]:
    there, here = Pipe()
    for message in messages:
        there.send_bytes(message)
    return there, here


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\xff\xfe", b"{", b"7", b"[1]", b"[1, 2]", b'[1, [["<f8", [-2]]]]', b'[1, [["O", [2]]]]',
        b'[1, [["<f8", [4000000000, 4]]]]', b'[{"$": "array", "index": 3}, []]', b'[{"$": "scalar"}, []]',
        b'[{"$": "module", "name": "os"}, []]', b'[{"$": "record", "name": "dict", "fields": {}}, []]',
        b'[{"$": "record", "name": "Blank", "fields": {"kind": "park"}}, []]', b'[{"$": "frame", "fields": [1]}, []]',
        b'[{"$": "mapping", "items": [[[1], 2]]}, []]', b"[" * 100_000,
    ],
)  # fmt: skip
def test_garbage_is_no_message(message: bytes) -> None:
    there, here = pipe_with(message)
    with there, here, pytest.raises(WireError):
        receive(here)


def test_an_array_shorter_than_announced_is_no_message() -> None:
    there, here = pipe_with(b'[{"$": "array", "index": 0}, [["<f8", [2]]]]', b"eight by")
    with there, here, pytest.raises(WireError, match="shorter"):
        receive(here)


def test_an_array_longer_than_announced_ends_the_line() -> None:
    there, here = pipe_with(b'[{"$": "array", "index": 0}, [["<f8", [1]]]]', b"more than eight bytes")
    with there, here, pytest.raises(WireError, match="longer"):
        receive(here)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_message(message: bytes) -> None:
    there, here = pipe_with(message)
    with there, here, pytest.raises((WireError, EOFError, OSError)):
        receive(here)


# --- endpoint files, ownership


def endpoint(pid: int) -> Endpoint:
    return Endpoint(
        protocol=1, name="a b", host="127.0.0.1", port=1, stop_port=2, pid=pid, started_at=NOON, secret="s" * 64
    )


def test_an_endpoint_file_is_for_its_user_alone(tmp_path: Path) -> None:
    path = endpoint_path(tmp_path, "a b")
    write_endpoint(path, endpoint(os.getpid()))
    assert read_endpoint(path) == endpoint(os.getpid())
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_runs_it_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(InstrumentFault, match=r"instrument 'x' is not running.*stempilot instrument-host x"):
        read_endpoint(endpoint_path(tmp_path, "x"))
    path = endpoint_path(tmp_path, "y")
    path.write_text(json.dumps({"port": 1}))
    with pytest.raises(InstrumentFault, match="cannot be read"):
        read_endpoint(path)


def test_ownership_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "ownership.json"
    first = Ownership("x", path)
    first.take(5)
    assert first.bar("lease lapsed", 5)
    assert not first.bar("too late", 4)
    first.set_lock(Lock(reason="smoke", by="anna", at=NOON))
    first.set_lock(Lock(reason="later", by="otto", at=NOON))
    assert first.save() is None
    second = Ownership("x", path)
    with pytest.raises(CommandRefused, match="fence 4 is older than 5"):
        second.take(4)
    with pytest.raises(InstrumentFault, match=r"emergency stop of anna at 2026-03-01 12:00:00 UTC: smoke"):
        second.take(6)
    second.clear()
    with pytest.raises(InstrumentFault, match="was blanked: lease lapsed"):
        second.take(5)
    second.take(6)
    second.check_may_act(6)
    with pytest.raises(CommandRefused, match="fence 7 has loaded nothing"):
        second.check(7)


def test_a_damaged_memory_is_not_taken_for_no_lock(tmp_path: Path) -> None:
    (tmp_path / "ownership.json").write_text("{")
    with pytest.raises(InstrumentFault, match="whether an emergency stop is pending"):
        Ownership("x", tmp_path / "ownership.json")


def test_a_full_disk_is_said_and_stops_nothing(tmp_path: Path) -> None:
    owner = Ownership("x", tmp_path / "gone" / "ownership.json")
    owner.set_lock(Lock(reason="smoke", by="anna", at=NOON))
    trouble = owner.save()
    assert trouble is not None
    assert "only as long as this process" in trouble
    with pytest.raises(InstrumentFault, match="smoke"):
        owner.take(1)
