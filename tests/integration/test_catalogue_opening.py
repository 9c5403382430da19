"""Opening a data folder: one writer, readers beside it, damage and missing rights said in words."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event

import orchestrator.catalogue.migrations as migrations
from orchestrator.catalogue import Catalogue, holder, schema
from orchestrator.catalogue.folder import FolderLock
from orchestrator.errors import (
    CatalogueCorrupt,
    DataFolderBusy,
    DataFolderNotWritable,
    FrameDamaged,
    NotFound,
    StorageError,
)
from tests.unit.orchestrator import microscope_frames as microscope
from tests.unit.orchestrator.test_catalogue import intend, new_experiment

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from orchestrator.catalogue import Catalogue
catalogue = Catalogue.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""

FORK = """
import os, sys
from pathlib import Path
from orchestrator.catalogue import Catalogue
catalogue = Catalogue.open(Path(sys.argv[1]))
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    os.close(write_end)
    os.read(read_end, 1)  # until the parent closes its end
    os._exit(0)
catalogue.close()
Catalogue.open(Path(sys.argv[1])).close()
os.close(write_end)
assert os.waitpid(child, 0)[1] == 0
print("opened again beside the child")
"""


def test_one_writer_named_by_its_process_and_readers_beside_it(tmp_path: Path) -> None:
    with Catalogue.open(tmp_path) as catalogue:
        experiment = new_experiment(catalogue)
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(DataFolderBusy, match=f"process {os.getpid()}"):
            Catalogue.open(tmp_path)
        with Catalogue.open(tmp_path, read_only=True) as reader:
            assert reader.experiment("latest").id == experiment
            catalogue.set_status(experiment, "completed", "done")
            assert reader.experiment(experiment).status == "completed"
            with pytest.raises(StorageError, match="opened to read"):
                reader.set_status(experiment, "failed", "no")
    assert holder(tmp_path) is None
    Catalogue.open(tmp_path).close()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(DataFolderBusy, match=f"process {process.pid}; wait until it ends"):
            Catalogue.open(tmp_path)
        process.kill()
        process.wait()
        Catalogue.open(tmp_path).close()


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "opened again beside the child\n"), done.stderr


def test_sharing_writers_exclude_one_that_wants_the_folder_alone(tmp_path: Path) -> None:
    with Catalogue.open(tmp_path, shared=True) as first, Catalogue.open(tmp_path, shared=True) as second:
        experiment = new_experiment(first)
        second.append(experiment, "noted", {})
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(DataFolderBusy, match=f"is being written by process {os.getpid()}; wait"):
            Catalogue.open(tmp_path)
        first.close()
        with pytest.raises(DataFolderBusy):
            Catalogue.open(tmp_path)
        second.append(experiment, "noted", {})
    assert holder(tmp_path) is None
    with Catalogue.open(tmp_path) as alone:
        with pytest.raises(DataFolderBusy, match=f"process {os.getpid()}"):
            Catalogue.open(tmp_path, shared=True)
        assert [event.kind for event in alone.events(experiment)] == ["created", "noted", "noted"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_visitor_writes_beside_anybody_and_holds_nothing(tmp_path: Path, shared: bool) -> None:
    with Catalogue.open(tmp_path / "data", shared=shared) as owner:
        with Catalogue.open(tmp_path / "data", visitor=True) as visitor:
            experiment = new_experiment(visitor)
            owner.append(experiment, "noted", {})
            assert [event.kind for event in visitor.events(experiment)] == ["created", "noted"]
        assert holder(tmp_path / "data") == os.getpid()
    with Catalogue.open(tmp_path / "new", visitor=True):
        assert holder(tmp_path / "new") is None
        Catalogue.open(tmp_path / "new").close()


def test_looking_who_holds_a_folder_keeps_nobody_out(tmp_path: Path) -> None:
    Catalogue.open(tmp_path).close()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            holder(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for shared in (True, False) * 10:
            FolderLock(tmp_path, shared=shared).release()
    finally:
        ended.set()
        looker.join()


def test_a_dead_sharer_is_not_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD.replace("[1]))", "[1]), shared=True)"), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with Catalogue.open(tmp_path, shared=True):
            process.kill()
            process.wait()
            assert holder(tmp_path) == os.getpid()
            with pytest.raises(DataFolderBusy, match=f"process {os.getpid()}"):
                Catalogue.open(tmp_path)
    Catalogue.open(tmp_path).close()


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who may write nowhere; the superuser may write everywhere, so it becomes `nobody` meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with (
        without_rights(),
        pytest.raises(DataFolderNotWritable, match="change its rights, or give another folder") as error,
    ):
        Catalogue.open(folder / "data")
    assert error.value.exit_status == 6
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderNotWritable, match="file"):
        Catalogue.open(tmp_path / "file" / "data")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no catalogue in"):
        Catalogue.open(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_read_only_medium_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Catalogue.open(folder) as catalogue:
        experiment = new_experiment(catalogue)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    folder.chmod(0o555)
    with without_rights(), Catalogue.open(folder, read_only=True) as reader:
        assert reader.experiment("latest").id == experiment
    folder.chmod(0o755)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_database(tmp_path: Path, read_only: bool) -> None:
    (tmp_path / "catalogue.sqlite").write_bytes(b"this is not a database" * 100)
    with pytest.raises(CatalogueCorrupt, match="restore a backup, or move the file away"):
        Catalogue.open(tmp_path, read_only=read_only)
    assert holder(tmp_path) is None


def test_a_damaged_page_is_found_at_opening(tmp_path: Path) -> None:
    with Catalogue.open(tmp_path) as catalogue:
        experiment = new_experiment(catalogue)
        for number in range(40):
            catalogue.append(experiment, "noted", {"text": "x" * 1000, "number": number})
    path = tmp_path / "catalogue.sqlite"
    damaged = bytearray(path.read_bytes())
    for page in range(len(damaged) // 4096 // 2, len(damaged) // 4096):
        damaged[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(damaged)
    with pytest.raises(CatalogueCorrupt, match="is damaged"):
        Catalogue.open(tmp_path)


def test_a_damaged_or_missing_frame_is_said(tmp_path: Path) -> None:
    with Catalogue.open(tmp_path) as catalogue:
        experiment = new_experiment(catalogue)
        intent = intend(catalogue, experiment, 1)
        stored = catalogue.keep(intent, microscope.frame(intent.command))
        path = tmp_path / stored.path
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(FrameDamaged, match="sha256"):
            catalogue.load_frame(stored.id)
        path.unlink()
        with pytest.raises(FrameDamaged, match="missing"):
            catalogue.load_frame(stored.id)
        assert catalogue.recover(experiment).missing_files == [stored.path]
        with pytest.raises(NotFound, match="no stored frame"):
            catalogue.load_frame("f" * 32)


def test_migrations_lead_to_the_schema_of_the_code(tmp_path: Path) -> None:
    Catalogue.open(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'catalogue.sqlite'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == schema.HEAD


def test_a_broken_migration_changes_nothing(tmp_path: Path) -> None:
    class PowerCut(Exception):
        pass

    def cut(connection, cursor, statement, parameters, context, executemany) -> None:
        if "CREATE TABLE asset" in statement:
            raise PowerCut

    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(PowerCut):
            Catalogue.open(tmp_path)
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    connection = sqlite3.connect(tmp_path / "catalogue.sqlite")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    assert holder(tmp_path) is None
    Catalogue.open(tmp_path).close()


def test_a_catalogue_from_the_future_is_left_alone(tmp_path: Path) -> None:
    Catalogue.open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "catalogue.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for read_only in (False, True):
        with pytest.raises(StorageError, match="newer than this stempilot's"):
            Catalogue.open(tmp_path, read_only=read_only)


@pytest.mark.parametrize("url", ["mysql://server/base", "sqlite:///other.sqlite"])
def test_other_databases_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageError, match="give postgresql://"):
        Catalogue.open(tmp_path, url=url)
