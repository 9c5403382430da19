"""The line on which an owner far away says that it is there, and hears what happens at its instrument.

One thread, one connection to the stop line, made anew as often as it breaks. Neighbours: `owner_watch` is who listens,
`events` what is told.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from instruments.errors import InstrumentError
from instruments.events import EventBatch, Events
from instruments.remote.client import ask_on, dial_stop_line
from instruments.remote.endpoint import Endpoint

FIRST_S: Final = 1.0
SIGNS_PER_LEASE: Final = 4
ANSWER_S: Final = 10.0


class Lifeline:
    """Lives from `start` to `close`; events of the instrument are published to `events`."""

    def __init__(self, endpoint: Endpoint, fence: int, events: Events) -> None:
        self._endpoint = endpoint
        self._fence = fence
        self._events = events
        self._last: int | None = None
        self._period_s = FIRST_S
        self._ended = threading.Event()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._live, name=f"{endpoint.name} lifeline", daemon=True)

    def start(self) -> None:
        """Begin: what happens after this is told, what happened before is not."""
        with suppress(InstrumentError):  # the thread goes on trying, and whoever commands finds out
            self._begin()
        self._thread.start()

    def close(self) -> None:
        """Say nothing more; more than once is harmless."""
        self._ended.set()
        if self._connection is not None:
            with suppress(OSError), socket.socket(fileno=socket.dup(self._connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it
        if self._thread.is_alive():
            self._thread.join(FIRST_S)

    def _live(self) -> None:
        while not self._ended.is_set():
            try:
                if self._last is None:
                    self._begin()
                else:
                    self._tell(self._last)
            except InstrumentError:  # the gateway is away; its watch blanks, and whoever commands finds out
                self._hang_up()
                self._ended.wait(self._period_s)
        self._hang_up()

    def _begin(self) -> None:
        self._keep(*self._asked(0, 0.0))

    def _tell(self, last: int) -> None:
        batch, lease_s = self._asked(last, self._period_s)
        self._events.take_in(batch, f"instrument {self._endpoint.name!r}")
        self._keep(batch, lease_s)

    def _keep(self, batch: EventBatch, lease_s: float | None) -> None:
        self._last = batch.last
        if lease_s is not None:
            self._period_s = min(FIRST_S, lease_s / SIGNS_PER_LEASE)

    def _asked(self, last: int, wait_s: float) -> tuple[EventBatch, float | None]:
        """Events after the last, waited for as long as this; the lease that counts there."""
        if self._connection is None:
            self._connection = dial_stop_line(self._endpoint, ANSWER_S)
        call = {"call": "events", "after": last, "wait_s": wait_s, "fence": self._fence}
        reply: dict[str, object] = ask_on(self._connection, self._endpoint, call, dict, wait_s + ANSWER_S)
        match reply:
            case {"batch": EventBatch() as batch, "lease_s": float() | None as lease_s}:
                return batch, lease_s
            case _:
                raise InstrumentError(f"an answer that is none: {reply!r:.200}")

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
