"""What a survey decides, over a real catalogue and a runner that only says how squares ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from instruments import InstrumentFault
from orchestrator.catalogue import Catalogue
from orchestrator.errors import DataFolderBusy, Refused
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.journal import Journal
from orchestrator.loop import Ending
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.spec import Budget, ExperimentSpec
from orchestrator.survey_spec import SurveySpec
from tests.unit.orchestrator import microscope_frames as microscope
from workflows.flows.survey import Survey
from workflows.flows.survey_report import survey_on_page, write_survey_page
from workflows.roles import RoleLock

TEMPLATE = Path(__file__).parent / "specs" / "small_raster.yaml"
OVERVIEW = {"mode": "maadf", "probe_current_pa": 10.0}
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Told:
    """Runs nothing: every square ends as it is told, having spent what it is told, an hour later."""

    catalogue: Catalogue
    clock: Clock
    ends: dict[str, str] = field(default_factory=dict[str, str])
    electrons: float = 1e7
    many: bool = False
    stop_after: int | None = None
    overview: tuple[float | str | None, ...] = ()
    submitted: list[ExperimentSpec] = field(default_factory=list[ExperimentSpec])
    attended: int = 0

    @property
    def takes_many(self) -> bool:
        return self.many

    def submit(self, spec: ExperimentSpec, parent_id: str, until: datetime | None) -> str:
        self.submitted.append(spec)
        return self.catalogue.create_experiment(
            name=spec.name, spec=spec.model_dump(mode="json"), seed=0, engine="local", options={}, parent_id=parent_id
        )

    def attend(self, experiment_ids: list[str]) -> None:
        self.attended += 1
        own = experiment_ids[0]
        square = self.catalogue.experiment(own).spec["labels"]["square"]
        self.clock.now += timedelta(hours=1)
        if square == "overview":
            self.look_over(own)
        closed = {"electrons": self.electrons, "instrument_time_s": 10.0, "frames": 1}
        self.catalogue.append(own, "closed", closed)
        status = self.ends.get(square, "completed")
        self.catalogue.set_status(own, status, f"as told: {status}")

    def look_over(self, own: str) -> None:
        """One decision a square, in the listed order: its clean fraction, a refusal in words, or nothing to be told.

        The frames lie where the stage was, which is not where the squares are said to be.
        """
        journal = Journal(self.catalogue, own)
        for ordinal, found in enumerate(self.overview):
            intent, command = journal.intend(microscope.suggestion(ordinal), microscope.command)
            if isinstance(found, str):
                journal.mark(intent, "refused", found)
                continue
            frame = journal.keep(intent, microscope.frame(command, ordinal))
            clean = Feature(value=0.0 if found is None else found, std=0.1)
            dark = Feature(value=0.0, reason="no counts")
            features = FeatureSet(
                extractor="survey",
                action_id=frame.action_id,
                values={"measured": dark} if found is None else {"clean_fraction": clean},
                arrays={},
            )
            journal.observe(intent, FrameFacts.of(frame), features, Score(value=0.0, std=0.0, statement=""))

    def wanted(self) -> str | None:
        return "interrupted" if self.stop_after is not None and self.attended >= self.stop_after else None


@dataclass
class World:
    catalogue: Catalogue
    clock: Clock
    folder: Path

    def plan(self, **changes: Any) -> SurveySpec:
        document = {"name": "s", "template": str(TEMPLATE), "grid": {"rows": 1, "columns": 4, "side_nm": 15.0},
                    "square_budget": {"electrons": 1e8}, **changes}  # fmt: skip
        path = self.folder / "survey.yaml"
        path.write_text(yaml.safe_dump(document))
        return SurveySpec.from_yaml(path)

    def run(self, plan: SurveySpec, **told: Any) -> tuple[Survey, Told, Ending]:
        runner = Told(self.catalogue, self.clock, **told)
        survey = Survey.begin(self.catalogue, plan, runner, lambda line: None)
        return survey, runner, survey.drive()


@pytest.fixture
def world(tmp_path: Path) -> Any:
    clock = Clock()
    with Catalogue.open(tmp_path / "data", now=clock) as catalogue:
        yield World(catalogue, clock, tmp_path)


def names(runner: Told) -> list[str]:
    return [spec.labels["square"] for spec in runner.submitted]


def test_one_experiment_for_every_square(world: World) -> None:
    survey, runner, ending = world.run(world.plan())
    assert names(runner) == ["A1", "A2", "A3", "A4"]
    assert ending == Ending("completed", "4 of 4 squares completed")
    children = world.catalogue.children(survey.survey_id)
    assert [row.parent_id for row in children] == [survey.survey_id] * 4
    row = world.catalogue.experiment(survey.survey_id)
    assert (row.status, row.reason) == ("completed", "4 of 4 squares completed")
    (closed,) = world.catalogue.events(survey.survey_id, kinds=("closed",))
    assert closed.payload["electrons"] == 4e7
    page = write_survey_page(world.catalogue, survey.survey_id).read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in ("A1", "A2", "A3", "A4"))


def test_a_failed_square_ends_nothing_else(world: World) -> None:
    _, runner, ending = world.run(world.plan(), ends={"A1": "failed", "A3": "refused"})
    assert len(names(runner)) == 4
    assert ending == Ending("completed", "2 of 4 squares completed; 1 failed; 1 refused")


def test_all_failed_is_a_failed_survey(world: World) -> None:
    _, _, ending = world.run(world.plan(), ends=dict.fromkeys(("A1", "A2", "A3", "A4"), "failed"))
    assert ending.status == "failed"


def test_a_square_that_needs_a_person_is_left_for_later(world: World) -> None:
    survey, _, ending = world.run(world.plan(), ends={"A2": "interrupted"})
    assert ending.status == "interrupted"
    assert "3 of 4 squares completed; 1 interrupted" in ending.reason
    again = Survey.again(world.catalogue, survey.survey_id, Told(world.catalogue, world.clock), lambda line: None)
    assert again.drive() == Ending("completed", "4 of 4 squares completed")


def test_a_locked_instrument_leaves_the_survey_to_a_person(world: World) -> None:
    class Locked(Told):
        def attend(self, experiment_ids: list[str]) -> None:
            raise InstrumentFault("instrument 'simulated' is locked, nothing was started")

    locked = Locked(world.catalogue, world.clock)
    survey = Survey.begin(world.catalogue, world.plan(), locked, lambda line: None)
    with pytest.raises(InstrumentFault, match="is locked"):
        survey.drive()
    row = world.catalogue.experiment(survey.survey_id)
    assert (row.status, row.reason) == ("interrupted", "instrument 'simulated' is locked, nothing was started")


def test_it_stops_at_the_total_and_the_last_gets_what_is_left(world: World) -> None:
    plan = world.plan(total_budget={"electrons": 2.5e8})
    _, runner, ending = world.run(plan, electrons=1e8)
    assert [spec.budget.electrons for spec in runner.submitted] == [1e8, 1e8, 0.5e8]
    assert ending.reason == "3 of 4 squares completed; 1 not begun: the total budget cannot pay another square"


def test_what_a_square_leaves_is_for_the_others(world: World) -> None:
    _, runner, _ = world.run(world.plan(total_budget={"electrons": 2.5e8}), electrons=1e7)
    assert len(names(runner)) == 4


def test_no_square_begins_after_the_end(world: World) -> None:
    plan = world.plan(for_s=2.5 * 3600)
    survey, runner, ending = world.run(plan)
    assert names(runner) == ["A1", "A2", "A3"]
    assert {spec.stop.until for spec in runner.submitted} == {NOON + timedelta(hours=2.5)}, "all of them end with it"
    assert "1 not begun: the end at 2026-11-21T14:30:00+00:00 has come" in ending.reason
    assert survey.rows()[3].status == "left out"


@pytest.mark.parametrize("end", [{"until": (NOON + timedelta(hours=2)).isoformat()}, {"for_s": 7200.0}])
def test_the_end_counts_from_the_start_also_after_a_restart(world: World, end: dict[str, Any]) -> None:
    survey, _, _ = world.run(world.plan(**end), stop_after=1)
    runner = Told(world.catalogue, world.clock)
    Survey.again(world.catalogue, survey.survey_id, runner, lambda line: None).drive()
    assert names(runner) == ["A2"], "an hour was left"
    assert runner.submitted[0].stop.until == NOON + timedelta(hours=2)


def test_nothing_begins_when_the_end_has_come_meanwhile(world: World) -> None:
    """Also where the process died before it wrote down more than that there is a survey."""
    plan = world.plan(for_s=7200.0, overview=OVERVIEW)
    own = world.catalogue.create_experiment(
        name="s", spec={}, seed=0, engine="survey", options={"survey": plan.model_dump(mode="json")}
    )
    world.clock.now += timedelta(hours=5)
    runner = Told(world.catalogue, world.clock)
    ending = Survey.again(world.catalogue, own, runner, lambda line: None).drive()
    assert names(runner) == []
    assert ending == Ending("failed", "the end at 2026-11-21T14:00:00+00:00 has come; nothing was exposed")


def test_a_template_that_ends_earlier_keeps_its_end(world: World) -> None:
    early, late = (NOON + timedelta(hours=hours) for hours in (1, 9))
    for until, expected in ((early, early), (late, NOON + timedelta(hours=2))):
        _, runner, _ = world.run(world.plan(for_s=7200.0, set={"stop.until": until.isoformat()}))
        assert {spec.stop.until for spec in runner.submitted} == {expected}
        world.clock.now = NOON


def test_one_process_drives_a_survey(world: World) -> None:
    survey, _, _ = world.run(world.plan(), stop_after=1)
    second = Survey.again(world.catalogue, survey.survey_id, Told(world.catalogue, world.clock), lambda line: None)
    with RoleLock(world.catalogue.data_folder, f"survey-{survey.survey_id}"):
        with pytest.raises(
            DataFolderBusy, match=f"survey {survey.survey_id} is driven by process {os.getpid()} already"
        ):
            second.drive()
        assert world.catalogue.experiment(survey.survey_id).status == "interrupted", "it was not touched"
    assert second.drive().status == "completed"


def test_the_total_counts_every_child_ever_made(world: World) -> None:
    """Two experiments of one square, as two processes without a lock would have made: both have cost something."""
    plan = world.plan(total_budget={"electrons": 3e8})
    survey, runner, _ = world.run(plan, electrons=1e8, stop_after=1)
    runner.attend(
        [runner.submit(plan.square_experiment(plan.places[0], Budget(electrons=1e8)), survey.survey_id, None)]
    )
    again = Told(world.catalogue, world.clock, electrons=1e8)
    ending = Survey.again(world.catalogue, survey.survey_id, again, lambda line: None).drive()
    assert names(again) == ["A2"], "of three squares' worth two were spent before"
    assert "the total budget cannot pay another square" in ending.reason
    closed = list(world.catalogue.events(survey.survey_id, kinds=("closed",)))[-1]
    assert closed.payload["electrons"] == 3e8


def test_squares_are_told_by_the_number_of_the_decision(world: World) -> None:
    """Wherever the frames came to lie; what could not be measured has a reason of its own, and is not called dirty."""
    plan = world.plan(overview=OVERVIEW, order="cleanest", least_clean_fraction=0.2)
    survey, runner, ending = world.run(plan, overview=(0.3, "outside the limits", 0.1, 0.8))
    assert names(runner) == ["overview", "A4", "A1"]
    rows = {row.name: row for row in survey.rows()}
    assert [rows[name].clean_fraction for name in ("A1", "A2", "A3", "A4")] == [0.3, None, 0.1, 0.8]
    assert rows["A2"].reason == "not measured: its frame is refused: outside the limits"
    assert rows["A3"].reason == "10% clean, below the 20% asked for"
    assert ending.reason == "2 of 4 squares completed; 1 left out as not clean enough; 1 left out as not measured"
    page = write_survey_page(world.catalogue, survey.survey_id).read_text(encoding="utf-8")
    assert "not measured: its frame is refused: outside the limits" in page
    squares = survey_on_page(world.catalogue, world.catalogue.experiment(survey.survey_id)).squares
    assert [square.image is not None for square in squares] == [True, False, True, True]


def test_without_a_limit_what_was_not_measured_comes_last(world: World) -> None:
    plan = world.plan(overview=OVERVIEW, order="cleanest")
    survey, runner, _ = world.run(plan, overview=(None, 0.1, 0.6))
    assert names(runner) == ["overview", "A3", "A2", "A1", "A4"]
    (ranked,) = world.catalogue.events(survey.survey_id, kinds=("survey_ranked",))
    assert ranked.payload["not_measured"] == {
        "A1": "not measured: its frame tells nothing: no counts",
        "A4": "not measured: the overview has no frame of it (completed, as told: completed)",
    }


def test_it_goes_on_where_it_stood_and_repeats_nothing(world: World) -> None:
    survey, first, ending = world.run(world.plan(), stop_after=2)
    assert ending.status == "interrupted"
    assert names(first) == ["A1", "A2"]
    runner = Told(world.catalogue, world.clock)
    done = Survey.again(world.catalogue, survey.survey_id, runner, lambda line: None).drive()
    assert done == Ending("completed", "4 of 4 squares completed")
    assert names(runner) == ["A3", "A4"]
    with pytest.raises(Refused, match="is completed"):
        Survey.again(world.catalogue, survey.survey_id, runner, lambda line: None)
    with pytest.raises(Refused, match="is no survey"):
        Survey.again(world.catalogue, world.catalogue.children(survey.survey_id)[0].id, runner, lambda line: None)


@pytest.mark.parametrize(("many", "at_once"), [(False, 1), (True, 2)])
def test_a_queue_gets_what_the_total_pays_even_if_all_of_it_is_spent(world: World, many: bool, at_once: int) -> None:
    """Of 2.2e8 two squares of 1e8 can be paid for sure; the third has to wait for what these leave."""
    plan = world.plan(total_budget={"electrons": 2.2e8})
    counts: list[int] = []

    def watched(attend: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
        def attending(ids: list[str]) -> None:
            counts.append(len(ids))
            attend(ids)

        return attending

    runner = Told(world.catalogue, world.clock, many=many)
    runner.attend = watched(runner.attend)  # type: ignore[method-assign]
    Survey.begin(world.catalogue, plan, runner, lambda line: None).drive()
    assert max(counts) == at_once
    assert names(runner) == ["A1", "A2", "A3", "A4"]
