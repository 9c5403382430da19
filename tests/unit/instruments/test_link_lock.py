"""An instrument's process whose adapter lost its link is locked until a person clears it, also across a restart."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    Axis,
    Blank,
    Capabilities,
    Frame,
    GuardedMicroscope,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    LookNeeded,
    Microscope,
    ResultUnknown,
    SafetyEnvelope,
    StagePosition,
)
from instruments.remote.adapter_thread import AdapterThread
from instruments.remote.command_calls import CommandCalls
from instruments.remote.ownership import Ownership
from tests.integration.bench_microscope import BenchMicroscope, exposure


class Distant(BenchMicroscope):
    """A bench at the other end of a link that breaks as `error` says."""

    def __init__(self, error: InstrumentError, *, is_lost: bool) -> None:
        super().__init__("works")
        self.error = error
        self.is_lost = is_lost

    def acquire(self, command: AcquireFrame) -> Frame:
        raise self.error

    def is_link_lost(self) -> bool:
        return self.is_lost

    def reconnect(self) -> None:
        self.is_lost = False


def call(calls: CommandCalls, name: str, fence: int = 1, **arguments: Any) -> Any:
    message = {"request": {"call": name, "fence": fence, "wait_s": 60.0}, "arguments": arguments}
    return calls.answer(message, lambda: True)


def calls_of(microscope: Microscope, path: Path) -> tuple[CommandCalls, Ownership]:
    ownership = Ownership("bench", path)
    calls = CommandCalls("bench", AdapterThread(lambda adapter, config: microscope), ownership)
    call(calls, "load", session_id="s", adapter="bench", config={})
    return calls, ownership


@pytest.mark.parametrize("error", [LinkLost("cable pulled"), ResultUnknown("no answer")])
def test_a_lost_link_locks_until_a_person_clears(tmp_path: Path, error: InstrumentError) -> None:
    microscope = Distant(error, is_lost=True)
    calls, ownership = calls_of(microscope, tmp_path / "ownership.json")
    with pytest.raises(type(error)):
        call(calls, "acquire", command=exposure("a"))
    with pytest.raises(InstrumentFault, match=r"locked by an emergency stop of the lost link .* --clear"):
        call(calls, "acquire", command=exposure("b"))
    call(calls, "execute", command=Blank(action_id="blank"))
    again = Ownership("bench", tmp_path / "ownership.json")
    assert again.lock is not None
    ownership.clear()
    call(calls, "load", 2, session_id="s", adapter="bench", config={})
    with pytest.raises(type(error)):
        call(calls, "acquire", 2, command=exposure("c"))


def test_an_answer_lost_on_a_line_that_holds_locks_nobody_out(tmp_path: Path) -> None:
    calls, ownership = calls_of(Distant(ResultUnknown("overran"), is_lost=False), tmp_path / "ownership.json")
    with pytest.raises(ResultUnknown):
        call(calls, "acquire", command=exposure("a"))
    assert ownership.lock is None


def test_behind_a_gateway_the_guard_goes_on_once_a_person_cleared_its_lock(tmp_path: Path) -> None:
    """Its beam is blanked first, the ledger goes on, and an answer that was lost with the link locks at once."""
    distant = Distant(ResultUnknown("no answer"), is_lost=True)
    guarded = GuardedMicroscope(distant, SafetyEnvelope())
    calls, ownership = calls_of(guarded, tmp_path / "ownership.json")
    with pytest.raises(ResultUnknown):
        call(calls, "acquire", command=exposure("a"))
    assert ownership.lock is not None
    spent = guarded.ledger.electrons
    assert spent > 0
    ownership.clear()
    with pytest.raises(InstrumentFault, match="was blanked: no answer; claim it again"):
        call(calls, "acquire", command=exposure("the session that was there before"))
    assert ownership.lock is None, "it does not lock again what a person has cleared"
    with guarded.events.subscribe() as told:
        call(calls, "load", 2, session_id="s", adapter="bench", config={})
    assert [event.kind for event in told.take()] == ["link_back", "acknowledged"]
    assert guarded.ledger.electrons > spent
    with pytest.raises(ResultUnknown):
        call(calls, "acquire", 2, command=exposure("b"))


def test_behind_a_gateway_no_other_client_goes_on_after_a_frame_that_was_taken_elsewhere(tmp_path: Path) -> None:
    """Its guard wants a person to look; a new session, which has a new guard, is let in after that alone."""

    class Displaced(BenchMicroscope):
        def capabilities(self) -> Capabilities:
            return super().capabilities().model_copy(update={"axes": (Axis(name="x_nm", frame="stage"),)})

        def acquire(self, command: AcquireFrame) -> Frame:
            frame = super().acquire(command)
            return replace(frame, state=frame.state.model_copy(update={"stage": StagePosition(x_nm=500.0)}))

    guarded = GuardedMicroscope(Displaced("works"), SafetyEnvelope(max_position_error_nm=50.0))
    calls, ownership = calls_of(guarded, tmp_path / "ownership.json")
    call(calls, "acquire", command=exposure("a"))
    assert ownership.lock is not None
    assert "x_nm 500 nm instead of 0 nm" in ownership.lock.reason
    with pytest.raises(InstrumentFault, match="locked by an emergency stop of the guard"):
        call(calls, "load", session_id="another", adapter="bench", config={})
    with pytest.raises(LookNeeded, match="a person has to look"):
        guarded.acquire(exposure("b"))
    ownership.clear()
    for command in (exposure("b"), Blank(action_id="blanks, which is never refused")):
        with pytest.raises(InstrumentFault, match="claim it again") if command.kind != "blank" else nullcontext():
            call(calls, "acquire" if command.kind != "blank" else "execute", command=command)
        assert ownership.lock is None
    call(calls, "load", 2, session_id="s", adapter="bench", config={})
    call(calls, "acquire", 2, command=exposure("c"))
    assert ownership.lock is not None, "the next one that is taken elsewhere locks again"
