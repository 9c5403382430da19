"""This end of a worker: starts a program in another Python, calls it with deadlines, stops it from beside, kills it.

Or dials a `device_server` on another computer, which does the starting and killing there. A worker that did not answer
in time is killed: what it would still say belongs to no call any more. The next call starts it anew, and the first
thing a new one is told is to stop, which blanks. Neighbours: `server`, `protocol`, `handshake`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from instruments.errors import (
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
)
from instruments.events import Events, InstrumentEvent
from instruments.remote.failures import failure
from instruments.workers.handshake import Stranger, TurnedAway, dialled
from instruments.workers.protocol import Broken, Silent, receive, send

SERVER: Final = Path(__file__).with_name("server.py")
STOP_S: Final = 3.0
START_S: Final = 120.0
CLOSE_S: Final = 5.0
TURN_S: Final = 2.0
_LOOK_S: Final = 0.1
_LAST_WORDS_BYTES: Final = 2000
_NOT_THERE: Final = ("ModuleNotFoundError", "ImportError", "ConfigurationError", "FileNotFoundError")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device server listens, on a computer that has the device's file, and the secret of its ticket."""

    host: str
    port: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a worker runs: a function of a file, in the Python at `python`, that opens a device from `config`.

    Or, where `python` is an address, the device of the device server there; `file` is not looked at then.
    """

    name: str
    python: Path | Address
    file: Path
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    function: str = "open_device"
    start_s: float = START_S

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        at = self.python
        return f"{at.host} port {at.port}" if isinstance(at, Address) else str(at)


@dataclass(frozen=True, slots=True)
class _Running:
    command: socket.socket
    stop: socket.socket
    process: subprocess.Popen[bytes] | None = None  # none: it runs on another computer
    output: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of its process on this computer."""
        return None if self.process is None else self.process.pid

    def last_words(self) -> str:
        """The end of what it printed, in one line."""
        if self.output is None or self.output.closed:
            return ""
        handle = self.output.fileno()
        size_bytes = os.fstat(handle).st_size
        words = os.pread(handle, _LAST_WORDS_BYTES, max(0, size_bytes - _LAST_WORDS_BYTES))
        lines = words.decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def kill(self) -> None:
        """End it and all it started, at once; on another computer, by the end of its lines."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_S)
        for one in (self.command, self.stop):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it
            one.close()
        if self.output is not None:
            self.output.close()

    def wait_for_its_end(self) -> None:
        """Wait a while for it to leave by itself."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_S)
            return
        self.command.settimeout(CLOSE_S)
        with suppress(OSError):
            while self.command.recv(1 << 16):
                pass


