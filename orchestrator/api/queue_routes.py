"""The queue in the order of execution."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.answers import json_answer
from orchestrator.api.models import Queue
from orchestrator.api.route import PREFIX, StrictRoute, operation, services_of
from orchestrator.queue import STATUSES

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["queue"])
_ONE: Final = f"({'|'.join(STATUSES)})"
SHOWN: Final = ("running", "queued", "held", "paused")


@router.get("/queue", operation_id="get_queue", **operation("read", {200: Queue}))
def queue(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[
        str | None, Query(pattern=r"^-?[0-9]{1,9}\.[0-9]{1,18}$", description="`next_cursor` of the page before")
    ] = None,
    status: Annotated[
        str | None,
        Query(pattern=f"^{_ONE}(,{_ONE})*$", description="one, or several with commas; default: what waits or runs"),
    ] = None,
    instrument: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
) -> Response:
    """What runs and what waits, in the order of execution, each with the reason of its wait."""
    statuses = SHOWN if status is None else tuple(dict.fromkeys(status.split(",")))
    found = services_of(request).queue.entries(statuses=statuses, instrument=instrument, limit=limit + 1, after=cursor)
    more = len(found) > limit
    return json_answer({"entries": found[:limit], "next_cursor": found[limit - 1].cursor if more else None})
