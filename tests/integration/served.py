"""A served installation as a user starts it, in processes of its own, always ended; and what tests ask of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from tests.integration.harness import CONSOLE, RASTER, ROOT, journal, stempilot
from tests.waiting import DEADLINE_S, until
from workflows.roles import holder

SEED, FRAMES = 5, 8
LEASE_S = 60.0  # longer than a machine stands still; shorter where a test waits for it to lapse
# Frames that keep the beam on for about half a second on the wall's clock, so that one can meet them on the way.
SMALL = (
    "--seed", SEED, "--no-baselines", "--set", f"budget.frames={FRAMES}", "--set", "instrument.config.time_scale=12",
)  # fmt: skip


def configured(data: Path, *instruments: str, prefect: bool = True, lease_s: float = LEASE_S) -> Path:
    """A data folder with these simulated instruments."""
    shown = "prefect_ui = false" if prefect else "prefect = false"
    names = ", ".join(f'"{name}"' for name in instruments)
    sections = "\n".join(f'[instruments.{name}]\nadapter = "simulated"' for name in instruments)
    (data / "stempilot.toml").write_text(
        f"lease_s = {lease_s}\n[serve]\nport = 0\n{shown}\ninstruments = [{names}]\n{sections}\n"
    )
    return data


@dataclass
class Installation:
    """One `stempilot serve` of a data folder and its processes."""

    data: Path
    process: subprocess.Popen[bytes] | None = None
    serves: int = 0
    seen: set[int] = field(default_factory=set[int])

    @property
    def said(self) -> Path:
        """What the present serve tells the person at its terminal."""
        return self.data.parent / f"{self.data.name}-serve-{self.serves}.txt"

    @property
    def first_said(self) -> Path:
        """What the first serve told."""
        return self.data.parent / f"{self.data.name}-serve-1.txt"

    @property
    def is_serving(self) -> bool:
        """Whether there is a serve now."""
        return self.process is not None and self.process.poll() is None

    def serve(self, *options: str) -> Installation:
        """Start, and wait until it answers."""
        self.serves += 1
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CONSOLE, "serve", "--data", str(self.data), *options],
                cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        until(lambda: "Ctrl-C stops" in self.text() or self._has_ended(), "serve")
        assert self.process.poll() is None, self.text()
        return self

    def text(self) -> str:
        """Everything it said."""
        return self.said.read_text() if self.said.exists() else ""

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def url(self) -> str:
        """Of page and API."""
        return str(json.loads((self.data / "run" / "serve.json").read_text())["url"])

    @property
    def prefect_url(self) -> str:
        """Of Prefect's API, once its server is there."""
        file = self.data / "run" / "prefect.json"
        until(file.exists, "Prefect's server")
        return str(json.loads(file.read_text())["url"])

    def pid(self, role: str) -> int:
        """Process id of a role, waited for."""
        found = until(lambda: holder(self.data, role), f"a process that is {role}")
        self.seen.add(found)
        return found

    def kill(self, role: str) -> int:
        """kill -9 of a role's process; its id."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        if role == "serve" and self.process is not None:
            self.process.wait()
        until(lambda: holder(self.data, role) != pid, f"the end of {role}")
        return pid

    def submit(self, *options: object, spec: Path = RASTER, report: bool = False) -> str:
        """A new experiment in the queue, with its report afterwards or without; its id."""
        options = options if report else (*options, "--no-report")
        entry = stempilot("submit", spec, "--data", self.data, *SMALL, *options, "--json").expect(0).document
        return str(entry["id"])

    def entry(self, experiment: str) -> dict[str, Any]:
        """How it stands."""
        listed = stempilot("queue", "--all", "--data", self.data, "--json").expect(0).document["entries"]
        return next(entry for entry in listed if entry["id"] == experiment)

    def document(self, experiment: str) -> dict[str, Any]:
        """All of it."""
        return stempilot("show", experiment, "--data", self.data, "--json").expect(0).document

    def reaches(self, experiment: str, *statuses: str) -> dict[str, Any]:
        """Its entry, once its status is one of these."""
        until(lambda: self._status(experiment) in statuses, f"{experiment} to be {' or '.join(statuses)}")
        return self.entry(experiment)

    def _status(self, experiment: str) -> str:
        with journal(self.data) as connection:
            query = "select status from experiment where id = ?"
            return str(connection.execute(query, (experiment,)).fetchone()[0])

    def has_frames(self, experiment: str, count: int) -> None:
        """Wait until so many frames are stored."""
        until(lambda: self.frame_count(experiment) >= count, f"{count} frames of {experiment}")

    def frame_count(self, experiment: str) -> int:
        """Stored frames."""
        with journal(self.data) as connection:
            query = "select count(*) from acquisition where experiment_id = ? and status = 'stored'"
            return int(connection.execute(query, (experiment,)).fetchone()[0])

    def events(self, experiment: str, *kinds: str) -> list[Any]:
        """Events of these kinds."""
        with Catalogue.open(self.data, read_only=True) as catalogue:
            return list(catalogue.events(experiment, kinds=kinds))

    def flow_runs(self, experiment: str) -> list[dict[str, Any]]:
        """What Prefect's server knows of it."""
        body = {"flow_runs": {"name": {"any_": [f"experiment-{experiment}"]}}, "limit": 20}
        return httpx.post(f"{self.prefect_url}/flow_runs/filter", json=body, trust_env=False, verify=False).json()

    def unlock(self) -> None:
        """Take off the locks of emergency stops, where there are any, for the tests that follow."""
        with Catalogue.open(self.data, read_only=True) as catalogue:
            is_locked = any(lease.is_locked for lease in ExperimentQueue(catalogue).leases())
        if is_locked:
            stempilot("estop", "--clear", "--data", self.data).expect(0)

    def end(self) -> str:
        """Ctrl-C; what it said, once it has ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(DEADLINE_S) == 0, self.text()
        return self.text()

    def clean_up(self) -> None:
        """No process is left, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            process.kill()
            process.wait(DEADLINE_S)

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this data folder."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.data) in (process.info["cmdline"] or []) and process.pid != os.getpid()
        ]


@contextmanager
def installation(data: Path) -> Iterator[Installation]:
    """An installation, not served yet."""
    served = Installation(data)
    try:
        yield served
    finally:
        served.clean_up()


def counts(data: Path, experiment: str) -> list[dict[str, np.ndarray]]:
    """Raw counts of every frame, by detector."""
    with Catalogue.open(data, read_only=True) as catalogue:
        return [dict(catalogue.load_frame(frame.id).counts) for frame in catalogue.frames(experiment)]


def assert_same_counts(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> None:
    """Bit for bit."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
