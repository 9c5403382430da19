"""Experiments: submitted, looked at, changed, commanded. Neighbours: `record_routes` (what they recorded), `specs`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.access import require_owner
from orchestrator.api.answers import etag, json_answer
from orchestrator.api.bodies import read_body
from orchestrator.api.idempotency import with_answer
from orchestrator.api.models import (
    ID_PATTERN,
    Because,
    Change,
    ExperimentDocument,
    Experiments,
    QueueFacts,
    SpecCheck,
    Submission,
    Validity,
)
from orchestrator.api.problems import Problem
from orchestrator.api.route import PREFIX, StrictRoute, identity_of, operation, services_of, version_of
from orchestrator.api.services import Services
from orchestrator.api.specs import SpecDesk, order_fault
from orchestrator.catalogue import folder, schema
from orchestrator.errors import Conflict, NotFound, SpecError
from orchestrator.plain_json import plain, to_text
from orchestrator.queue import STATUSES, QueueEntry

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["experiments"])
NEEDED_BYTES: Final = 1 << 20
ExperimentId = Annotated[str, Path(pattern=ID_PATTERN, description="an id, or a beginning of one that is unique")]
_LINKS: Final = {
    name: {"operationId": target, "parameters": {"experiment_id": "$response.body#/id"}}
    for name, target in {
        "look": "get_experiment",
        "status": "get_experiment_status",
        "hold": "hold_experiment",
        "release": "release_experiment",
        "cancel": "cancel_experiment",
        "events": "list_events",
    }.items()
}
_NO_BODY: Final = {"description": "Done."}


@router.post(
    "/experiments",
    operation_id="submit_experiment",
    **operation("experiments:write", {201: QueueFacts}, keyed=True, links=_LINKS, creates=True),
)
def submit(request: Request, body: Submission) -> Response:
    """Put an experiment into the queue. When this answers 201, it survives a crash of everything."""
    services, identity = services_of(request), identity_of(request)
    specs: SpecDesk = request.app.state.specs
    document = specs.checked(body)
    folder.check_room(services.catalogue.data_folder, NEEDED_BYTES)
    entry = services.queue.submit(
        name=body.spec.name,
        spec=document,
        seed=body.seed,
        options={"baselines": body.baselines, "report": body.report},
        priority=body.priority,
        not_before=body.not_before,
        not_after=body.not_after,
        hold=body.hold,
        submitted_by=identity.name,
        also=with_answer(request, _created),
    )
    return _created(entry)


@router.post(
    "/experiments:validate",
    operation_id="validate_experiment",
    **operation("experiments:write", {200: Validity}, keyed=True),
)
def validate(request: Request, body: SpecCheck) -> Response:
    """Whether submission would be accepted, with everything that is wrong; nothing is stored."""
    specs: SpecDesk = request.app.state.specs
    try:
        specs.checked(read_body(Submission, to_text(body.model_dump(mode="json")).encode()))
    except Problem as problem:
        if problem.status != 422:
            raise
        errors = problem.members.get("errors") or [{"detail": problem.detail}]
        return json_answer({"valid": False, "errors": errors})
    return json_answer({"valid": True, "errors": []})


@router.get("/experiments", operation_id="list_experiments", **operation("read", {200: Experiments}))
def list_experiments(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9a-f]{32}$", description="`next_cursor` of the page before")
    ] = None,
    status: Annotated[str | None, Query(pattern=f"^({'|'.join(STATUSES)})$")] = None,
    instrument: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    name: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="the whole name")] = None,
    children: Annotated[bool, Query(description="baselines and other children too")] = False,
) -> Response:
    """Experiments, newest first, a page at a time."""
    table = schema.experiment
    columns = ("id", "name", "status", "reason", "instrument", "seed", "parent_id", "created_at")
    query = select(*(table.c[column] for column in columns)).where(table.c.removed_at.is_(None))
    wanted = {"status": status, "instrument": instrument, "name": name}
    for column, value in wanted.items():
        if value is not None:
            query = query.where(table.c[column] == value)
    if not children:
        query = query.where(table.c.parent_id.is_(None))
    if cursor is not None:
        query = query.where(table.c.id < cursor)
    with services_of(request).catalogue.database.reading() as connection:
        rows = [dict(row) for row in connection.execute(query.order_by(table.c.id.desc()).limit(limit + 1)).mappings()]
    more = len(rows) > limit
    return json_answer({"experiments": rows[:limit], "next_cursor": rows[limit - 1]["id"] if more else None})


@router.get(
    "/experiments/{experiment_id}", operation_id="get_experiment", **operation("read", {200: ExperimentDocument}, 404)
)
def get_experiment(request: Request, experiment_id: ExperimentId) -> Response:
    """The whole of one experiment: spec, spending, frames, decisions, and where it stands in the queue."""
    services = services_of(request)
    row = services.catalogue.experiment(experiment_id)
    entry = queue_facts(services, row.id)
    document = {**services.experiment_document(row.id), "queue": entry}
    return json_answer(document, headers=_tag(entry))


@router.get(
    "/experiments/{experiment_id}/status",
    operation_id="get_experiment_status",
    **operation("read", {200: QueueFacts}, 404),
)
def get_status(request: Request, experiment_id: ExperimentId) -> Response:
    """Where one experiment stands, and why it waits; cheap enough to ask every second."""
    entry = services_of(request).queue.entry(experiment_id)
    return json_answer(entry, headers={"ETag": etag(entry.version)})


@router.patch(
    "/experiments/{experiment_id}",
    operation_id="change_experiment",
    **operation("experiments:write", {200: QueueFacts}, 404, 409, keyed=True, if_match="required"),
)
def change(request: Request, experiment_id: ExperimentId, body: Change) -> Response:
    """Change priority, window or labels of an experiment that waits."""
    entry = _allowed_entry(request, experiment_id)
    given = body.model_dump(include=set(body.model_fields_set))
    changes: dict[str, Any] = {
        key: value for key, value in given.items() if value is not None or key.startswith("not_")
    }
    try:
        changed = services_of(request).queue.change(
            entry.id,
            by=identity_of(request).name,
            if_version=version_of(request),
            also=with_answer(request, _standing),
            **changes,
        )
    except SpecError as error:
        raise Problem("invalid", str(error), errors=[order_fault(error)]) from error
    return _standing(changed)


@router.delete(
    "/experiments/{experiment_id}",
    operation_id="delete_experiment",
    **operation("experiments:write", {204: _NO_BODY}, 404, 409, keyed=True, if_match="required"),
)
def remove(request: Request, experiment_id: ExperimentId) -> Response:
    """Remove an experiment that exposed nothing; one with frames is never removed."""
    entry = _allowed_entry(request, experiment_id)
    keep = with_answer(request, _gone)
    services_of(request).queue.remove(
        entry.id,
        by=identity_of(request).name,
        if_version=version_of(request),
        also=lambda connection: keep(connection, entry),
    )
    return _gone(entry)


def _action(name: str, what: str) -> None:
    def act(request: Request, experiment_id: ExperimentId, body: Because | None = None) -> Response:
        entry = _allowed_entry(request, experiment_id)
        command = getattr(services_of(request).queue, name)
        reason = body.reason if body is not None else None
        after = command(
            entry.id,
            by=identity_of(request).name,
            reason=reason,
            if_version=version_of(request),
            also=with_answer(request, _standing),
        )
        return _standing(after)

    act.__doc__ = what
    router.post(
        f"/experiments/{{experiment_id}}/{name}",
        operation_id=f"{name}_experiment",
        **operation("experiments:write", {200: QueueFacts, 202: QueueFacts}, 404, 409, keyed=True, if_match="optional"),
    )(act)


for _name, _what in {
    "hold": "Keep it from starting until it is released.",
    "release": "Let a held one wait for its turn again.",
    "cancel": "End it: at once while it waits (200), after the frame that is being taken while it runs (202).",
    "pause": "Stop a running one after the frame that is being taken (202), to be resumed.",
    "resume": "Let a paused, interrupted or failed one go on where it stood, when its turn comes.",
}.items():
    _action(_name, _what)


def queue_facts(services: Services, experiment_id: str) -> dict[str, Any] | None:
    """Where an experiment stands in the queue; None for one that was never queued, as `stempilot run` starts them."""
    try:
        return plain(services.queue.entry(experiment_id))
    except NotFound:
        return None


def _allowed_entry(request: Request, experiment_id: str) -> QueueEntry:
    """The entry, if the one who asks may change it."""
    services = services_of(request)
    try:
        entry = services.queue.entry(experiment_id)
    except NotFound:
        row = services.catalogue.experiment(experiment_id)
        raise Conflict(
            f"experiment {row.id} was started with `stempilot run` and is not in the queue", status=row.status
        ) from None
    require_owner(identity_of(request), entry.submitted_by)
    return entry


def _gone(entry: QueueEntry) -> Response:
    del entry
    return Response(status_code=204)


def _created(entry: QueueEntry) -> Response:
    return json_answer(entry, 201, {"Location": f"{PREFIX}/experiments/{entry.id}", "ETag": etag(entry.version)})


def _standing(entry: QueueEntry) -> Response:
    return json_answer(entry, 202 if entry.wanted is not None else 200, {"ETag": etag(entry.version)})


def _tag(entry: dict[str, Any] | None) -> dict[str, str]:
    return {} if entry is None else {"ETag": etag(entry["version"])}
