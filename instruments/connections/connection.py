"""The one owner of a connection to an instrument's server: calls go one after another, each with its deadline.

After a call that was not answered, or answered with what is no reply to it, the socket is closed: no later call can be
given its reply. What may be sent again says `retries`. An instrument that is to be stopped during a call has a second
connection for that.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from instruments.connections.line import Line, WrongReply
from instruments.errors import InstrumentBusy, InstrumentError, LinkLost, ResultUnknown
from instruments.events import Events, InstrumentEvent

T = TypeVar("T")
Exchange = Callable[[Line], T]
"""Sends one request and reads its reply; raises WrongReply for what is none, an InstrumentError the server's own no."""
_BROKEN: Final = (OSError, EOFError, WrongReply)
log = logging.getLogger(__name__)


class Connection:
    """A socket to `host`:`port`, opened at the first call and again after it broke; for any number of threads."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        connect_s: float = 5.0,
        greet: Exchange[object] | None = None,
        events: Events | None = None,
    ) -> None:
        """`greet` is exchanged first on every new socket, as protocols with a greeting want it."""
        self.name = name
        self.host, self.port = host, port
        self._connect_s = connect_s
        self._greet = greet
        self._events = events or Events()
        self._owner = threading.Lock()
        self._line: Line | None = None
        self._is_closed = False
        self._is_lost = False

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer; the next one connects anew."""
        return self._is_lost

    def call(self, exchange: Exchange[T], *, what: str, deadline_s: float, repeatable: bool) -> T:
        """What `exchange` returns, or raises as the server's answer.

        A `repeatable` call (reads, absolute settings) whose line broke is sent once more on a new one, within its
        deadline, and is LinkLost if that fails. Any other is never sent twice: ResultUnknown once a byte of it went
        out, LinkLost if none did. InstrumentBusy if other calls held the line until the deadline.
        """
        until_s = time.monotonic() + deadline_s
        if not self._owner.acquire(timeout=deadline_s):
            raise InstrumentBusy(
                f"{self._where}: other calls held the line for the {deadline_s:g} s of {what}; nothing was sent"
            )
        try:
            return self._called(exchange, what, until_s, repeatable=repeatable)
        finally:
            self._owner.release()

    def reconnect(self, deadline_s: float = 5.0) -> None:
        """Drop the socket and connect anew. Raises LinkLost, InstrumentBusy."""
        self._drop()
        self.call(lambda line: None, what="connecting", deadline_s=deadline_s, repeatable=True)

    def abort(self) -> None:
        """Break the call that runs, from another thread: it ends unanswered; the next one connects anew."""
        line = self._line
        if line is not None:
            line.close()

    def close(self) -> None:
        """Hang up for good; more than once is harmless."""
        self._is_closed = True
        self._drop()

    @property
    def _where(self) -> str:
        return f"{self.name} at {self.host}:{self.port}"

    def _called(self, exchange: Exchange[T], what: str, until_s: float, *, repeatable: bool) -> T:
        for is_last in (False, True):
            line = self._opened(what, until_s)
            line.begin(until_s)
            try:
                result = exchange(line)
            except _BROKEN as error:
                self._drop()
                self._tell_lost(f"{what}: {_reason(error)}")
                may_repeat = (repeatable or not line.has_sent) and not is_last
                if not may_repeat or time.monotonic() >= until_s:
                    raise self._unanswered(what, error, repeatable=repeatable or not line.has_sent) from error
                log.warning("%s: %s broke off (%s); sent again on a new line", self._where, what, error)
            except BaseException as error:
                if not _is_answer(error):
                    self._drop()  # nobody knows how much of a reply is still to come
                raise
            else:
                self._tell_back()
                if line.is_last:
                    self._drop()
                return result
        raise AssertionError("the second attempt returns or raises")

    def _opened(self, what: str, until_s: float) -> Line:
        """The line if nothing waits on it, else a new one."""
        if self._is_closed:
            raise LinkLost(f"{self._where} was closed; {what} was not sent; open the instrument again")
        if self._line is not None and not _is_quiet(self._line):
            self._drop()
        if self._line is None:
            self._line = self._connected(what, until_s)
        return self._line

    def _connected(self, what: str, until_s: float) -> Line:
        left_s = min(self._connect_s, until_s - time.monotonic())
        try:
            line = Line(socket.create_connection((self.host, self.port), max(left_s, 1e-3)))
            if self._greet is not None:
                self._greeted(line, self._greet, until_s)
        except _BROKEN as error:
            self._tell_lost(f"{what}: {error}")
            raise LinkLost(
                f"{self._where} cannot be reached ({error}); {what} was not sent; assume that the beam is on, see "
                "whether its server runs"
            ) from error
        return line

    def _greeted(self, line: Line, greet: Exchange[object], until_s: float) -> None:
        line.begin(until_s)
        try:
            greet(line)
        except BaseException:
            line.close()
            raise

    def _unanswered(self, what: str, error: BaseException, *, repeatable: bool) -> LinkLost | ResultUnknown:
        because = _reason(error)
        if repeatable:
            return LinkLost(f"{self._where} did not answer {what} ({because}); assume that the beam is on")
        return ResultUnknown(
            f"{self._where} was sent {what} and did not answer ({because}); its dose counts as spent, ask for the "
            "outcome before anything else"
        )

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _tell_lost(self, message: str) -> None:
        if not self._is_lost:
            self._events.publish(InstrumentEvent(kind="link_lost", message=f"{self._where}: {message}"))
        self._is_lost = True

    def _tell_back(self) -> None:
        if self._is_lost:
            self._events.publish(InstrumentEvent(kind="link_back", message=self._where))
        self._is_lost = False


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "silent until the deadline"
    return str(error) or "it hung up"


def _is_quiet(line: Line) -> bool:
    try:
        return line.is_quiet
    except (OSError, ValueError):  # closed from another thread
        return False


def _is_answer(error: BaseException) -> bool:
    """Whether the server said no: its reply was read to the end, the line can go on."""
    return isinstance(error, InstrumentError)
