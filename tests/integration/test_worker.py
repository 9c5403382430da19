"""A worker on a replayed record: what it takes, how things end that go wrong, and that it goes on after each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instruments.remote import InstrumentHost
from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from tests.unit.instruments.replay_files import write_record
from workflows import job
from workflows.roles import run_folder
from workflows.worker import Worker

pytestmark = pytest.mark.slow
SPEC = Path(__file__).resolve().parent / "specs" / "small_map.yaml"
FRAMES = 4


class Place:
    """A data folder with a queue, an instrument's process (here: threads) and a worker."""

    def __init__(self, folder: Path) -> None:
        self.record = write_record(folder / "record.npz", 64)
        self.settings = Settings.model_validate(
            {"data_folder": folder / "data", "serve": {"prefect": False}, "lease_s": 60.0}
        )
        self.catalogue = Catalogue.open(folder / "data", shared=True)
        self.queue = ExperimentQueue(self.catalogue)
        self.said: list[str] = []
        self.worker = Worker(self.catalogue, self.queue, self.settings, "replay", self.said.append)
        self.start_instrument()

    def start_instrument(self) -> None:
        self.host = InstrumentHost("replay", run_folder(self.settings.data_folder))
        self.host.start()

    def submit(self, priority: int = 0, **overrides: Any) -> str:
        changed = {"instrument.config.file": str(self.record), "budget.frames": FRAMES, **overrides}
        spec = ExperimentSpec.from_yaml(SPEC, changed)
        options = {"seed": 1, "engine": "local", "baselines": False}
        document = spec.model_dump(mode="json")
        return self.queue.submit(name="map", spec=document, seed=1, options=options, priority=priority).id

    def status(self, experiment: str) -> tuple[str, str]:
        entry = self.queue.entry(experiment)
        return entry.status, entry.reason or ""

    def at_frame(self, count: int, act: Callable[[], None]) -> None:
        """Do something, once, when so many frames were measured."""
        say, done = self.said.append, threading.Event()

        def listen(line: str) -> None:
            say(line)
            if line.startswith(f"frame {count:4d}") and not done.is_set():
                done.set()
                act()

        self.worker.say = listen


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.host.end("the test is over")
    place.catalogue.close()


def test_it_takes_the_most_urgent_first_and_leaves_reports(place: Place) -> None:
    calm, urgent = place.submit(), place.submit(priority=5)
    place.worker.run(until_idle=True)
    assert place.status(urgent)[0] == place.status(calm)[0] == "completed"
    taken = [line.split()[1] for line in place.said if line.startswith("takes ")]
    assert taken == [urgent, calm]
    for own in taken:
        assert (place.settings.data_folder / "experiments" / own / "report.html").is_file()
        assert len(place.catalogue.frames(own)) == FRAMES
    lease = place.queue.lease("replay")
    assert lease is not None
    assert lease.holder is None


def test_what_cannot_start_is_refused_and_the_next_is_taken(place: Place) -> None:
    gone = place.submit(priority=9, **{"instrument.config.file": "sha256:" + "0" * 64 + "/record.npz"})
    poor = place.submit(priority=8, **{"safety.max_instrument_time_s": 1e-6})
    good = place.submit()
    place.worker.run(until_idle=True)
    status, reason = place.status(gone)
    assert status == "refused"
    assert "0" * 64 in reason
    status, reason = place.status(poor)
    assert status == "refused"
    assert "first frame would be refused" in reason
    assert place.status(good)[0] == "completed"


def test_a_fault_of_ours_fails_one_experiment_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = place.submit(priority=1), place.submit()
    real = job.Session.take

    def take(session: Any, experiment: str) -> str:
        if experiment == bad:
            raise ZeroDivisionError("by nothing")
        return real(session, experiment)

    monkeypatch.setattr(job.Session, "take", take)
    place.worker.run(until_idle=True)
    status, reason = place.status(bad)
    assert status == "failed"
    assert "ZeroDivisionError: by nothing" in reason
    assert place.status(good)[0] == "completed"


def test_a_report_that_cannot_be_written_spoils_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_report(*arguments: Any) -> Path:
        raise RuntimeError("no ink")

    monkeypatch.setattr(job, "write_report", write_report)
    own = place.submit()
    place.worker.run(until_idle=True)
    assert place.status(own)[0] == "completed"
    assert "no report: no ink" in place.said


def test_a_lost_instrument_is_waited_for_and_the_experiment_goes_on(place: Place) -> None:
    own = place.submit()

    place.at_frame(2, lambda: place.host.end("gone"))
    working = threading.Thread(target=place.worker.run)
    working.start()
    try:
        while not any(line.startswith("waits: instrument 'replay' is not running") for line in place.said):
            assert working.is_alive()
            place.worker.stop.wait(0.05)
        place.start_instrument()
        while place.status(own)[0] != "completed":
            assert working.is_alive()
            place.worker.stop.wait(0.05)
    finally:
        place.worker.stop.set()
        working.join()
    changes = [event.payload for event in place.catalogue.events(own, kinds=("status_changed",))]
    assert [change["status"] for change in changes] == ["running", "interrupted", "queued", "running", "completed"]
    assert "the instrument was lost" in changes[1]["reason"]
    assert len(place.catalogue.frames(own)) == FRAMES


def test_a_stopped_worker_leaves_it_interrupted(place: Place) -> None:
    own, next_one = place.submit(priority=1), place.submit()
    place.at_frame(2, place.worker.stop.set)
    place.worker.run()
    status, reason = place.status(own)
    assert status == "interrupted"
    assert reason.startswith("its worker was stopped")
    assert len(place.catalogue.frames(own)) == 2
    assert place.status(next_one)[0] == "queued"


@pytest.mark.parametrize(("wish", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_wish_is_obeyed_after_the_frame(place: Place, wish: str, status: str) -> None:
    own = place.submit()
    place.at_frame(2, lambda: getattr(place.queue, wish)(own, by="anna"))
    place.worker.run(until_idle=True)
    assert place.status(own)[0] == status
    assert f"{wish} asked for by anna" in place.status(own)[1]
    assert len(place.catalogue.frames(own)) == 2
