"""`stempilot run` on an instrument in its own process: alone on it, heeding its locks, and stopped from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from instruments import InstrumentFault, LinkLost, Microscope
from instruments.remote import StopLine, connect, endpoint_path
from orchestrator.catalogue import Catalogue
from orchestrator.errors import DataFolderBusy, StorageError
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from tests.integration.harness import MAP, stempilot
from tests.integration.test_worker import Faults, Faulty
from tests.unit.instruments.replay_files import write_record
from workflows.assembly import open_here
from workflows.emergency_stop import clear, emergency_stop
from workflows.flows.survey_runners import EmbeddedRunner
from workflows.roles import RoleLock, holder, run_folder
from workflows.session import RunOptions, Session

pytestmark = pytest.mark.slow
FRAMES = 4
OPTIONS = RunOptions(seed=1, engine="local", baselines=False)


class Place:
    """A data folder, a spec on the replayed record, and whatever is done at some frame of its run."""

    def __init__(self, folder: Path) -> None:
        self.record = write_record(folder / "record.npz", 64)
        self.settings = Settings.model_validate({"data_folder": folder / "data"})
        self.overrides = {"instrument.config.file": str(self.record), "budget.frames": FRAMES}
        self.spec = ExperimentSpec.from_yaml(MAP, self.overrides)
        self.said: list[str] = []

    def session(self, catalogue: Catalogue, at_frame: int = 0, act: Callable[[], object] = list) -> Session:
        def listen(kind: str, payload: Mapping[str, Any]) -> None:
            if kind == "scored" and payload["spent"].frames == at_frame:
                act()

        return Session(catalogue, self.settings, listen, self.said.append)

    def run(self, *more: str) -> Any:
        sets = [word for key, value in self.overrides.items() for word in ("--set", f"{key}={value}")]
        return stempilot("run", MAP, "--data", self.settings.data_folder, "--engine", "local", *sets, *more)

    @property
    def endpoint(self) -> Path:
        return endpoint_path(run_folder(self.settings.data_folder), "replay")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def catalogue(place: Place) -> Iterator[Catalogue]:
    with Catalogue.open(place.settings.data_folder) as opened:
        yield opened


def test_an_emergency_stop_reaches_a_run_and_holds_until_it_is_cleared(place: Place, catalogue: Catalogue) -> None:
    stops: list[Any] = []

    def stop() -> None:
        stops.extend(emergency_stop(place.settings, "replay", by="anna", reason="smoke"))

    own = place.session(catalogue, 2, stop).start(place.spec, OPTIONS)
    (line,) = stops
    assert (line.is_reached, line.beam_blanked, line.is_locked, line.is_queue_locked) == (True, True, True, True)
    row = catalogue.experiment(own)
    assert row.status == "interrupted"
    assert (row.reason or "").startswith("emergency stop of anna at ")
    assert "smoke; after a look at the instrument: stempilot estop replay --clear" in (row.reason or "")
    assert len(catalogue.frames(own)) == 2
    with pytest.raises(InstrumentFault, match="'replay' is locked, nothing was started: emergency stop of anna"):
        place.session(catalogue).resume(own)
    assert clear(place.settings, "replay", by="anna")[0].is_locked is False
    place.session(catalogue).resume(own)
    assert catalogue.experiment(own).status == "completed"
    assert len(catalogue.frames(own)) == FRAMES
    assert not place.endpoint.exists()
    assert holder(place.settings.data_folder, "instrument-replay") is None


def test_a_lost_link_holds_until_a_person_has_looked(place: Place, catalogue: Catalogue) -> None:
    def cut() -> None:
        raise LinkLost("the cable is out")

    with pytest.raises(LinkLost, match="cable"):
        place.session(catalogue, 2, cut).start(place.spec, OPTIONS)
    (row,) = catalogue.experiments()
    assert (row.status, row.reason) == ("failed", "instrument: the cable is out")
    with pytest.raises(InstrumentFault, match=r"nothing was started: .*the lost link .*the cable is out; after a look"):
        place.session(catalogue).resume(row.id)
    assert clear(place.settings, "replay", by="anna")[0].is_locked is False
    place.session(catalogue).resume(row.id)
    assert catalogue.experiment(row.id).status == "completed"


def test_a_beam_found_on_between_two_frames_holds_until_a_person_has_looked(
    place: Place, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Faulty]()

    def open_faulty(adapter: str, config: Mapping[str, Any]) -> Microscope:
        opened.append(Faulty(open_here(adapter, config), Faults()))
        return opened[-1]

    monkeypatch.setattr("workflows.embedded.open_here", open_faulty)
    with pytest.raises(LinkLost, match="it is on though nothing is exposed"):
        place.session(catalogue, 2, lambda: setattr(opened[-1], "is_on", True)).start(place.spec, OPTIONS)
    assert not opened[-1].is_on
    (row,) = catalogue.experiments()
    assert len(catalogue.frames(row.id)) == 2
    with pytest.raises(InstrumentFault, match=r"nothing was started: .*the lost link"):
        place.session(catalogue).resume(row.id)


def test_a_locked_instrument_is_not_started_on(place: Place) -> None:
    """Whichever of the two locks holds: the instrument's own, or that of the queue."""
    emergency_stop(place.settings, "replay", by="anna", reason="smoke")
    place.run().complains(4, "'replay' is locked", "anna", "smoke", "stempilot estop replay --clear")
    clear(place.settings, "replay", by="anna")
    with Catalogue.open(place.settings.data_folder, visitor=True) as beside:
        ExperimentQueue(beside).lock_instrument("replay", "otto", "no water")
    place.run().complains(4, "'replay' is locked", "otto", "no water", "stempilot estop replay --clear")
    clear(place.settings, "replay", by="anna")
    place.run("--json").expect(0)


