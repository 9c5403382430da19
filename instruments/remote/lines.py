"""The two ends of a line: a listening port, on the loopback interface unless told otherwise, and a connection to one.

Both ends prove that they know the secret (HMAC challenges of `multiprocessing.connection`) before anything else is
read; under TLS where an instrument is served to another machine. Each connection has a thread of its own, so one that
sends nothing, or garbage, holds up nobody.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from ssl import SSLContext
from typing import Final

from instruments.remote.encrypted import in_the_clear
from instruments.remote.wire import WireError

HOST: Final = "127.0.0.1"
HANDSHAKE_S: Final = 5.0
STALL_S: Final = 30.0  # a peer that stops in the middle of a message
_BROKEN: Final = (OSError, EOFError, WireError, AuthenticationError, AssertionError, ValueError)
log = logging.getLogger(__name__)


class ListeningLine:
    """A port; each connection that knows the secret is served by `serve` in its own thread, then closed."""

    def __init__(
        self,
        name: str,
        authkey: bytes,
        serve: Callable[[Connection], None],
        *,
        host: str = HOST,
        port: int = 0,
        tls: SSLContext | None = None,
    ) -> None:
        """Listens at `host`, under TLS if so; port 0 is any free one. Raises OSError where that cannot be had."""
        self._name = name
        self._authkey = authkey
        self._serve = serve
        self._tls = tls
        self._listener = Listener((host, port), backlog=64)
        self._host = HOST if host in ("", "0.0.0.0") else host  # where this machine finds itself
        self._is_closed = False
        self._thread = threading.Thread(target=self._accept, name=f"{name} port", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._listener.address[1])

    def close(self) -> None:
        """Take no further connection; those there are stay. More than once is harmless."""
        if not self._is_closed:
            self._is_closed = True
            waker = socket.create_connection((self._host, self.port), HANDSHAKE_S)
            waker.close()  # it woke the thread that waits for one
            self._thread.join()
            self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection = self._listener.accept()
            except OSError as error:
                log.warning("%s: cannot take a connection: %s", self._name, error)
                time.sleep(0.1)  # as when all file descriptors are in use
                continue
            if self._is_closed:
                connection.close()
                return
            threading.Thread(target=self._answer, args=(connection,), name=self._name, daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        try:
            with self._decrypted(connection) as clear:
                _set_patience(clear, HANDSHAKE_S)
                deliver_challenge(clear, self._authkey)
                answer_challenge(clear, self._authkey)
                _set_patience(clear, STALL_S)
                self._serve(clear)
        except EOFError:
            return
        except _BROKEN as error:
            log.warning("%s: connection dropped: %s", self._name, error or type(error).__name__)

    def _decrypted(self, connection: Connection) -> Connection:
        if self._tls is None:
            return connection
        with connection:
            cable = socket.socket(fileno=_copy(connection))
        return _through(cable, self._tls, is_server=True, timeout_s=HANDSHAKE_S)


def dial(host: str, port: int, authkey: bytes, timeout_s: float, tls: SSLContext | None = None) -> Connection:
    """A connection to a listening line. Raises OSError (nobody answers in time), AuthenticationError (the secret)."""
    plain = socket.create_connection((host, port), timeout_s)
    plain.settimeout(None)
    connection = (
        Connection(plain.detach()) if tls is None else _through(plain, tls, is_server=False, timeout_s=timeout_s)
    )
    try:
        _set_patience(connection, timeout_s)
        answer_challenge(connection, authkey)
        deliver_challenge(connection, authkey)
        _set_patience(connection, STALL_S)
    except (EOFError, AssertionError) as error:
        connection.close()
        raise OSError(f"port {port} of {host} is not an instrument's") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _set_patience(connection: Connection, patience_s: float) -> None:
    """Let no single read or write wait longer; small messages go out at once."""
    span = struct.pack("ll", int(patience_s), int(patience_s % 1 * 1e6))
    with socket.socket(fileno=_copy(connection)) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        if handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _through(cable: socket.socket, tls: SSLContext, *, is_server: bool, timeout_s: float) -> Connection:
    """The clear end of a line that is encrypted on this cable. Raises OSError."""
    cable.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(in_the_clear(cable, tls, is_server=is_server, timeout_s=timeout_s).detach())


def _copy(connection: Connection) -> int:
    return socket.dup(connection.fileno())
