"""Runs the command line as a user does, in this process or its own, on small worlds that share a forward model."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from tests.ports import unused_port
from workflows.assembly import prepare
from workflows.cli.commands import app
from workflows.prefect_server import api_url, start_beside, wait_until_healthy

ROOT = Path(__file__).resolve().parents[2]
SPECS = Path(__file__).parent / "specs"
CENSUS, RASTER, MAP = SPECS / "small_census.yaml", SPECS / "small_raster.yaml", SPECS / "small_map.yaml"
PREFECT_DATABASE = f"prefect-{version('prefect')}.sqlite"
# A shell's background jobs, and what they start, ignore Ctrl-C; a person's terminal does not.
CONSOLE = "import signal; signal.signal(2, signal.default_int_handler); from workflows.cli import main; main()"


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    def expect(self, status: int) -> Outcome:
        """This, if it ended with `status`; otherwise all it said."""
        assert self.status == status, f"status {self.status}, expected {status}\n{self.stdout}\n{self.stderr}"
        return self

    def complains(self, status: int, *words: str) -> Outcome:
        """This, if it ended with `status` and one message that holds all `words`, and nothing else."""
        self.expect(status)
        assert "Traceback" not in self.stderr
        assert self.stderr.startswith("stempilot: ")
        assert self.stderr.count("stempilot: ") == 1
        assert not [word for word in words if word not in self.stderr], self.stderr
        return self


def stempilot(*arguments: object) -> Outcome:
    """The command line in this process. What it does not explain itself is raised here."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def process(*arguments: object, wrap: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, started; `wrap` goes before it, a tracer say."""
    return subprocess.Popen(
        [*wrap, sys.executable, "-c", CONSOLE, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def console(*arguments: object, **options: Any) -> Outcome:
    """The command line in a process of its own, to its end."""
    with process(*arguments, **options) as running:
        stdout, stderr = running.communicate()
    return Outcome(running.returncode, stdout, stderr)


def build_forward_model(folder: Path) -> Path:
    """The forward model of the small world, computed by the first who comes; others wait for it. Names are hashes of
    what went in, so a stale file is never read."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        spec = ExperimentSpec.from_yaml(CENSUS)
        prepare(spec, 0, InstrumentSettings(adapter="simulated"), folder).question.prepare()
        _migrate_prefect(folder / PREFECT_DATABASE)
    return folder


def _migrate_prefect(template: Path) -> None:
    """An empty database of Prefect at its newest schema: its migrations take seconds, and every folder needs them."""
    if template.exists():
        return
    with tempfile.TemporaryDirectory() as home:
        port = unused_port()
        server = start_beside(Path(home), port)
        try:
            assert wait_until_healthy(api_url(port), 600, lambda: server.poll() is None) is None
        finally:
            server.terminate()
            server.wait()
            assert server.stdin is not None
            server.stdin.close()
        made = Path(home) / "prefect.db"
        with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(f"{template}.part")) as copy:
            source.backup(copy)
    Path(f"{template}.part").rename(template)


def data_folder(parent: Path, forward_model: Path, name: str = "data") -> Path:
    """A data folder whose cache is the shared forward model, with a database of Prefect that needs no migrations."""
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "cache").symlink_to(forward_model, target_is_directory=True)
    (folder / "prefect").mkdir(mode=0o700)
    shutil.copyfile(forward_model / PREFECT_DATABASE, folder / "prefect" / "prefect.db")
    return folder


@contextmanager
def journal(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database for looking only, while others write."""
    connection = sqlite3.connect(f"file:{folder / 'catalogue.sqlite'}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def event_count(folder: Path) -> int:
    """Events in the journal so far; 0 before there is one."""
    try:
        with journal(folder) as connection:
            return int(connection.execute("select count(*) from event").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def acknowledged(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Frame id -> (decision id, path, sha256) of every frame the catalogue says it has."""
    try:
        with journal(folder) as connection:
            rows = connection.execute("select id, decision_id, path, sha256 from acquisition where status = 'stored'")
            return {frame: (decision, path, sha256) for frame, decision, path, sha256 in rows}
    except sqlite3.OperationalError:
        return {}


def without_ids(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Decisions as they can be compared between experiments."""
    kept = ("seq", "point", "reason", "status", "prediction", "cost", "score")
    return [{key: decision[key] for key in kept} for decision in document["decisions"]]


def environment(**changed: str) -> dict[str, str]:
    """This process's environment with some values changed."""
    return {**os.environ, **changed}
