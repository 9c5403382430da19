"""An installation as `stempilot serve` makes it: its processes, its page, its queue; started, and always ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from instruments.remote import InstrumentStatus, StopLine, endpoint_path
from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue, QueueEntry
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from tests.integration import harness
from tests.waiting import DEADLINE_S, until
from workflows.emergency_stop import clear
from workflows.roles import run_folder
from workflows.serve import stop_everything

# Exposures take many times as long as they would, so that a person (and a test) can look at one.
SETTINGS = """
[instruments.simulated]
adapter = "simulated"
config = {{ time_scale = {time_scale} }}
[serve]
port = 0
tokens = false
prefect = false
instruments = ["simulated"]
"""


@dataclass
class Served:
    """A served data folder."""

    data: Path
    url: str
    settings: Settings
    catalogue: Catalogue

    @property
    def queue(self) -> ExperimentQueue:
        return ExperimentQueue(self.catalogue)

    def submit_census(self, name: str, *, frames: int) -> QueueEntry:
        """A small census in the queue, with its report afterwards."""
        return self._submit(harness.CENSUS, {"name": name, "budget.frames": frames}, report=True)

    def submit(self, name: str, *, frames: int = 100, **more: object) -> QueueEntry:
        """Many quick fields in the queue, more than anybody looks at before the end."""
        changes = {"name": name, "budget.frames": frames, "budget.electrons": 1e9}
        return self._submit(harness.RASTER, changes, report=False, **more)

    def _submit(self, path: Path, changes: dict[str, object], *, report: bool, **more: object) -> QueueEntry:
        spec, name = ExperimentSpec.from_yaml(path, changes), str(changes["name"])
        options = {"engine": "local", "baselines": False, "report": report}
        return self.queue.submit(name=name, spec=spec.model_dump(mode="json"), seed=3, options=options, **more)

    def status_of(self, entry: QueueEntry) -> str:
        return self.queue.entry(entry.id).status

    def instrument(self) -> InstrumentStatus:
        """What the instrument's own process says, asked past API and page."""
        return StopLine.of(endpoint_path(run_folder(self.data), "simulated")).status()

    def empty(self) -> None:
        """Cancel what is left, and take off the lock of an emergency stop, for the tests that follow."""
        for entry in self.queue.entries(statuses=("queued", "held", "running", "paused", "interrupted")):
            self.queue.cancel(entry.id)
        until(lambda: not self.queue.entries(statuses=("running",)), "an empty queue")
        lease = self.queue.lease("simulated")
        until(lambda: endpoint_path(run_folder(self.data), "simulated").exists(), "the instrument's process")
        if self.instrument().lock is not None or (lease is not None and lease.is_locked):
            clear(self.settings, None, by="a test", queue=self.queue)


@contextmanager
def served(data: Path, *, time_scale: float = 20.0) -> Iterator[Served]:
    """`stempilot serve` in processes of their own, until the block ends."""
    (data / "stempilot.toml").write_text(SETTINGS.format(time_scale=time_scale))
    settings = Settings.load(data, environment={})
    facts = run_folder(data) / "serve.json"
    with harness.process("serve", "--data", data) as serving:
        try:
            until(lambda: facts.exists() or serving.poll() is not None, "the service")
            assert serving.poll() is None, serving.communicate()
            with Catalogue.open(data, visitor=True) as catalogue:
                yield Served(data, json.loads(facts.read_text())["url"], settings, catalogue)
        finally:
            serving.terminate()
            try:
                serving.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                serving.kill()
                serving.communicate()
                stop_everything(settings, print)
