"""This end of a vendor's library in a worker, for drivers: asked within its time, and released after it was killed.

The worker runs on this computer, or on the microscope's own behind a device server. Neighbours: `workers` (the
process), `driver` (what a driver does), `nion`, `micromanager`, `pyjem`, `autoscript`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from instruments.adapters.clocks import offset_of
from instruments.errors import ConfigurationError
from instruments.events import Events
from instruments.models import Record
from instruments.state import ClockOffset
from instruments.workers import Address, Program, Worker

LEAST_STOP_S: Final = 3.0


class DeviceServer(Record):
    """Where a device server listens, and the file of its ticket."""

    host: str = Field(min_length=1)
    port: int = Field(default=7110, ge=1, le=65_535)
    ticket: Path


def place_of(adapter: str, python: Path | None, server: DeviceServer | None) -> Path | Address:
    """The Python on this computer, or the device server on another. Raises ConfigurationError for both or neither."""
    if python is not None and server is None:
        return python
    if server is None or python is not None:
        raise ConfigurationError(f"{adapter} configuration: give `python`, or `device_server`, and not both")
    try:
        secret = bytes.fromhex(server.ticket.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{adapter} configuration: {server.ticket} is no ticket of a device server ({error}); copy it from there"
        ) from error
    return Address(server.host, server.port, secret)


class FarDevice:
    """An `Owned` device. One that was killed is started by the next call, blanked, and goes on."""

    def __init__(self, program: Program, answer_s: float) -> None:
        self._worker = Worker(program)
        self._answer_s = answer_s
        self._worker.start()
        self._seen_start_count = self._worker.start_count

    @property
    def is_lost(self) -> bool:
        """Whether it was killed or died, and was not started again yet."""
        return self._worker.is_lost

    @property
    def worker(self) -> Worker:
        """Its process."""
        return self._worker

    @property
    def events(self) -> Events:
        """Where it is told that its process was lost, and that it runs again."""
        return self._worker.events

    def clocks(self) -> dict[str, ClockOffset]:
        """That of the computer it runs on, read now. Raises LinkLost."""
        asked_s = time.time()
        told_s, resolution_s = self._worker.clock(self._answer_s)
        return {self._worker.program.name: offset_of(told_s, asked_s, time.time(), resolution_s)}

    def start(self) -> None:
        """Start it, where it does not run; it begins stopped, which blanks. Raises LinkLost, InstrumentFault."""
        self._worker.start()

    def read(self, name: str, deadline_s: float | None = None, /, **arguments: Any) -> Any:
        """What a reading call returns. Raises LinkLost."""
        within_s = self._answer_s if deadline_s is None else min(deadline_s, self._answer_s)
        return self._worker.call(name, arguments, deadline_s=within_s)

    def put(self, name: str, deadline_s: float | None = None, /, **arguments: Any) -> Any:
        """What a call returns that would do no harm if it were made twice. Raises LinkLost without an answer."""
        return self._made(name, deadline_s, arguments, moves=False)

    def do(self, name: str, deadline_s: float | None = None, /, **arguments: Any) -> Any:
        """What a call that changes something returns. Raises ResultUnknown without an answer: it may have happened."""
        return self._made(name, deadline_s, arguments, moves=True)

    def stop(self, latency_s: float) -> None:
        """Blank from beside; it is killed if it does not say in time that it has, and a new one blanks."""
        self._worker.stop(max(LEAST_STOP_S, 2 * latency_s))

    def close(self) -> None:
        """End its process, which blanks."""
        self._worker.close()

    def _made(self, name: str, deadline_s: float | None, arguments: dict[str, Any], *, moves: bool) -> Any:
        """A call of the device; one that was started anew meanwhile goes on where nobody stopped it."""
        self._worker.start()
        if self._worker.start_count != self._seen_start_count:
            self._seen_start_count = self._worker.start_count
            self._worker.call("release", deadline_s=self._answer_s)
        within_s = self._answer_s if deadline_s is None else max(deadline_s, 0.1)
        return self._worker.call(name, arguments, deadline_s=within_s, moves=moves)
