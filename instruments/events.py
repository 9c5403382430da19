"""What happens at an instrument, told to whoever subscribed; a slow reader loses its oldest events, never the beam.

A subscription is a queue: no reader's code runs in the thread that commands the instrument.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from pydantic import AwareDatetime, Field

from instruments.actions import ActionState
from instruments.models import Record

EventKind = Literal["action", "stopped", "blanked", "link_lost", "link_back", "acknowledged", "calibration_expired"]


class InstrumentEvent(Record):
    """Something that happened; `action_id`, `state` and `command` are those of an action that changed."""

    kind: EventKind
    at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    action_id: str | None = None
    command: str | None = Field(default=None, description="kind of the command")
    state: ActionState | None = None
    message: str = ""


class Events:
    """Where events of one instrument are published; from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def subscribe(self, limit_count: int = 1000) -> Subscription:
        """A queue of every event from now on, the newest `limit_count` kept; close it when done."""
        subscription = Subscription(self, limit_count)
        with self._guard:
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def publish(self, event: InstrumentEvent) -> None:
        """Tell every subscriber; does not wait for any of them."""
        for subscription in self._subscriptions:
            subscription.put(event)

    def forget(self, subscription: Subscription) -> None:
        """Tell this one nothing more."""
        with self._guard:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)


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
