"""`stempilot run` and `stempilot resume`: the whole loop, embedded, no server to start."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.errors import NotFound, Refused, SpecError
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import spec_of
from workflows.beam_debts import SeenOff
from workflows.cli.app import app
from workflows.cli.fail import EXIT_OF_STATUS, explained
from workflows.cli.live import View, view_for
from workflows.cli.options import (
    DataOption,
    IdArgument,
    JsonOption,
    SettingsOption,
    overrides_of,
    reading,
    settings_in_use,
    settings_of,
    writing,
)
from workflows.cli.queue_commands import ReasonOption, ServerOption, desk_of, is_remote, tell_entry
from workflows.documents import experiment_document, headline
from workflows.reporting import write_report
from workflows.session import RunOptions, Session


class Engine(StrEnum):
    """What drives the loop."""

    PREFECT = "prefect"
    LOCAL = "local"


@app.command()
@explained
def run(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="the experiment")],
    data: DataOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="of the policy, and of the world where the instrument is simulated")
    ] = 0,
    policy: Annotated[str | None, typer.Option(help="another policy than the spec's")] = None,
    instrument: Annotated[str | None, typer.Option(help="another configured instrument than the spec's")] = None,
    engine: Annotated[
        Engine, typer.Option(help="Prefect's ephemeral API, or the same loop without it")
    ] = Engine.PREFECT,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="do not run the baselines afterwards")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="write no report; `stempilot report` does it whenever it is wanted")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a value of the spec")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before using a real instrument")] = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: survey, decide, expose, look, until its question or its budget is done."""
    overrides = overrides_of(set_ or [])
    if instrument is not None:
        overrides["instrument.name"] = instrument
    spec = ExperimentSpec.from_yaml(spec_file, overrides)
    if policy is not None and policy != spec.policy.name:  # the file's options are those of its own policy
        overrides = {"policy": {"name": policy}, **{key: overrides[key] for key in overrides if key != "policy.name"}}
        spec = ExperimentSpec.from_yaml(spec_file, overrides)
    opened = settings_in_use(data, settings)
    confirm_real(opened, spec, yes=yes)
    options = RunOptions(
        seed=seed,
        engine=engine.value,
        baselines=not no_baselines,
        report=not no_report,
        settings_file=str(settings.resolve()) if settings is not None else None,
    )
    view = view_for(spec, Console(stderr=as_json), as_json=as_json)
    with writing(opened) as catalogue, view:
        session = Session(catalogue, opened, view, view.say)
        experiment_id = session.start(spec, options)
    conclude(opened, experiment_id, view, as_json=as_json)


@app.command()
@explained
def resume(
    experiment: IdArgument,
    data: DataOption = None,
    settings: SettingsOption = None,
    reason: ReasonOption = None,
    server: ServerOption = None,
    off_since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="somebody saw the beam off: since then nothing is debited; with --by"),
    ] = None,
    by: Annotated[str | None, typer.Option(help="who saw it")] = None,
    debit_all: Annotated[
        bool, typer.Option("--debit-all", help="nobody saw the beam off: debit all the time that nobody watched it")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with an interrupted, paused or crashed experiment; every option of it is remembered.

    One that came through the queue goes back there, for a worker; one of `stempilot run` goes on here.
    """
    opened, seen_off = settings_of(data, settings), SeenOff.told(off_since, by)
    if is_remote(server) or _was_queued(opened, experiment):
        if seen_off is not None or debit_all:
            raise SpecError("--off-since and --debit-all are for what `stempilot run` began, not for the queue")
        tell_entry(desk_of(server, data, settings).act("resume", experiment, reason), as_json=as_json)
        return
    with writing(opened) as catalogue:
        row = catalogue.experiment(experiment)
        if row.status == "completed":
            raise Refused(f"experiment {row.id} is completed; there is nothing to resume")
        remembered = row.options.get("settings_file")
        if settings is None and remembered:
            opened = settings_of(opened.data_folder, Path(remembered))
        view = view_for(spec_of(catalogue, row), Console(stderr=as_json), as_json=as_json)
        with view:
            asks = seen_off is None and not debit_all
            session = Session(catalogue, opened, view, view.say)
            experiment_id = session.resume(row.id, seen_off=seen_off, asks_about_beam=asks)
    conclude(opened, experiment_id, view, as_json=as_json)


def _was_queued(settings: Settings, experiment: str) -> bool:
    """Whether an experiment that may be resumed came through the queue."""
    with reading(settings) as catalogue:
        row = catalogue.experiment(experiment)
        try:
            return ExperimentQueue(catalogue).entry(row.id).status != "completed"
        except NotFound:
            return False


def confirm_real(settings: Settings, spec: ExperimentSpec, *, yes: bool) -> None:
    """A real instrument asks a person first. Raises Refused on no."""
    adapter = settings.instrument(spec.instrument.name).adapter
    if adapter in ("simulated", "replay") or yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            f"instrument {spec.instrument.name!r} is real; add --yes to run it without a person at the terminal"
        )
    if not typer.confirm(f"{spec.instrument.name!r} is a real instrument. Expose the specimen?"):
        raise Refused("not confirmed; nothing was exposed")


def conclude(settings: Settings, experiment_id: str, view: View, *, as_json: bool) -> None:
    """Write the report, print the answer, leave with the documented status."""
    with reading(settings) as catalogue:
        document = experiment_document(catalogue, experiment_id)
        wanted = document["frames"] and RunOptions.of(catalogue.experiment(experiment_id)).report
        report = write_report(catalogue, settings, experiment_id) if wanted else None
    if as_json:
        print(json.dumps(document | ({"report": str(report)} if report else {})))
    else:
        for line in headline(document):
            view.say(line)
        if document["status"] == "interrupted":
            view.say(f"interrupted, beam blanked, saved; go on with: stempilot resume {experiment_id}")
        if report is not None:
            view.say(f"report: {report}")
    raise typer.Exit(EXIT_OF_STATUS.get(document["status"], 1))