def test_a_lock_that_comes_while_the_instrument_is_opened_holds(
    place: Place, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stop line is not there yet, so the queue alone knows of it."""

    def open_slowly(adapter: str, config: Mapping[str, Any]) -> Microscope:
        ExperimentQueue(catalogue).lock_instrument("replay", "otto", "no water")
        return open_here(adapter, config)

    monkeypatch.setattr("workflows.embedded.open_here", open_slowly)
    with pytest.raises(InstrumentFault, match="'replay' is locked, nothing was started: no water by otto"):
        place.session(catalogue).start(place.spec, OPTIONS)
    assert not catalogue.experiments()
    assert not place.endpoint.exists()
    assert holder(place.settings.data_folder, "instrument-replay") is None


def test_a_locked_instrument_costs_a_survey_no_square(place: Place, catalogue: Catalogue) -> None:
    ended: list[str] = []
    runner = EmbeddedRunner(place.session(catalogue), OPTIONS, ended.append)
    survey = catalogue.create_experiment(
        name="s", spec=place.spec.model_dump(mode="json"), seed=1, engine="", options={}
    )
    own = runner.submit(place.spec, survey, None)
    emergency_stop(place.settings, "replay", by="anna", reason="smoke")
    with pytest.raises(InstrumentFault, match="'replay' is locked, nothing was started"):
        runner.attend([own])
    assert catalogue.experiment(own).status == "running", "neither refused nor failed: it can be begun later"
    clear(place.settings, "replay", by="anna")
    runner.attend([own])
    assert (catalogue.experiment(own).status, ended) == ("completed", [own])


def test_a_fault_while_a_run_is_put_back_leaves_the_beam_off(
    place: Place, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exposure that was in flight is made then: a fault in it is as good as one in the loop."""
    faults, opened = Faults(fails_at=3), list[Faulty]()

    def open_faulty(adapter: str, config: Mapping[str, Any]) -> Microscope:
        opened.append(Faulty(open_here(adapter, config), faults))
        return opened[-1]

    monkeypatch.setattr("workflows.embedded.open_here", open_faulty)
    with pytest.raises(InstrumentFault, match="scan generator"):
        place.session(catalogue).start(place.spec, OPTIONS)
    (row,) = catalogue.experiments()
    faults.asked.clear()
    faults.fails_at, faults.blanks = 1, False
    with pytest.raises(InstrumentFault, match="scan generator"):
        place.session(catalogue).resume(row.id)
    assert len(faults.asked) == 1, "the frame that was in flight"
    assert not opened[-1].is_on
    again = catalogue.experiment(row.id)
    assert (again.status, again.reason) == ("failed", "instrument: the scan generator is gone")
    faults.fails_at, faults.blanks = 0, True
    place.session(catalogue).resume(row.id)
    assert catalogue.experiment(row.id).status == "completed"
    assert len(catalogue.frames(row.id)) == FRAMES


def test_a_silent_database_keeps_no_beam_on(
    place: Place, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has ended well, and then the database does not tell the number of the last blank."""
    opened = list[Faulty]()

    def open_faulty(adapter: str, config: Mapping[str, Any]) -> Microscope:
        opened.append(Faulty(open_here(adapter, config), Faults(blanks=False)))
        return opened[-1]

    def silent() -> None:
        def events(*arguments: Any, **options: Any) -> Any:
            raise StorageError("the database is gone")

        monkeypatch.setattr(catalogue, "events", events)

    monkeypatch.setattr("workflows.embedded.open_here", open_faulty)
    with pytest.raises(StorageError, match="the database is gone"):
        place.session(catalogue, FRAMES, silent).start(place.spec, OPTIONS)
    assert not opened[-1].is_on


def test_one_process_for_one_instrument(place: Place, catalogue: Catalogue) -> None:
    """While a run has it, its process cannot start; while its process has it, no run can."""
    tried: list[str] = []

    def try_both() -> None:
        with pytest.raises(DataFolderBusy) as busy:
            RoleLock(place.settings.data_folder, "instrument-replay")
        tried.append(str(busy.value))
        with pytest.raises(InstrumentFault, match="is in the hands of a run in process"):
            connect(place.endpoint)
        status = StopLine.of(place.endpoint).status()
        tried.append(str(status.session_id))
        assert status.beam_blanked is None, "not known here: assume that it is on"
        assert StopLine.of(place.endpoint).blank("a lapsed lease", fence=-1).is_ignored

    own = place.session(catalogue, 2, try_both).start(place.spec, OPTIONS)
    assert catalogue.experiment(own).status == "completed"
    assert "is the instrument-replay of" in tried[0]
    assert tried[1].startswith("a run in process ")
    with (
        RoleLock(place.settings.data_folder, "instrument-replay"),
        pytest.raises(DataFolderBusy, match="is the instrument-replay of"),
    ):
        place.session(catalogue).start(place.spec, OPTIONS)


@pytest.mark.parametrize(
    ("fails_at", "error"),
    [(0, InstrumentFault("the blanker's cable is out")), (3, ZeroDivisionError("the blanker's cable is out"))],
    ids=["at the end of a run", "after a fault"],
)
def test_a_beam_that_is_not_confirmed_blanked_is_an_instruments_fault(
    place: Place, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, fails_at: int, error: Exception
) -> None:
    """It is said, written down, and the run ends with status 4, whatever came of its measurement."""
    faults = Faults(blanks=False, stops=False, fails_at=fails_at)

    def open_faulty(adapter: str, config: Mapping[str, Any]) -> Microscope:
        return Faulty(open_here(adapter, config), faults, stop_error=error)

    monkeypatch.setattr("workflows.embedded.open_here", open_faulty)
    session = place.session(catalogue)
    with pytest.raises(InstrumentFault, match=r"scan generator" if fails_at else "THE BEAM MAY BE ON"):
        session.start(place.spec, RunOptions(seed=1, engine="local"))
    (row,) = catalogue.experiments()
    assert row.status == ("failed" if fails_at else "completed")
    assert "THE BEAM MAY BE ON, the stop was not confirmed: " in (row.reason or "")
    assert "the blanker's cable is out" in (row.reason or "")
    assert any("THE BEAM MAY BE ON" in line for line in place.said)
    kinds = [event.kind for event in catalogue.events(row.id)]
    assert "beam_not_blanked" in kinds
    assert "evaluated" not in kinds, "nobody is kept waiting for baselines while the beam is on"
