"""One HTTP request as an exchange of a `Connection`: the deadline counts for the whole reply, and it is kept alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import Any, cast

from instruments.connections.connection import Exchange
from instruments.connections.line import Line, WrongReply


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a server answered, read to its end."""

    status: int
    headers: HTTPMessage
    body: bytes


def http_exchange(
    method: str, path: str, *, host: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Exchange[HttpReply]:
    """The exchange of one request; every status is an answer, what it means is the caller's."""
    lines = {"Host": host, "Content-Length": str(len(body)), **(headers or {})}
    for name, value in lines.items():
        if {"\r", "\n"} & {*name, *value}:
            raise ValueError(f"header {name!r} has a line break; take it out")
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
    request = "\r\n".join(head).encode("ascii") + body

    def exchange(line: Line) -> HttpReply:
        line.send(request)
        response = HTTPResponse(cast("Any", line), method=method)
        try:
            response.begin()
            content = response.read()
        except (HTTPException, ValueError) as error:
            raise WrongReply(f"no HTTP reply: {str(error)!r:.80}") from error
        line.is_last = response.will_close
        reply = HttpReply(response.status, response.headers, content)
        response.close()
        return reply

    return exchange
