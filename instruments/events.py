"""What happens at an instrument, told to whoever subscribed; a slow reader loses its oldest events, never the beam.

A subscription is a queue: no reader's code runs in the thread that commands the instrument. An `EventLog` is one that
readers elsewhere ask for what came after the last they know. Neighbour: `remote` and `workers` carry them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from pydantic import AwareDatetime, Field

from instruments.actions import ActionState
from instruments.fan_out import FanOut
from instruments.models import Record

EventKind = Literal[
    "action", "stopped", "blanked", "link_lost", "link_back", "acknowledged", "calibration_expired", "current_measured",
    "taken_elsewhere", "more_current", "missed",
]  # fmt: skip
LIMIT_COUNT = 1000


class InstrumentEvent(Record):
    """Something that happened; `action_id`, `state` and `command` are those of an action that changed."""

    kind: EventKind
    at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    action_id: str | None = None
    command: str | None = Field(default=None, description="kind of the command")
    state: ActionState | None = None
    message: str = ""


class Sink(Protocol):
    """What takes events as they come, and waits for nothing."""

    def put(self, event: InstrumentEvent) -> None:
        """Take one; from any thread."""
        ...


class Teller(Protocol):
    """Where events are told."""

    def publish(self, event: InstrumentEvent) -> None:
        """Tell every subscriber; does not wait for any of them."""
        ...


class Events:
    """Where events of one instrument are published; from any thread. One may pass on what another publishes."""

    def __init__(self) -> None:
        self._sinks = FanOut[Sink]()

    def subscribe(self, limit_count: int = LIMIT_COUNT) -> Subscription:
        """A queue of every event from now on, the newest `limit_count` kept; close it when done."""
        subscription = Subscription(self, limit_count)
        self.attach(subscription)
        return subscription

    def attach(self, sink: Sink) -> None:
        """Give every event from now on to this one too."""
        self._sinks.add(sink)

    def publish(self, event: InstrumentEvent) -> None:
        """Tell every subscriber; does not wait for any of them."""
        for sink in self._sinks:
            sink.put(event)

    def put(self, event: InstrumentEvent) -> None:
        """Publish what another told."""
        self.publish(event)

    def take_in(self, batch: EventBatch, whose: str) -> None:
        """Publish what came from elsewhere, and how much of it was lost on the way."""
        if batch.missed_count:
            words = f"{batch.missed_count} event(s) of {whose} were dropped: nobody asked for them in time"
            self.publish(InstrumentEvent(kind="missed", message=words))
        for event in batch.events:
            self.publish(event)

    def forget(self, sink: Sink) -> None:
        """Tell this one nothing more."""
        self._sinks.forget(sink)


class ToldOnce:
    """Publishes what two tell of the same actions, a guard here and one at the far end of a line: each event once.

    Whoever tells first is heard; the same of the other, whenever it comes, is not. What names no action is always told.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._guard = threading.Lock()
        self._told: tuple[deque[_Key], deque[_Key]] = (deque(maxlen=LIMIT_COUNT), deque(maxlen=LIMIT_COUNT))

    def put(self, event: InstrumentEvent) -> None:
        """From the far end."""
        self._tell(event, 1)

    def publish(self, event: InstrumentEvent) -> None:
        """From here."""
        self._tell(event, 0)

    def _tell(self, event: InstrumentEvent, whose: int) -> None:
        if event.action_id is not None:
            key = event.kind, event.action_id, event.state
            with self._guard:
                if key in self._told[1 - whose]:
                    self._told[1 - whose].remove(key)
                    return
                self._told[whose].append(key)
        self._events.publish(event)


_Key = tuple[EventKind, str, ActionState | None]


@runtime_checkable
class Eventful(Protocol):
    """An instrument that tells what happens at it."""

    @property
    def events(self) -> Events:
        """Where it is told."""
        ...


class EventBatch(Record):
    """Events after the one a reader knew, oldest first; `missed_count` are gone that came before the first of them."""

    events: tuple[InstrumentEvent, ...] = ()
    last: int = Field(default=0, ge=0, description="the number of the newest, to ask for what comes after it")
    missed_count: int = Field(default=0, ge=0)


class EventLog:
    """The newest events, numbered from 1, for readers who ask for those after the last they know."""

    def __init__(self, limit_count: int = LIMIT_COUNT) -> None:
        self._waiting = threading.Condition()
        self._newest: deque[InstrumentEvent] = deque(maxlen=limit_count)
        self._count = 0

    def put(self, event: InstrumentEvent) -> None:
        """Add one; the oldest goes when there are too many."""
        with self._waiting:
            self._newest.append(event)
            self._count += 1
            self._waiting.notify_all()

    def after(self, last: int, wait_s: float = 0.0) -> EventBatch:
        """What came after event number `last`, waiting for it as long as this; a number beyond the newest is none."""
        with self._waiting:
            if last > self._count:  # a reader who knew an earlier log
                last = 0
            self._waiting.wait_for(lambda: self._count > last, wait_s)
            kept = min(len(self._newest), self._count - last)
            events: Sequence[InstrumentEvent] = list(self._newest)[len(self._newest) - kept :]
            return EventBatch(events=tuple(events), last=self._count, missed_count=self._count - last - kept)


class Subscription:
    """The events of one subscriber, oldest first."""

    def __init__(self, events: Events, limit_count: int) -> None:
        self._events = events
        self._waiting = threading.Condition()
        self._queue: deque[InstrumentEvent] = deque(maxlen=limit_count)
        self.missed_count = 0

    def put(self, event: InstrumentEvent) -> None:
        """Add one; the oldest goes when there are too many, and is counted in `missed_count`."""
        with self._waiting:
            self.missed_count += len(self._queue) == self._queue.maxlen
            self._queue.append(event)
            self._waiting.notify_all()

    def next(self, timeout_s: float) -> InstrumentEvent | None:
        """The oldest event, waiting for one as long as this; None if there is none."""
        with self._waiting:
            self._waiting.wait_for(lambda: bool(self._queue), timeout_s)
            return self._queue.popleft() if self._queue else None

    def take(self) -> list[InstrumentEvent]:
        """All events that are there, oldest first; does not wait."""
        with self._waiting:
            events = list(self._queue)
            self._queue.clear()
        return events

    def close(self) -> None:
        """End the subscription; more than once is harmless."""
        self._events.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
