"""The experiments' rows: made, changed, found, inside the caller's transaction. Neighbour: `event_log`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from string import hexdigits
from typing import Any, Final

from sqlalchemy import Connection, false, insert, select, update

from orchestrator import events
from orchestrator.catalogue import event_log, schema
from orchestrator.catalogue.identifiers import new_id
from orchestrator.catalogue.promoted import experiment_row
from orchestrator.catalogue.rows import ExperimentRow
from orchestrator.errors import NotFound
from orchestrator.plain_json import plain

LATEST: Final = "latest"
_INSERT: Final = insert(schema.experiment)


def new_row(
    *,
    name: str,
    status: str,
    spec: Mapping[str, Any],
    seed: int,
    engine: str,
    options: Mapping[str, Any],
    parent_id: str | None,
    now: datetime,
) -> dict[str, Any]:
    """The row of a new experiment; what can be searched is taken from its spec."""
    document = plain(spec)
    return {
        "id": new_id(),
        "parent_id": parent_id,
        "name": name,
        "status": status,
        "material": promoted(document, "specimen", "material"),
        "instrument": promoted(document, "instrument", "name"),
        "policy": promoted(document, "policy", "name"),
        "spec": document,
        "seed": seed,
        "engine": engine,
        "options": plain(options),
        "context": {"experiment": name, "specimen": document.get("specimen", {})},
        "created_at": now,
        "updated_at": now,
    }


def add(connection: Connection, row: Mapping[str, Any], **more: Any) -> None:
    """Insert a new experiment and the first event of its journal; `more` is told there too."""
    connection.execute(_INSERT, dict(row))
    told = {name: row[name] for name in ("name", "seed", "engine", "options", "parent_id")}
    event_log.begin(connection, row["id"], events.CREATED, {**told, **more}, row["created_at"])


def change(connection: Connection, experiment_id: str, now: datetime, **values: Any) -> None:
    """Change columns of one experiment. Raises NotFound."""
    table = schema.experiment
    query = update(table).where(table.c.id == experiment_id).values(updated_at=now, **values)
    if connection.execute(query).rowcount != 1:
        raise NotFound(f"no experiment {experiment_id!r} to change; `stempilot list` shows them")


def set_status(
    connection: Connection, experiment_id: str, status: str, reason: str | None, now: datetime, **more: Any
) -> None:
    """Change the status where it stands twice (experiment and queue) and say so in the journal, with `more`."""
    queued = schema.queue_entry
    again = update(queued).where(queued.c.experiment_id == experiment_id, queued.c.status != status)
    connection.execute(again.values(status=status, version=queued.c.version + 1))
    change(connection, experiment_id, now, status=status, reason=reason)
    event_log.add(connection, experiment_id, events.STATUS_CHANGED, {"status": status, "reason": reason, **more}, now)


def find(connection: Connection, experiment_id: str, place: object) -> ExperimentRow:
    """The experiment of that id, of that unique beginning of one, or the `latest`. Raises NotFound, naming `place`."""
    table = schema.experiment
    query = select(table).where(table.c.removed_at.is_(None))
    if experiment_id == LATEST:
        query = query.where(table.c.parent_id.is_(None))
    else:
        start = experiment_id.lower().replace("-", "")
        is_start = set(start) <= set(hexdigits.lower())
        query = query.where(table.c.id >= start, table.c.id < start + "g") if is_start else query.where(false())
    found = [experiment_row(row) for row in connection.execute(query.order_by(table.c.id.desc()).limit(6)).mappings()]
    if experiment_id == LATEST and found:
        return found[0]
    if len(found) > 1:
        listed_ids = ", ".join(f"{row.id} ({row.name})" for row in found[:5])
        raise NotFound(f"{experiment_id!r} begins more than one id: {listed_ids}; give more digits")
    if not found or not experiment_id:
        raise NotFound(f"no experiment {experiment_id!r} in {place}; `stempilot list` shows them")
    return found[0]


def listed(connection: Connection, *, include_children: bool) -> list[ExperimentRow]:
    """All experiments, newest first."""
    table = schema.experiment
    query = select(table).where(table.c.removed_at.is_(None)).order_by(table.c.id.desc())
    if not include_children:
        query = query.where(table.c.parent_id.is_(None))
    return [experiment_row(row) for row in connection.execute(query).mappings()]


def children(connection: Connection, experiment_id: str) -> list[ExperimentRow]:
    """Experiments run for this one, oldest first."""
    table = schema.experiment
    query = select(table).where(table.c.parent_id == experiment_id, table.c.removed_at.is_(None)).order_by(table.c.id)
    return [experiment_row(row) for row in connection.execute(query).mappings()]


def promoted(document: Mapping[str, Any], section: str, key: str) -> str | None:
    """One word of a spec that can be searched, or None where the spec does not say it."""
    found = document.get(section)
    value = found.get(key) if isinstance(found, Mapping) else None
    return None if value is None else str(value)
