"""One serialised line to an instamatic server: JSON without frames, each reply checked to be of the kind asked for.

The server gives replies to whichever of its clients wakes first, so there may be one client only: a second adapter on
this computer is refused here, other programs have to be kept away. Each new line begins with a question that nobody
else asks (for an attribute of a random name), and is not used before exactly that was answered.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from instruments.connections import Connection, Line, WrongReply
from instruments.errors import CommandRefused, InstrumentBusy, InstrumentFault, LinkLost, Unsupported

T = TypeVar("T")
_OK, _RAISED = 200, 500
_LARGEST_REQUEST_BYTES = 1024  # the server reads one piece of this size and takes it for a whole request
_ECHOES = 4  # replies to calls given up before may come first


class InstamaticLink:
    """Calls of the server's microscope, one after another, from any thread."""

    def __init__(self, host: str, port: int, answer_s: float) -> None:
        self._answer_s = answer_s
        self._owner = _owned(host, port)
        self._connection = Connection("instamatic", host, port, connect_s=answer_s, greet=_greet)

    def ask(self, function: str, kind: Callable[[Any], T], *arguments: Any, **named: Any) -> T:
        """What the server's microscope returns, as `kind` makes it; sent again once where the line breaks.

        `kind` raises TypeError or ValueError for what is no such reply. Raises CommandRefused, Unsupported, LinkLost,
        InstrumentBusy.
        """
        request = json.dumps({"func_name": function, "args": arguments, "kwargs": named}).encode()
        if len(request) > _LARGEST_REQUEST_BYTES:
            raise CommandRefused(f"{function} with {len(request)} bytes of arguments: the server reads 1024 at most")

        def exchange(line: Line) -> T:
            status, value = _replied(line, request)
            if status == _RAISED:
                raise _refusal(function, value)
            try:
                return kind(value)
            except (TypeError, ValueError) as error:
                raise WrongReply(f"{function} was answered with {value!r:.80}; is another client connected?") from error

        unblanks = function == "setBeamBlank" and arguments != (True,)  # once: a stop may come before a second one
        return self._connection.call(exchange, what=function, deadline_s=self._answer_s, repeatable=not unblanks)

    def at_once(self, function: str, kind: Callable[[Any], T], *arguments: Any) -> T:
        """As `ask`, for a stop: a call that holds the line is broken off, and then there is a deadline of its own."""
        try:
            return self.ask(function, kind, *arguments)
        except (InstrumentBusy, LinkLost):
            self._connection.abort()
        try:
            return self.ask(function, kind, *arguments)
        except InstrumentBusy as error:
            raise LinkLost(f"{error}; take the beam as on") from error

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        return self._connection.is_lost

    def reconnect(self) -> None:
        """Connect anew. Raises LinkLost."""
        self._connection.reconnect(self._answer_s)

    def close(self) -> None:
        """Hang up and let another adapter in; more than once is harmless."""
        self._connection.close()
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None


def nothing(value: Any) -> None:
    """The reply of what returns nothing."""
    if value is not None:
        raise TypeError(f"{value!r} instead of nothing")


def flag(value: Any) -> bool:
    """A reply of yes or no; the server gives back 0 or 1 where it was told so."""
    if value not in (True, False, 0, 1):
        raise ValueError(f"{value!r} is neither true nor false")
    return bool(value)


def word(value: Any) -> str:
    """A reply in one word."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no word")
    return value


def numbers(count: int) -> Callable[[Any], tuple[float, ...]]:
    """Replies of so many numbers."""

    def of(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise TypeError(f"{value!r} is no list of {count} numbers")
        return tuple(number(one) for one in value)

    return of


def number(value: Any) -> float:
    """A reply of one number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _replied(line: Line, request: bytes) -> tuple[int, Any]:
    """Status and value of one reply: a JSON list, which says by itself where it ends."""
    line.send(request)
    return _next_reply(line)


def _next_reply(line: Line) -> tuple[int, Any]:
    reply = line.read_exactly(1)
    if reply != b"[":
        raise WrongReply(f"a reply begins with {reply!r}: set tem_communication_protocol to 'json' in settings.yaml")
    while True:
        reply += line.read_until(b"]")
        try:
            status, value = json.loads(reply)
        except json.JSONDecodeError:
            continue  # a list within the list ended
        except (ValueError, TypeError) as error:
            raise WrongReply(f"no status and value: {reply!r:.80}") from error
        return status, value


def _greet(line: Line) -> None:
    """Ask what nobody else asks, until that is what is answered. Raises WrongReply."""
    name = f"echo_{token_hex(8)}"
    line.send(json.dumps({"func_name": name}).encode())
    heard: list[Any] = []
    for _ in range(_ECHOES):
        status, value = _next_reply(line)
        if status == _RAISED and name in json.dumps(value):
            return
        heard.append((status, value))
    raise WrongReply(f"asked for {name}, answered {heard!r:.120}; is another client connected?")


def _refusal(function: str, raised: Any) -> CommandRefused | Unsupported | InstrumentFault:
    words = f"the server's {function} raised {raised!r:.200}"
    match raised:
        case ["AttributeError" | "NotImplementedError", *_]:
            return Unsupported(words)
        case ["TEMValueError" | "JEOLValueError" | "FEIValueError" | "ValueError", *_]:
            return CommandRefused(words)
        case _:
            return InstrumentFault(words)


def _owned(host: str, port: int) -> int:
    """A lock on this server for this computer. Raises InstrumentBusy."""
    path = Path(tempfile.gettempdir()) / f"stempilot-instamatic-{host}-{port}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        raise InstrumentBusy(f"{path} belongs to another user, who has this instrument; close it there") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise InstrumentBusy(
            f"instamatic at {host}:{port} has an owner on this computer; its server mixes the answers of two clients: "
            "close the other one first"
        ) from error
    return descriptor
