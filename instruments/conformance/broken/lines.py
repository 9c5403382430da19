"""Lines to an instrument's process that are careless in the ways clients of servers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from instruments.errors import InstrumentFault
from instruments.remote import Endpoint, Line
from instruments.remote.failures import failure
from instruments.remote.lines import dial
from instruments.remote.wire import WireError, receive, send

_DIAL_S: Final = 2.0
_LIMIT_S: Final = 3.0
_BROKEN: Final = (OSError, EOFError, WireError)


class _NoAnswer(Exception):
    """In time."""


class CarelessLine:
    """Asks, waits `limit_s` (None: for ever), and keeps the connection whatever happened on it.

    With `resends` it dials again when the line breaks, and sends what it had sent, an exposure too.
    """

    def __init__(self, endpoint: Endpoint, *, limit_s: float | None = _LIMIT_S, resends: bool = False) -> None:
        self._endpoint = endpoint
        self._limit_s = limit_s
        self._resends = resends
        self._connection = self._dialled()

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        """The next message that comes, whatever it answers."""
        request = {"call": call, "fence": fence, "wait_s": min(patience_s, _LIMIT_S)}
        message = {"request": request, "arguments": dict(arguments)}
        try:
            return self._answer(message, call)
        except (*_BROKEN, _NoAnswer) as error:
            if not self._resends:
                raise InstrumentFault(f"{call} broke off: {error or type(error).__name__}") from error
        try:
            self._connection.close()
            self._connection = self._dialled()
            return self._answer(message, call)
        except (*_BROKEN, _NoAnswer) as error:
            raise InstrumentFault(f"{call} broke off twice: {error or type(error).__name__}") from error

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _dialled(self) -> Connection:
        return dial(self._endpoint.host, self._endpoint.port, self._endpoint.authkey(), _DIAL_S)

    def _answer(self, message: dict[str, Any], call: str) -> Any:
        send(self._connection, message)
        if not self._connection.poll(self._limit_s):
            raise _NoAnswer(f"no answer to {call} in {self._limit_s:g} s")
        match receive(self._connection):
            case {"result": result}:
                return result
            case reply:
                raise failure(reply)


def endless(endpoint: Endpoint) -> Line:
    """Has no limit of time on anything."""
    return CarelessLine(endpoint, limit_s=None)


def unsynchronised(endpoint: Endpoint) -> Line:
    """Gives up after three seconds, and takes a late answer for that of its next question."""
    return CarelessLine(endpoint)


def resending(endpoint: Endpoint) -> Line:
    """Sends an exposure again when its answer was lost."""
    return CarelessLine(endpoint, resends=True)


BROKEN_LINES: Final[dict[str, tuple[Callable[[Endpoint], Line], frozenset[str], str]]] = {
    "endless": (endless, frozenset({"mute_server", "call_after_timeout"}), "did not come back"),
    "unsynchronised": (unsynchronised, frozenset({"call_after_timeout"}), "late answer"),
    "resending": (resending, frozenset({"lost_answer"}), "gave a frame"),
}
"""By name: how it dials, which checks must fail, and what their findings must say."""
