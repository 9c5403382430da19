"""A PostgreSQL server for the tests: one that is named, else a throw-away one of the installed programs, else a skip.

`STEMPILOT_TEST_POSTGRES_URL` names a server where databases may be made. A throw-away one listens on a free port of
the loopback interface, never waits for a disk and is gone afterwards. Where CI=true, its absence is a failure.

Tests of what a catalogue does share one database at the newest schema, emptied between them; those of how a catalogue
comes to be ask for a bare one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from orchestrator.catalogue import Catalogue
from orchestrator.catalogue.database import postgresql_url
from orchestrator.catalogue.identifiers import new_id
from orchestrator.catalogue.schema import metadata
from tests.ports import unused_port

VARIABLE = "STEMPILOT_TEST_POSTGRES_URL"
START_S = 600.0
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100", "shared_buffers=16MB")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server where databases may be made."""
    if named := os.environ.get(VARIABLE):
        yield named
        return
    programs = programs_folder()
    if programs is None:
        say = f"{VARIABLE} names no PostgreSQL server, and initdb and postgres are not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, but {say}")
        pytest.skip(say)
    with throw_away_server(programs) as url:
        yield url


@pytest.fixture(scope="session")
def emptied_database(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmptiedDatabase]:
    """One database at the newest schema, for one test after the other."""
    with new_database(postgresql_server) as url:
        Catalogue.open(tmp_path_factory.mktemp("schema"), url=url).close()
        database = EmptiedDatabase(url)
        yield database
        database.close()


@pytest.fixture
def postgresql_database(emptied_database: EmptiedDatabase) -> Iterator[str]:
    """The URL of a PostgreSQL database at the newest schema, without a row."""
    yield emptied_database.url
    emptied_database.empty()


@pytest.fixture
def bare_postgresql_database(postgresql_server: str) -> Iterator[str]:
    """The URL of a new PostgreSQL database without a table, dropped afterwards."""
    with new_database(postgresql_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite in the data folder, then the URL of a PostgreSQL database at the newest schema, without a row."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgresql_database")


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_database_url(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite in the data folder, then the URL of a PostgreSQL database without a table."""
    return None if request.param == "sqlite" else request.getfixturevalue("bare_postgresql_database")


class EmptiedDatabase:
    """A database that keeps its tables and loses their rows; one connection stays open for that."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_engine(postgresql_url(url), isolation_level="AUTOCOMMIT")
        self._tables = ", ".join(table.name for table in metadata.sorted_tables)

    def empty(self) -> None:
        """End whoever is still connected, then remove every row; numbers start again."""
        with self._engine.connect() as connection:
            connection.execute(text(_END_OTHERS))
            connection.execute(text(f"TRUNCATE {self._tables} RESTART IDENTITY"))

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """A new database of that server."""
    name = f"stempilot_test_{new_id()}"
    _execute(server, f"CREATE DATABASE {name}")
    try:
        yield postgresql_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def throw_away_server(programs: Path, settings: tuple[str, ...] = QUICK) -> Iterator[str]:
    """A server of our own, started and stopped; its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="stempilot-postgresql-", ignore_cleanup_errors=True) as name:
        folder, as_user = Path(name), _as_unprivileged(Path(name))
        cluster, log = folder / "cluster", folder / "log"
        initdb = [
            programs / "initdb",
            "-D",
            cluster,
            "-U",
            "stempilot",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        made = subprocess.run([*as_user, *initdb], cwd=folder, capture_output=True, text=True, check=False)
        assert made.returncode == 0, f"initdb: {made.stdout}{made.stderr}"
        port = unused_port()
        place = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}")
        options = [part for setting in (*settings, *place) for part in ("-c", setting)]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*as_user, programs / "postgres", "-D", cluster, *options], cwd=folder, stdout=output, stderr=output
            )
        try:
            url = f"postgresql://stempilot@127.0.0.1:{port}/postgres"
            _wait_for(url, server, log)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def programs_folder() -> Path | None:
    """The folder that holds initdb and postgres, the newest where there are several."""
    on_path = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    packaged = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(packaged, key=lambda folder: float(folder.parent.name), reverse=True)
    there = (folder for folder in (*on_path, *newest_first) if (folder / "initdb").exists())
    return next(there, None)


def _as_unprivileged(folder: Path) -> list[str]:
    """How to start a program that refuses to run as root; the folder is given to that user."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, 65534, 65534)
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            _execute(url, "SELECT 1")
        except SQLAlchemyError as error:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text()}") from error
            time.sleep(0.1)
        else:
            return


def _execute(url: str, statement: str) -> None:
    engine = create_engine(postgresql_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
