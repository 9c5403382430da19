"""The process is killed between every two writing steps of storing, the disk fills up: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.decisions import Decision
from orchestrator.errors import DiskFull
from tests.unit.orchestrator import microscope_frames as microscope

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
DECISIONS = 2


class KilledAt:
    """Kills this process (SIGKILL) at the n-th step it sees: SQL that writes, commits of it, writes, syncs, renames.

    What only reads is no step: a kill after it leaves on the disk what a kill before it does.
    """

    def __init__(self, step: int, log: Path) -> None:
        self.step, self.log, self.seen = step, log, 0
        self.has_written = False

    def __call__(self, label: str) -> None:
        self.seen += 1
        if self.seen == self.step:
            self.log.write_text(label)
            os.kill(os.getpid(), 9)

    def statement(self, sql: str) -> None:
        if sql.startswith(("INSERT", "UPDATE", "DELETE")):
            self.has_written = True
            self("sql: " + sql[:40])

    def commit(self) -> None:
        if self.has_written:
            self.has_written = False
            self("before commit")

    def watch(self) -> None:
        from sqlalchemy import Engine, event

        from orchestrator.catalogue import folder, frame_files

        event.listen(Engine, "before_cursor_execute", lambda c, cursor, sql, *rest: self.statement(sql))
        event.listen(Engine, "commit", lambda connection: self.commit())
        real_fsync, real_replace, real_open, real_sync = os.fsync, Path.replace, Path.open, folder.sync

        def replace(path: Path, target: Path) -> Path:
            self("before rename")
            result = real_replace(path, target)
            self("after rename")
            return result

        def fsync(descriptor: int) -> None:
            self("before fsync")
            real_fsync(descriptor)
            self("after fsync")

        def sync(path: Path) -> None:
            self("before folder sync")
            real_sync(path)
            self("after folder sync")

        def open_(path: Path, *arguments: Any, **options: Any) -> Any:
            file = real_open(path, *arguments, **options)
            is_written = path.name.endswith(".part") and "w" in file.mode
            return HalfWritten(file, self) if is_written else file

        frame_files.os = type("Os", (), {"fsync": staticmethod(fsync)})
        frame_files.sync = sync
        Path.replace, Path.open = replace, open_


class HalfWritten:
    """A file that passes a step with half of its data on disk."""

    def __init__(self, file: Any, step: KilledAt) -> None:
        self.file, self.step = file, step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.step("half written")
        self.file.write(data[len(data) // 2 :])

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


def acknowledge(path: Path, what: str) -> None:
    with path.open("a") as file:
        file.write(what + "\n")
        file.flush()
        os.fsync(file.fileno())


def store(catalogue: Catalogue, experiment: str, acknowledged: Path) -> None:
    """Finish what is pending, then go on until all decisions are done; say aloud what was acknowledged."""
    for intent in catalogue.pending(experiment):
        if intent.stage == "acquiring":
            catalogue.keep(intent, microscope.frame(intent.command, intent.decision.seq))
            acknowledge(acknowledged, f"kept {intent.frame_id}")
        catalogue.observe(intent, {"seq": intent.decision.seq}, b"features")
    for seq in range(len(catalogue.decisions(experiment)) + 1, DECISIONS + 1):
        decision = Decision.of(microscope.suggestion(seq), experiment, seq)
        intent = catalogue.intend(experiment, decision, microscope.command(f"{experiment}-a{seq}"))
        acknowledge(acknowledged, f"intended {intent.frame_id}")
        catalogue.keep(intent, microscope.frame(intent.command, seq))
        acknowledge(acknowledged, f"kept {intent.frame_id}")
        catalogue.observe(intent, {"seq": seq}, b"features")
        acknowledge(acknowledged, f"observed {intent.frame_id}")


def faults_after(folder: Path, experiment: str, acknowledged: Path) -> tuple[list[str], dict[str, int]]:
    """Open again, recover, look, go on to the end, look again: everything that is wrong, and what recovery did."""
    wrong: list[str] = []
    said = acknowledged.read_text().split("\n") if acknowledged.exists() else []
    with Catalogue.open(folder) as catalogue:
        report = catalogue.recover(experiment)
        did = {"adopted": len(report.adopted), "deleted": len(report.deleted_temporary_files)}
        if report.set_aside or report.missing_files or report.unknown_files:
            wrong.append(f"recovery found {report}")
        if not catalogue.recover(experiment).is_clean:
            wrong.append("a second recovery found something")
        rows = {row.intent_id: row.status for row in map(Row, catalogue.intents(experiment))}
        kept = {frame.id for frame in catalogue.frames(experiment)}
        for line in filter(None, said):
            what, frame_id = line.split()
            if frame_id not in rows or (what != "intended" and frame_id not in kept):
                wrong.append(f"lost: {line}")
            if what == "observed" and rows.get(frame_id) != "done":
                wrong.append(f"lost: {line}")
        wrong += strangers(folder, catalogue, experiment)
        store(catalogue, experiment, acknowledged)
        wrong += strangers(folder, catalogue, experiment)
        wrong += end_state(catalogue, experiment)
    return wrong, did


class Row:
    def __init__(self, intent: Any) -> None:
        self.intent_id, self.status = intent.frame_id, intent.stage


def strangers(folder: Path, catalogue: Catalogue, experiment: str) -> list[str]:
    there = {str(path.relative_to(folder)) for path in (folder / "experiments").rglob("*") if path.is_file()}
    known = {frame.path for frame in catalogue.frames(experiment)}
    return [f"orphan: {name}" for name in there - known] + [f"missing: {name}" for name in known - there]


def end_state(catalogue: Catalogue, experiment: str) -> list[str]:
    wrong: list[str] = []
    kinds = [event.kind for event in catalogue.events(experiment)]
    if kinds != ["created", *["intended", "frame_stored", "observed"] * DECISIONS]:
        wrong.append(f"events: {kinds}")
    if [row.status for row in catalogue.decisions(experiment)] != ["done"] * DECISIONS:
        wrong.append("decisions are not done")
    for stored in catalogue.frames(experiment):
        frame = catalogue.load_frame(stored.id)
        expected = microscope.frame(frame.requested, stored.ordinal)
        if any((frame.counts[name] != counts).any() for name, counts in expected.counts.items()):
            wrong.append(f"counts of frame {stored.ordinal} differ")
    return wrong


def run_every_crash(folder: Path) -> list[dict[str, Any]]:
    """Fork a child for each step and kill it there, until one comes through; what was found after each."""
    found: list[dict[str, Any]] = []
    with Catalogue.open(folder / "new") as catalogue:
        experiment = catalogue.create_experiment(name="n", spec={}, seed=1, engine="local", options={})
    for step in range(1, 1000):
        place = folder / f"{step:03d}"
        data, acknowledged, log = place / "data", place / "acknowledged", place / "step"
        shutil.copytree(folder / "new", data)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                KilledAt(step, log).watch()
                with Catalogue.open(data) as catalogue:
                    store(catalogue, experiment, acknowledged)
                status = 0
            finally:
                if status:
                    traceback.print_exc()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        wrong, did = faults_after(data, experiment, acknowledged)
        label = log.read_text() if log.exists() else "came through"
        found.append({"step": step, "label": label, "signal": os.WTERMSIG(status), "wrong": wrong, **did})
        if not os.WIFSIGNALED(status):
            assert status == 0, f"a child failed before step {step}"
            return found
    raise AssertionError("no child came through")


def test_a_kill_between_any_two_writing_steps_loses_nothing(tmp_path: Path) -> None:
    script = "import sys, json; from pathlib import Path; from tests.faults import test_storage_crash as t; "
    script += "print(json.dumps(t.run_every_crash(Path(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert not [crash for crash in found if crash["wrong"]]
    assert {crash["signal"] for crash in found[:-1]} == {9}
    assert (found[-1]["label"], found[-1]["signal"]) == ("came through", 0)
    labels = [crash["label"] for crash in found]
    for step in ("half written", "before fsync", "after rename", "after folder sync", "before commit"):
        assert labels.count(step) >= DECISIONS, f"no crash at {step!r}: {labels}"
    assert sum(crash["adopted"] for crash in found) >= 2 * DECISIONS
    assert sum(crash["deleted"] for crash in found) >= 2 * DECISIONS


@contextmanager
def files_no_longer_than(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses to write on beyond this length, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[tuple[Catalogue, str]]:
    with Catalogue.open(tmp_path) as catalogue:
        yield catalogue, catalogue.create_experiment(name="n", spec={}, seed=1, engine="local", options={})


def test_a_disk_that_fills_up_while_a_frame_is_written(experiment: tuple[Catalogue, str]) -> None:
    catalogue, name = experiment
    intent = catalogue.intend(name, Decision.of(microscope.suggestion(1), name, 1), microscope.command("a1"))
    frame = microscope.frame(intent.command)
    with (
        files_no_longer_than(50_000),
        pytest.raises(DiskFull, match=r"disk full: \d+ bytes are free .* \d+ bytes are needed"),
    ):
        catalogue.keep(intent, frame)
    assert list((catalogue.data_folder / intent.path).parent.iterdir()) == []
    assert [waiting.stage for waiting in catalogue.pending(name)] == ["acquiring"]
    assert catalogue.recover(name).is_clean
    assert catalogue.keep(intent, frame).id == intent.frame_id


def test_a_database_that_cannot_grow(experiment: tuple[Catalogue, str]) -> None:
    catalogue, name = experiment
    with catalogue.database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="make room, then `stempilot resume`"):
        catalogue.append(name, "noted", {}, arrays=bytes(100_000))
    assert [event.kind for event in catalogue.events(name)] == ["created"]
    with catalogue.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
    catalogue.append(name, "noted", {}, arrays=bytes(100_000))


def test_room_is_forecast_before_the_start(experiment: tuple[Catalogue, str]) -> None:
    catalogue, _ = experiment
    assert catalogue.forecast(1000) > 0
    with pytest.raises(DiskFull, match="1000000000001048576 bytes are needed"):
        catalogue.forecast(10**18)


def test_a_file_that_is_not_the_frame_asked_for_is_set_aside(experiment: tuple[Catalogue, str]) -> None:
    catalogue, name = experiment
    intents = [
        catalogue.intend(name, Decision.of(microscope.suggestion(seq), name, seq), microscope.command(f"a{seq}"))
        for seq in (1, 2, 3)
    ]
    kept = catalogue.keep(intents[0], microscope.frame(intents[0].command))
    whole = (catalogue.data_folder / kept.path).read_bytes()
    (catalogue.data_folder / intents[1].path).write_bytes(whole)  # another action's
    (catalogue.data_folder / intents[2].path).write_bytes(whole[: len(whole) // 2])  # half of one
    report = catalogue.recover(name)
    assert report.set_aside == [f"{intent.path}.damaged" for intent in intents[1:]]
    assert report.adopted == []
    assert [intent.stage for intent in catalogue.pending(name)] == ["stored", "acquiring", "acquiring"]
    catalogue.keep(intents[1], microscope.frame(intents[1].command))
    assert catalogue.recover(name).is_clean
