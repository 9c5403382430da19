"""What a person may do with an experiment in the queue; inside the caller's transaction. Neighbour: `transitions`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, or_, select, update

from orchestrator import events
from orchestrator.catalogue import event_log, experiment_rows, schema
from orchestrator.errors import NotFound, PreconditionFailed
from orchestrator.queue.transitions import ACTIONS, WAITING, Action, conflict, target

_ENTRY = schema.queue_entry


def locked_entry(connection: Connection, experiment_id: str, if_version: int | None = None) -> RowMapping:
    """The entry of an experiment, its row held until the transaction ends. Raises NotFound, PreconditionFailed."""
    own = experiment_rows.find(connection, experiment_id, "this catalogue").id
    query = select(_ENTRY).where(_ENTRY.c.experiment_id == own).with_for_update()
    entry = connection.execute(query).mappings().first()
    if entry is None:
        raise not_queued(own)
    if if_version is not None and entry["version"] != if_version:
        raise PreconditionFailed(
            f"experiment {own} is at version {entry['version']}, not {if_version}: it was changed meanwhile; look again"
        )
    return entry


def not_queued(experiment_id: str) -> NotFound:
    """The error for an experiment that was run without the queue."""
    return NotFound(f"experiment {experiment_id} was never in the queue; `stempilot show` and `resume` know it")


def act(
    connection: Connection, action: Action, entry: RowMapping, by: str | None, reason: str | None, now: datetime
) -> None:
    """Do it, or wish it of the worker that runs it; what is so already stays as it is. Raises Conflict."""
    status, own = entry["status"], entry["experiment_id"]
    if status == "running":
        _wish(connection, action, entry, by, reason, now)
        return
    if status in ACTIONS[action].values() and status not in ACTIONS[action]:
        return
    to = target(action, own, status)
    words = None if to == "queued" else told(to, by, reason)
    _change(connection, own, status=to, reason=words, wanted=None, wanted_by=None)
    experiment_rows.set_status(connection, own, to, words, now, **{"from": status, "by": by})


def _wish(
    connection: Connection, action: Action, entry: RowMapping, by: str | None, reason: str | None, now: datetime
) -> None:
    own, wanted = entry["experiment_id"], entry["wanted"]
    wish = {"pause": "pause", "cancel": "cancel", "resume": None}.get(action, "")
    if wish == "":
        raise conflict(own, "running", f"{action} is possible while {' or '.join(ACTIONS[action])}")
    if wanted == wish:
        return
    if wanted == "cancel":
        raise conflict(own, "running", f"its cancelling is under way, it ends with this frame; {action} comes too late")
    words = None if wish is None else told(f"{wish} asked for", by, reason)
    _change(connection, own, wanted=wish, wanted_by=None if wish is None else by, reason=words)
    event_log.add(connection, own, events.WANTED, {"wanted": wish, "by": by, "reason": reason}, now)


def settle(connection: Connection, entry: RowMapping, status: str, reason: str, now: datetime) -> None:
    """Write down how a worker left an experiment. The run itself may have said so before."""
    own = entry["experiment_id"]
    obeyed = {"pause": "paused", "cancel": "cancelled"}.get(entry["wanted"] or "") == status
    words = f"{reason} ({entry['reason']})" if obeyed and entry["reason"] else reason
    before = experiment_rows.find(connection, own, "this catalogue").status
    _change(connection, own, status=status, reason=words, wanted=None, wanted_by=None, claimed_by=None)
    if before == status:
        experiment_rows.change(connection, own, now, reason=words)
        return
    experiment_rows.set_status(connection, own, status, words, now, **{"from": before, "by": entry["claimed_by"]})


def remove(connection: Connection, entry: RowMapping, by: str | None, now: datetime) -> None:
    """Take an experiment out of every list; its journal stays. Raises Conflict once something was exposed for it."""
    own, decision = entry["experiment_id"], schema.decision
    if entry["status"] == "running":
        raise conflict(own, "running", "one that runs is not removed")
    if connection.execute(select(decision.c.id).where(decision.c.experiment_id == own).limit(1)).first() is not None:
        raise conflict(own, entry["status"], "something was asked of the microscope for it, and frames are kept")
    connection.execute(delete(_ENTRY).where(_ENTRY.c.experiment_id == own))
    experiment_rows.change(connection, own, now, removed_at=now)
    event_log.add(connection, own, events.REMOVED, {"by": by, "status": entry["status"]}, now)


def overdue(connection: Connection, now: datetime, *, lock: bool = False) -> list[RowMapping]:
    """Entries that wait for their first start and may not start any more."""
    late = (_ENTRY.c.not_after <= now, _ENTRY.c.started_count == 0)
    which = or_(*(_ENTRY.c.status == status for status in WAITING))
    query = select(_ENTRY).where(which, *late)
    return list(connection.execute(query.with_for_update() if lock else query).mappings())


def cancel_overdue(connection: Connection, now: datetime) -> None:
    """Cancel what may not start any more."""
    for entry in overdue(connection, now, lock=True):
        own, limit = entry["experiment_id"], entry["not_after"]
        words = f"not after {limit:%Y-%m-%d %H:%M} UTC: it had not been started by then"
        _change(connection, own, status="cancelled", reason=words)
        experiment_rows.set_status(connection, own, "cancelled", words, now, **{"from": entry["status"], "by": None})


def told(what: str, by: str | None, reason: str | None) -> str:
    """Who did it and why, in words.

    >>> told("held", "anna", "the specimen is not ready"), told("held", None, None)
    ('held by anna: the specimen is not ready', 'held')
    """
    return what + (f" by {by}" if by else "") + (f": {reason}" if reason else "")


def _change(connection: Connection, experiment_id: str, **values: Any) -> None:
    query = update(_ENTRY).where(_ENTRY.c.experiment_id == experiment_id)
    connection.execute(query.values(**values, version=_ENTRY.c.version + 1))
