"""A worker on a replayed record: what it takes, how things end that go wrong, and that it goes on after each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from instruments import AcquireFrame, Blank, Command, Frame, InstrumentFault, Microscope, MicroscopeState
from instruments.remote import InstrumentHost, open_by_name
from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from tests.unit.instruments.replay_files import write_record
from workflows import job
from workflows.roles import run_folder
from workflows.watchdog import Watchdog
from workflows.worker import Worker

pytestmark = pytest.mark.slow
SPEC = Path(__file__).resolve().parent / "specs" / "small_map.yaml"
FRAMES = 4
WAIT_S = 600.0


@dataclass
class Faults:
    """What is broken at the instrument now, and what was asked of it."""

    blanks: bool = True
    stops: bool = True
    is_on_at_load: bool = False
    fails_at: int = 0
    asked: list[str] = field(default_factory=list)


@dataclass
class Faulty:
    """A replay whose stop can be broken, and its blanker, at the last frame; a beam that was not blanked is on."""

    inner: Any
    faults: Faults
    is_on: bool = False
    stop_error: Exception = field(default_factory=lambda: OSError("the blanker's cable is out"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def read_state(self) -> MicroscopeState:
        return self.inner.read_state().model_copy(update={"beam_blanked": not self.is_on})

    def acquire(self, command: AcquireFrame) -> Frame:
        self.faults.asked.append(command.action_id)
        self.is_on = not self.faults.blanks and len(self.faults.asked) >= (self.faults.fails_at or FRAMES)
        if len(self.faults.asked) == self.faults.fails_at:
            raise InstrumentFault("the scan generator is gone")
        return self.inner.acquire(command)

    def execute(self, command: Command) -> MicroscopeState:
        self.faults.asked.append(command.action_id)
        if isinstance(command, Blank) and self.faults.blanks:
            self.is_on = False
        return self.inner.execute(command).model_copy(update={"beam_blanked": not self.is_on})

    def stop(self) -> None:
        if not self.faults.stops:
            raise self.stop_error
        self.is_on = False
        self.inner.stop()


class Place:
    """A data folder with a queue, an instrument's process (here: threads) and a worker."""

    def __init__(self, folder: Path, lease_s: float = 60.0) -> None:
        self.record = write_record(folder / "record.npz", 64)
        self.settings = Settings.model_validate(
            {"data_folder": folder / "data", "serve": {"prefect": False}, "lease_s": lease_s}
        )
        self.catalogue = Catalogue.open(folder / "data", shared=True)
        self.queue = ExperimentQueue(self.catalogue)
        self.said: list[str] = []
        self.faults = Faults()
        self.worker = Worker(self.catalogue, self.queue, self.settings, "replay", self.said.append)
        self.start_instrument()

    def start_instrument(self) -> None:
        self.host = InstrumentHost("replay", run_folder(self.settings.data_folder), self.open)
        self.host.start()

    def open(self, adapter: str, config: Mapping[str, Any]) -> Microscope:
        self.opened = Faulty(open_by_name(adapter, config), self.faults, self.faults.is_on_at_load)
        return self.opened

    def events(self, experiment: str, *kinds: str) -> list[dict[str, Any]]:
        return [event.payload for event in self.catalogue.events(experiment, kinds=kinds)]

    def until(self, condition: Callable[[], object], what: str) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain for {what}: {self.said}"
            time.sleep(0.02)

    def close(self) -> None:
        self.host.end("the test is over")
        self.catalogue.close()

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
    place.close()


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
    assert reason == "its worker was stopped; the last frame is complete and stored"
    changes = place.events(own, "status_changed")
    assert (changes[-1]["status"], changes[-1]["reason"]) == ("interrupted", reason)
    assert place.events(own, "closed")[-1]["status"] == "interrupted"
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


# --- the beam


def beam_events(place: Place, own: str) -> list[str]:
    kinds = ("beam_blanked", "beam_not_blanked")
    return [event.kind for event in place.catalogue.events(own, kinds=kinds)]


