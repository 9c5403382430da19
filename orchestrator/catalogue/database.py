"""The database: SQLite beside the files or PostgreSQL by URL, always at the newest schema. Neighbour: `schema`."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator.catalogue.folder import RESERVE_BYTES, free_bytes
from orchestrator.catalogue.group_commit import GroupCommit
from orchestrator.catalogue.schema import HEAD
from orchestrator.errors import (
    CatalogueCorrupt,
    DataFolderBusy,
    DataFolderNotWritable,
    DiskFull,
    NotFound,
    StorageError,
)
from orchestrator.plain_json import to_text

FILE_NAME: Final = "catalogue.sqlite"
BUSY_TIMEOUT_S: Final = 30.0
_WRITES: Final = "stempilot_writes"
_UPGRADE_KEY: Final = 0x5354454D
_DISK_FULL_STATES = {"53100", "53200"}


class Database:
    """One engine with short transactions; writes come one at a time, reads may run beside them."""

    def __init__(self, folder: Path, url: str | None, *, read_only: bool, group_commit: bool = False) -> None:
        self.folder = folder
        self.read_only = read_only
        self._engine = _postgresql(url, read_only) if url else _sqlite(folder, read_only)
        # SQLite takes one writer at a time; the threads of a process wait here and not by polling the file.
        self._turn = threading.Lock() if self.dialect == "sqlite" else nullcontext()
        self._group: GroupCommit | None = None
        if group_commit and self.dialect == "sqlite" and not read_only:
            self._group = GroupCommit(self._engine.execution_options(**{_WRITES: True}), self._storage_error)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it is durable when this ends, or nothing of it is there. Never one inside another."""
        if self.read_only:
            raise StorageError(f"the catalogue in {self.folder} was opened to read; open it without read_only to write")
        if self._group is not None:
            with self._translated(), self._group.writing() as connection:
                yield connection
            return
        with self._turn, self._translated(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view: however much is read, all of it is as it was at the first query."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            if self.dialect == "postgresql":  # SQLite's transactions are so by themselves
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield connection

    def upgrade(self) -> None:
        """Bring the schema to its newest version, in one transaction. Raises StorageError for one from the future."""
        with self._turn, self._translated(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                if self.dialect == "postgresql":  # two processes that start at once: one upgrades, the other waits
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_KEY})
                version = _version(connection)
                if version == HEAD:
                    return
                _check_known(version, self.folder)
                _run_migrations(connection)

    def check(self, *, thorough: bool = True) -> None:
        """Look for damage. Raises CatalogueCorrupt saying what to do, NotFound where there is no catalogue."""
        with self.reading() as connection:
            if self.dialect == "sqlite" and thorough and not self.read_only:
                found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
                if found != "ok":
                    raise CatalogueCorrupt(_corrupt(self.folder, str(found)))
            version = _version(connection)
        if version != HEAD and self.read_only:
            _check_known(version, self.folder)
            raise StorageError(
                f"the catalogue in {self.folder} has schema {version or 'none'}, this stempilot reads {HEAD}; "
                "open it once to write (any `stempilot run`) to upgrade it"
            )

    def close(self) -> None:
        """Close every connection."""
        if self._group is not None:
            self._group.close()
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: SQLAlchemyError) -> StorageError:
        cause = error.orig if isinstance(error, DBAPIError) else None
        if not isinstance(cause, sqlite3.Error):
            if _sql_state(cause) in _DISK_FULL_STATES:
                return DiskFull("the database server's disk is full; make room there, then `stempilot resume`")
            return StorageError(f"database: {' '.join(str(cause or error).split())}")
        name = getattr(cause, "sqlite_errorname", "") or _name_from_text(cause)
        if name.startswith("SQLITE_FULL"):
            free = free_bytes(self.folder)
            return DiskFull(
                f"disk full: {free} bytes are free in {self.folder}, at least {RESERVE_BYTES} bytes are needed; "
                "make room, then `stempilot resume`"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return CatalogueCorrupt(_corrupt(self.folder, str(cause)))
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return DataFolderNotWritable(
                f"{self.folder / FILE_NAME}: {cause}; change its rights, or give another folder with --data"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return DataFolderBusy(f"{self.folder / FILE_NAME} is locked by another process; wait until it ends")
        return StorageError(f"{self.folder / FILE_NAME}: {cause}")


def _name_from_text(error: sqlite3.Error) -> str:
    return "SQLITE_NOTADB" if "not a database" in str(error) else ""


def _sql_state(cause: BaseException | None) -> str:
    state = getattr(cause, "sqlstate", None)
    if state is None and cause is not None and cause.args and isinstance(cause.args[0], dict):
        state = cause.args[0].get("C")
    return str(state or "")


def _corrupt(folder: Path, found: str) -> str:
    return (
        f"{folder / FILE_NAME} is damaged ({' '.join(found.split())}); restore a backup, or move the file away and "
        f"start anew: the frames in {folder / 'experiments'} are whole files and are not touched"
    )


def _sqlite(folder: Path, read_only: bool) -> Engine:
    path = folder / FILE_NAME
    try:
        is_there = path.exists()
    except PermissionError as error:
        raise DataFolderNotWritable(f"{folder} may not be entered: {error.strerror}; change its rights") from error
    if read_only and not is_there:
        raise NotFound(f"no catalogue in {folder}; `stempilot run` makes one, --data names another folder")
    url = URL.create("sqlite", database=str(path))
    if read_only:
        wal = path.with_name(path.name + "-wal")
        still = "" if wal.exists() or os.access(folder, os.W_OK, effective_ids=True) else "&immutable=1"
        url = make_url(f"sqlite:///file:{quote(str(path))}?mode=ro{still}&uri=true")
    engine = create_engine(url, json_serializer=to_text, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, for DDL too
        cursor = connection.cursor()
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def postgresql_url(text_url: str) -> URL:
    """The URL with a driver that is installed. Raises StorageError for another database or where there is no driver."""
    url = make_url(text_url)
    if url.get_backend_name() != "postgresql":
        raise StorageError(
            f"database URL of kind {url.get_backend_name()!r}; give postgresql://..., or none for SQLite"
        )
    if url.drivername != "postgresql":
        return url
    driver = next((name for name in ("psycopg", "pg8000") if find_spec(name)), None)
    if driver is None:
        raise StorageError("a postgresql:// URL needs a driver; install pg8000 or psycopg")
    return url.set(drivername=f"postgresql+{driver}")


def _postgresql(text_url: str, read_only: bool) -> Engine:
    engine = create_engine(postgresql_url(text_url), json_serializer=to_text, pool_pre_ping=True)
    return engine.execution_options(postgresql_readonly=True) if read_only else engine


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check_known(version: str | None, folder: Path) -> None:
    if version is not None and version > HEAD:
        raise StorageError(
            f"the catalogue in {folder} has schema {version}, newer than this stempilot's {HEAD}; upgrade stempilot"
        )


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
