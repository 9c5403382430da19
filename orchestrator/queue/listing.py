"""Reading the queue: one entry, a page of entries, how many are before one; every query is a range of an index.

Neighbours: `entries` are the values, `waiting` finds why one waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from orchestrator.catalogue import schema
from orchestrator.queue.entries import InstrumentLease, QueueEntry, entry_of, lease_of
from orchestrator.queue.waiting import MAX_COUNTED, Surroundings, wait_reason

_ENTRY = schema.queue_entry
_EXPERIMENT = schema.experiment


_TOLD: Final = select(_ENTRY, _EXPERIMENT.c.name, _EXPERIMENT.c.parent_id).join(
    _EXPERIMENT, _EXPERIMENT.c.id == _ENTRY.c.experiment_id
)
_ONE: Final = _TOLD.where(_ENTRY.c.experiment_id == bindparam("own"))
_LEASES: Final = select(schema.instrument_lease)
_QUEUED: Final = (
    select(_ENTRY.c.seq)
    .where(_ENTRY.c.instrument == bindparam("instrument"), _ENTRY.c.status == "queued")
    .order_by(_ENTRY.c.priority.desc(), _ENTRY.c.seq)  # so that PostgreSQL, too, walks the index and stops
    .limit(MAX_COUNTED)
)
_MORE_URGENT: Final = _QUEUED.where(_ENTRY.c.priority > bindparam("priority")).subquery()
_EARLIER: Final = _QUEUED.where(_ENTRY.c.priority == bindparam("priority"), _ENTRY.c.seq < bindparam("seq")).subquery()
_BEFORE: Final = select(
    select(func.count()).select_from(_MORE_URGENT).scalar_subquery()
    + select(func.count()).select_from(_EARLIER).scalar_subquery()
)


def one(connection: Connection, experiment_id: str) -> QueueEntry | None:
    """The entry of an experiment, or None where it never was in the queue."""
    row = connection.execute(_ONE, {"own": experiment_id}).mappings().first()
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
        query = _TOLD.where(*chosen).order_by(_ENTRY.c.priority.desc(), _ENTRY.c.seq)
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
    rows = connection.execute(_LEASES).mappings()
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
    place = {"instrument": entry.instrument, "priority": entry.priority, "seq": entry.seq}
    return min(connection.execute(_BEFORE, place).scalar_one(), MAX_COUNTED)
