"""Deadlines in the adapter's thread: a call that runs past its own is stopped from beside, and its dose counts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from instruments import Frame, InstrumentBusy, ResultUnknown
from instruments.remote.adapter_thread import AdapterThread, Asked
from instruments.remote.daemon_executor import DaemonExecutor
from tests.integration.bench_microscope import BenchMicroscope, exposure

LONG_S = 600.0


class Obeying(BenchMicroscope):
    """It hangs in `acquire` until it is stopped, as a vendor's call does that waits for a scan which never ends."""

    def __init__(self, how_to_stop: str = "works") -> None:
        super().__init__(how_to_stop)
        self.stops = 0
        self.free = threading.Event()

    def stop(self) -> None:
        self.stops += 1
        super().stop()

    def acquire(self, command: Any) -> Frame:
        frame = super().acquire(command)
        if command.purpose == "deaf":
            self.free.wait(LONG_S)
        return frame


@pytest.fixture
def bench() -> Iterator[Obeying]:
    microscope = Obeying()
    yield microscope
    microscope.free.set()


def loaded(microscope: Obeying) -> AdapterThread:
    thread = AdapterThread(lambda adapter, config: microscope)
    thread.load("session", "bench", {})
    return thread


def called(thread: AdapterThread, asked: Asked, wait_s: float = LONG_S) -> Any:
    return thread.call(asked, wait_s=wait_s, is_wanted=lambda: True)


def asked_for(thread: AdapterThread, command: Any, overran: list[str] | None = None) -> Asked:
    told = [] if overran is None else overran
    return Asked(
        "acquire",
        lambda: thread.acquire(command, lambda: None),
        action_id=command.action_id,
        deadline_s=command.deadline_s,
        overran=told.append,
    )


def test_a_call_past_its_deadline_is_stopped_and_unknown(bench: Obeying) -> None:
    thread, overran = loaded(bench), list[str]()
    command = exposure("late", "expose", beam_on_s=3000, deadline_s=0.3)
    with pytest.raises(ResultUnknown, match=r"acquire late was not done within its deadline of 0\.3 s and was stopped"):
        called(thread, asked_for(thread, command, overran))
    assert overran == ["acquire late was not done within its deadline of 0.3 s"]
    assert thread.beam_blanked is True
    assert called(thread, Asked("outcome", lambda: thread.outcome("late"))) == "delivered", "its frame is kept"


def test_one_that_does_not_come_back_leaves_the_beam_off_and_the_thread_busy(bench: Obeying) -> None:
    thread = loaded(bench)
    with pytest.raises(ResultUnknown, match="beam blanked; its dose counts as spent"):
        called(thread, asked_for(thread, exposure("stuck", "deaf", deadline_s=0.3)))
    assert bench.stops >= 1
    assert thread.beam_blanked is True
    with pytest.raises(InstrumentBusy, match="busy with acquire since"):
        called(thread, Asked("read_state", bench.read_state), wait_s=0.1)


def test_the_deadline_counts_from_the_start_of_the_command(bench: Obeying) -> None:
    """Waiting for the thread to be free is not running."""
    thread, seen = loaded(bench), list[bool]()
    asked = Asked("read_state", lambda: (seen.append(asked.is_late), bench.free.wait(LONG_S)), deadline_s=1e-9)
    assert not asked.is_late, "it has not begun"
    with pytest.raises(ResultUnknown, match="its deadline of 1e-09 s"):
        called(thread, asked)
    assert seen == [True]


def test_a_stop_that_fails_is_remembered_until_one_is_confirmed() -> None:
    bench = Obeying("raises")
    thread = loaded(bench)
    assert thread.stop().beam_blanked is None
    assert thread.beam_blanked is None, "it was blanked before, and nobody knows now"
    assert "blanker's cable is out" in (thread.not_blanked or "")
    bench._how_to_stop = "works"
    assert thread.stop().beam_blanked is True
    assert (thread.not_blanked, thread.beam_blanked) == (None, True)


def test_a_microscope_called_elsewhere_is_stopped_again(bench: Obeying) -> None:
    """An exposure may begin there at this very moment and not notice the first stop; nobody here knows of it."""
    thread = AdapterThread(lambda adapter, config: bench)
    thread.adopt("a run", "bench", {}, bench)
    assert thread.stop().beam_blanked is True
    until_s = time.monotonic() + LONG_S
    while bench.stops < 3 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert bench.stops == 3


def test_a_stop_that_hangs_keeps_no_process_from_ending() -> None:
    script = (
        "import sys, threading; from instruments.remote.daemon_executor import DaemonExecutor; "
        "executor = DaemonExecutor('stop'); assert executor.submit(lambda: 3).result() == 3; "
        "hanging = executor.submit(threading.Event().wait); assert not hanging.done(); sys.exit(4)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=LONG_S, check=False).returncode == 4


def test_calls_are_made_in_turn_and_tell_what_they_raise() -> None:
    executor, done = DaemonExecutor("stop"), list[int]()
    first, free = executor.submit(lambda: done.append(1)), threading.Event()
    held = executor.submit(lambda: free.wait(LONG_S) and done.append(2))
    wrong = executor.submit(lambda: 1 / 0)
    last = executor.submit(lambda: done.append(3))
    first.result(LONG_S)
    assert done == [1]
    free.set()
    with pytest.raises(ZeroDivisionError):
        wrong.result(LONG_S)
    last.result(LONG_S)
    assert (held.done(), done) == (True, [1, 2, 3])


def test_the_one_before_is_closed_before_another_is_opened() -> None:
    """Many an instrument lets one client in."""
    done: list[str] = []

    class Closing(BenchMicroscope):
        def close(self) -> None:
            done.append("closed")

    def opener(adapter: str, config: Mapping[str, Any]) -> Closing:
        done.append("opened")
        return Closing("works")

    thread = AdapterThread(opener)
    for session in ("a", "a", "b"):
        thread.load(session, "bench", {})
    assert done == ["opened", "closed", "opened"]
