"""A TCP line between an adapter and its server that can fall silent, hold answers back, or be cut."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from instruments.conformance.target import Address

_CHUNK_BYTES: Final = 1 << 16
_DIAL_S: Final = 10.0
_LOOK_S: Final = 0.02


class FaultyLine:
    """Listens at `address` and passes bytes to and from `server`, until told otherwise; a context manager."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._requests_pass, self._answers_pass, self._speaks = (threading.Event() for _ in range(3))
        self.heal()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()
        self._is_closed = False
        self._asked_s: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    @property
    def address(self) -> Address:
        """Where the adapter has to dial."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def fall_silent(self) -> None:
        """Pass nothing any more in either direction; connections stay, new ones are taken and hear nothing."""
        for passing in (self._requests_pass, self._answers_pass, self._speaks):
            passing.clear()

    def hold_answers(self) -> None:
        """Pass what the adapter says, and keep what the server answers until `heal`; its end is passed at once."""
        self._answers_pass.clear()

    def heal(self) -> None:
        """Pass everything again, first of all what was kept."""
        for passing in (self._requests_pass, self._answers_pass, self._speaks):
            passing.set()

    def unanswered_s(self) -> float:
        """How long the last thing the adapter said has been without an answer; 0 if it has one."""
        asked_s = self._asked_s
        return 0.0 if asked_s is None else time.monotonic() - asked_s

    def cut(self) -> None:
        """Hang up on both sides, keeping nothing; new connections are taken again."""
        with self._guard:
            hung_up, self._sockets = self._sockets, set()
        self._asked_s = None
        for one in hung_up:
            _hang_up(one)

    def close(self) -> None:
        """Cut and listen no more."""
        self._is_closed = True
        _hang_up(self._listener)
        self._listener.close()
        self.cut()
        self.heal()
        for thread in self._threads:
            thread.join(_DIAL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="conformance line", daemon=True)  # pyright: ignore[reportArgumentType]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                adapter, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, _DIAL_S)
                server.settimeout(None)
            except OSError:
                adapter.close()
                continue
            with self._guard:
                self._sockets |= {adapter, server}
            self._start(self._pass, adapter, server, self._requests_pass)
            self._start(self._pass, server, adapter, self._answers_pass)

    def _pass(self, source: socket.socket, sink: socket.socket, may_pass: threading.Event) -> None:
        kept: list[bytes] = []
        with suppress(OSError):  # one of the two hung up, or the line was cut
            while self._passed_on(source, sink, may_pass, kept):
                pass
            self._speaks.wait()  # a silent line does not even say that an end of it is gone
        _hang_up(source)
        _hang_up(sink)
        source.close()

    def _passed_on(
        self, source: socket.socket, sink: socket.socket, may_pass: threading.Event, kept: list[bytes]
    ) -> bool:
        """Read what there is, give on what may be; False at the end, where what was kept is lost."""
        if select.select([source], [], [], _LOOK_S)[0]:
            chunk = source.recv(_CHUNK_BYTES)
            if not chunk:
                return False
            kept.append(chunk)
            self._asked_s = time.monotonic() if may_pass is self._requests_pass else None
        if may_pass.is_set() and kept:
            sink.sendall(b"".join(kept))
            kept.clear()
        return True


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):  # it is hung up already
        one.shutdown(socket.SHUT_RDWR)
