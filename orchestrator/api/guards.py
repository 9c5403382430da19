"""What every request passes before it is routed: body limit, Host and Origin, HEAD; and what every answer carries.

A page of another site can make a browser send requests to this machine (and, by moving its own name to 127.0.0.1, read
the answers). So a service without tokens answers only to its own names, and no page of another site may write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.access import is_loopback
from orchestrator.api.problems import Problem

BODY_LIMIT_BYTES: Final = 1 << 20
FILE_LIMIT_BYTES: Final = 256 << 20
FILES_PREFIX: Final = "/api/v1/files/"
_SAFE = ("GET", "HEAD", "OPTIONS")
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_UNLESS_SET: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guards:
    """The outermost layer of the service; `own_names_only` where nothing else keeps strangers out."""

    def __init__(self, app: ASGIApp, *, own_names_only: bool) -> None:
        self._app = app
        self._own_names_only = own_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, and complete the answer's headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        if scope["method"] == "HEAD":
            scope, send = _as_get(scope), _without_body(send)
        headers = Headers(scope=scope)
        limit = FILE_LIMIT_BYTES if scope["path"].startswith(FILES_PREFIX) else BODY_LIMIT_BYTES
        try:
            self._check_origin(scope["method"], headers)
            _check_length(headers, limit)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)
            return
        await self._app(scope, _limited(receive, limit), send)

    def _check_origin(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._own_names_only and not is_loopback(_name_in(f"//{host}")):
            raise Problem(
                "foreign-origin",
                f"this service has no tokens and answers only to localhost and 127.0.0.1, not to {host[:100]!r}",
            )
        if method in _SAFE:
            return
        origin = headers.get("origin")
        foreign = origin is not None and _place_in(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Problem("foreign-origin", "pages of another site may not write here; send the request without one")


def _name_in(url: str) -> str:
    """The host a URL names, "" where it is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place_in(url: str) -> str | None:
    """Host and port a URL names, None where it is none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _check_length(headers: Headers, limit: int) -> None:
    text = headers.get("content-length", "0")
    if text.isdigit() and int(text) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    return Problem(
        "too-large",
        f"a body here may have at most {limit} bytes; files a spec names go to PUT {FILES_PREFIX}SHA256/NAME first",
        headers={"Connection": "close"},
    )


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive`, which ends the request where a body without a length grows too large."""
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
        return message

    return receive_limited


def _with_headers(send: Send) -> Send:
    async def send_complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_ALWAYS)
            for name, value in _UNLESS_SET.items():
                headers.setdefault(name, value)
        await send(message)

    return send_complete


def _as_get(scope: Scope) -> Scope:
    """The same request as GET; for a stream of events its JSON form, which ends."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept"]
    return {**scope, "method": "GET", "headers": headers}


def _without_body(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
