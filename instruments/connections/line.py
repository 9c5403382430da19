"""One open socket during one call: every read and write ends at the call's deadline, however slowly bytes drip in."""

from __future__ import annotations

import io
import select
import socket
import time
from contextlib import suppress
from typing import Any, Final

_CHUNK_BYTES: Final = 1 << 16


class WrongReply(Exception):
    """Bytes that are no reply to what was asked: another's, or none at all. The line is closed after it."""


class Line:
    """Bytes to and from the other end; the framing is the caller's. Raises OSError, TimeoutError, EOFError."""

    def __init__(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        self._waiting = bytearray()
        self.until_s = time.monotonic()
        self.has_sent = False
        self.is_last = False  # the other end will hang up after this reply

    def begin(self, until_s: float) -> None:
        """A new call, to be over at this moment of `time.monotonic`."""
        self.until_s, self.has_sent = until_s, False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be read: before a call there must be nothing, neither a reply nor a hang-up."""
        return not self._waiting and not select.select([self._socket], [], [], 0)[0]

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """All of it."""
        view = memoryview(data).cast("B")
        while view:
            self._socket.settimeout(self._left_s("sending"))
            self.has_sent = True
            view = view[self._socket.send(view) :]

    def read_exactly(self, size_bytes: int) -> bytes:
        """So many bytes."""
        while len(self._waiting) < size_bytes:
            self._more(max(size_bytes - len(self._waiting), _CHUNK_BYTES))
        return self._taken(size_bytes)

    def read_until(self, ending: bytes, limit_bytes: int = 1 << 20) -> bytes:
        """Up to and with `ending`. Raises WrongReply where there is none within the limit."""
        searched = 0
        while (found := self._waiting.find(ending, searched)) < 0:
            if len(self._waiting) > limit_bytes:
                raise WrongReply(f"no {ending!r} within {limit_bytes} bytes")
            searched = max(0, len(self._waiting) - len(ending) + 1)
            self._more(_CHUNK_BYTES)
        return self._taken(found + len(ending))

    def read_into(self, target: memoryview) -> int:
        """Some bytes, at least one, into `target`; 0 at the end of the stream."""
        if self._waiting:
            data = self._taken(min(len(target), len(self._waiting)))
            target[: len(data)] = data
            return len(data)
        self._socket.settimeout(self._left_s("waiting for a reply"))
        return self._socket.recv_into(target)

    def fill(self, target: memoryview) -> None:
        """All of `target`, without a copy in between: for frames."""
        view = target.cast("B")
        while view:
            size_bytes = self.read_into(view)
            if size_bytes == 0:
                raise EOFError("it hung up in the middle of a reply")
            view = view[size_bytes:]

    def makefile(self, mode: str = "rb", **_: Any) -> io.BufferedReader:
        """A file to read from, as `http.client` wants it."""
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Hang up; from any thread, more than once; a call that waits ends with an error at once."""
        with suppress(OSError):  # the other end was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _more(self, size_bytes: int) -> None:
        self._socket.settimeout(self._left_s("waiting for a reply"))
        data = self._socket.recv(size_bytes)
        if not data:
            raise EOFError("it hung up")
        self._waiting += data

    def _taken(self, size_bytes: int) -> bytes:
        data = bytes(self._waiting[:size_bytes])
        del self._waiting[:size_bytes]
        return data

    def _left_s(self, doing: str) -> float:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"the deadline passed while {doing}")
        return left_s


class _Reader(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._line.read_into(memoryview(buffer).cast("B"))