@pytest.mark.parametrize("fails_at", [0, 3], ids=["at the end of a run", "after a fault"])
def test_an_instrument_whose_beam_may_be_on_is_not_freed(tmp_path: Path, fails_at: int) -> None:
    """Its lease lapses, the watchdog blanks as soon as that works, and only then the next experiment starts."""
    place = Place(tmp_path, lease_s=3.0)
    place.faults = Faults(blanks=False, stops=False, fails_at=fails_at)
    working = threading.Thread(target=place.worker.run)
    watching = Catalogue.open(place.settings.data_folder, shared=True)
    watchdog = Watchdog(watching, run_folder(place.settings.data_folder))
    try:
        own, next_one = place.submit(priority=1), place.submit()
        working.start()
        place.until(lambda: any(line.startswith("waits: the beam of replay may be on") for line in place.said), "it")
        status, reason = place.status(own)
        assert status == ("failed" if fails_at else "completed")
        assert "THE BEAM OF replay MAY BE ON: the adapter could not stop: OSError: the blanker's cable is" in reason
        assert set(beam_events(place, own)) == {"beam_not_blanked"}
        assert any("THE BEAM OF replay MAY BE ON" in line for line in place.said)
        lease = place.queue.lease("replay")
        assert lease is not None
        assert (lease.experiment_id, lease.holder) == (own, place.worker.holder), "it was not freed"
        place.until(lambda: place.queue.lapsed(), "the lease to lapse")
        watchdog.look()
        assert place.status(next_one)[0] == "queued"
        place.faults.stops = place.faults.blanks = True
        place.until(lambda: (watchdog.look(), "beam_blanked" in beam_events(place, own))[1], "the watchdog")
        place.until(lambda: place.status(next_one)[0] == "completed", "the next experiment")
        assert beam_events(place, next_one) == []
    finally:
        place.worker.stop.set()
        working.join()
        watchdog.close()
        watching.close()
        place.close()


def test_a_stop_that_comes_late_is_written_down_too(place: Place) -> None:
    """The run's own command to blank fails; asked by its stop line the instrument obeys, and is free."""
    place.faults.blanks = False
    own = place.submit()
    place.worker.run(until_idle=True)
    assert place.status(own) == ("completed", f"budget spent: {FRAMES} of {FRAMES} frames")
    lease = place.queue.lease("replay")
    assert lease is not None
    assert lease.holder is None


def test_a_beam_that_is_on_when_an_experiment_is_loaded_is_blanked_first(place: Place) -> None:
    place.faults.is_on_at_load = True
    own = place.submit()
    place.worker.run(until_idle=True)
    assert place.status(own)[0] == "completed"
    first, *frames, last = place.faults.asked
    assert first.startswith("blank-at-load-")
    assert all(action.startswith(f"{own}-a") for action in frames)
    assert last.startswith(f"{own}-blank-")
    assert place.events(own, "beam_blanked") == [{"instrument": "replay", "reason": "it was on at load"}]


def test_a_beam_found_on_between_two_frames_lets_no_other_experiment_begin(place: Place) -> None:
    first, second = place.submit(), place.submit()

    place.at_frame(2, lambda: setattr(place.opened, "is_on", True))
    place.worker.run(until_idle=True)
    status, reason = place.status(first)
    assert status == "failed"
    assert "it is on though nothing is exposed" in reason
    assert place.status(second)[0] == "queued"
    lock = place.host.status().lock
    assert lock is not None
    assert lock.by == "the guard"


def test_what_does_not_blank_at_load_is_given_nothing_to_expose(place: Place) -> None:
    place.faults.is_on_at_load, place.faults.blanks = True, False
    own = place.submit()
    place.worker.run(until_idle=True)
    status, reason = place.status(own)
    assert status == "failed"
    assert "was on when it was loaded and did not blank (it says that its beam is on" in reason
    assert len(place.faults.asked) == 1
    assert place.queue.lease("replay").holder is None  # type: ignore[union-attr]


def test_no_two_blanks_have_one_id(place: Place) -> None:
    own = place.submit()
    place.at_frame(2, lambda: place.queue.pause(own))
    place.worker.run(until_idle=True)
    place.queue.resume(own)
    place.worker.run(until_idle=True)
    assert place.status(own)[0] == "completed"
    blanks = [action for action in place.faults.asked if "-blank-" in action]
    assert len(blanks) == len(set(blanks)) == 2
