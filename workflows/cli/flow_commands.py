"""`stempilot calibrate` and `survey`: flows of more than one step. Neighbour: `schedule_commands`."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from orchestrator.catalogue import Catalogue
from orchestrator.errors import SpecError
from orchestrator.loop import Ending
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.survey_spec import SurveySpec
from workflows.cli.app import app
from workflows.cli.fail import EXIT_OF_STATUS, explained
from workflows.cli.live import view_for
from workflows.cli.options import (
    DataOption,
    JsonOption,
    SettingsOption,
    overrides_of,
    reading,
    settings_in_use,
    settings_of,
    writing,
)
from workflows.cli.run_commands import Engine, confirm_real
from workflows.flows.calibrate import FocusFound, calibration_spec, focus_found
from workflows.flows.experiment import Shown, perform, wait_for_last_words
from workflows.flows.names import SURVEY
from workflows.flows.survey import Survey
from workflows.flows.survey_report import write_survey_page
from workflows.flows.survey_runners import EmbeddedRunner, QueueRunner
from workflows.flows.survey_tables import square_rows
from workflows.flows.telling import Telling
from workflows.prefect_engine import PrefectEngine
from workflows.prefect_server import quiet_environment
from workflows.reporting import write_report
from workflows.roles import holder
from workflows.session import RunOptions, Session, interruptible
from workflows.worker import prefect_url

SeedOption = Annotated[int, typer.Option(min=0, help="of policy and, where the instrument is simulated, of the world")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a value of the file")]
EngineOption = Annotated[Engine, typer.Option(help="a Prefect server beside the run, or the same without it")]


class Where(StrEnum):
    """Who runs the experiments."""

    AUTO = "auto"
    HERE = "here"
    QUEUE = "queue"


WhereOption = Annotated[
    Where, typer.Option(help="in this process, or by the queue's workers; auto: the queue where `serve` or a worker is")
]


@app.command()
@explained
def calibrate(
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC.yaml", help="an experiment with a section calibrate, or a focus search")
    ],
    data: DataOption = None,
    seed: SeedOption = 0,
    engine: EngineOption = Engine.PREFECT,
    where: WhereOption = Where.AUTO,
    set_: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before using a real instrument")] = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Focus by a short series on a sacrificial area; ends with a defocus and its standard error."""
    spec = calibration_spec(ExperimentSpec.from_yaml(spec_file, overrides_of(set_ or [])))
    opened = settings_in_use(data, settings)
    confirm_real(opened, spec, yes=yes)
    options = RunOptions(
        seed=seed, engine=engine.value, baselines=False, settings_file=str(settings.resolve()) if settings else None
    )
    view = view_for(spec, Console(stderr=as_json), as_json=as_json)
    if is_queued(opened, spec.instrument.name, where):
        found = _calibrate_in_queue(opened, spec, options, view.say)
    else:
        with writing(opened) as catalogue, view:
            found = focus_found(catalogue, Session(catalogue, opened, view, view.say).start(spec, options))
    with reading(opened) as catalogue:
        report = write_report(catalogue, opened, found.experiment_id) if found.frames else None
    if as_json:
        document = {name: getattr(found, name) for name in FocusFound.__dataclass_fields__}
        print(json.dumps({**document, "id": found.experiment_id, "report": str(report) if report else None}))
    else:
        view.say(found.in_words())
        view.say(f"experiment {found.experiment_id}, {found.status}" + (f"; report: {report}" if report else ""))
    raise typer.Exit(EXIT_OF_STATUS.get(found.status, 1))


def is_queued(settings: Settings, instrument: str, where: Where) -> bool:
    """Whether the queue shall run it: as told, or where somebody serves this data folder."""
    if where is not Where.AUTO:
        return where is Where.QUEUE
    return any(holder(settings.data_folder, role) is not None for role in ("serve", f"worker-{instrument}"))


def _calibrate_in_queue(
    settings: Settings, spec: ExperimentSpec, options: RunOptions, say: Callable[[str], None]
) -> FocusFound:
    with Catalogue.open(settings.data_folder, url=settings.database_url, visitor=True) as catalogue:
        runner = QueueRunner(catalogue, ExperimentQueue(catalogue), options)
        own = runner.submit(spec, None, None)
        say(f"submitted {own}; waiting for a worker of {spec.instrument.name}")
        runner.attend([own])
        return focus_found(catalogue, own)


