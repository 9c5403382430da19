"""Who is not heard of for a lease has its beam taken off; who is, or was followed by another, is left alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from instruments import Events, InstrumentEvent
from instruments.events import EventLog
from instruments.remote import owner_watch
from instruments.remote.owner_watch import AGAIN_S, OwnerWatch


@dataclass
class Clock:
    """Seconds as the test wants them."""

    now_s: float = 100.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class Instrument:
    """A beam that takes so many stops to go off."""

    is_lit: bool = True
    stops_needed: int = 1
    stopped: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def blank(self, fence: int, reason: str) -> bool:
        self.stopped.append((fence, reason))
        self.is_lit = len(self.stopped) < self.stops_needed
        return not self.is_lit


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(owner_watch, "time", clock)
    return clock


def watched(instrument: Instrument) -> OwnerWatch:
    return OwnerWatch(10.0, lambda: instrument.is_lit, instrument.blank)


def test_a_silent_owner_has_its_beam_taken_off_once(clock: Clock) -> None:
    instrument = Instrument()
    watch = watched(instrument)
    clock.now_s += 100.0
    watch.look()
    assert instrument.stopped == [], "nobody has owned it yet"
    watch.heard(7)
    for _ in range(5):
        clock.now_s += 9.5
        watch.look()
        watch.heard(7)
    assert instrument.stopped == []
    clock.now_s += 10.0
    watch.look()
    assert instrument.stopped == [(7, "its owner was not heard of for 10.0 s, the lease is 10 s")]
    instrument.is_lit = True
    clock.now_s += 100.0
    watch.look()
    assert len(instrument.stopped) == 1, "whoever lights it now is no owner of this watch"


def test_a_beam_that_does_not_go_off_is_tried_again(clock: Clock) -> None:
    instrument = Instrument(stops_needed=3)
    watch = watched(instrument)
    watch.heard(7)
    clock.now_s += 10.0
    for _ in range(40):
        watch.look()
        clock.now_s += AGAIN_S / 10
    assert len(instrument.stopped) == 3


def test_an_older_owner_keeps_nobody_alive_and_dark_instruments_are_left_alone(clock: Clock) -> None:
    instrument = Instrument(is_lit=False)
    watch = watched(instrument)
    watch.heard(8)
    clock.now_s += 9.0
    watch.heard(7)
    clock.now_s += 1.0
    watch.look()
    assert instrument.stopped == []
    instrument.is_lit = True
    clock.now_s += AGAIN_S
    watch.look()
    assert [fence for fence, _ in instrument.stopped] == [8]


def event(number: int) -> InstrumentEvent:
    return InstrumentEvent(kind="action", message=str(number))


def test_a_log_gives_what_came_after_and_counts_what_is_gone() -> None:
    log = EventLog(limit_count=3)
    assert log.after(0).events == ()
    for number in range(1, 6):
        log.put(event(number))
    batch = log.after(1)
    assert [one.message for one in batch.events] == ["3", "4", "5"]
    assert (batch.last, batch.missed_count) == (5, 1)
    assert log.after(5).events == ()
    assert log.after(4).missed_count == 0
    assert [one.message for one in log.after(99).events] == ["3", "4", "5"], "a log that began anew"


def test_what_was_missed_is_told_to_whoever_listens_here() -> None:
    log, here = EventLog(limit_count=2), Events()
    there = Events()
    there.attach(log)
    with here.subscribe() as told:
        for number in range(5):
            there.publish(event(number))
        here.take_in(log.after(0), "the microscope")
        missed, *rest = told.take()
    assert (missed.kind, missed.message[:28]) == ("missed", "3 event(s) of the microscope")
    assert [one.message for one in rest] == ["3", "4"]
