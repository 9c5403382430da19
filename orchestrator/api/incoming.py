"""A body that is a file: written to disk as it comes, its sha256 worked out on the way, never whole in memory.

Neighbours: `guards` ends one that grows too large, `file_routes` keeps it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from orchestrator.catalogue.uploads import PartialUpload, Uploads

PIECE_BYTES: Final = 1 << 20


@asynccontextmanager
async def received(request: Request, uploads: Uploads) -> AsyncIterator[PartialUpload]:
    """The whole body in a file of its own, gone afterwards unless it was kept; `part_of` finds it. Raises DiskFull."""
    part = await run_in_threadpool(uploads.begin, _announced_bytes(request))
    try:
        gathered = bytearray()
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= PIECE_BYTES:
                await run_in_threadpool(part.write, bytes(gathered))
                gathered.clear()
        await run_in_threadpool(part.write, bytes(gathered))
        request.state.part = part
        yield part
    finally:
        await run_in_threadpool(part.discard)


def part_of(request: Request) -> PartialUpload:
    """The body of a streamed request."""
    return request.state.part


def _announced_bytes(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdigit() else 0
