"""The catalogue: experiments, their journal, their frames. One writer, many readers; what it acknowledges is on disk.

Neighbours: `database` (rows), `frame_files` and `nexus` (files), `recovery` (after a crash), `rows` (answers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from instruments import AcquireFrame, Frame
from orchestrator import events
from orchestrator.catalogue import folder as folders
from orchestrator.catalogue import recovery, schema
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.frame_files import write_whole
from orchestrator.catalogue.identifiers import new_id
from orchestrator.catalogue.nexus import FrameRecord, encode
from orchestrator.catalogue.nexus_reader import decode
from orchestrator.catalogue.promoted import (
    decision_row,
    event_row,
    experiment_row,
    frame_columns,
    frame_row,
    intent_row,
)
from orchestrator.catalogue.rows import DecisionRow, ExperimentRow, Intent, RecoveryReport, StoredFrame
from orchestrator.decisions import Decision
from orchestrator.errors import FrameDamaged, NotFound, StorageError
from orchestrator.events import Event
from orchestrator.plain_json import plain

LATEST: Final = "latest"
MEDIA_TYPE: Final = "application/x-hdf5"
_PAGE_ROWS = 200

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


class Catalogue:
    """Experiments, events, decisions and frames of one data folder; a write is durable when it returns."""

    def __init__(self, data_folder: Path, database: Database, lock: folders.FolderLock | None, now: Clock) -> None:
        self.data_folder = data_folder
        self._database = database
        self._lock = lock
        self._now = now
        self._contexts: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(
        cls, data_folder: Path, *, url: str | None = None, read_only: bool = False, now: Clock = utc_now
    ) -> Catalogue:
        """The catalogue of a data folder, at the newest schema; `url` names a PostgreSQL database instead of SQLite.

        A writer makes the folder if need be. Raises DataFolderBusy, DataFolderNotWritable, CatalogueCorrupt, DiskFull;
        NotFound where there is nothing to read.
        """
        data_folder = Path(data_folder).resolve()
        if not read_only:
            folders.make(data_folder)
        with ExitStack() as opened:
            lock = None if read_only else folders.FolderLock(data_folder)
            if lock is not None:
                opened.callback(lock.release)
            database = Database(data_folder, url, read_only=read_only)
            opened.callback(database.close)
            if not read_only:
                database.upgrade()
            database.check()
            opened.pop_all()
        return cls(data_folder, database, lock, now)

    def close(self) -> None:
        """Let go of the folder; more than once is harmless."""
        self._database.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def forecast(self, needed_bytes: int) -> int:
        """Bytes left if `needed_bytes` more were written. Raises DiskFull before anything starts."""
        return folders.check_room(self.data_folder, needed_bytes)

    # --- experiments

    def create_experiment(
        self,
        *,
        name: str,
        spec: Mapping[str, Any],
        seed: int,
        engine: str,
        options: Mapping[str, Any],
        parent_id: str | None = None,
    ) -> str:
        """A new experiment with status `running`; its id, 32 hexadecimal digits that sort by time."""
        experiment_id, now = new_id(), self._now()
        document = plain(spec)
        folders.make(self.data_folder / _frames_path(experiment_id))
        row = {
            "id": experiment_id,
            "parent_id": parent_id,
            "name": name,
            "status": "running",
            "material": _promoted(document, "specimen", "material"),
            "instrument": _promoted(document, "instrument", "name"),
            "policy": _promoted(document, "policy", "name"),
            "spec": document,
            "seed": seed,
            "engine": engine,
            "options": plain(options),
            "context": {"experiment": name, "specimen": document.get("specimen", {})},
            "created_at": now,
            "updated_at": now,
        }
        payload = {"name": name, "seed": seed, "engine": engine, "options": row["options"], "parent_id": parent_id}
        with self._database.writing() as connection:
            connection.execute(insert(schema.experiment).values(**row))
            self._add(connection, experiment_id, events.CREATED, payload)
        return experiment_id

    def begin(self, experiment_id: str, context: Mapping[str, Any]) -> None:
        """Say what every later frame's file shall tell: `specimen`, `versions`, anything with a JSON form.

        What is not given stays as `create_experiment` took it from the spec.
        """
        document = {**self._context(experiment_id), **plain(context)}
        with self._database.writing() as connection:
            self._change(connection, experiment_id, context=document)
            self._add(connection, experiment_id, events.CONTEXT_SET, document)
        self._contexts[experiment_id] = document

    def set_status(self, experiment_id: str, status: str, reason: str | None) -> None:
        """Change an experiment's status, with its reason in words."""
        with self._database.writing() as connection:
            self._change(connection, experiment_id, status=status, reason=reason)
            self._add(connection, experiment_id, events.STATUS_CHANGED, {"status": status, "reason": reason})

    def experiment(self, experiment_id: str) -> ExperimentRow:
        """The experiment of that id, of that unique beginning of an id, or the `latest`. Raises NotFound."""
        table = schema.experiment
        if experiment_id == LATEST:
            query = select(table).where(table.c.parent_id.is_(None))
        else:
            start = experiment_id.lower().replace("-", "")
            query = select(table).where(table.c.id.startswith(start, autoescape=True))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(table.c.id.desc()).limit(6)).mappings()
            found = [experiment_row(row) for row in rows]
        if experiment_id == LATEST and found:
            return found[0]
        if len(found) > 1:
            listed = ", ".join(f"{row.id} ({row.name})" for row in found[:5])
            raise NotFound(f"{experiment_id!r} begins more than one id: {listed}; give more digits")
        if not found or not experiment_id:
            raise NotFound(f"no experiment {experiment_id!r} in {self.data_folder}; `stempilot list` shows them")
        return found[0]

    def experiments(self, *, include_children: bool = False) -> list[ExperimentRow]:
        """All experiments, newest first; baselines and other children only if asked for."""
        table = schema.experiment
        query = select(table).order_by(table.c.id.desc())
        if not include_children:
            query = query.where(table.c.parent_id.is_(None))
        with self._database.reading() as connection:
            return [experiment_row(row) for row in connection.execute(query).mappings()]

    def children(self, experiment_id: str) -> list[ExperimentRow]:
        """Experiments run for this one, oldest first."""
        table = schema.experiment
        query = select(table).where(table.c.parent_id == experiment_id).order_by(table.c.id)
        with self._database.reading() as connection:
            return [experiment_row(row) for row in connection.execute(query).mappings()]

    # --- journal

    def append(
        self, experiment_id: str, kind: str, payload: Mapping[str, Any], *, arrays: bytes | None = None
    ) -> Event:
        """Write down what happened."""
        with self._database.writing() as connection:
            return self._add(connection, experiment_id, kind, payload, arrays)

    def events(
        self,
        experiment_id: str,
        *,
        kinds: Sequence[str] | None = None,
        after_seq: int = 0,
        with_arrays: bool = False,
    ) -> Iterator[Event]:
        """Events in order, read in pages; arrays only if asked for."""
        table = schema.event
        columns = [column for column in table.c if with_arrays or column.name != "arrays"]
        query = select(*columns).where(table.c.experiment_id == experiment_id).order_by(table.c.seq)
        if kinds is not None:
            query = query.where(table.c.kind.in_(list(kinds)))
        page_rows = _PAGE_ROWS // 10 if with_arrays else _PAGE_ROWS
        while True:
            with self._database.reading() as connection:
                page = connection.execute(query.where(table.c.seq > after_seq).limit(page_rows)).mappings().all()
            yield from map(event_row, page)
            if len(page) < page_rows:
                return
            after_seq = page[-1]["seq"]

    # --- the line: intend, keep, observe, or mark

    def intend(self, experiment_id: str, decision: Decision, command: AcquireFrame) -> Intent:
        """Write down what is about to be asked, and reserve the frame's place."""
        frame_id, now = new_id(), self._now()
        path = (
            f"{_frames_path(experiment_id)}/{decision.seq:06d}_{re.sub(r'[^0-9A-Za-z._-]', '_', command.action_id)}.nxs"
        )
        intent = Intent(decision=decision, command=command, frame_id=frame_id, path=path, intended_at=now)
        body, asked = plain(decision), plain(command)
        decision_values = {
            "id": decision.id, "experiment_id": experiment_id, "seq": decision.seq,
            "suggestion_id": decision.suggestion_id, "policy": decision.policy,
            "action_id": command.action_id, "status": "intended", "intended_at": now, "body": body, "command": asked,
        }  # fmt: skip
        acquisition_values = {
            "id": frame_id, "experiment_id": experiment_id, "decision_id": decision.id, "action_id": command.action_id,
            "ordinal": decision.seq, "status": "acquiring", "path": path, "intended_at": now,
            "purpose": command.purpose, "mode": command.mode,
        }  # fmt: skip
        payload = {"decision": body, "command": asked, "frame_id": frame_id, "path": path}
        with self._database.writing() as connection:
            connection.execute(insert(schema.decision).values(**decision_values))
            connection.execute(insert(schema.acquisition).values(**acquisition_values))
            self._add(connection, experiment_id, events.INTENDED, payload)
        return intent

    def keep(self, intent: Intent, frame: Frame) -> StoredFrame:
        """Store the frame; when this returns it survives a crash. A frame that is already there is not written again.

        Raises DiskFull with nothing half-written, StorageError for a frame of another action or an intent that ended.
        """
        if frame.action_id != intent.action_id:
            raise StorageError(f"the frame is of action {frame.action_id}, not of the intent's {intent.action_id}")
        if (existing := self._stored(intent.frame_id)) is not None:
            return existing
        now = self._now()
        data = encode(frame, self._frame_record(intent, now))
        write_whole(self.data_folder / intent.path, data)
        return self._store(intent, frame, data, now)

    def observe(self, intent: Intent, payload: Mapping[str, Any], arrays: bytes | None = None) -> Event:
        """Write down what was seen in a stored frame; its decision is done."""
        body = {**self._parents(intent), **payload}
        with self._database.writing() as connection:
            self._end(connection, intent, "done", None, ("stored",))
            return self._add(connection, intent.experiment_id, events.OBSERVED, body, arrays)

    def mark(self, intent: Intent, status: Literal["unknown", "refused", "failed"], reason: str) -> Event:
        """Write down that an intent came to nothing. A frame that was stored before stays."""
        body = {**self._parents(intent), "status": status, "reason": reason}
        with self._database.writing() as connection:
            self._end(connection, intent, status, reason, ("intended", "stored"))
            table = schema.acquisition
            waiting = and_(table.c.id == intent.frame_id, table.c.status == "acquiring")
            connection.execute(update(table).where(waiting).values(status=status))
            return self._add(connection, intent.experiment_id, events.MARKED, body)

    def intents(self, experiment_id: str) -> list[Intent]:
        """Everything that was asked, in order, with how far it went."""
        return self._intents(experiment_id, None)

    def pending(self, experiment_id: str) -> list[Intent]:
        """Intents neither observed nor marked, in order: `stage` is `acquiring`, or `stored` where there is a frame."""
        return self._intents(experiment_id, ("intended", "stored"))

    def recover(self, experiment_id: str) -> RecoveryReport:
        """Adopt whole files whose row is missing, delete half-written ones. After a crash, call it before `pending`."""
        waiting = [intent for intent in self.pending(experiment_id) if intent.stage == "acquiring"]
        return recovery.recover(
            self.data_folder, _frames_path(experiment_id), waiting, self.frames(experiment_id), self._store
        )

    # --- frames and decisions

    def load_frame(self, frame_id: str) -> Frame:
        """The frame as the microscope delivered it.

        Raises NotFound, or FrameDamaged where the file is missing or differs from its checksum.
        """
        stored = self._stored(frame_id)
        if stored is None:
            raise NotFound(f"no stored frame {frame_id!r} in {self.data_folder}; `stempilot show ID` lists them")
        try:
            data = (self.data_folder / stored.path).read_bytes()
        except FileNotFoundError as error:
            raise FrameDamaged(f"{stored.path} is missing in {self.data_folder}; restore it from a copy") from error
        if (found := sha256(data).hexdigest()) != stored.sha256:
            raise FrameDamaged(f"{stored.path} has sha256 {found}, stored was {stored.sha256}; restore it from a copy")
        return decode(data, stored.path)

    def frames(self, experiment_id: str) -> list[StoredFrame]:
        """Stored frames in the order of their decisions."""
        table = schema.acquisition
        query = select(table).where(table.c.experiment_id == experiment_id, table.c.status == "stored")
        with self._database.reading() as connection:
            return [frame_row(row) for row in connection.execute(query.order_by(table.c.ordinal)).mappings()]

    def decisions(self, experiment_id: str) -> list[DecisionRow]:
        """Decisions in order, with what became of them."""
        decision, acquisition = schema.decision, schema.acquisition
        joined = and_(acquisition.c.decision_id == decision.c.id, acquisition.c.status == "stored")
        query = (
            select(decision, acquisition.c.id.label("stored_id"))
            .outerjoin(acquisition, joined)
            .where(decision.c.experiment_id == experiment_id)
            .order_by(decision.c.seq)
        )
        with self._database.reading() as connection:
            return [decision_row(row) for row in connection.execute(query).mappings()]

    # --- inside

    def _intents(self, experiment_id: str, statuses: Sequence[str] | None) -> list[Intent]:
        decision, acquisition = schema.decision, schema.acquisition
        query = (
            select(decision, acquisition.c.id.label("acquisition_id"), acquisition.c.path)
            .join(acquisition, acquisition.c.decision_id == decision.c.id)
            .where(decision.c.experiment_id == experiment_id)
            .order_by(decision.c.seq)
        )
        if statuses is not None:
            query = query.where(or_(*(decision.c.status == status for status in statuses)))
        with self._database.reading() as connection:
            return [intent_row(row) for row in connection.execute(query).mappings()]

    def _stored(self, frame_id: str) -> StoredFrame | None:
        table = schema.acquisition
        query = select(table).where(table.c.id == frame_id, table.c.status == "stored")
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else frame_row(row)

    def _store(self, intent: Intent, frame: Frame, data: bytes, acquired_at: datetime) -> StoredFrame:
        """The row of a file that is in place, and the event that says so."""
        table, digest = schema.acquisition, sha256(data).hexdigest()
        file = {"sha256": digest, "size_bytes": len(data)}
        values = {**frame_columns(frame), **file, "status": "stored", "acquired_at": acquired_at}
        asset = {
            "id": new_id(), "experiment_id": intent.experiment_id, "acquisition_id": intent.frame_id, "role": "frame",
            "path": intent.path, "media_type": MEDIA_TYPE, "created_at": acquired_at, **file,
        }  # fmt: skip
        payload = {
            **self._parents(intent), **file, "path": intent.path, "dose_e_per_a2": frame.dose_e_per_a2,
            "electrons": frame.electrons, "started_s": frame.started_s, "ended_s": frame.ended_s,
        }  # fmt: skip
        waiting = and_(table.c.id == intent.frame_id, table.c.status == "acquiring")
        with self._database.writing() as connection:
            if connection.execute(update(table).where(waiting).values(**values)).rowcount != 1:
                raise StorageError(f"action {intent.action_id} does not wait for a frame; `stempilot show` says why")
            self._end(connection, intent, "stored", None, ("intended",))
            connection.execute(insert(schema.asset).values(**asset))
            self._add(connection, intent.experiment_id, events.FRAME_STORED, payload)
            return frame_row(connection.execute(select(table).where(table.c.id == intent.frame_id)).mappings().one())

    def _end(
        self, connection: Connection, intent: Intent, status: str, reason: str | None, allowed: Sequence[str]
    ) -> None:
        table = schema.decision
        query = update(table).where(table.c.id == intent.decision.id, table.c.status.in_(list(allowed)))
        if connection.execute(query.values(status=status, status_reason=reason, ended_at=self._now())).rowcount != 1:
            found = connection.execute(select(table.c.status).where(table.c.id == intent.decision.id)).scalar()
            raise StorageError(
                f"decision {intent.decision.id} is {found or 'unknown here'}; only one that is "
                f"{' or '.join(allowed)} can become {status}"
            )

    def _change(self, connection: Connection, experiment_id: str, **values: Any) -> None:
        table = schema.experiment
        query = update(table).where(table.c.id == experiment_id).values(updated_at=self._now(), **values)
        if connection.execute(query).rowcount != 1:
            raise NotFound(f"no experiment {experiment_id!r} in {self.data_folder}; `stempilot list` shows them")

    def _add(
        self,
        connection: Connection,
        experiment_id: str,
        kind: str,
        payload: Mapping[str, Any],
        arrays: bytes | None = None,
    ) -> Event:
        parent, table = schema.experiment, schema.event
        owner = select(parent.c.id).where(parent.c.id == experiment_id).with_for_update()
        if connection.execute(owner).first() is None:
            raise NotFound(f"no experiment {experiment_id!r} in {self.data_folder}; `stempilot list` shows them")
        last = connection.execute(select(func.max(table.c.seq)).where(table.c.experiment_id == experiment_id)).scalar()
        event = Event(
            experiment_id=experiment_id,
            seq=(last or 0) + 1,
            kind=kind,
            recorded_at=self._now(),
            payload=plain(payload),
            arrays=arrays,
        )
        values = {name: getattr(event, name) for name in Event.__dataclass_fields__}
        connection.execute(insert(table).values(**values))
        return event

    def _context(self, experiment_id: str) -> dict[str, Any]:
        if experiment_id not in self._contexts:
            self._contexts[experiment_id] = self.experiment(experiment_id).context
        return self._contexts[experiment_id]

    def _frame_record(self, intent: Intent, now: datetime) -> FrameRecord:
        return FrameRecord(
            frame_id=intent.frame_id,
            experiment_id=intent.experiment_id,
            decision_id=intent.decision.id,
            suggestion_id=intent.decision.suggestion_id,
            ordinal=intent.decision.seq,
            intended_at=intent.intended_at,
            acquired_at=now,
            context=self._context(intent.experiment_id),
            decision=plain(intent.decision),
        )

    def _parents(self, intent: Intent) -> dict[str, Any]:
        return {
            "frame_id": intent.frame_id,
            "action_id": intent.action_id,
            "decision_id": intent.decision.id,
            "decision_seq": intent.decision.seq,
            "suggestion_id": intent.decision.suggestion_id,
        }


def _frames_path(experiment_id: str) -> str:
    return f"experiments/{experiment_id}/frames"


def _promoted(document: Mapping[str, Any], section: str, key: str) -> str | None:
    found = document.get(section)
    value = found.get(key) if isinstance(found, Mapping) else None
    return None if value is None else str(value)
