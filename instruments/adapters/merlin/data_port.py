"""The line on which the Merlin sends frames: one for all exposures, dropped after one that went wrong.

It is connected before arming, so that nothing is missed, and read empty, so that nothing old can come. A Merlin sends
to one client, and it notices late that one has gone: a new line is given `settle_s` before anything is armed on it.
Neighbour: `stream` reads one exposure from it.
"""

from __future__ import annotations

import socket
import time
from threading import Event
from typing import Final

from instruments.adapters.merlin.config import MerlinConfig
from instruments.connections import Line
from instruments.errors import LinkLost

_QUIET_S: Final = 0.02
_DRAIN_LIMIT_S: Final = 5.0


class DataPort:
    """Owner of the line; `drop` from any thread."""

    def __init__(self, config: MerlinConfig) -> None:
        """Raises LinkLost where nobody listens."""
        self._config = config
        self._line: Line | None = None
        self._connected_s = 0.0
        self._connect()

    def ready(self, is_stopped: Event) -> tuple[Line, int]:
        """A line with nothing on it, and how many bytes were read away. Raises LinkLost."""
        for is_last in (False, True):
            line = self._line or self._connect()
            is_stopped.wait(max(0.0, self._connected_s + self._config.settle_s - time.monotonic()))
            try:
                return line, self._drained(line)
            except (OSError, EOFError) as error:
                self.drop()
                if is_last:
                    raise LinkLost(f"{self._where} broke before the exposure ({error}); nothing was armed") from error
        raise AssertionError("the second attempt returns or raises")

    def drop(self) -> None:
        """Hang up, so that nothing of this exposure is taken for another; who waits for frames ends at once."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    @property
    def _where(self) -> str:
        return f"the Merlin's data port {self._config.host}:{self._config.data_port}"

    def _connect(self) -> Line:
        try:
            plain = socket.create_connection((self._config.host, self._config.data_port), self._config.answer_s)
        except OSError as error:
            raise LinkLost(f"{self._where} cannot be reached ({error}); see whether its software runs") from error
        self._line, self._connected_s = Line(plain), time.monotonic()
        return self._line

    def _drained(self, line: Line) -> int:
        """Before arming nothing can belong to the exposure that comes."""
        limit_s, found = time.monotonic() + _DRAIN_LIMIT_S, 0
        buffer = memoryview(bytearray(1 << 20))
        while time.monotonic() < limit_s:
            line.begin(time.monotonic() + _QUIET_S)
            try:
                size_bytes = line.read_into(buffer)
            except TimeoutError:
                if line.is_quiet:  # a machine that stands still for a moment has read nothing, too
                    return found
                continue
            if size_bytes == 0:
                raise EOFError("it hung up")
            found += size_bytes
        raise LinkLost(f"{self._where} does not come to rest: an acquisition runs that is not ours; end it there")
