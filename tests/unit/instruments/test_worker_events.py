"""Events of an adapter in a worker reach who listens here, with each command; so do those of a library's process."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from instruments import Blank, CommandRefused, Events, InstrumentEvent
from instruments.adapters import driver
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.worker import WorkerMicroscope
from instruments.events import LIMIT_COUNT
from instruments.workers import Worker
from instruments.workers.microscope_device import MicroscopeDevice
from tests.integration.bench_microscope import BenchMicroscope, exposure
from tests.unit.instruments.test_driven import StubbornDriver


class Talkative(BenchMicroscope):
    """A bench that tells what it is told to."""

    def __init__(self) -> None:
        super().__init__("works")
        self.events = Events()

    def tell(self, count: int) -> None:
        for number in range(count):
            self.events.publish(InstrumentEvent(kind="action", message=str(number)))


class InThisProcess:
    """A worker's calls, carried out here."""

    def __init__(self, microscope: BenchMicroscope) -> None:
        self.device = MicroscopeDevice(microscope)
        self.events = Events()
        self.program = SimpleNamespace(name="worker of talkative")
        self.start_count, self.is_lost = 1, False
        self.calls: list[str] = []

    def start(self) -> None:
        """It runs."""

    def call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float, moves: bool = False
    ) -> Any:
        self.calls.append(name)
        return getattr(self.device, name)(**(arguments or {}))


def test_events_come_with_the_next_command_and_what_was_dropped_is_counted() -> None:
    talkative = Talkative()
    worker = InThisProcess(talkative)
    microscope = WorkerMicroscope(cast("Worker", worker), tells=worker.device.tells())
    with microscope.events.subscribe(limit_count=2 * LIMIT_COUNT) as told:
        microscope.acquire(exposure("quiet"))
        assert told.take() == []
        talkative.tell(2)
        microscope.acquire(exposure("a"))
        assert [event.message for event in told.take()] == ["0", "1"]
        talkative.tell(LIMIT_COUNT + 5)
        with pytest.raises(CommandRefused, match="bench says"):
            microscope.acquire(exposure("b", "raise CommandRefused"))
        missed, *rest = told.take()
        assert (missed.kind, missed.message.split(":")[0]) == (
            "missed",
            "5 event(s) of worker of talkative were dropped",
        )
        assert [event.message for event in rest[:2]] == ["5", "6"]
        assert len(rest) == LIMIT_COUNT


def test_an_adapter_that_tells_nothing_is_not_asked() -> None:
    worker = InThisProcess(BenchMicroscope("works"))
    microscope = WorkerMicroscope(cast("Worker", worker), tells=worker.device.tells())
    microscope.execute(Blank(action_id="b"))
    assert "new_events" not in worker.calls


def test_a_driven_microscope_passes_on_what_its_process_tells() -> None:
    class Noisy(driver.InThisProcess):
        events = Events()

    noisy = Noisy()
    microscope = DrivenMicroscope(StubbornDriver(worker=noisy))
    with microscope.events.subscribe() as told:
        noisy.events.publish(InstrumentEvent(kind="link_lost", message="killed"))
        assert [event.kind for event in told.take()] == ["link_lost"]
