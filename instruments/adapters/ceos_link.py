"""CEOS's gateway for remote procedure calls: JSON-RPC 2.0, each message a netstring, over TCP.

A netstring is its length in decimal digits, a colon, so many bytes, a comma. A connection carries one call and its
reply. Neighbour: `ceos`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final, NoReturn, TypeVar, cast

from instruments.connections import Connection, Line, WrongReply
from instruments.errors import CommandRefused, InstrumentError, Unsupported

T = TypeVar("T")
_LARGEST_BYTES: Final = 1 << 22
_NO_METHOD: Final = -32601
_NOT_UNDERSTOOD: Final = (-32700, -32600, -32602)
_PATIENCE_S: Final = 5.0
Refusal = Callable[[str], InstrumentError]
"""The error that the gateway's own no means for a call, from its words."""


class CeosLink:
    """Calls of one corrector, one after another, from any thread; `abort` breaks the one that runs."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = Connection("CEOS gateway", host, port, connect_s=_PATIENCE_S)
        self._ids = count(1)

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer."""
        return self._connection.is_lost

    def reconnect(self) -> None:
        """Connect anew; nothing is sent. Raises LinkLost."""
        self._connection.reconnect(_PATIENCE_S)

    def abort(self) -> None:
        """Break the call that runs, from another thread; the corrector may go on with it."""
        self._connection.abort()

    def close(self) -> None:
        """Hang up for good."""
        self._connection.close()

    def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        kind: Callable[[Any], T],
        *,
        within_s: float,
        refusal: Refusal,
        repeatable: bool = False,
    ) -> T:
        """The result as `kind` makes it, which raises TypeError, ValueError or KeyError for what is no such result.

        Raises what `refusal` makes of the gateway's no, Unsupported for a method it has not, CommandRefused for
        parameters it does not understand; LinkLost, ResultUnknown.
        """
        call_id = next(self._ids)
        request = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": dict(params)}

        def exchange(line: Line) -> T | InstrumentError:
            line.send(netstring(json.dumps(request, allow_nan=False).encode()))
            reply = _replied(read_netstring(line), call_id)
            line.is_last = True
            if (error := reply.get("error")) is not None:
                return _refused(method, error, refusal)  # raised below: returned, the line is closed as after any reply
            try:
                return kind(reply["result"])
            except (KeyError, TypeError, ValueError) as fault:
                raise WrongReply(f"{method} was answered with {reply.get('result')!r:.120}: {fault}") from fault

        answer = self._connection.call(exchange, what=method, deadline_s=within_s, repeatable=repeatable)
        if isinstance(answer, InstrumentError):
            raise answer
        return answer


def netstring(content: bytes) -> bytes:
    """Framed.

    >>> netstring(b"{}")
    b'2:{},'
    """
    return b"%d:%s," % (len(content), content)


def read_netstring(line: Line) -> bytes:
    """The next one, unframed. Raises WrongReply."""
    head = line.read_until(b":", limit_bytes=16)[:-1]
    if not head.isdigit() or (len(head) > 1 and head.startswith(b"0")) or int(head) > _LARGEST_BYTES:
        raise WrongReply(f"a netstring cannot begin with {head!r}")
    content = line.read_exactly(int(head))
    if (end := line.read_exactly(1)) != b",":
        raise WrongReply(f"a netstring ends with {end!r} instead of a comma")
    return content


def _replied(content: bytes, call_id: int) -> dict[str, Any]:
    try:
        reply: Any = json.loads(content, parse_constant=_not_finite)
    except ValueError as error:
        raise WrongReply(f"no JSON: {content!r:.80} ({error})") from error
    if not isinstance(reply, dict):
        raise WrongReply(f"no reply of JSON-RPC: {content!r:.80}")
    found = cast("dict[str, Any]", reply)
    if found.get("id") != call_id or isinstance(found.get("id"), bool):
        raise WrongReply(f"asked as {call_id}, answered as {found.get('id')!r}")
    return found


def _refused(method: str, error: Any, refusal: Refusal) -> InstrumentError:
    told = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    words = f"CEOS's {method}: {told.get('message')!s:.200} ({told.get('code')})"
    if told.get("data"):
        words = f"{words}: {told['data']!s:.200}"
    if told.get("code") == _NO_METHOD:
        return Unsupported(f"{words}; this version of the gateway has no such method")
    if told.get("code") in _NOT_UNDERSTOOD:
        return CommandRefused(f"{words}; nothing was done")
    return refusal(words)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
