"""Bytes with one range (RFC 9110, section 14), a strong ETag and the digest of the whole (RFC 9530)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.api.problems import Problem

_PIECE_BYTES: Final = 1 << 20
_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def bytes_answer(
    request: Request,
    data: bytes | memoryview,
    *,
    sha256: str,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """All of `data`, or the range that was asked for, piece by piece. Raises Problem `range` where it lies outside.

    Content never changes under its id: an `If-None-Match` of the same ETag is answered 304. More than one range at
    once, or a range for another ETag (`If-Range`), is answered with all.
    """
    tag = f'"{sha256}"'
    known: dict[str, str] = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        **(headers or {}),
    }
    if tag in (request.headers.get("if-none-match") or ""):
        return Response(status_code=304, headers=known)
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", tag) != tag:
        return _pieces(data, 200, known, media_type)
    limits = range_of(asked, len(data))
    if limits is None:
        return _pieces(data, 200, known, media_type)
    first, last = limits
    known["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return _pieces(memoryview(data)[first : last + 1], 206, known, media_type)


def _pieces(data: bytes | memoryview, status: int, headers: dict[str, str], media_type: str) -> Response:
    """The bytes, of which no second copy is made: patterns of a scan are gigabytes."""
    whole = memoryview(data)
    pieces = (bytes(whole[start : start + _PIECE_BYTES]) for start in range(0, len(whole), _PIECE_BYTES))
    return StreamingResponse(pieces, status, {**headers, "Content-Length": str(len(whole))}, media_type)


def range_of(text: str, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte; None for a header that is to be ignored. Raises Problem `range`.

    >>> range_of("bytes=0-3", 10), range_of("bytes=7-", 10), range_of("bytes=-2", 10), range_of("lines=1-2", 10)
    ((0, 3), (7, 9), (8, 9), None)
    """
    found = _ONE_RANGE.fullmatch(text.strip())
    if found is None or found[1] + found[2] == "":
        return None
    if found[1] == "":
        first, last = max(0, size_bytes - int(found[2])), size_bytes - 1
    else:
        first, last = int(found[1]), int(found[2]) if found[2] else size_bytes - 1
        if found[2] and last < first:
            return None
    if first >= size_bytes or (found[1] == "" and int(found[2]) == 0):
        raise Problem(
            "range",
            f"{text[:60]!r} begins behind the last of {size_bytes} bytes",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return first, min(last, size_bytes - 1)
