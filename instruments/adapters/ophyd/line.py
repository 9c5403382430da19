"""The adapter's end of the process that holds the devices: started when needed, killed when it does not answer.

EPICS reads its environment once for each process, and some of its libraries give the late reply of one read to the
next: so a facility's devices have processes of their own, and one whose call ran out of time is never asked again.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, Final

from instruments.adapters.ophyd.config import OphydConfig
from instruments.adapters.ophyd.messages import Message, receive, send
from instruments.connections import Line, WrongReply
from instruments.errors import CommandRefused, ConfigurationError, InstrumentFault, LinkLost

_GRACE_S: Final = 2.0  # the process says itself that the time ran out; only one that hangs is killed
_END_S: Final = 5.0
_ROOT: Final = Path(__file__).parents[3]  # where `instruments` is imported from
_BROKEN: Final = (OSError, EOFError, WrongReply)


class DeviceLine:
    """Calls to one devices' process, one after another, from any thread; `stop_call` goes beside them."""

    def __init__(self, config: OphydConfig, paths: set[str]) -> None:
        self._config = config
        self._paths = sorted(paths)
        self._owner = threading.Lock()
        self._stop_owner = threading.Lock()
        self._process: _Process | None = None
        self._is_closed = False
        self.is_lost = False  # the last call found nobody there
        self.facts: dict[str, dict[str, float]] = {}
        self.versions: dict[str, str] = {}

    def call(self, name: str, deadline_s: float, **arguments: Any) -> Message:
        """The answer. Raises CommandRefused (nothing was sent to a device), LinkLost, InstrumentFault."""
        with self._owner:
            try:
                process = self._started()
                answer = self._asked(process, process.commands, name, deadline_s, arguments)
            except LinkLost:
                self.is_lost = True
                raise
            self.is_lost = False
            return answer

    def stop_call(self, deadline_s: float, **arguments: Any) -> Message:
        """A stop, beside the call that runs. Raises LinkLost, InstrumentFault."""
        with self._stop_owner:
            process = self._process
            if process is None:
                with self._owner:
                    process = self._started()
            return self._asked(process, process.stops, "stop", deadline_s, arguments)

    def start(self) -> None:
        """Connect now. Raises ConfigurationError, LinkLost."""
        with self._owner:
            self._started()
            self.is_lost = False

    def abandon(self) -> None:
        """Kill the process, whatever it does; the next call starts another. From any thread."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def close(self) -> None:
        """End it for good; more than once is harmless."""
        self._is_closed = True
        self.abandon()

    def _started(self) -> _Process:
        if self._is_closed:
            raise LinkLost("this ophyd instrument was closed; open it again")
        if self._process is None or not self._process.is_alive:
            self.abandon()
            self._process = self._connected()
        return self._process

    def _connected(self) -> _Process:
        config = self._config
        process = _Process(config)
        try:
            answer = _exchanged(
                process.commands, "open", config.connect_s,
                {"devices": config.devices, "arguments": config.arguments, "paths": self._paths,
                 "answer_s": config.answer_s},
            )  # fmt: skip
        except _BROKEN as error:
            wrote = process.end()
            raise LinkLost(
                f"the devices of {config.label} did not connect in {config.connect_s:g} s "
                f"({str(error) or 'it ended'}); their process wrote: {wrote or 'nothing'}"
            ) from error
        except BaseException:
            process.end()
            raise
        if "error" in answer.values:
            process.end()
            said = f"{config.devices} of instrument {config.label}: {answer.values['message']}"
            if answer.values["error"] == "lost":
                raise LinkLost(f"{said}; see whether its server runs, and assume that the beam is on")
            raise ConfigurationError(said)
        self.facts, self.versions = answer.values["facts"], answer.values["versions"]
        return process

    def _asked(self, process: _Process, line: Line, name: str, deadline_s: float, arguments: dict[str, Any]) -> Message:
        try:
            answer = _exchanged(line, name, deadline_s, arguments)
        except _BROKEN as error:
            self._drop(process)
            raise LinkLost(
                f"the devices' process of {self._config.label} gave no answer to {name} within {deadline_s:g} s "
                f"({str(error) or 'it ended'}) and was ended; assume that the beam is on"
            ) from error
        if "error" not in answer.values:
            return answer
        said = f"{self._config.label}: {name}: {answer.values['message']}"
        match answer.values["error"]:
            case "refused":
                raise CommandRefused(said)
            case "lost":
                self._drop(process)  # a late reply must not meet the next call
                raise LinkLost(f"{said}; assume that the beam is on")
            case _:
                raise InstrumentFault(said)

    def _drop(self, process: _Process) -> None:
        if self._process is process:
            self._process = None
        process.end()


def _exchanged(line: Line, name: str, deadline_s: float, arguments: dict[str, Any]) -> Message:
    number = time.monotonic_ns()
    line.begin(time.monotonic() + deadline_s + _GRACE_S)
    send(line, Message({"call": name, "number": number, "deadline_s": deadline_s, **arguments}))
    answer = receive(line)
    if answer.values.pop("number", None) != number:
        raise WrongReply("the answer of another call")
    return answer


class _Process:
    """A running devices' process with its two lines."""

    def __init__(self, config: OphydConfig) -> None:
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        ours, theirs = zip(*(_pair() for _ in range(2)), strict=True)
        folders = [*map(str, config.path), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._popen = subprocess.Popen(
            [str(config.python or sys.executable), "-m", "instruments.adapters.ophyd.process",
             *(str(one.fileno()) for one in theirs)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), **config.environment},
            pass_fds=[one.fileno() for one in theirs],
            stdin=subprocess.DEVNULL, stdout=self._words, stderr=self._words,
            start_new_session=True,  # Ctrl-C ends the run, which then blanks through this process
        )  # fmt: skip
        for one in theirs:
            one.close()
        self.commands, self.stops = (Line(one) for one in ours)

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def end(self) -> str:
        """Hang up and kill; what it wrote last, which it does only when something is wrong."""
        self.commands.close()
        self.stops.close()
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait(_END_S)
        if self._words.closed:
            return ""
        with self._words as words:
            words.seek(0)
            return words.read()[-2000:].decode(errors="replace").strip()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets on the loopback interface, this end and the other's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), _END_S)
        while True:
            theirs, address = listener.accept()
            if address == ours.getsockname():
                return ours, theirs
            theirs.close()  # a stranger who was quicker
