"""New entries, and what may be changed in one that waits; inside the caller's transaction. Neighbour: `actions`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypedDict

from sqlalchemy import Connection, RowMapping, func, insert, select, text, update

from orchestrator import events
from orchestrator.catalogue import event_log, experiment_rows, schema
from orchestrator.errors import SpecError

MAX_PRIORITY: Final = 1_000_000
_ENTRY = schema.queue_entry
_INSERT: Final = insert(_ENTRY)
_LAST: Final = select(func.max(_ENTRY.c.seq))
_EXPERIMENT = schema.experiment


class Changes(TypedDict, total=False):
    """What may be changed while an experiment waits; what is not given stays, None takes a time away."""

    priority: int
    not_before: datetime | None
    not_after: datetime | None
    labels: Mapping[str, str]


def add(connection: Connection, experiment: Mapping[str, Any], **columns: Any) -> None:
    """A new experiment and its entry, behind all that were submitted before. Raises SpecError."""
    check_order(columns["priority"], columns["not_before"], columns["not_after"], experiment["created_at"])
    if not experiment["instrument"]:
        raise SpecError("instrument.name: missing; the queue has to know which instrument the experiment waits for")
    told = {"submitted_by": columns["submitted_by"], "priority": columns["priority"]}
    experiment_rows.add(connection, experiment, **told)
    row = {
        "experiment_id": experiment["id"], "instrument": experiment["instrument"], "status": experiment["status"],
        "reason": experiment.get("reason"), "created_at": experiment["created_at"],
        "seq": next_seq(connection), "version": 1, "started_count": 0,
    }  # fmt: skip
    connection.execute(_INSERT, {**row, **columns})


def next_seq(connection: Connection) -> int:
    """The number of the next entry; it grows with every submission, whatever the clock says."""
    if connection.dialect.name == "postgresql":
        return connection.execute(text("SELECT nextval('queue_entry_order')")).scalar_one()
    return (connection.execute(_LAST).scalar() or 0) + 1


def change(connection: Connection, entry: RowMapping, changes: Changes, by: str | None, now: datetime) -> None:
    """Change an entry that waits, its experiment's labels too, and say so in the journal. Raises SpecError."""
    order = {"priority": entry["priority"], "not_before": entry["not_before"], "not_after": entry["not_after"]}
    columns = {name: value for name, value in changes.items() if name in order and value != order[name]}
    wanted: dict[str, Any] = {**order, **columns}
    if columns:
        check_order(wanted["priority"], wanted["not_before"], wanted["not_after"], now)
    told: dict[str, Any] = dict(columns)
    own = entry["experiment_id"]
    if (labels := changes.get("labels")) is not None:
        document = connection.execute(select(_EXPERIMENT.c.spec).where(_EXPERIMENT.c.id == own)).scalar_one()
        if document.get("labels", {}) != dict(labels):
            told["labels"] = dict(labels)
            experiment_rows.change(connection, own, now, spec={**document, "labels": dict(labels)})
    if told:
        query = update(_ENTRY).where(_ENTRY.c.experiment_id == own)
        connection.execute(query.values(**columns, version=_ENTRY.c.version + 1))
        event_log.add(connection, own, events.QUEUE_CHANGED, {"changes": told, "by": by}, now)


def check_order(priority: int, not_before: datetime | None, not_after: datetime | None, now: datetime) -> None:
    """Whether an experiment can ever start with these. Raises SpecError naming value and limit."""
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise SpecError(f"priority {priority} is outside -{MAX_PRIORITY} to {MAX_PRIORITY}")
    for name, moment in (("not_before", not_before), ("not_after", not_after)):
        if moment is not None and moment.tzinfo is None:
            raise SpecError(f"{name} {moment.isoformat()} has no time zone; add one, for example +00:00")
    if not_after is None:
        return
    if not_after <= now:
        today = now.isoformat(timespec="seconds")
        raise SpecError(f"not_after {not_after.isoformat()} is over: it is {today}; give a later time")
    if not_before is not None and not_after <= not_before:
        raise SpecError(f"not_after {not_after.isoformat()} is not later than not_before {not_before.isoformat()}")
