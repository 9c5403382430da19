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
from instruments.events import Eventful, EventLog, InstrumentEvent
from instruments.microscope import CountsDose, Microscope
from instruments.remote.adapter_thread import AdapterThread, Opener
from instruments.remote.command_calls import CommandCalls, fence_of
from instruments.remote.endpoint import Endpoint, Listening, endpoint_path, write_endpoint
from instruments.remote.failures import failure_document
from instruments.remote.lines import ListeningLine
from instruments.remote.owner_watch import OwnerWatch
from instruments.remote.ownership import Ownership, ownership_path
from instruments.remote.status import InstrumentStatus, Lock, StopReport
from instruments.remote.wire import PROTOCOL, UnsendableError, WireError, receive, send

_LAST_ANSWERS_S: Final = 5.0
_LONGEST_WAIT_S: Final = 30.0  # for events, before saying that there are none
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
        dose: CountsDose | None = None,
        lease_s: float | None = None,
    ) -> None:
        """`on_stop` is told of every stop by the stop line, before the adapter is; `dose` knows that of the specimen.

        With `lease_s` an owner that was not heard of for so long has its beam taken off.
        """
        self.name = name
        self._path = endpoint_path(run_folder, name)
        self._ownership = Ownership(name, ownership_path(run_folder, name))
        self._adapter = AdapterThread(opener)
        self._log = EventLog()
        self._calls = CommandCalls(name, self._adapter, self._ownership, self._log, dose)
        self._watch = None if lease_s is None else OwnerWatch(lease_s, self._may_be_lit, self._blank_for)
        self._on_stop = on_stop
        self._listening = listening or Listening()
        self._started_at = datetime.now(UTC)
        self._owners: set[Connection] = set()
        self._answering = _Count()
        self._lines: list[ListeningLine] = []

    def start(self) -> Endpoint:
        """Listen, and write where; the endpoint."""
        if self._watch is not None:
            self._watch.start()
        return self._listen(takes_commands=True)

    def adopt(self, adapter: str, config: Mapping[str, Any], microscope: Microscope) -> Endpoint:
        """Be the stop line alone of a microscope that a run in this process opened and commands by itself."""
        self._adapter.adopt(f"a run in process {os.getpid()}", adapter, config, microscope)
        if isinstance(microscope, Eventful):
            microscope.events.attach(self._log)
        return self._listen(takes_commands=False)

    def _listen(self, *, takes_commands: bool) -> Endpoint:
        where = self._listening
        secret = where.secret or secrets.token_hex(32)
        key, host, tls = secret.encode(), where.host, where.tls()
        certificate = where.certificate.read_text("ascii") if where.certificate is not None and tls else None
        stop = ListeningLine(f"{self.name} stop line", key, self._serve_stops, host=host, port=where.stop_port, tls=tls)
        self._lines, port = [stop], 0
        if takes_commands:
            command = ListeningLine(
                f"{self.name} command line", key, self._serve_commands, host=host, port=where.port, tls=tls
            )
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
            certificate=certificate,
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
        if self._watch is not None:
            self._watch.end()
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
        self._log.put(InstrumentEvent(kind="stopped", message=f"{reason}: {stopped.message}"))
        return StopReport(
            name=self.name,
            beam_blanked=stopped.beam_blanked,
            was_exposing=was_exposing,
            is_locked=self._ownership.lock is not None,
            took_s=took_s,
            message="; ".join(part for part in (stopped.message, not_kept) if part),
        )

    def _may_be_lit(self) -> bool:
        return self._adapter.loaded is not None and self._adapter.beam_blanked is not True

    def _blank_for(self, fence: int, reason: str) -> bool:
        """Whether there is nothing more to do for this owner: its beam is off, or somebody newer has the instrument."""
        report = self.blank(reason, fence)
        return report.is_ignored or report.beam_blanked is True

    def _hear(self, fence: int | None) -> None:
        if self._watch is not None and fence is not None:
            self._watch.heard(fence)

    # --- the lines, each connection in a thread of its own

    def _serve_stops(self, connection: Connection) -> None:
        while connection.poll(None):
            _answer(connection, lambda: self._stop_call(receive(connection)))

    def _events_after(self, last: int, wait_s: float, fence: int | None) -> dict[str, Any]:
        """Events for one who follows them; an owner who asks is there, and is told how often to ask."""
        self._hear(fence)
        lease_s = self._watch.lease_s if self._watch is not None else None
        return {"batch": self._log.after(last, min(wait_s, _LONGEST_WAIT_S)), "lease_s": lease_s}

    def _stop_call(self, message: Any) -> InstrumentStatus | StopReport | Capabilities | dict[str, Any]:
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
            case {
                "call": "events",
                "after": int(last),
                "wait_s": int() | float() as wait_s,
                "fence": int() | None as fence,
            }:
                return self._events_after(last, wait_s, fence)
            case _:
                raise WireError(f"no call of the stop line: {message!r:.200}")

    def _serve_commands(self, connection: Connection) -> None:
        self._owners.add(connection)
        try:
            while connection.poll(None):
                message = receive(connection)
                with self._answering:
                    _answer(connection, lambda: self._answered(message, connection))  # noqa: B023
        finally:
            self._owners.discard(connection)

    def _answered(self, message: Any, connection: Connection) -> Any:
        self._hear(fence_of(message))
        return self._calls.answer(message, lambda: self._is_there(connection))

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
