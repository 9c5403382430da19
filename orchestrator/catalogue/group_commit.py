"""Many threads, one writer at a time, one sync for all that wait: what lets SQLite take many small writes.

Each write is a savepoint of a transaction that several share. Whoever finds nobody behind it commits for all, so a
lone write is committed at once and a crowd pays for one sync. Neighbour: `database` decides who uses it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import StorageError

MAX_WRITES: Final = 256
MAX_OPEN_S: Final = 0.05
_WATCH_S: Final = 0.05

Translate = Callable[[SQLAlchemyError], StorageError]


@dataclass
class _Batch:
    connection: Connection
    begun_s: float = field(default_factory=time.monotonic)
    write_count: int = 0
    error: StorageError | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def is_full(self) -> bool:
        return self.write_count >= MAX_WRITES or time.monotonic() - self.begun_s >= MAX_OPEN_S


class GroupCommit:
    """Writes of several threads of this process, grouped into transactions of one SQLite database."""

    def __init__(self, engine: Engine, translate: Translate) -> None:
        self._engine = engine
        self._translate = translate
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._waiting_count = 0
        self._batch: _Batch | None = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A savepoint for this thread alone; durable when this ends. Raises StorageError where the commit failed."""
        batch = self._take_turn()
        try:
            yield from self._one(batch)
        finally:
            self._pass_on(batch)
        while not batch.ended.wait(_WATCH_S):
            self._commit_stale(batch)
        if batch.error is not None:
            raise type(batch.error)(*batch.error.args) from batch.error

    def close(self) -> None:
        """Commit what is open."""
        with self._turn:
            if self._batch is not None:
                self._commit(self._batch)

    def _one(self, batch: _Batch) -> Iterator[Connection]:
        savepoint = batch.connection.begin_nested()
        try:
            yield batch.connection
        except BaseException as error:
            self._undo(batch, savepoint.rollback, error)
            raise
        savepoint.commit()
        batch.write_count += 1

    def _undo(self, batch: _Batch, rollback: Callable[[], None], error: BaseException) -> None:
        """Back to the savepoint; a database that gave up the whole transaction (a full disk) fails it for all."""
        try:
            rollback()
        except SQLAlchemyError as second:
            first = error if isinstance(error, SQLAlchemyError) else second
            self._end(batch, self._translate(first))

    def _take_turn(self) -> _Batch:
        with self._counting:
            self._waiting_count += 1
        try:
            self._turn.acquire()
        finally:
            with self._counting:
                self._waiting_count -= 1
        try:
            return self._open_batch()
        except BaseException:
            self._turn.release()
            raise

    def _open_batch(self) -> _Batch:
        if self._batch is None:
            connection = self._engine.connect()
            try:
                connection.begin()
            except BaseException:
                connection.close()
                raise
            self._batch = _Batch(connection)
        return self._batch

    def _pass_on(self, batch: _Batch) -> None:
        try:
            if batch is self._batch and (self._waiting_count == 0 or batch.is_full()):
                self._commit(batch)
        finally:
            self._turn.release()

    def _commit_stale(self, batch: _Batch) -> None:
        """Commit a batch whose next writer never came."""
        with self._turn:
            if batch is self._batch:
                self._commit(batch)

    def _commit(self, batch: _Batch) -> None:
        try:
            batch.connection.commit()
        except SQLAlchemyError as error:
            self._end(batch, self._translate(error))
        else:
            self._end(batch, None)

    def _end(self, batch: _Batch, error: StorageError | None) -> None:
        self._batch = None
        batch.error = error
        try:
            batch.connection.close()
        finally:
            batch.ended.set()