@app.command()
@explained
def survey(
    survey_file: Annotated[
        Path | None, typer.Argument(metavar="SURVEY.yaml", help="squares, a template, budgets and an end")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="go on with a survey that was begun")] = None,
    data: DataOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="instead of the survey's")] = None,
    engine: EngineOption = Engine.PREFECT,
    where: WhereOption = Where.AUTO,
    set_: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before using a real instrument")] = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one experiment for every square of a grid, cleanest first if asked; ends with one page for all."""
    opened = settings_of(data, settings)
    if (survey_file is None) == (resume is None):
        raise SpecError("give either SURVEY.yaml to begin one, or --resume ID to go on with one")
    plan = _plan(survey_file, resume, opened, {**overrides_of(set_ or []), **({} if seed is None else {"seed": seed})})
    confirm_real(opened, plan.template, yes=yes)
    console = Console(stderr=as_json)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    told = str(settings.resolve()) if settings else None
    run = _survey_in_queue if is_queued(opened, plan.template.instrument.name, where) else _survey_here
    survey_id, ending = run(opened, plan, resume, engine, told, say)
    with reading(opened) as catalogue:
        page = write_survey_page(catalogue, survey_id)
        rows = [row.to_dict() for row in square_rows(catalogue, survey_id, plan)]
    if as_json:
        print(json.dumps({"id": survey_id, "status": ending.status, "reason": ending.reason, "squares": rows,
                          "report": str(page)}))  # fmt: skip
    else:
        say(f"{plan.name} [{survey_id}] {ending.status}: {ending.reason}")
        say(f"all squares on one page: {page}")
    raise typer.Exit(EXIT_OF_STATUS.get(ending.status, 1))


def _plan(path: Path | None, resume: str | None, settings: Settings, overrides: dict[str, Any]) -> SurveySpec:
    if path is not None:
        return SurveySpec.from_yaml(path, overrides)
    if overrides:
        raise SpecError("--set and --seed are for a new survey; one that was begun goes on as it was")
    with reading(settings) as catalogue:
        row = catalogue.experiment(str(resume))
        if "survey" not in row.options:
            raise SpecError(f"experiment {row.id} is no survey; `stempilot resume {row.id}` goes on with experiments")
        return SurveySpec.checked(dict(row.options["survey"]))


def _survey_here(
    settings: Settings, plan: SurveySpec, resume: str | None, engine: Engine, told: str | None,
    say: Callable[[str], None],
) -> tuple[str, Ending]:  # fmt: skip
    view = view_for(plan.template, Console(stderr=True), as_json=True)
    options = RunOptions(
        seed=plan.seed, engine="local", baselines=plan.baselines, report=plan.reports, settings_file=told
    )
    with writing(settings) as catalogue:
        session = Session(catalogue, settings, view, say, embeds_prefect=False)

        def ended(experiment_id: str) -> None:
            if plan.reports and catalogue.frames(experiment_id):
                write_report(catalogue, settings, experiment_id)

        runner = EmbeddedRunner(session, options, ended)
        survey = _begun(catalogue, plan, resume, runner, say)
        with interruptible(session.control, session.stop_now, say):
            if engine is Engine.LOCAL:
                return survey.survey_id, survey.drive()
            return survey.survey_id, _driven_by_prefect(settings, survey, say)


def _driven_by_prefect(settings: Settings, survey: Survey, say: Callable[[str], None]) -> Ending:
    prefect = PrefectEngine(settings.data_folder / "prefect")
    prefect.start()
    try:
        late = prefect.not_ready_because()
        if late is None:
            return prefect.run(survey.survey_id, survey.drive, SURVEY)
        say(f"{late}; going on without it")
        return survey.drive()
    finally:
        prefect.stop()


_LEFT_TO_THE_QUEUE: Final = "squares in the queue go on; nothing more is submitted (`stempilot estop` stops the beam)"


def _nothing() -> None:
    """The microscope is the workers'."""


def _survey_in_queue(
    settings: Settings, plan: SurveySpec, resume: str | None, engine: Engine, told: str | None,
    say: Callable[[str], None],
) -> tuple[str, Ending]:  # fmt: skip
    options = RunOptions(
        seed=plan.seed, engine=engine.value, baselines=plan.baselines, report=plan.reports, settings_file=told
    )
    with Catalogue.open(settings.data_folder, url=settings.database_url, visitor=True) as catalogue:
        runner = QueueRunner(catalogue, ExperimentQueue(catalogue), options)
        survey = _begun(catalogue, plan, resume, runner, say)
        url = prefect_url(settings) if engine is Engine.PREFECT else None
        if url is None:
            with interruptible(runner.control, _nothing, say, _LEFT_TO_THE_QUEUE):
                return survey.survey_id, survey.drive()
        os.environ.update(quiet_environment(settings.data_folder / "prefect"))
        importlib.import_module("prefect")  # seconds, which the flow run's beginning would not wait for
        telling = Telling()
        survey.say = lambda line: (say(line), telling.say(line))[0]
        shown = Shown(
            experiment_id=survey.survey_id, name=plan.name, instrument=plan.template.instrument.name, flow=SURVEY
        )
        with interruptible(runner.control, _nothing, say, _LEFT_TO_THE_QUEUE):
            once = perform(survey.drive, shown, telling, url, lambda because: say(f"{because}; going on without it"))
            ending = once.result.result()
        wait_for_last_words()
        return survey.survey_id, ending


def _begun(
    catalogue: Catalogue,
    plan: SurveySpec,
    resume: str | None,
    runner: EmbeddedRunner | QueueRunner,
    say: Callable[[str], None],
) -> Survey:
    if resume is None:
        return Survey.begin(catalogue, plan, runner, say)
    return Survey.again(catalogue, resume, runner, say)
