"""Instruments: what they can do, how they are, and the emergency stop, which waits for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from instruments import InstrumentError
from orchestrator.api.access import AT_ONCE
from orchestrator.api.answers import json_answer, outward
from orchestrator.api.models import Because, InstrumentFacts, InstrumentState, InstrumentStates, Stopped
from orchestrator.api.problems import Problem
from orchestrator.api.route import PREFIX, StrictRoute, identity_of, operation, services_of
from orchestrator.api.services import Services
from orchestrator.errors import NotFound, StorageError
from orchestrator.plain_json import plain

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["instruments"])
Name = Annotated[str, Path(max_length=100, pattern=r"^[^/\x00-\x1f]+$")]


@router.get("/instruments", operation_id="list_instruments", **operation("read", {200: InstrumentStates}))
def instruments(request: Request) -> Response:
    """Every configured instrument and how it is now."""
    services = services_of(request)
    return json_answer({"instruments": [state_of(services, name) for name in services.instruments.names()]})


@router.get("/instruments/{name}", operation_id="get_instrument", **operation("read", {200: InstrumentFacts}, 404))
def instrument(request: Request, name: Name) -> Response:
    """What an instrument can do, and the facility's safety envelope for it."""
    services = services_of(request)
    configured = _configured(services, name)
    capabilities, problem = None, None
    try:
        capabilities = services.instruments.capabilities(name)
    except InstrumentError as error:
        problem = outward(str(error), services)
    return json_answer(
        {
            "name": name,
            "adapter": configured.adapter,
            "safety": plain(configured.safety),
            "capabilities": capabilities,
            "problem": problem,
        }
    )


@router.get(
    "/instruments/{name}/status", operation_id="get_instrument_status", **operation("read", {200: InstrumentState}, 404)
)
def status(request: Request, name: Name) -> Response:
    """How an instrument is now: beam, exposure, lock; asked on its own line, beside any exposure."""
    services = services_of(request)
    _configured(services, name)
    return json_answer(state_of(services, name))


@router.post(
    "/instruments/{name}/stop",
    operation_id="stop_instrument",
    **operation("instruments:control", {200: Stopped}, 404, 502, keyed=True, at_once=True),
)
async def stop(request: Request, name: Name, body: Because | None = None) -> Response:
    """Emergency stop: blank the beam now, start nothing more until somebody clears it. 502 if that is not confirmed."""
    _configured(services_of(request), name)
    return await to_thread.run_sync(_stop, request, name, body, limiter=AT_ONCE)


@router.post(
    "/stop",
    operation_id="stop_everything",
    **operation("instruments:control", {200: Stopped}, 502, keyed=True, at_once=True),
)
async def stop_everything(request: Request, body: Because | None = None) -> Response:
    """Emergency stop of every instrument. An Idempotency-Key is taken, and never keeps a stop from being done again."""
    return await to_thread.run_sync(_stop, request, None, body, limiter=AT_ONCE)


@router.post(
    "/instruments/{name}/clear",
    operation_id="clear_instrument",
    **operation("instruments:control", {200: InstrumentState}, 404, 502, keyed=True, at_most_once=True),
)
def clear(request: Request, name: Name) -> Response:
    """Take an emergency stop back, after somebody has looked: experiments may start again."""
    services = services_of(request)
    _configured(services, name)
    services.instruments.clear(name, identity_of(request).name)
    return json_answer(state_of(services, name))


def state_of(services: Services, name: str) -> dict[str, Any]:
    """An instrument as it is now, and its lock in the queue; one that cannot be reached says why."""
    state: dict[str, Any] = {"name": name, "reachable": True, "problem": None}
    state["queue_locked"] = _queue_lock(services, name)
    state |= {"beam_blanked": None, "exposing": None, "locked": None}
    try:
        answer = plain(services.instruments.status(name))
    except InstrumentError as error:
        return {**state, "reachable": False, "problem": outward(str(error), services)}
    return {**state, **answer, "name": name}


def _queue_lock(services: Services, name: str) -> str | None:
    """The queue's lock in words; an instrument is shown also where the database does not answer."""
    try:
        lease = services.queue.lease(name)
    except StorageError as error:
        return f"not known: {outward(str(error), services)}"
    if lease is None or lease.locked_at is None:
        return None
    return f"{lease.locked_reason}, by {lease.locked_by} at {lease.locked_at:%Y-%m-%d %H:%M} UTC"


def _stop(request: Request, name: str | None, body: Because | None) -> Response:
    reason = (body.reason if body is not None else None) or "asked for over the API"
    services = services_of(request)
    answers: Mapping[str, Any] = plain(services.instruments.emergency_stop(name, identity_of(request).name, reason))
    for answer in answers.values():
        answer["message"] = outward(str(answer.get("message", "")), services)
    doubtful = sorted(own for own, answer in answers.items() if answer.get("beam_blanked") is not True)
    if doubtful:
        raise Problem(
            "instrument",
            f"no confirmation that the beam is blanked: {', '.join(doubtful)}; go and look, close the column valves",
            instruments=answers,
        )
    return json_answer({"instruments": answers})


def _configured(services: Services, name: str) -> Any:
    if name not in services.instruments.names():
        known = ", ".join(services.instruments.names())
        raise NotFound(f"no instrument {name!r} is configured here; there are {known}")
    return services.settings.instrument(name)
