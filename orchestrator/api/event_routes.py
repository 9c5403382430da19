"""The journal as pages of JSON, or as server-sent events that go on where a lost connection stopped.

Neighbour: `event_feed` knows when there is more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.api.answers import json_answer
from orchestrator.api.event_feed import EventFeed
from orchestrator.api.experiment_routes import ExperimentId
from orchestrator.api.models import Events
from orchestrator.api.problems import Problem
from orchestrator.api.route import PREFIX, StrictRoute, operation, services_of
from orchestrator.catalogue import Catalogue
from orchestrator.events import Event
from orchestrator.plain_json import to_text
from orchestrator.queue import FINAL

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["records"])
STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 1000
MOST_STREAMS: Final = 1000
_PAGE: Final = 100
_ANSWER: Final[dict[int, Any]] = {
    200: {
        "model": Events,
        "description": "A page of the journal; with `Accept: text/event-stream`, the journal as it grows.",
        "content": {STREAM: {"schema": {"type": "string"}}},
    },
    204: {"description": "A stream that is over: the experiment is final and you have all of it."},
}


@router.get("/experiments/{experiment_id}/events", operation_id="list_events", **operation("read", _ANSWER, 404))
async def events(
    request: Request,
    experiment_id: ExperimentId,
    after: Annotated[int, Query(ge=0, le=2**31, description="`seq` of the last one seen")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="of a JSON page")] = 100,
    last_event_id: Annotated[
        str | None, Header(pattern="^[0-9]{1,9}$", description="of a stream that broke: goes on behind it")
    ] = None,
) -> Response:
    """The journal, in order: what was decided, asked, seen, and every change of status with its reason."""
    catalogue = services_of(request).catalogue
    after = after if last_event_id is None else int(last_event_id)
    page = await run_in_threadpool(_page, catalogue, experiment_id, after, limit)
    if STREAM not in request.headers.get("accept", ""):
        return json_answer(page)
    if page["is_final"] and not page["events"]:
        return Response(status_code=204)
    state = request.app.state
    if state.stream_count >= MOST_STREAMS:
        raise Problem("unavailable", f"{MOST_STREAMS} streams are open already; ask for JSON pages with ?after=")
    stream = _stream(state, catalogue, page["id"], after)
    return StreamingResponse(
        stream, media_type=STREAM, headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
    )


async def _stream(state: Any, catalogue: Catalogue, experiment_id: str, after: int) -> AsyncIterator[str]:
    """Events until the experiment is final and all of them were sent; then one last event named `end`."""
    feed: EventFeed = state.event_feed
    state.stream_count += 1
    try:
        yield f"retry: {RETRY_MS}\n\n"
        while True:
            page = await run_in_threadpool(_page, catalogue, experiment_id, after, _PAGE)
            for event in page["events"]:
                yield f"id: {event['seq']}\nevent: {event['kind']}\ndata: {to_text(event)}\n\n"
            after = page["next_after"]
            if page["is_final"]:
                yield f"event: end\ndata: {to_text({'status': page['status']})}\n\n"
                return
            if not page["events"] and not await feed.wait(experiment_id, after, HEARTBEAT_S):
                yield ": nothing new, still here\n\n"
    finally:
        state.stream_count -= 1


def _page(catalogue: Catalogue, experiment_id: str, after: int, limit: int) -> dict[str, Any]:
    """Events after a number. The status is read first: what is final then has no event that is not in this page."""
    row = catalogue.experiment(experiment_id)
    found = [_line(event) for event in islice(catalogue.events(row.id, after_seq=after), limit)]
    return {
        "id": row.id,
        "events": found,
        "next_after": found[-1]["seq"] if found else after,
        "status": row.status,
        "is_final": row.status in FINAL and len(found) < limit,
    }


def _line(event: Event) -> dict[str, Any]:
    return {
        "experiment_id": event.experiment_id,
        "seq": event.seq,
        "kind": event.kind,
        "recorded_at": event.recorded_at,
        "payload": event.payload,
    }
