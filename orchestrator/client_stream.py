"""Server-sent events as the service writes them, read one by one. Neighbour: `client` opens the stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx

STREAM_HEADERS: Final = {"Accept": "text/event-stream"}


def events_of(answer: httpx.Response) -> Iterator[dict[str, Any] | None]:
    """Events of one connection, None behind the last one there will ever be."""
    if answer.status_code == 204:
        yield None
        return
    kind, data = "", ""
    for line in _lines(answer):
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            data = value
        elif line == "" and data:
            yield None if kind == "end" else json.loads(data)
            kind, data = "", ""


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Lines of an event stream, which end at line feeds alone: a text may hold Unicode's other line ends."""
    rest = ""
    for text in answer.iter_text():
        *lines, rest = (rest + text).split("\n")
        yield from lines
