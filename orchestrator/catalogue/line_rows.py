"""Rows of the line intend, keep, observe or mark: written inside the caller's transaction, and read back.

Neighbours: `event_log` says the same as events, `frame_files` holds the frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, insert, or_, select, update

from instruments import AcquireFrame, Frame
from orchestrator import events
from orchestrator.catalogue import event_log, schema
from orchestrator.catalogue.frame_files import Checksum
from orchestrator.catalogue.identifiers import new_id
from orchestrator.catalogue.promoted import decision_row, frame_columns, frame_row, intent_row
from orchestrator.catalogue.rows import DecisionRow, Intent, StoredFrame
from orchestrator.decisions import Decision
from orchestrator.errors import StorageError
from orchestrator.plain_json import plain

MEDIA_TYPE: Final = "application/x-hdf5"


def frames_path(experiment_id: str) -> str:
    """Where the frames of an experiment lie, relative to the data folder."""
    return f"experiments/{experiment_id}/frames"


def new_intent(experiment_id: str, decision: Decision, command: AcquireFrame, now: datetime) -> Intent:
    """What is about to be asked, with a new frame id and the place reserved for its file."""
    name = f"{decision.seq:06d}_{re.sub(r'[^0-9A-Za-z._-]', '_', command.action_id)}.nxs"
    path = f"{frames_path(experiment_id)}/{name}"
    return Intent(decision=decision, command=command, frame_id=new_id(), path=path, intended_at=now)


def add_intent(connection: Connection, experiment_id: str, intent: Intent) -> None:
    """The decision, the frame that is waited for, and the event."""
    decision, command, now = intent.decision, intent.command, intent.intended_at
    body, asked = plain(decision), plain(command)
    decision_values = {
        "id": decision.id, "experiment_id": experiment_id, "seq": decision.seq,
        "suggestion_id": decision.suggestion_id, "policy": decision.policy,
        "action_id": command.action_id, "status": "intended", "intended_at": now, "body": body, "command": asked,
    }  # fmt: skip
    acquisition_values = {
        "id": intent.frame_id, "experiment_id": experiment_id, "decision_id": decision.id,
        "action_id": command.action_id, "ordinal": decision.seq, "status": "acquiring", "path": intent.path,
        "intended_at": now, "purpose": command.purpose, "mode": command.mode,
    }  # fmt: skip
    payload = {"decision": body, "command": asked, "frame_id": intent.frame_id, "path": intent.path}
    connection.execute(insert(schema.decision).values(**decision_values))
    connection.execute(insert(schema.acquisition).values(**acquisition_values))
    event_log.add(connection, experiment_id, events.INTENDED, payload, now)


def store(
    connection: Connection, intent: Intent, frame: Frame, checksum: Checksum, acquired_at: datetime, now: datetime
) -> StoredFrame:
    """The row of a frame whose file is in place, and the event that says so. Raises StorageError out of turn."""
    table = schema.acquisition
    file = {"sha256": checksum.sha256, "size_bytes": checksum.size_bytes}
    values = {**frame_columns(frame), **file, "status": "stored", "acquired_at": acquired_at}
    asset = {
        "id": new_id(), "experiment_id": intent.experiment_id, "acquisition_id": intent.frame_id, "role": "frame",
        "path": intent.path, "media_type": MEDIA_TYPE, "created_at": acquired_at, **file,
    }  # fmt: skip
    payload = {
        **parents(intent), **file, "path": intent.path, "dose_e_per_a2": frame.dose_e_per_a2,
        "electrons": frame.electrons, "started_s": frame.started_s, "ended_s": frame.ended_s,
    }  # fmt: skip
    waiting = and_(table.c.id == intent.frame_id, table.c.status == "acquiring")
    if connection.execute(update(table).where(waiting).values(**values)).rowcount != 1:
        raise StorageError(f"action {intent.action_id} does not wait for a frame; `stempilot show` says why")
    end(connection, intent, "stored", None, ("intended",), now)
    connection.execute(insert(schema.asset).values(**asset))
    event_log.add(connection, intent.experiment_id, events.FRAME_STORED, payload, now)
    return frame_row(connection.execute(select(table).where(table.c.id == intent.frame_id)).mappings().one())


def end(
    connection: Connection, intent: Intent, status: str, reason: str | None, allowed: Sequence[str], now: datetime
) -> None:
    """Move a decision on. Raises StorageError where it is in no state to become that."""
    table = schema.decision
    query = update(table).where(table.c.id == intent.decision.id, table.c.status.in_(list(allowed)))
    if connection.execute(query.values(status=status, status_reason=reason, ended_at=now)).rowcount != 1:
        found = connection.execute(select(table.c.status).where(table.c.id == intent.decision.id)).scalar()
        raise StorageError(
            f"decision {intent.decision.id} is {found or 'unknown here'}; only one that is "
            f"{' or '.join(allowed)} can become {status}"
        )


def mark_frame(connection: Connection, intent: Intent, status: str) -> None:
    """No frame will come any more; one that was stored before stays."""
    table = schema.acquisition
    waiting = and_(table.c.id == intent.frame_id, table.c.status == "acquiring")
    connection.execute(update(table).where(waiting).values(status=status))


def parents(intent: Intent) -> dict[str, Any]:
    """The ids by which an event walks back to its decision."""
    return {
        "frame_id": intent.frame_id,
        "action_id": intent.action_id,
        "decision_id": intent.decision.id,
        "decision_seq": intent.decision.seq,
        "suggestion_id": intent.decision.suggestion_id,
    }


def intents(connection: Connection, experiment_id: str, statuses: Sequence[str] | None = None) -> list[Intent]:
    """What was asked, in order, with how far it went."""
    decision, acquisition = schema.decision, schema.acquisition
    query = (
        select(decision, acquisition.c.id.label("acquisition_id"), acquisition.c.path)
        .join(acquisition, acquisition.c.decision_id == decision.c.id)
        .where(decision.c.experiment_id == experiment_id)
        .order_by(decision.c.seq)
    )
    if statuses is not None:
        query = query.where(or_(*(decision.c.status == status for status in statuses)))
    return [intent_row(row) for row in connection.execute(query).mappings()]


def decisions(connection: Connection, experiment_id: str) -> list[DecisionRow]:
    """Decisions in order, with what became of them."""
    decision, acquisition = schema.decision, schema.acquisition
    joined = and_(acquisition.c.decision_id == decision.c.id, acquisition.c.status == "stored")
    query = (
        select(decision, acquisition.c.id.label("stored_id"))
        .outerjoin(acquisition, joined)
        .where(decision.c.experiment_id == experiment_id)
        .order_by(decision.c.seq)
    )
    return [decision_row(row) for row in connection.execute(query).mappings()]


def stored(connection: Connection, frame_id: str) -> StoredFrame | None:
    """One stored frame, or None."""
    table = schema.acquisition
    query = select(table).where(table.c.id == frame_id, table.c.status == "stored")
    row = connection.execute(query).mappings().first()
    return None if row is None else frame_row(row)


def frames(connection: Connection, experiment_id: str) -> list[StoredFrame]:
    """Stored frames in the order of their decisions."""
    table = schema.acquisition
    query = select(table).where(table.c.experiment_id == experiment_id, table.c.status == "stored")
    return [frame_row(row) for row in connection.execute(query.order_by(table.c.ordinal)).mappings()]
