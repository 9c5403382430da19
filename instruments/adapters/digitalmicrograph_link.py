"""The other end of `devices.digitalmicrograph_server`: one line that commands, one that stops, both authenticated.

A message is its length in four bytes and JSON; arrays follow the reply that names them. Each end proves that it knows
the secret before anything else is read. Neighbour: `digitalmicrograph`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from math import prod
from secrets import token_hex
from typing import Any, Final, cast

import numpy as np

from instruments.adapters.clocks import offset_of
from instruments.connections import Connection, Line, WrongReply
from instruments.errors import InstrumentBusy, InstrumentFault, LinkLost
from instruments.state import ClockOffset

PROTOCOL: Final = 2
_LARGEST_BYTES: Final = 1 << 20
_LARGEST_ARRAY: Final = 1 << 31
_KINDS: Final = "iuf"
_NAME: Final = "DigitalMicrograph"


class ServerError(InstrumentFault):
    """What the server says went wrong, by the name of its class there."""

    def __init__(self, call: str, kind: str, words: str) -> None:
        super().__init__(f"DigitalMicrograph's {call}: {words or kind} ({kind})")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """A result, and the arrays that came with it."""

    result: Any
    arrays: tuple[np.ndarray, ...]


class DigitalMicrographLink:
    """Calls, one after another, from any thread; `stop` has a connection of its own."""

    def __init__(self, host: str, port: int, secret: str, answer_s: float, *, takes_over: bool = False) -> None:
        """Nothing is sent yet. One that `takes_over` hangs up on a client that is connected and idle."""
        self._answer_s = answer_s
        self._takes_over = takes_over
        self._secret = secret.encode("ascii")
        self._session = token_hex(16)
        self._ids = count(1)
        self._commands = Connection(
            _NAME, host, port, connect_s=answer_s, greet=lambda line: self._greet(line, "command")
        )
        self._stops = Connection(
            f"{_NAME} (stop)", host, port, connect_s=answer_s, greet=lambda line: self._greet(line, "stop")
        )

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer."""
        return self._commands.is_lost or self._stops.is_lost

    def clocks(self) -> dict[str, ClockOffset]:
        """That of DigitalMicrograph's computer, read now. Raises LinkLost."""
        asked_s = time.time()
        told_s, resolution_s = map(float, self.ask("clock").result["time_s"])
        return {_NAME: offset_of(told_s, asked_s, time.time(), resolution_s)}

    def start(self) -> None:
        """Connect both lines anew. Raises LinkLost, InstrumentBusy."""
        self._commands.reconnect(self._answer_s)
        self._stops.reconnect(self._answer_s)

    def close(self) -> None:
        """Hang up; the server blanks then."""
        self._commands.close()
        self._stops.close()

    def ask(self, call: str, *, within_s: float | None = None, repeatable: bool = True, **arguments: Any) -> Reply:
        """What the server's instrument returns. Raises ServerError for its no; LinkLost, ResultUnknown."""
        return self._exchanged(self._commands, call, arguments, within_s or self._answer_s, repeatable=repeatable)

    def stop(self) -> None:
        """Blank, from any thread, beside whatever runs."""
        self._exchanged(self._stops, "stop", {}, self._answer_s, repeatable=True)

    def _exchanged(
        self, connection: Connection, call: str, arguments: Mapping[str, Any], within_s: float, *, repeatable: bool
    ) -> Reply:
        call_id = next(self._ids)
        request = _message({"id": call_id, "call": call, "with": dict(arguments)})

        def exchange(line: Line) -> Reply:
            line.send(request)
            reply = _read(line)
            if reply.get("id") != call_id:
                raise WrongReply(f"asked as {call_id}, answered as {reply.get('id')!r}")
            arrays = tuple(_filled(line, one) for one in _described(reply))
            if (error := reply.get("error")) is not None:
                raise _server_error(call, error)
            return Reply(reply.get("result"), arrays)

        return connection.call(exchange, what=call, deadline_s=within_s, repeatable=repeatable)

    def _greet(self, line: Line, kind: str) -> None:
        """Prove, and have proved. Raises LinkLost, InstrumentBusy, WrongReply."""
        hello = _read(line)
        if hello.get("protocol") != PROTOCOL:
            raise LinkLost(
                f"its server speaks protocol {hello.get('protocol')!r}, not {PROTOCOL}; copy the new one there"
            )
        takes_over = self._takes_over and kind == "command"
        ours, words = token_hex(32), (kind, self._session, str(takes_over), str(hello.get("nonce")))
        asked: dict[str, Any] = {"line": kind, "session": self._session, "takes_over": takes_over, "nonce": ours}
        asked["proof"] = self._proof("client", *words, ours)
        line.send(_message(asked))
        try:
            proved = str(_read(line).get("proof"))
        except EOFError as error:
            raise LinkLost("DigitalMicrograph's server hung up: is the secret the same at both ends?") from error
        if not hmac.compare_digest(proved, self._proof("server", *words, ours)):
            raise LinkLost("what answers does not know the secret; it is not our server")
        if kind == "command" and not (ready := _read(line)).get("ready"):
            raise InstrumentBusy(f"DigitalMicrograph's server: {ready.get('words')}")
        self._takes_over = self._takes_over and not takes_over  # once: who hangs up on us later is not hung up on

    def _proof(self, *words: str) -> str:
        return hmac.new(self._secret, json.dumps(words).encode(), hashlib.sha256).hexdigest()


def _message(content: Mapping[str, Any]) -> bytes:
    data = json.dumps(content, allow_nan=False).encode()
    return struct.pack(">I", len(data)) + data


def _read(line: Line) -> dict[str, Any]:
    (size_bytes,) = struct.unpack(">I", line.read_exactly(4))
    if size_bytes > _LARGEST_BYTES:
        raise WrongReply(f"a message of {size_bytes} bytes")
    try:
        content: Any = json.loads(line.read_exactly(size_bytes))
    except ValueError as error:
        raise WrongReply(f"no JSON: {error}") from error
    if not isinstance(content, dict):
        raise WrongReply(f"{content!r:.80} is no reply")
    return cast("dict[str, Any]", content)


def _described(reply: Mapping[str, Any]) -> list[np.ndarray]:
    """Empty arrays of the kinds and shapes that a reply names."""
    try:
        arrays = [(np.dtype(str(one["dtype"])), tuple(map(int, one["shape"]))) for one in reply.get("arrays", [])]
    except (TypeError, KeyError, ValueError) as error:
        raise WrongReply(f"no arrays: {reply.get('arrays')!r:.120}") from error
    sizes = [kind.itemsize * prod(shape) for kind, shape in arrays]
    is_right = all(kind.kind in _KINDS and min(shape, default=0) > 0 for kind, shape in arrays)
    if not is_right or sum(sizes) > _LARGEST_ARRAY:
        raise WrongReply(f"arrays of {sum(sizes)} bytes: {reply.get('arrays')!r:.120}")
    return [np.empty(shape, kind) for kind, shape in arrays]


def _filled(line: Line, array: np.ndarray) -> np.ndarray:
    line.fill(array.reshape(-1).view(np.uint8).data)
    return array


def _server_error(call: str, error: Any) -> ServerError:
    told = cast("dict[str, Any]", error) if isinstance(error, dict) else {"words": error}
    return ServerError(call, str(told.get("kind", "error")), f"{told.get('words')!s:.300}")
