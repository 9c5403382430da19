"""The loop where the microscope refuses or does not answer, and what a restart makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    Frame,
    InstrumentBusy,
    Microscope,
    ResultUnknown,
)
from orchestrator import loop
from orchestrator.catalogue import Catalogue
from orchestrator.journal import Journal
from orchestrator.loop import Ending, Experiment
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from tests.unit.instruments.replay_files import write_record
from workflows.assembly import join, make_policy, prepare
from workflows.restart import restore

SPEC = Path(__file__).parent / "specs" / "small_map.yaml"


@dataclass
class Moody:
    """A replay that raises instead of answering at some of its exposures, counted from 1."""

    inner: Any
    raises: Callable[[int], Exception | None]
    asked: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def acquire(self, command: AcquireFrame) -> Frame:
        self.asked += 1
        if (error := self.raises(self.asked)) is not None:
            raise error
        return self.inner.acquire(command)


def spec_of(tmp_path: Path, **stop: Any) -> ExperimentSpec:
    record = write_record(tmp_path / "record.npz", 64)
    overrides = {
        "instrument.config.file": str(record),
        "budget.frames": 8,
        **{f"stop.{key}": stop[key] for key in stop},
    }
    return ExperimentSpec.from_yaml(SPEC, overrides)


def experiment_of(spec: ExperimentSpec, journal: Journal, raises: Callable[[int], Exception | None]) -> Experiment:
    parts = prepare(spec, 1, InstrumentSettings(adapter="replay"), None)
    microscope: Microscope = Moody(parts.microscope, raises)
    parts = replace(parts, microscope=microscope)
    return join(parts, make_policy(parts, "random", {"purpose": "field", "mode": "eds", "field_of_view_nm": 40.0,
        "dwell_time_us": 500.0, "prelude": [{"purpose": "survey", "mode": "survey", "x_nm": 0.0, "y_nm": 0.0,
        "field_of_view_nm": 640.0, "dwell_time_us": 1.0}]}), journal, lambda kind, payload: None)  # fmt: skip


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Any:
    with Catalogue.open(catalogue_folder) as opened:
        yield opened


def journal_of(catalogue: Catalogue, spec: ExperimentSpec) -> Journal:
    experiment_id = catalogue.create_experiment(
        name="moody", spec=spec.model_dump(mode="json"), seed=1, engine="local", options={}
    )
    return Journal(catalogue, experiment_id)


def statuses(catalogue: Catalogue, journal: Journal) -> list[str]:
    return [row.status for row in catalogue.decisions(journal.experiment_id)]


def test_one_lost_frame_and_one_refusal_do_not_end_it(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path)
    journal = journal_of(catalogue, spec)
    errors = {
        3: AcquisitionFailed("the detector fell asleep"),
        5: CommandRefused("not there"),
        6: ResultUnknown("silence"),
    }
    experiment = experiment_of(spec, journal, errors.get)
    ending = loop.run(experiment)
    assert ending == Ending("completed", "budget spent: 8 of 8 frames")
    assert statuses(catalogue, journal) == [
        "done", "done", "failed", "done", "refused", "unknown", "done", "done", "done", "done", "done",
    ]  # fmt: skip
    reasons = [row.status_reason for row in catalogue.decisions(journal.experiment_id) if row.status != "done"]
    assert reasons == ["the detector fell asleep", "not there", "silence"]
    frames = sum(frame.electrons for frame in catalogue.frames(journal.experiment_id))
    assert experiment.microscope.ledger.electrons > frames  # what may have been spent counts


def test_a_busy_instrument_is_asked_again(tmp_path: Path, catalogue: Catalogue) -> None:
    """Busy means that nothing moved: the same command, under the same id, is debited once."""
    spec = spec_of(tmp_path, max_consecutive_refusals=2)
    journal = journal_of(catalogue, spec)
    experiment = experiment_of(spec, journal, lambda asked: InstrumentBusy("it exposes") if 3 <= asked <= 5 else None)
    assert loop.run(experiment) == Ending("completed", "budget spent: 8 of 8 frames")
    assert statuses(catalogue, journal) == ["done"] * 8
    frames = sum(frame.electrons for frame in catalogue.frames(journal.experiment_id))
    assert experiment.microscope.ledger.electrons == pytest.approx(frames)


def test_one_that_stays_busy_is_given_up_at_the_deadline_or_when_a_person_wants(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    spec = spec_of(tmp_path, max_consecutive_refusals=2)
    journal = journal_of(catalogue, spec)
    stubborn = experiment_of(spec, journal, lambda asked: InstrumentBusy("it exposes") if asked > 2 else None)
    ticks = iter(range(0, 100_000, 400))
    stubborn.clock = lambda: float(next(ticks))
    ending = loop.run(stubborn)
    assert ending == Ending("completed", "2 suggestions in a row were refused, the last because: it exposes")
    assert statuses(catalogue, journal) == ["done", "done", "refused", "refused"]
    wanted = experiment_of(spec, journal_of(catalogue, spec), lambda asked: InstrumentBusy("it exposes"))
    threading.Timer(0.2, wanted.control.pause.set).start()
    assert loop.run(wanted).status == "paused"
    assert wanted.microscope.ledger.electrons == 0


def test_nothing_but_refusals_end_it(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path, max_consecutive_refusals=4)
    journal = journal_of(catalogue, spec)
    ending = loop.run(experiment_of(spec, journal, lambda asked: CommandRefused("no") if asked > 2 else None))
    assert ending.status == "completed"
    assert "4 suggestions in a row were refused" in ending.reason
    assert statuses(catalogue, journal) == ["done"] * 2 + ["refused"] * 4


def test_refusals_from_the_start_are_a_failure(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path, max_consecutive_refusals=3)
    journal = journal_of(catalogue, spec)
    assert loop.run(experiment_of(spec, journal, lambda asked: CommandRefused("no"))).status == "failed"


def test_refusals_that_are_not_in_a_row_do_not_add_up_over_a_restart(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path, max_consecutive_refusals=3)
    journal = journal_of(catalogue, spec)
    first = experiment_of(spec, journal, lambda asked: CommandRefused("no") if asked % 2 == 0 else None)
    first.listen = lambda kind, payload: first.control.interrupt.set() if first.spent.frames == 5 else None
    assert loop.run(first).status == "interrupted"
    assert statuses(catalogue, journal).count("refused") == 4
    again = experiment_of(spec, Journal(catalogue, journal.experiment_id), lambda asked: None)
    assert restore(again, Journal(catalogue, journal.experiment_id)) == 9
    assert again.spent.consecutive_refusals == 0
    assert loop.run(again) == Ending("completed", "budget spent: 8 of 8 frames")


def test_who_wants_to_be_asked_is_asked_once(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path, on_unknown="ask")
    journal = journal_of(catalogue, spec)
    first = experiment_of(spec, journal, lambda asked: ResultUnknown("silence") if asked == 4 else None)
    ending = loop.run(first)
    assert ending.status == "interrupted"
    assert "resume" in ending.reason
    assert statuses(catalogue, journal) == ["done", "done", "done", "unknown"]
    again = experiment_of(spec, Journal(catalogue, journal.experiment_id), lambda asked: None)
    restore(again, Journal(catalogue, journal.experiment_id))
    assert again.microscope.ledger.electrons == pytest.approx(first.microscope.ledger.electrons)
    assert loop.run(again) == Ending("completed", "budget spent: 8 of 8 frames")
    assert statuses(catalogue, journal).count("unknown") == 1


@pytest.mark.parametrize("wish", ["cancel", "pause", "interrupt"])
def test_who_wants_to_be_asked_is_asked_also_when_a_person_ends_it(
    tmp_path: Path, catalogue: Catalogue, wish: str
) -> None:
    spec = spec_of(tmp_path, on_unknown="ask")
    experiment = experiment_of(
        spec, journal_of(catalogue, spec), lambda asked: ResultUnknown("silence") if asked == 4 else None
    )
    experiment.listen = lambda kind, payload: getattr(experiment.control, wish).set() if kind == "unknown" else None
    ending = loop.run(experiment)
    assert (ending.status, ending.reason[:29]) == ("interrupted", "an exposure had no answer, it")


@pytest.mark.parametrize(
    ("at", "error", "words"),
    [
        (1, AcquisitionFailed("asleep"), "interrupted by a person; the last exposure brought no frame; 0 frames are"),
        (3, ResultUnknown("silence"), "interrupted by a person; the last exposure brought no frame; 2 frames are"),
        (3, CommandRefused("no"), "interrupted by a person; the last frame is complete and stored"),
        (1, CommandRefused("no"), "interrupted by a person; no frame was taken yet"),
    ],
)
def test_what_is_said_of_the_last_frame_is_true(
    tmp_path: Path, catalogue: Catalogue, at: int, error: Exception, words: str
) -> None:
    spec = spec_of(tmp_path)
    experiment = experiment_of(spec, journal_of(catalogue, spec), lambda asked: error if asked == at else None)
    experiment.listen = lambda kind, payload: (
        experiment.control.interrupt.set() if kind in ("failed", "unknown", "refused") else None
    )
    ending = loop.run(experiment)
    assert ending.status == "interrupted"
    assert ending.reason.startswith(words)


def test_the_moment_of_its_end_is_that_of_a_resumed_run_too(tmp_path: Path, catalogue: Catalogue) -> None:
    """Of one that is gone on with when the moment has passed not one frame more is taken."""
    end = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
    spec = spec_of(tmp_path, until=end.isoformat())
    journal = journal_of(catalogue, spec)
    first = experiment_of(spec, journal, lambda asked: None)
    minutes = iter(range(1000))
    first.now = lambda: end - timedelta(minutes=3) + timedelta(minutes=next(minutes))
    ending = loop.run(first)
    assert ending == Ending("completed", "stop.until: 2026-11-21T14:00:00+00:00 has come")
    assert first.spent.frames == 3
    again = experiment_of(spec, journal, lambda asked: None)
    again.now = lambda: end + timedelta(minutes=1)
    restore(again, Journal(catalogue, journal.experiment_id))
    assert loop.run(again) == ending
    assert again.spent.frames == 3
    late = experiment_of(spec, journal_of(catalogue, spec), lambda asked: None)
    late.now = again.now
    assert loop.run(late) == Ending("cancelled", f"{ending.reason} before the first frame")


def test_wall_time_ends_a_run_between_frames(tmp_path: Path, catalogue: Catalogue) -> None:
    spec = spec_of(tmp_path, max_wall_time_s=10.0)
    experiment = experiment_of(spec, journal_of(catalogue, spec), lambda asked: None)
    ticks = iter(range(0, 1000, 4))
    experiment.clock = lambda: float(next(ticks))
    experiment.started_at_s = 0.0
    ending = loop.run(experiment)
    assert ending.status == "completed"
    assert "10 s of wall time" in ending.reason
    assert 0 < experiment.spent.frames < 8
