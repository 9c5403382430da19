"""Reading the queue: one entry, a page of entries, how many are before one; every query is a range of an index.

Neighbours: `entries` are the values, `waiting` finds why one waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, Select, func, select

from orchestrator.catalogue import schema
from orchestrator.queue.entries import InstrumentLease, QueueEntry, entry_of, lease_of
from orchestrator.queue.waiting import MAX_COUNTED, Surroundings, wait_reason

_ENTRY = schema.queue_entry
_EXPERIMENT = schema.experiment


def entries_query() -> Select[tuple[object, ...]]:
    """Entries with what their experiment says."""
    return select(_ENTRY, _EXPERIMENT.c.name, _EXPERIMENT.c.parent_id).join(
        _EXPERIMENT, _EXPERIMENT.c.id == _ENTRY.c.experiment_id
    )


def one(connection: Connection, experiment_id: str) -> QueueEntry | None:
    """The entry of an experiment, or None where it never was in the queue."""
    row = connection.execute(entries_query().where(_ENTRY.c.experiment_id == experiment_id)).mappings().first()
    return None if row is None else entry_of(row)


def page(
    connection: Connection, statuses: Sequence[str], instrument: str | None, limit: int, after: str | None
) -> list[QueueEntry]:
    """Up to `limit` entries in the order of execution (priority falling, then submission), behind a cursor."""
    found: list[QueueEntry] = []
    for status in statuses:
        chosen = [_ENTRY.c.status == status]
        if instrument is not None:
            chosen.append(_ENTRY.c.instrument == instrument)
        query = entries_query().where(*chosen).order_by(_ENTRY.c.priority.desc(), _ENTRY.c.seq)
        of_status: list[QueueEntry] = []
        for part in _behind(after):
            rows = connection.execute(query.where(*part).limit(limit - len(of_status))).mappings()
            of_status += map(entry_of, rows)
            if len(of_status) >= limit:
                break
        found += of_status
    return sorted(found, key=lambda entry: (-entry.priority, entry.seq))[:limit]


def _behind(cursor: str | None) -> list[list[ColumnElement[bool]]]:
    """What comes after a cursor, as ranges of the index, in order."""
    if cursor is None:
        return [[]]
    priority, _, seq = cursor.rpartition(".")
    try:
        place = int(priority), int(seq)
    except ValueError as error:
        raise ValueError(f"{cursor!r} is no cursor; give the `cursor` of an entry") from error
    return [[_ENTRY.c.priority == place[0], _ENTRY.c.seq > place[1]], [_ENTRY.c.priority < place[0]]]


def leases(connection: Connection) -> dict[str, InstrumentLease]:
    """The lease of each instrument that was ever asked for or locked."""
    rows = connection.execute(select(schema.instrument_lease)).mappings()
    return {row["instrument"]: lease_of(row) for row in rows}


def with_reasons(connection: Connection, found: Sequence[QueueEntry], around: Surroundings) -> list[QueueEntry]:
    """The same entries, in the order of execution, with why each waits."""
    before: dict[str, int] = {}
    told: list[QueueEntry] = []
    for entry in found:
        if entry.status == "queued":
            count = before.get(entry.instrument)
            count = _before_count(connection, entry) if count is None else min(count + 1, MAX_COUNTED)
            before[entry.instrument] = count
        told.append(replace(entry, wait_reason=wait_reason(entry, before.get(entry.instrument, 0), around)))
    return told


def _before_count(connection: Connection, entry: QueueEntry) -> int:
    queued = [_ENTRY.c.instrument == entry.instrument, _ENTRY.c.status == "queued"]
    same = [_ENTRY.c.priority == entry.priority, _ENTRY.c.seq < entry.seq]
    count = 0
    for part in ([_ENTRY.c.priority > entry.priority], same):
        some = select(_ENTRY.c.seq).where(*queued, *part).limit(MAX_COUNTED).subquery()
        count += connection.execute(select(func.count()).select_from(some)).scalar_one()
    return min(count, MAX_COUNTED)
