"""The catalogue: experiments, their journal, their frames; what it acknowledges is on disk.

Rooms behind it: `experiment_rows`, `event_log`, `line_rows` (rows), `frame_files` and `nexus` (files), `uploads`,
`recovery` (after a crash), `fencing` (who may still write), `database` (transactions).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from sqlalchemy import Connection

from instruments import AcquireFrame, Frame
from orchestrator import events
from orchestrator.catalogue import event_log, experiment_rows, fencing, line_rows, recovery
from orchestrator.catalogue import folder as folders
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.fencing import Fence
from orchestrator.catalogue.frame_files import Checksum, make_beside, put_in_place, write_beside
from orchestrator.catalogue.nexus import FrameRecord, encode, write
from orchestrator.catalogue.nexus_reader import decode
from orchestrator.catalogue.rows import DecisionRow, ExperimentRow, Intent, RecoveryReport, StoredFrame
from orchestrator.catalogue.uploads import Uploads
from orchestrator.decisions import Decision
from orchestrator.errors import FrameDamaged, NotFound, StorageError
from orchestrator.events import Event
from orchestrator.plain_json import plain

Clock = Callable[[], datetime]
IN_MEMORY_BYTES: Final = 64 << 20  # counts above this are written as they are packed, without a second copy
_FILE_OVERHEAD_BYTES: Final = 4 << 20


def utc_now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


class Catalogue:
    """Experiments, events, decisions and frames of one data folder; a write is durable when it returns.

    `now` is its clock; `elapsed_s` runs evenly even while somebody sets that clock. `database` is for the rooms that
    keep tables of their own (the queue, the tokens).
    """

    def __init__(
        self,
        data_folder: Path,
        database: Database,
        lock: folders.FolderLock | None,
        now: Clock,
        elapsed_s: Callable[[], float],
    ) -> None:
        self.data_folder = data_folder
        self.database = database
        self.now = now
        self.elapsed_s = elapsed_s
        self.uploads = Uploads(data_folder, database, now)
        self._lock = lock
        self._contexts: dict[str, dict[str, Any]] = {}
        self._fences: dict[str, Fence] = {}

    @classmethod
    def open(
        cls,
        data_folder: Path,
        *,
        url: str | None = None,
        read_only: bool = False,
        shared: bool = False,
        visitor: bool = False,
        group_commit: bool = False,
        now: Clock = utc_now,
        elapsed_s: Callable[[], float] | None = None,
    ) -> Catalogue:
        """The catalogue of a data folder, at the newest schema; `url` names a PostgreSQL database instead of SQLite.

        A writer makes the folder if need be and has it alone; `shared` writers have it together; a `visitor` holds
        nothing and may only write what is safe beside anybody (the queue's short transactions). `group_commit` lets
        threads that write at the same time share one transaction. Without `elapsed_s`, a clock given as `now` is
        taken to run evenly. Raises DataFolderBusy, DataFolderNotWritable, CatalogueCorrupt, DiskFull; NotFound where
        there is nothing to read.
        """
        data_folder = Path(data_folder).resolve()
        if not read_only:
            folders.make(data_folder)
        with ExitStack() as opened:
            lock = None if read_only or visitor else folders.FolderLock(data_folder, shared=shared)
            if lock is not None:
                opened.callback(lock.release)
            database = Database(data_folder, url, read_only=read_only, group_commit=group_commit)
            opened.callback(database.close)
            if not read_only:
                database.upgrade()
            database.check(thorough=lock is not None)
            opened.pop_all()
        if elapsed_s is None:
            elapsed_s = time.monotonic if now is utc_now else lambda: now().timestamp()
        return cls(data_folder, database, lock, now, elapsed_s)

    def close(self) -> None:
        """Let go of the folder; more than once is harmless."""
        self.database.close()
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

    def fenced_by(self, fence: Fence) -> None:
        """From now on every write of this catalogue about that experiment needs the lease it was claimed with.

        A write after the lease is gone raises LeaseLost and changes nothing, neither rows nor files.
        """
        self._fences[fence.experiment_id] = fence

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
        row = experiment_rows.new_row(
            name=name, status="running", spec=spec, seed=seed, engine=engine, options=options, parent_id=parent_id,
            now=self.now(),
        )  # fmt: skip
        folders.make(self.data_folder / line_rows.frames_path(row["id"]))
        with self._writing(parent_id) as connection:
            experiment_rows.add(connection, row)
        return row["id"]

    def begin(self, experiment_id: str, context: Mapping[str, Any]) -> None:
        """Say what every later frame's file shall tell: `specimen`, `versions`, anything with a JSON form.

        What is not given stays as `create_experiment` took it from the spec.
        """
        document = {**self._context(experiment_id), **plain(context)}
        with self._writing(experiment_id) as connection:
            experiment_rows.change(connection, experiment_id, self.now(), context=document)
            event_log.add(connection, experiment_id, events.CONTEXT_SET, document, self.now())
        self._contexts[experiment_id] = document

    def set_status(self, experiment_id: str, status: str, reason: str | None) -> None:
        """Change an experiment's status, with its reason in words; its entry in the queue follows."""
        with self._writing(experiment_id) as connection:
            experiment_rows.set_status(connection, experiment_id, status, reason, self.now())

    def experiment(self, experiment_id: str) -> ExperimentRow:
        """The experiment of that id, of that unique beginning of an id, or the `latest`. Raises NotFound."""
        with self.database.reading() as connection:
            return experiment_rows.find(connection, experiment_id, self.data_folder)

    def experiments(self, *, include_children: bool = False) -> list[ExperimentRow]:
        """All experiments, newest first; baselines and other children only if asked for."""
        with self.database.reading() as connection:
            return experiment_rows.listed(connection, include_children=include_children)

    def children(self, experiment_id: str) -> list[ExperimentRow]:
        """Experiments run for this one, oldest first."""
        with self.database.reading() as connection:
            return experiment_rows.children(connection, experiment_id)

    # --- journal

    def append(
        self, experiment_id: str, kind: str, payload: Mapping[str, Any], *, arrays: bytes | None = None
    ) -> Event:
        """Write down what happened."""
        with self._writing(experiment_id) as connection:
            return event_log.add(connection, experiment_id, kind, payload, self.now(), arrays)

    def events(
        self,
        experiment_id: str,
        *,
        kinds: Sequence[str] | None = None,
        after_seq: int = 0,
        with_arrays: bool = False,
    ) -> Iterator[Event]:
        """Events in order, read in pages; arrays only if asked for."""
        return event_log.pages(self.database, experiment_id, kinds, after_seq, with_arrays=with_arrays)

    # --- the line: intend, keep, observe, or mark

    def intend(self, experiment_id: str, decision: Decision, command: AcquireFrame) -> Intent:
        """Write down what is about to be asked, and reserve the frame's place."""
        intent = line_rows.new_intent(experiment_id, decision, command, self.now())
        with self._writing(experiment_id) as connection:
            line_rows.add_intent(connection, experiment_id, intent)
        return intent

    def keep(self, intent: Intent, frame: Frame) -> StoredFrame:
        """Store the frame; when this returns it survives a crash. A frame that is already there is not written again.

        Raises DiskFull with nothing half-written, StorageError for a frame of another action or an intent that ended.
        """
        if frame.action_id != intent.action_id:
            raise StorageError(f"the frame is of action {frame.action_id}, not of the intent's {intent.action_id}")
        with self.database.reading() as connection:
            existing = line_rows.stored(connection, intent.frame_id)
        if existing is not None:
            return existing
        now, path = self.now(), self.data_folder / intent.path
        folders.make(path.parent)
        temporary, checksum = _written(path, frame, self._frame_record(intent, now))
        try:
            with self._writing(intent.experiment_id) as connection:
                put_in_place(temporary, path)  # inside: who has lost the lease must not replace a file either
                return line_rows.store(connection, intent, frame, checksum, now, self.now())
        finally:
            temporary.unlink(missing_ok=True)

    def observe(self, intent: Intent, payload: Mapping[str, Any], arrays: bytes | None = None) -> Event:
        """Write down what was seen in a stored frame; its decision is done."""
        body, now = {**line_rows.parents(intent), **payload}, self.now()
        with self._writing(intent.experiment_id) as connection:
            line_rows.end(connection, intent, "done", None, ("stored",), now)
            return event_log.add(connection, intent.experiment_id, events.OBSERVED, body, now, arrays)

    def mark(self, intent: Intent, status: Literal["unknown", "refused", "failed"], reason: str) -> Event:
        """Write down that an intent came to nothing. A frame that was stored before stays."""
        body, now = {**line_rows.parents(intent), "status": status, "reason": reason}, self.now()
        with self._writing(intent.experiment_id) as connection:
            line_rows.end(connection, intent, status, reason, ("intended", "stored"), now)
            line_rows.mark_frame(connection, intent, status)
            return event_log.add(connection, intent.experiment_id, events.MARKED, body, now)

    def intents(self, experiment_id: str) -> list[Intent]:
        """Everything that was asked, in order, with how far it went."""
        with self.database.reading() as connection:
            return line_rows.intents(connection, experiment_id)

    def pending(self, experiment_id: str) -> list[Intent]:
        """Intents neither observed nor marked, in order: `stage` is `acquiring`, or `stored` where there is a frame."""
        with self.database.reading() as connection:
            return line_rows.intents(connection, experiment_id, ("intended", "stored"))

    def recover(self, experiment_id: str) -> RecoveryReport:
        """Adopt whole files whose row is missing, delete half-written ones. After a crash, call it before `pending`."""
        with self._writing(experiment_id):
            pass  # only who may write about the experiment may touch its files
        waiting = [intent for intent in self.pending(experiment_id) if intent.stage == "acquiring"]
        return recovery.recover(
            self.data_folder, line_rows.frames_path(experiment_id), waiting, self.frames(experiment_id), self._adopt
        )

    # --- frames and decisions

    def load_frame(self, frame_id: str) -> Frame:
        """The frame as the microscope delivered it.

        Raises NotFound, or FrameDamaged where the file is missing or differs from its checksum.
        """
        with self.database.reading() as connection:
            stored = line_rows.stored(connection, frame_id)
        if stored is None:
            raise NotFound(f"no stored frame {frame_id!r} in {self.data_folder}; `stempilot show ID` lists them")
        try:
            file = (self.data_folder / stored.path).open("rb")
        except FileNotFoundError as error:
            raise FrameDamaged(f"{stored.path} is missing in {self.data_folder}; restore it from a copy") from error
        with file:
            if (found := Checksum.of(file).sha256) != stored.sha256:
                said = f"{stored.path} has sha256 {found}, stored was {stored.sha256}"
                raise FrameDamaged(f"{said}; restore it from a copy")
            return decode(file, stored.path)

    def frames(self, experiment_id: str) -> list[StoredFrame]:
        """Stored frames in the order of their decisions."""
        with self.database.reading() as connection:
            return line_rows.frames(connection, experiment_id)

    def decisions(self, experiment_id: str) -> list[DecisionRow]:
        """Decisions in order, with what became of them."""
        with self.database.reading() as connection:
            return line_rows.decisions(connection, experiment_id)

    # --- inside

    @contextmanager
    def _writing(self, experiment_id: str | None) -> Iterator[Connection]:
        """One transaction about an experiment, refused where its lease is gone."""
        fence = self._fences.get(experiment_id) if experiment_id else None
        with self.database.writing() as connection:
            if fence is not None:
                fencing.check(connection, fence)
            yield connection

    def _adopt(self, intent: Intent, frame: Frame, checksum: Checksum, acquired_at: datetime) -> StoredFrame:
        with self._writing(intent.experiment_id) as connection:
            return line_rows.store(connection, intent, frame, checksum, acquired_at, self.now())

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


def _written(path: Path, frame: Frame, record: FrameRecord) -> tuple[Path, Checksum]:
    """The frame's file beside its place, durable."""
    count_bytes = sum(counts.nbytes for counts in frame.counts.values())
    if count_bytes <= IN_MEMORY_BYTES:
        data = encode(frame, record)
        return write_beside(path, data), Checksum.of(io.BytesIO(data))
    most_bytes = count_bytes + count_bytes // 64 + _FILE_OVERHEAD_BYTES  # should nothing of it be compressible
    temporary = make_beside(path, most_bytes, lambda part: write(part, frame, record))
    with temporary.open("rb") as file:
        return temporary, Checksum.of(file)
