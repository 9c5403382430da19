"""A database of the schema before the queue, with content, is brought to the newest one and keeps all of it."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, inspect, text

import orchestrator.catalogue.migrations as migrations
from orchestrator.catalogue import Catalogue, event_log, experiment_rows, line_rows, schema
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.frame_files import Checksum, put_in_place, write_beside
from orchestrator.catalogue.nexus import FrameRecord, encode
from orchestrator.decisions import Decision
from orchestrator.errors import StorageError
from orchestrator.plain_json import plain
from orchestrator.queue import ExperimentQueue
from tests.unit.orchestrator import microscope_frames as microscope
from tests.unit.orchestrator.test_catalogue import SPEC, assert_same_frame, intend

FOLDER = str(Path(migrations.__file__).parent)
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def migrate(connection: Connection, to: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", FOLDER)
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, to)


def old_catalogue(folder: Path, url: str | None) -> str:
    """A folder as the first schema left it: two experiments, one with a stored frame and an intent; the first's id."""
    folder.mkdir(parents=True)
    database = Database(folder, url, read_only=False)
    with database.writing() as connection:
        migrate(connection, "0001")
    rows = [
        experiment_rows.new_row(
            name=name,
            status="running",
            spec=SPEC,
            seed=7,
            engine="local",
            options={"seed": 7},
            parent_id=None,
            now=THEN,
        )
        for name in ("census", "other")
    ]
    own = rows[0]["id"]
    with database.writing() as connection:
        for row in rows:
            experiment_rows.add(connection, row)
        for seq in (1, 2):
            decision = Decision.of(microscope.suggestion(seq), own, seq)
            intent = line_rows.new_intent(own, decision, microscope.command(f"{own}-a{seq}"), THEN)
            line_rows.add_intent(connection, own, intent)
            if seq == 1:
                frame = microscope.frame(intent.command)
                record = FrameRecord(
                    frame_id=intent.frame_id, experiment_id=own, decision_id=decision.id,
                    suggestion_id=decision.suggestion_id, ordinal=1, intended_at=THEN, acquired_at=THEN,
                    context=rows[0]["context"], decision=plain(decision),
                )  # fmt: skip
                data, path = encode(frame, record), folder / intent.path
                path.parent.mkdir(parents=True)
                put_in_place(write_beside(path, data), path)
                line_rows.store(connection, intent, frame, Checksum.of(io.BytesIO(data)), THEN, THEN)
                line_rows.end(connection, intent, "done", None, ("stored",), THEN)
                event_log.add(connection, own, "observed", line_rows.parents(intent), THEN, b"features")
        assert {"queue_entry", "upload"}.isdisjoint(inspect(connection).get_table_names())
    database.close()
    return own


def test_the_content_of_an_old_catalogue_stays(tmp_path: Path, bare_database_url: str | None) -> None:
    own = old_catalogue(tmp_path / "data", bare_database_url)
    with pytest.raises(StorageError, match="has schema 0001, this stempilot reads 0002; open it once to write"):
        Catalogue.open(tmp_path / "data", url=bare_database_url, read_only=True)
    with Catalogue.open(tmp_path / "data", url=bare_database_url) as catalogue:
        with catalogue.database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        row = catalogue.experiment(own)
        assert (row.name, row.status, row.created_at, row.spec) == ("census", "running", THEN, SPEC)
        assert [found.name for found in catalogue.experiments()] == ["other", "census"]
        assert [found.kind for found in catalogue.events(own)] == [
            "created", "intended", "frame_stored", "observed", "intended",
        ]  # fmt: skip
        (seen,) = catalogue.events(own, kinds=["observed"], with_arrays=True)
        assert seen.arrays == b"features"
        (stored,) = catalogue.frames(own)
        frame = catalogue.load_frame(stored.id)
        assert_same_frame(frame, microscope.frame(frame.requested))
        assert [intent.stage for intent in catalogue.intents(own)] == ["done", "acquiring"]
        assert catalogue.recover(own).is_clean

        (waiting,) = catalogue.pending(own)
        catalogue.keep(waiting, microscope.frame(waiting.command, 2))
        catalogue.observe(waiting, {})
        intend(catalogue, own, 3)
        catalogue.set_status(own, "interrupted", "by a person")
        queue = ExperimentQueue(catalogue)
        entry = queue.submit(name="new", spec=SPEC, seed=1, options={})
        assert (entry.seq, [found.id for found in queue.entries()]) == (1, [entry.id])
        with pytest.raises(StorageError, match="events are appended"), catalogue.database.writing() as connection:
            connection.execute(text("DELETE FROM event"))


def test_the_way_down_and_up_again_keeps_it_too(tmp_path: Path, bare_database_url: str | None) -> None:
    own = old_catalogue(tmp_path / "data", bare_database_url)
    Catalogue.open(tmp_path / "data", url=bare_database_url).close()
    database = Database(tmp_path / "data", bare_database_url, read_only=False)
    with database.writing() as connection:
        migrate(connection, "0001", down=True)
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) == {
            "alembic_version", "experiment", "event", "decision", "acquisition", "asset",
        }  # fmt: skip
        assert "removed_at" not in {column["name"] for column in inspect(connection).get_columns("experiment")}
    database.close()
    with Catalogue.open(tmp_path / "data", url=bare_database_url) as catalogue:
        assert len(list(catalogue.events(own))) == 5
        assert ExperimentQueue(catalogue).entries() == []


def test_a_step_that_breaks_off_leaves_the_old_schema_whole(tmp_path: Path, bare_database_url: str | None) -> None:
    class PowerCut(Exception):
        pass

    def cut(connection, cursor, statement, parameters, context, executemany) -> None:
        if "CREATE TABLE upload" in statement:
            raise PowerCut

    own = old_catalogue(tmp_path / "data", bare_database_url)
    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(PowerCut):
            Catalogue.open(tmp_path / "data", url=bare_database_url)
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    database = Database(tmp_path / "data", bare_database_url, read_only=False)
    with database.reading() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert "queue_entry" not in inspect(connection).get_table_names()
    database.close()
    with Catalogue.open(tmp_path / "data", url=bare_database_url) as catalogue:
        assert len(list(catalogue.events(own))) == 5


def test_there_is_one_way_from_the_first_schema_to_the_newest() -> None:
    steps = list(ScriptDirectory(FOLDER).walk_revisions())
    assert [step.revision for step in steps] == ["0002", "0001"]
    assert steps[0].revision == schema.HEAD
