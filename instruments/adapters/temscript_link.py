"""The temscript server's HTTP as calls with deadlines: JSON alone, never a pickle.

The server answers one request after another, each on a connection of its own.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from html import unescape
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import numpy as np

from instruments.adapters.clocks import offset_by_date
from instruments.connections import Connection, HttpReply, http_exchange
from instruments.errors import AcquisitionFailed, CommandRefused, InstrumentFault, LinkLost, Unsupported
from instruments.events import Events
from instruments.state import ClockOffset

_HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}
_WHOLE_NUMBERS: Final = {
    name: np.dtype(name.lower()) for name in ("INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32")
}
_ORDERS: Final[dict[str, Literal["<", ">"]]] = {"LITTLE": "<", "BIG": ">"}


class TemscriptLink:
    """One line to a temscript server. An error of the server is CommandRefused with its words."""

    def __init__(self, host: str, port: int, answer_s: float, events: Events | None = None) -> None:
        self._host = f"{host}:{port}"
        self._answer_s = answer_s
        self._connection = Connection("temscript", host, port, connect_s=answer_s, events=events)
        self._clock: ClockOffset | None = None

    def get(self, endpoint: str, until_s: float | None = None) -> Any:
        """What the server says of this. Raises Unsupported, CommandRefused, LinkLost."""
        return self._asked("GET", endpoint, None, self._left_s(until_s, self._answer_s), repeatable=True)

    def put(self, endpoint: str, value: object, *, within_s: float | None = None, until_s: float | None = None) -> None:
        """Set something absolute; it may be sent twice. Raises Unsupported, CommandRefused, LinkLost."""
        self._asked("PUT", endpoint, value, self._left_s(until_s, within_s or self._answer_s), repeatable=True)

    def do(self, endpoint: str, value: object, within_s: float) -> None:
        """Let it do something that must not be done twice. Raises also ResultUnknown."""
        self._asked("PUT", endpoint, value, within_s, repeatable=False)

    def acquire(self, detectors: tuple[str, ...], within_s: float) -> dict[str, np.ndarray]:
        """Expose once: (rows, columns) of whole numbers by detector.

        Raises AcquisitionFailed when the server says no or gives no such frame, ResultUnknown, LinkLost.
        """
        query = urlencode([("detectors", name) for name in detectors])
        try:
            packed = self._asked("GET", f"acquire?{query}", None, within_s, repeatable=False)
        except (CommandRefused, Unsupported, InstrumentFault) as error:
            if isinstance(error, LinkLost):
                raise
            raise AcquisitionFailed(f"exposed, but without a frame: {error}") from error
        missing = [name for name in detectors if name not in (packed or {})]
        if missing:
            raise AcquisitionFailed(
                f"exposed, but the server gave no counts of {', '.join(missing)}; see its detectors"
            )
        return {name: unpacked(name, packed[name]) for name in detectors}

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        return self._connection.is_lost

    def clocks(self) -> dict[str, ClockOffset]:
        """That of the server's computer, by the Date of its last reply to what takes no time; none without one."""
        return {} if self._clock is None else {"temscript": self._clock}

    def reconnect(self) -> None:
        """Connect anew. Raises LinkLost."""
        self._connection.reconnect(self._answer_s)

    def close(self) -> None:
        """Hang up; more than once is harmless."""
        self._connection.close()

    def _left_s(self, until_s: float | None, most_s: float) -> float:
        if until_s is None:
            return most_s
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise InstrumentFault("the command's deadline passed before it was carried out; the beam was not unblanked")
        return min(left_s, most_s)

    def _asked(self, method: str, endpoint: str, value: object, within_s: float, *, repeatable: bool) -> Any:
        body = b"" if method == "GET" else json.dumps(value).encode()
        exchange = http_exchange(method, f"/v1/{endpoint}", host=self._host, body=body, headers=_HEADERS)
        asked_s = time.time()
        reply = self._connection.call(exchange, what=f"{method} {endpoint}", deadline_s=within_s, repeatable=repeatable)
        if repeatable:
            self._clock = offset_by_date(reply.headers["Date"], asked_s, time.time())
        return _answer(reply, endpoint)


def parameter_of(kind: str, name: str) -> str:
    """The endpoint of a detector's parameters; names may have blanks."""
    return f"{kind}/{quote(name, safe='')}"


def unpacked(name: str, packed: Any) -> np.ndarray:
    """The counts of one detector as they were sent. Raises AcquisitionFailed for anything else."""
    try:
        dtype = _WHOLE_NUMBERS[packed["type"]].newbyteorder(_ORDERS[packed["endianness"]])
        if packed["encoding"] != "BASE64":
            raise ValueError(f"encoding {packed['encoding']!r}")
        data = base64.b64decode(packed["data"], validate=True)
        counts = np.frombuffer(data, dtype).reshape(int(packed["height"]), int(packed["width"]))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise AcquisitionFailed(
            f"exposed, but what came of {name} is no image of whole numbers: {error!r:.200}; counts must be raw"
        ) from error
    return counts.astype(dtype.newbyteorder("="), copy=False)


def _answer(reply: HttpReply, endpoint: str) -> Any:
    match reply.status:
        case HTTPStatus.NO_CONTENT:
            return None
        case HTTPStatus.OK:
            try:
                return json.loads(reply.body)
            except ValueError as error:
                raise InstrumentFault(f"the server's answer to {endpoint} is no JSON: {reply.body!r:.100}") from error
        case HTTPStatus.NOT_FOUND:
            raise Unsupported(f"this server has no {endpoint}: {_words(reply)}")
        case _:
            raise CommandRefused(f"the server refuses {endpoint}: {_words(reply)}")


def _words(reply: HttpReply) -> str:
    """The reason in the page that goes with an error."""
    found = re.search(r"Message: (.*?)</p>", reply.body.decode("utf-8", "replace"), re.DOTALL)
    return unescape(found[1]).strip() if found else f"status {reply.status}"