class Worker:
    """One program in a process of its own. Calls go one after another; `stop` and `close` from any thread."""

    def __init__(self, program: Program, *, events: Events | None = None) -> None:
        self.program = program
        self.start_count = 0
        self._events = events or Events()
        self._calls = threading.Lock()
        self._stops = threading.Lock()
        self._life = threading.RLock()
        self._running: _Running | None = None
        self._is_lost = False
        self._is_closed = False
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        running = self._running
        return running.pid if running is not None else None

    @property
    def events(self) -> Events:
        """Where it is told that the process was lost, and that it runs again."""
        return self._events

    @property
    def is_lost(self) -> bool:
        """Whether it was killed or died, and has not been started again."""
        return self._is_lost

    def call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float, moves: bool = False
    ) -> Any:
        """What the device's method returns, or an InstrumentError.

        Without an answer in time, and when the process dies, it is killed: ResultUnknown for a call that `moves`, else
        LinkLost. An error of a class that is none of the house's is an InstrumentFault.
        """
        if not self._calls.acquire(timeout=deadline_s):
            raise InstrumentBusy(
                f"{self.program.name}: another call ran for the {deadline_s:g} s of {name}; nothing moved"
            )
        try:
            running = self._living()
            try:
                return self._asked(running, running.command, name, arguments or {}, time.monotonic() + deadline_s)
            except (Silent, Broken, OSError) as error:
                because = f"no answer in {deadline_s:g} s" if isinstance(error, Silent) else "its process ended"
                raise self._lose(running, f"{name}: {because}", ResultUnknown if moves else LinkLost) from error
        finally:
            self._calls.release()

    def clock(self, deadline_s: float) -> tuple[float, float]:
        """What the clock of its computer reads, in seconds since 1970, and its resolution. Raises LinkLost."""
        told_s, resolution_s = self.call("clock", deadline_s=deadline_s)
        return told_s, resolution_s

    def start(self) -> None:
        """Start it if it does not run. Raises ConfigurationError, InstrumentFault."""
        self._living()

    def stop(self, deadline_s: float = STOP_S) -> None:
        """Stop the device from beside; from any thread, during a call too.

        One that does not answer is killed, and a new one started and stopped, so that the beam is blanked by somebody.
        Raises InstrumentFault when that fails too: assume that the beam is on.
        """
        with self._stops:
            running = self._running
            if running is None and not self._is_lost:
                return
            try:
                if running is not None:
                    self._asked(running, running.stop, "stop", {}, time.monotonic() + deadline_s)
                    return
            except (Silent, Broken, OSError) as error:
                self._lose(running, f"stop: {error or 'no answer'}", LinkLost)
            self._living()

    def kill(self) -> None:
        """End it now, whatever it does, as when it did not answer; the next call starts it anew. From any thread."""
        if (running := self._running) is not None:
            self._lose(running, "it was told to end", LinkLost)

    def close(self) -> None:
        """Let the device go and end its process; more than once is harmless."""
        self._is_closed = True
        with self._life:
            running, self._running = self._running, None
        if running is None:
            return
        with suppress(OSError):
            running.command.shutdown(socket.SHUT_WR)  # the end of the line is what tells it to leave
        running.wait_for_its_end()
        with self._life:
            running.kill()

    # --- its life

    def _living(self) -> _Running:
        with self._life:
            if self._is_closed:
                raise LinkLost(f"{self.program.name} was closed; nothing was sent; open the instrument again")
            if self._running is None:
                self._running = self._started()
            return self._running

    def _started(self) -> _Running:
        running = self._spawned()
        program = self.program
        opening = {"file": str(program.file), "function": program.function, "config": dict(program.config)}
        until_s = time.monotonic() + program.start_s
        try:
            self._asked(running, running.command, "open", opening, until_s)
            if self._is_lost:
                self._asked(running, running.stop, "stop", {}, until_s)
        except (Silent, Broken, OSError) as error:
            words = running.last_words()
            running.kill()
            raise LinkLost(
                f"{program.name} did not start in {program.place} ({error or 'no answer'}): {words}; assume that the "
                "beam is on"
            ) from error
        except InstrumentError:
            running.kill()
            raise
        self.start_count += 1
        if self._is_lost:
            self._is_lost = False
            self._events.publish(InstrumentEvent(kind="link_back", message=f"{program.name} runs again, stopped"))
        return running

    def _spawned(self) -> _Running:
        program = self.program
        if isinstance(program.python, Address):
            return self._dialled(program.python)
        ours, theirs = socket.socketpair()
        our_stop, their_stop = socket.socketpair()
        output = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        try:
            process = subprocess.Popen(
                [program.python, "-I", SERVER, str(theirs.fileno()), str(their_stop.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(), their_stop.fileno()),
                start_new_session=True,
            )
        except OSError as error:
            for one in (ours, our_stop, output):
                one.close()
            raise ConfigurationError(
                f"{program.name}: {program.python} cannot be run ({error.strerror}); name the Python in which its "
                "library is installed"
            ) from error
        finally:
            theirs.close()
            their_stop.close()
        return _Running(ours, our_stop, process, output)

    def _dialled(self, at: Address) -> _Running:
        name, place = self.program.name, self.program.place
        try:
            command, stop = self._turn(at)
        except Stranger as error:
            raise LinkLost(f"{name}: no device server for us at {place}: {error}; see it, and its ticket") from error
        except OSError as error:
            raise LinkLost(
                f"{name}: nobody answers at {place} ({error}); start the device server there, or end what it serves; "
                "assume that the beam is on"
            ) from error
        return _Running(command, stop)

    def _turn(self, at: Address) -> list[socket.socket]:
        """Our two lines; whoever hung up a moment ago may still be served there, be it we. Raises Stranger, OSError."""
        until_s = time.monotonic() + min(TURN_S, self.program.start_s)
        while True:
            try:
                return dialled(at.host, at.port, at.secret, self.program.start_s)
            except TurnedAway:
                if time.monotonic() > until_s:
                    raise
                time.sleep(_LOOK_S)

    def _lose(self, running: _Running | None, because: str, kind: type[InstrumentError]) -> InstrumentError:
        """Kill it, if somebody else has not; what to raise."""
        words = ""
        if running is not None:
            with self._life:  # what it printed is closed with it, maybe by somebody else
                words = running.last_words()
                if self._running is running:
                    self._running, self._is_lost = None, True
                running.kill()
        message = f"{self.program.name}: {because}; it was killed and will be started again"
        self._events.publish(InstrumentEvent(kind="link_lost", message=message))
        return kind(f"{message}{f' (it said: {words})' if words else ''}; assume that the beam is on")

    def _asked(
        self, running: _Running, line: socket.socket, name: str, arguments: Mapping[str, Any], until_s: float
    ) -> Any:
        """One request and the reply of the same number."""
        self._number += 1
        number = self._number
        line.settimeout(max(until_s - time.monotonic(), 1e-3))
        try:
            send(line, {"number": number, "call": name, "arguments": dict(arguments)})
        except TypeError as error:
            raise CommandRefused(f"{name} cannot be sent: {error}; nothing moved") from error
        reply = _numbered(receive(line, until_s))
        while reply["number"] < number:  # of a call whose caller was interrupted
            reply = _numbered(receive(line, until_s))
        if reply["number"] != number:
            raise Broken(f"the reply of another call: {reply!r:.100}")
        if "error" not in reply:
            return reply.get("result")
        raise self._error(reply, name)

    def _error(self, reply: dict[str, Any], name: str) -> InstrumentError:
        kind, message = str(reply["error"]), str(reply["message"])
        if name == "open" and kind in _NOT_THERE:
            return ConfigurationError(f"{self.program.name} in {self.program.place}: {message}")
        known = failure(reply)
        if type(known) is InstrumentFault and kind != InstrumentFault.__name__:
            return InstrumentFault(f"{self.program.name}: {name} raised {kind}: {message}")
        return known


def _numbered(reply: Any) -> dict[str, Any]:
    match reply:
        case {"number": int()}:
            return reply
        case _:
            raise Broken(f"no reply: {reply!r:.100}")
