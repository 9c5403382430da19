"""The journal's rows: appended inside the caller's transaction, read in pages. Neighbour: `line_rows`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select

from orchestrator.catalogue import schema
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.promoted import event_row
from orchestrator.errors import NotFound
from orchestrator.events import Event
from orchestrator.plain_json import plain

_PAGE_ROWS: Final = 200
_INSERT: Final = insert(schema.event)


def add(
    connection: Connection,
    experiment_id: str,
    kind: str,
    payload: Mapping[str, Any],
    now: datetime,
    arrays: bytes | None = None,
) -> Event:
    """Append an event under the next number of its experiment. Raises NotFound."""
    parent, table = schema.experiment, schema.event
    owner = select(parent.c.id).where(parent.c.id == experiment_id).with_for_update()
    if connection.execute(owner).first() is None:
        raise NotFound(f"no experiment {experiment_id!r} to write down {kind!r} of; `stempilot list` shows them")
    last = connection.execute(select(func.max(table.c.seq)).where(table.c.experiment_id == experiment_id)).scalar()
    return _insert(connection, experiment_id, (last or 0) + 1, kind, payload, now, arrays)


def begin(connection: Connection, experiment_id: str, kind: str, payload: Mapping[str, Any], now: datetime) -> Event:
    """The first event of an experiment that this transaction has just made."""
    return _insert(connection, experiment_id, 1, kind, payload, now, None)


def _insert(
    connection: Connection,
    experiment_id: str,
    seq: int,
    kind: str,
    payload: Mapping[str, Any],
    now: datetime,
    arrays: bytes | None,
) -> Event:
    event = Event(
        experiment_id=experiment_id, seq=seq, kind=kind, recorded_at=now, payload=plain(payload), arrays=arrays
    )
    connection.execute(_INSERT, {name: getattr(event, name) for name in Event.__dataclass_fields__})
    return event


def pages(
    database: Database, experiment_id: str, kinds: Sequence[str] | None, after_seq: int, *, with_arrays: bool
) -> Iterator[Event]:
    """Events in order, each page in a short transaction of its own; arrays only if asked for."""
    table = schema.event
    columns = [column for column in table.c if with_arrays or column.name != "arrays"]
    query = select(*columns).where(table.c.experiment_id == experiment_id).order_by(table.c.seq)
    if kinds is not None:
        query = query.where(table.c.kind.in_(list(kinds)))
    page_rows = _PAGE_ROWS // 10 if with_arrays else _PAGE_ROWS
    while True:
        with database.reading() as connection:
            page = connection.execute(query.where(table.c.seq > after_seq).limit(page_rows)).mappings().all()
        yield from map(event_row, page)
        if len(page) < page_rows:
            return
        after_seq = page[-1]["seq"]
