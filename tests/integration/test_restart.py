"""What a restart makes of a real instrument: one that is not rebuilt, whose clock counts from when it was opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Capabilities,
    Command,
    CommandRefused,
    Frame,
    LinkLost,
    Microscope,
    MicroscopeState,
    Outcome,
    Rebuildable,
)
from instruments.remote.ownership import Ownership, ownership_path
from instruments.remote.status import Lock
from instruments.units import electrons
from orchestrator import loop
from orchestrator.catalogue import Catalogue
from orchestrator.errors import SpecError
from orchestrator.events import EXTRA_DEBIT, LINK_LOSS
from orchestrator.journal import Journal
from orchestrator.loop import Ending, Experiment
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from tests.unit.instruments.replay_files import write_record
from workflows.assembly import join, make_policy, prepare
from workflows.beam_debts import (
    BeamUnwatched,
    DebtsKept,
    SeenOff,
    UnderWay,
    book_debts,
    note_found_on,
    note_seen_off,
)
from workflows.restart import restore
from workflows.roles import run_folder

SPEC = Path(__file__).parent / "specs" / "small_map.yaml"
FIELDS = {
    "purpose": "field", "mode": "eds", "field_of_view_nm": 40.0, "dwell_time_us": 500.0,
    "prelude": [{"purpose": "survey", "mode": "survey", "x_nm": 0.0, "y_nm": 0.0, "field_of_view_nm": 640.0,
                 "dwell_time_us": 1.0}],
}  # fmt: skip


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Real:
    """A replay behind the six calls of a `Microscope` and no more; its clock may have run before it was loaded."""

    inner: Microscope
    clock_s: float = 0.0
    dies_after: int | None = None
    kept: Frame | None = None
    asked: list[str] = field(default_factory=list)
    refuses_again: bool = False

    def capabilities(self) -> Capabilities:
        return self.inner.capabilities().model_copy(update={"simulated": False})

    def read_state(self) -> MicroscopeState:
        state = self.inner.read_state()
        return state.model_copy(update={"time_s": state.time_s + self.clock_s})

    def execute(self, command: Command) -> MicroscopeState:
        return self.inner.execute(command)

    def acquire(self, command: AcquireFrame) -> Frame:
        self.asked.append(command.action_id)
        if self.kept is not None and self.kept.action_id == command.action_id:
            if self.refuses_again:
                raise CommandRefused("it was handed over already")
            return self.kept
        frame = self.inner.acquire(command)
        self.kept = replace(frame, started_s=frame.started_s + self.clock_s, ended_s=frame.ended_s + self.clock_s)
        if len(self.asked) == self.dies_after:
            raise Killed
        return self.kept

    def outcome(self, action_id: str) -> Outcome:
        return "delivered" if self.kept is not None and self.kept.action_id == action_id else "unknown"

    def stop(self) -> None:
        self.inner.stop()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def spec(tmp_path: Path) -> ExperimentSpec:
    record = write_record(tmp_path / "record.npz", 64)
    return ExperimentSpec.from_yaml(SPEC, {"instrument.config.file": str(record), "budget.frames": 8})


def opened(spec: ExperimentSpec) -> Microscope:
    return prepare(spec, 1, InstrumentSettings(adapter="replay"), None).microscope


def experiment_on(microscope: Microscope, spec: ExperimentSpec, journal: Journal) -> Experiment:
    assert not isinstance(microscope, Rebuildable)
    parts = replace(prepare(spec, 1, InstrumentSettings(adapter="replay"), None), microscope=microscope)
    return join(parts, make_policy(parts, "random", FIELDS), journal, lambda kind, payload: None)


def killed_at(spec: ExperimentSpec, catalogue: Catalogue, frames: int, clock_s: float = 0.0) -> tuple[str, Real]:
    """An experiment whose process died when its last frame was exposed and not stored; the living instrument."""
    document = spec.model_dump(mode="json")
    own = catalogue.create_experiment(name="real", spec=document, seed=1, engine="local", options={})
    microscope = Real(opened(spec), clock_s, dies_after=frames)
    with pytest.raises(Killed):
        loop.run(experiment_on(microscope, spec, Journal(catalogue, own)))
    return own, microscope


def undisturbed(spec: ExperimentSpec, catalogue: Catalogue) -> Experiment:
    own = catalogue.create_experiment(name="calm", spec={}, seed=1, engine="local", options={})
    experiment = experiment_on(Real(opened(spec)), spec, Journal(catalogue, own))
    assert loop.run(experiment) == Ending("completed", "budget spent: 8 of 8 frames")
    return experiment


def now_s(experiment: Experiment) -> float:
    return experiment.microscope.time_before_s + experiment.microscope.read_state().time_s


@pytest.mark.parametrize("limit", ["electrons", "instrument_time_s"])
def test_a_frame_that_was_exposed_is_fetched_however_little_is_left(
    spec: ExperimentSpec, catalogue: Catalogue, limit: str
) -> None:
    """Its electrons are on the specimen and its time is over: no limit may refuse it, and both are counted."""
    own, microscope = killed_at(spec, catalogue, 4)
    assert microscope.kept is not None
    again = experiment_on(microscope, spec, Journal(catalogue, own))
    spent = sum(getattr(frame, limit) for frame in catalogue.frames(own)) if limit == "electrons" else now_s(again)
    again.microscope.envelope = again.microscope.envelope.model_copy(update={f"max_{limit}": spent * 1.0001})
    assert restore(again, Journal(catalogue, own)) == 4
    assert [row.status for row in catalogue.decisions(own)] == ["done"] * 4
    stored = catalogue.frames(own)
    assert stored[-1].action_id == microscope.kept.action_id
    assert again.microscope.ledger.electrons == pytest.approx(sum(frame.electrons for frame in stored))


def test_what_was_exposed_and_is_not_handed_over_stays_debited(spec: ExperimentSpec, catalogue: Catalogue) -> None:
    own, microscope = killed_at(spec, catalogue, 4)
    microscope.refuses_again = True
    again = experiment_on(microscope, spec, Journal(catalogue, own))
    restore(again, Journal(catalogue, own))
    row = catalogue.decisions(own)[-1]
    assert row.status == "failed"
    assert "not handed over: it was handed over already" in (row.status_reason or "")
    stored = sum(frame.electrons for frame in catalogue.frames(own))
    assert again.microscope.ledger.electrons > 1.01 * stored
    with pytest.raises(AcquisitionFailed):
        again.microscope.fetch(microscope.kept.requested)  # type: ignore[union-attr]


@pytest.mark.parametrize("case", ["living", "living for long", "opened again", "opened again, frame kept"])
def test_microscope_time_is_counted_once_over_a_restart(spec: ExperimentSpec, catalogue: Catalogue, case: str) -> None:
    """Of an instrument that lived on, and of one whose clock began again."""
    calm = undisturbed(spec, catalogue)
    own, microscope = killed_at(spec, catalogue, 4, clock_s=100.0 if case == "living for long" else 0.0)
    if case.startswith("opened"):
        microscope = Real(opened(spec), kept=microscope.kept if case.endswith("kept") else None)
    microscope.dies_after = None
    again = experiment_on(microscope, spec, Journal(catalogue, own))
    restore(again, Journal(catalogue, own))
    known = sum(frame.ended_s - frame.started_s for frame in catalogue.frames(own))
    assert now_s(again) == pytest.approx(known, rel=1e-9)
    assert again.spent.instrument_time_s == pytest.approx(known, rel=1e-9)
    assert again.spent.frames == (3 if case == "opened again" else 4)
    assert loop.run(again) == Ending("completed", "budget spent: 8 of 8 frames")
    if case.startswith("living"):
        assert again.spent.instrument_time_s == pytest.approx(calm.spent.instrument_time_s, rel=1e-9)
    assert now_s(again) == pytest.approx(again.spent.instrument_time_s, rel=1e-9)


def test_fetching_needs_no_rebuilt_instrument(spec: ExperimentSpec, catalogue: Catalogue) -> None:
    """The living one is asked for that action once, and for nothing it has done before."""
    own, microscope = killed_at(spec, catalogue, 3)
    before: list[Any] = list(microscope.asked)
    restore(experiment_on(microscope, spec, Journal(catalogue, own)), Journal(catalogue, own))
    assert microscope.asked == [*before, before[-1]]


def test_an_instrument_opened_anew_is_not_believed_that_nothing_was_exposed(
    spec: ExperimentSpec, catalogue: Catalogue
) -> None:
    """It has heard of no action: what it does not know may have been exposed all the same, and is not repeated."""

    class Forgetful(Real):
        def outcome(self, action_id: str) -> Outcome:
            return "not_started"

    own, _ = killed_at(spec, catalogue, 4)
    anew = Forgetful(opened(spec))
    again = experiment_on(anew, spec, Journal(catalogue, own))
    restore(again, Journal(catalogue, own))
    assert anew.asked == []
    assert [row.status for row in catalogue.decisions(own)] == ["done"] * 3 + ["unknown"]
    assert again.microscope.ledger.electrons > 1.3 * sum(frame.electrons for frame in catalogue.frames(own))


def test_an_experiment_configures_no_microscope(spec: ExperimentSpec) -> None:
    """Neither which server it is, nor its declared current, nor which program runs."""
    changed = spec.model_copy(
        update={"instrument": spec.instrument.model_copy(update={"config": {"host": "elsewhere"}})}
    )
    for adapter in ("temscript", "worker", "gateway"):
        with pytest.raises(SpecError, match=f"host: the configuration of adapter '{adapter}' is the facility's"):
            prepare(changed, 1, InstrumentSettings(adapter=adapter), None)


# --- a beam that no process watched


@dataclass
class Cut(Real):
    """Its line breaks in the middle of an exposure."""

    def acquire(self, command: AcquireFrame) -> Frame:
        if len(self.asked) == 2:
            raise LinkLost("the cable was pulled")
        return super().acquire(command)


def resumed_after(
    spec: ExperimentSpec, catalogue: Catalogue, own: str, later_s: float, *, asks_about_beam: bool = False
) -> Experiment:
    """The experiment taken up by another process, so much later, on an instrument whose beam is off by then."""
    journal = Journal(catalogue, own)
    experiment = experiment_on(Real(opened(spec)), spec, journal)
    experiment.now = lambda: datetime.now(UTC) + timedelta(seconds=later_s)
    experiment.microscope.keep = DebtsKept(journal, pytest.fail)
    restore(experiment, journal, asks_about_beam=asks_about_beam)
    return experiment


def link_lost(spec: ExperimentSpec, catalogue: Catalogue) -> tuple[str, float, float]:
    """An experiment whose process died after its link was lost: its id, the electrons booked, electrons per second."""
    document = spec.model_dump(mode="json")
    own = catalogue.create_experiment(name="cut", spec=document, seed=1, engine="local", options={})
    journal = Journal(catalogue, own)
    experiment = experiment_on(Cut(opened(spec)), spec, journal)
    experiment.microscope.keep = DebtsKept(journal, pytest.fail)
    with pytest.raises(LinkLost):
        loop.run(experiment)
    [lost] = catalogue.events(own, kinds=(LINK_LOSS,))
    return own, experiment.microscope.ledger.electrons, electrons(lost.payload["current_pa"], 1.0)


def test_a_link_lost_before_the_process_died_is_debited_by_the_next_one(
    spec: ExperimentSpec, catalogue: Catalogue
) -> None:
    """Until the beam is known to be off, once, and again in every process after that."""
    own, booked, per_s = link_lost(spec, catalogue)
    again = resumed_after(spec, catalogue, own, 600.0)
    debited = again.microscope.ledger.electrons - booked
    assert debited == pytest.approx(600.0 * per_s, rel=0.1)
    assert again.microscope.ledger.max_e_per_a2 > debited / 100, "all of it may have gone to one cell"
    third = resumed_after(spec, catalogue, own, 7200.0)
    assert third.microscope.ledger.electrons == pytest.approx(again.microscope.ledger.electrons)


def test_a_person_who_has_looked_ends_the_debit(spec: ExperimentSpec, catalogue: Catalogue) -> None:
    own, booked, per_s = link_lost(spec, catalogue)
    folder = run_folder(catalogue.data_folder)
    lock = Ownership(spec.instrument.name, ownership_path(folder, spec.instrument.name))
    lock.set_lock(Lock(reason="the link", by="the lost link", at=datetime.now(UTC)))
    lock.clear()
    again = resumed_after(spec, catalogue, own, 7200.0)
    assert booked <= again.microscope.ledger.electrons < booked + 700.0 * per_s


def test_a_long_debit_is_asked_about_first_and_a_person_may_have_seen_the_beam_off(
    spec: ExperimentSpec, catalogue: Catalogue
) -> None:
    own, booked, per_s = link_lost(spec, catalogue)
    with pytest.raises(BeamUnwatched, match=f"stempilot resume {own} --off-since .* --debit-all"):
        resumed_after(spec, catalogue, own, 36_000.0, asks_about_beam=True)
    assert debits(catalogue, own) == [], "nothing is written down for good"
    journal, tomorrow = Journal(catalogue, own), datetime.now(UTC) + timedelta(hours=10)
    for wrong in (datetime.now(UTC) - timedelta(hours=1), tomorrow + timedelta(hours=1)):
        with pytest.raises(SpecError, match="--off-since"):
            note_seen_off(journal, SeenOff(wrong, "A. Smith"), tomorrow)
    note_seen_off(journal, SeenOff(datetime.now(UTC) + timedelta(seconds=300.0), "A. Smith"), tomorrow)
    again = resumed_after(spec, catalogue, own, 36_000.0, asks_about_beam=True)
    assert again.microscope.ledger.electrons - booked == pytest.approx(300.0 * per_s, rel=0.3)


def debits(catalogue: Catalogue, own: str) -> list[float]:
    return [event.payload["electrons"] for event in catalogue.events(own, kinds=(EXTRA_DEBIT,))]


def test_an_exposure_of_which_nobody_can_tell_lit_until_the_beam_was_seen_off(
    spec: ExperimentSpec, catalogue: Catalogue
) -> None:
    """Once, however often it is taken up again: also by whoever dies before it is marked as unknown."""
    own, instrument = killed_at(spec, catalogue, 3)
    assert instrument.kept is not None
    per_s = electrons(instrument.kept.requested.optics.probe_current_pa, 1.0)
    journal = Journal(catalogue, own)
    dying = experiment_on(Real(opened(spec)), spec, journal)
    dying.now = lambda: datetime.now(UTC) + timedelta(seconds=600.0)
    dying.microscope.keep = DebtsKept(journal, pytest.fail)
    book_debts(dying, journal, under_way=UnderWay(instrument.kept.requested, is_told=False, is_living=False))
    [debited] = debits(catalogue, own)
    assert debited == pytest.approx(600.0 * per_s, rel=0.2)
    again = resumed_after(spec, catalogue, own, 7200.0)
    assert debits(catalogue, own) == [debited]
    third = resumed_after(spec, catalogue, own, 9999.0)
    assert third.microscope.ledger.electrons == pytest.approx(again.microscope.ledger.electrons)
    assert again.microscope.ledger.electrons > debited


@pytest.mark.parametrize(("is_told", "seconds"), [(True, None), (False, 60.0)])
def test_a_process_that_lives_on_ends_an_exposure_at_its_deadline(
    spec: ExperimentSpec, catalogue: Catalogue, is_told: bool, seconds: float | None
) -> None:
    own, instrument = killed_at(spec, catalogue, 3)
    assert instrument.kept is not None
    command = instrument.kept.requested.model_copy(update={"deadline_s": 60.0})
    journal = Journal(catalogue, own)
    experiment = experiment_on(instrument, spec, journal)
    experiment.now = lambda: datetime.now(UTC) + timedelta(hours=9)
    experiment.microscope.keep = DebtsKept(journal, pytest.fail)
    book_debts(experiment, journal, under_way=UnderWay(command, is_told=is_told, is_living=True))
    per_s = electrons(command.optics.probe_current_pa, 1.0)
    assert debits(catalogue, own) == ([] if seconds is None else pytest.approx([seconds * per_s], rel=0.1))


def test_a_beam_found_on_is_debited_since_the_last_sign_of_life(spec: ExperimentSpec, catalogue: Catalogue) -> None:
    """Also where the process that found it died before it could settle that; until it was blanked, not until now."""
    own, instrument = killed_at(spec, catalogue, 3)
    assert instrument.kept is not None
    per_s = electrons(instrument.kept.requested.optics.probe_current_pa, 1.0)
    note_found_on(catalogue, own, "microscope", is_dark=False)
    resumed_after(spec, catalogue, own, 500.0)
    [debited] = debits(catalogue, own)
    assert debited == pytest.approx(500.0 * per_s, rel=0.2)
    note_found_on(catalogue, own, "microscope", is_dark=True)  # and killed
    resumed_after(spec, catalogue, own, 7200.0)
    [_, later] = debits(catalogue, own)
    assert 0 < later < 3600.0 * per_s
    [_, settled] = catalogue.events(own, kinds=(EXTRA_DEBIT,))
    assert "ended with its beam on" in settled.payload["reason"]
