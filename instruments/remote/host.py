"""An instrument in a process of its own: it owns the adapter, outlives whoever commands it, and can be stopped.

Two lines: *command*, for the owner whose fence is the newest, and *stop*, for anybody with the secret, which answers
while an exposure runs. Neighbours: `command_calls`, `adapter_thread`, `ownership`; `client` is the other end.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from instruments import registry
from instruments.capabilities import Capabilities
from instruments.errors import InstrumentError, InstrumentFault
from instruments.microscope import Microscope
from instruments.remote.adapter_thread import AdapterThread, Opener
from instruments.remote.command_calls import CommandCalls
from instruments.remote.endpoint import Endpoint, Listening, endpoint_path, write_endpoint
from instruments.remote.failures import failure_document
from instruments.remote.lines import ListeningLine
from instruments.remote.ownership import Ownership, ownership_path
from instruments.remote.status import InstrumentStatus, Lock, StopReport
from instruments.remote.wire import PROTOCOL, UnsendableError, WireError, receive, send

_LAST_ANSWERS_S: Final = 5.0
log = logging.getLogger(__name__)


def open_by_name(adapter: str, config: Mapping[str, Any]) -> Microscope:
    """The adapter of that name, as `instruments.open` finds it."""
    return registry.open(adapter, **config)


class InstrumentHost:
    """The process side. It starts empty; `load` opens an adapter in it, as a specimen is put into a microscope."""

    def __init__(
        self,
        name: str,
        run_folder: Path,
        opener: Opener = open_by_name,
        *,
        on_stop: Callable[[], None] | None = None,
        listening: Listening | None = None,
    ) -> None:
        """`on_stop` is told of every stop by the stop line, before the adapter is."""
        self.name = name
        self._path = endpoint_path(run_folder, name)
        self._ownership = Ownership(name, ownership_path(run_folder, name))
        self._adapter = AdapterThread(opener)
        self._calls = CommandCalls(name, self._adapter, self._ownership)
        self._on_stop = on_stop
        self._listening = listening or Listening()
        self._started_at = datetime.now(UTC)
        self._owners: set[Connection] = set()
        self._answering = _Count()
        self._lines: list[ListeningLine] = []

    def start(self) -> Endpoint:
        """Listen, and write where; the endpoint."""
        return self._listen(takes_commands=True)

    def adopt(self, adapter: str, config: Mapping[str, Any], microscope: Microscope) -> Endpoint:
        """Be the stop line alone of a microscope that a run in this process opened and commands by itself."""
        self._adapter.adopt(f"a run in process {os.getpid()}", adapter, config, microscope)
        return self._listen(takes_commands=False)

    def _listen(self, *, takes_commands: bool) -> Endpoint:
        where = self._listening
        secret = where.secret or secrets.token_hex(32)
        key, host = secret.encode(), where.host
        stop = ListeningLine(f"{self.name} stop line", key, self._serve_stops, host=host, port=where.stop_port)
        self._lines, port = [stop], 0
        if takes_commands:
            command = ListeningLine(f"{self.name} command line", key, self._serve_commands, host=host, port=where.port)
            self._lines, port = [command, stop], command.port
        endpoint = Endpoint(
            protocol=PROTOCOL,
            name=self.name,
            host=where.own_address,
            port=port,
            stop_port=stop.port,
            pid=os.getpid(),
            started_at=self._started_at,
            secret=secret,
        )
        write_endpoint(self._path, endpoint)
        return endpoint

    def end(self, reason: str) -> bool:
        """Take no more commands, blank, let a frame in progress be handed over; False when the beam may still be on."""
        self._calls.ending = reason
        had_adapter = self._adapter.loaded is not None
        report = self.blank(reason)
        until_s = time.monotonic() + _LAST_ANSWERS_S
        while self._answering.count and time.monotonic() < until_s:
            time.sleep(0.02)
        self.leave()
        return bool(report.beam_blanked) or not had_adapter

    def leave(self) -> None:
        """Answer no more; the instrument stays as it is. More than once is harmless."""
        if self._lines:
            for line in self._lines:
                line.close()
            self._lines = []
            self._path.unlink(missing_ok=True)

    def status(self) -> InstrumentStatus:
        """As this process knows it, without asking the adapter."""
        adapter, loaded, doing = self._adapter, self._adapter.loaded, self._adapter.doing
        return InstrumentStatus(
            name=self.name,
            pid=os.getpid(),
            at=datetime.now(UTC),
            started_at=self._started_at,
            session_id=loaded.session_id if loaded else None,
            adapter=loaded.adapter if loaded else None,
            instrument=loaded.capabilities.name if loaded else None,
            fence=self._ownership.fence,
            has_owner=bool(self._owners),
            doing=doing.call if doing else None,
            doing_since=doing.since if doing else None,
            exposing=adapter.exposing,
            beam_blanked=adapter.beam_blanked,
            stopped=self._ownership.barred_because if adapter.is_stopped else None,
            not_blanked=adapter.not_blanked,
            lock=self._ownership.lock,
        )

    def capabilities(self) -> Capabilities:
        """Of what is loaded, without asking the adapter. Raises InstrumentFault when nothing is."""
        loaded = self._adapter.loaded
        if loaded is None:
            raise InstrumentFault(f"nothing is loaded into instrument {self.name!r}; its first experiment loads it")
        return loaded.capabilities

    def blank(self, reason: str, fence: int | None = None) -> StopReport:
        """Interrupt and blank; only a newer owner may go on. Ignored when the owner is newer than `fence`."""
        started_s = time.monotonic()
        if not self._ownership.bar(reason, fence):
            return StopReport(
                name=self.name,
                beam_blanked=self._adapter.beam_blanked,
                is_ignored=True,
                took_s=time.monotonic() - started_s,
                message=f"fence {fence} is not the owner's any more; nothing was done",
            )
        return self._stop(reason, started_s)

    def emergency_stop(self, reason: str, by: str) -> StopReport:
        """Interrupt, blank, and let nobody act until a person clears it."""
        started_s = time.monotonic()
        self._ownership.bar(reason, None)
        self._ownership.set_lock(Lock(reason=reason, by=by, at=datetime.now(UTC)))
        return self._stop(reason, started_s)

    def lock(self, reason: str, by: str) -> None:
        """Let nobody act until a person clears it; nothing is asked of the instrument, whose link may be lost."""
        self._ownership.set_lock(Lock(reason=reason, by=by, at=datetime.now(UTC)))
        self._ownership.save()

    def clear(self, by: str) -> InstrumentStatus:
        """Take the lock off; the next owner may go on. The beam stays blanked."""
        if self._ownership.lock is not None:
            log.warning("%s: emergency stop cleared by %s", self.name, by)
        self._ownership.clear()
        return self.status()

    def _stop(self, reason: str, started_s: float) -> StopReport:
        if self._on_stop is not None:
            self._on_stop()
        was_exposing = self._adapter.exposing
        stopped = self._adapter.stop()
        took_s = time.monotonic() - started_s
        not_kept = self._ownership.save()
        log.warning("%s: stopped (%s): %s", self.name, reason, stopped.message)
        return StopReport(
            name=self.name,
            beam_blanked=stopped.beam_blanked,
            was_exposing=was_exposing,
            is_locked=self._ownership.lock is not None,
            took_s=took_s,
            message="; ".join(part for part in (stopped.message, not_kept) if part),
        )

    # --- the lines, each connection in a thread of its own

    def _serve_stops(self, connection: Connection) -> None:
        while connection.poll(None):
            _answer(connection, lambda: self._stop_call(receive(connection)))

    def _stop_call(self, message: Any) -> InstrumentStatus | StopReport | Capabilities:
        match message:
            case {"call": "status"}:
                return self.status()
            case {"call": "blank", "reason": str(reason), "fence": int() | None as fence}:
                return self.blank(reason, fence)
            case {"call": "emergency_stop", "reason": str(reason), "by": str(by)}:
                return self.emergency_stop(reason, by)
            case {"call": "clear", "by": str(by)}:
                return self.clear(by)
            case {"call": "capabilities"}:
                return self.capabilities()
            case _:
                raise WireError(f"no call of the stop line: {message!r:.200}")

    def _serve_commands(self, connection: Connection) -> None:
        self._owners.add(connection)
        try:
            while connection.poll(None):
                message = receive(connection)
                with self._answering:
                    _answer(connection, lambda: self._calls.answer(message, lambda: self._is_there(connection)))  # noqa: B023
        finally:
            self._owners.discard(connection)

    def _is_there(self, connection: Connection) -> bool:
        """Whether the owner still waits for its answer: it says nothing meanwhile, unless it hangs up."""
        if connection.poll(0):
            self._owners.discard(connection)
        return connection in self._owners


class _Count:
    """How many threads are inside."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.count = 0

    def __enter__(self) -> None:
        with self._guard:
            self.count += 1

    def __exit__(self, *ending: object) -> None:
        with self._guard:
            self.count -= 1


def _answer(connection: Connection, call: Callable[[], Any]) -> None:
    """Send what `call` returns, or its InstrumentError; what cannot cross is one too."""
    try:
        reply = {"result": call()}
    except InstrumentError as error:
        reply = failure_document(error)
    try:
        send(connection, reply)
    except UnsendableError as error:
        send(connection, failure_document(InstrumentFault(f"the adapter answered what cannot be sent: {error}")))
