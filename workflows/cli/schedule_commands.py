"""`stempilot schedule add|list|remove` and `scheduler`: experiments that submit themselves when they are due."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.catalogue import Catalogue
from orchestrator.errors import NotFound
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, JsonOption, SettingsOption, overrides_of, settings_of
from workflows.cli.process_commands import leave_at_once, log_to_stderr, say
from workflows.flows.schedule import LATE_S, Order, ScheduleBook, schedule_of
from workflows.prefect_server import quiet_environment
from workflows.run_options import RunOptions
from workflows.submission import with_uploads
from workflows.validation import check_spec
from workflows.worker import prefect_url

schedule = typer.Typer(no_args_is_help=True, help="Experiments that go into the queue when they are due.")
app.add_typer(schedule, name="schedule")


def _book(settings: Settings) -> ScheduleBook:
    url = prefect_url(settings)
    if url is None:
        raise NotFound(
            "no Prefect server is known here, and it keeps the schedules; `stempilot serve` starts one, "
            "STEMPILOT_PREFECT_URL names another"
        )
    os.environ.update(quiet_environment(settings.data_folder / "prefect"))  # before Prefect is imported
    return ScheduleBook(url, settings.data_folder)


@schedule.command()
@explained
def add(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="the experiment; taken as it is now")],
    cron: Annotated[str | None, typer.Option(help="five fields: '0 22 * * *' is every day at 22:00")] = None,
    every_s: Annotated[float | None, typer.Option("--every", min=1.0, help="seconds from one to the next")] = None,
    timezone: Annotated[str | None, typer.Option(help="of the cron line, as Europe/Berlin (else UTC)")] = None,
    name: Annotated[str | None, typer.Option(help="of the schedule (else the file's)")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    priority: Annotated[int, typer.Option(help="in the queue")] = 0,
    late_s: Annotated[
        float,
        typer.Option(
            "--late", min=1.0, help="seconds; what is later than this, because nothing ran, is not made up for"
        ),
    ] = LATE_S,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="do not run the baselines afterwards")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    data: DataOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit this experiment again and again: daily, hourly, whenever the cron line says."""
    opened = settings_of(data, settings)
    book = _book(opened)
    when = schedule_of(cron, every_s, timezone)
    spec = ExperimentSpec.from_yaml(spec_file, overrides_of(set_ or []))
    check_spec(spec, opened)
    told = str(settings.resolve()) if settings else None
    with Catalogue.open(opened.data_folder, url=opened.database_url, visitor=True) as catalogue:
        document = with_uploads(spec, catalogue.uploads.keep)
    options = RunOptions(seed=seed, baselines=not no_baselines, settings_file=told).to_dict()
    order = Order(
        spec=document, seed=seed, options=options, priority=priority, late_s=late_s, submitted_by=getpass.getuser()
    )
    made = book.add(name or spec_file.stem, order, when)
    if as_json:
        print(json.dumps(made.to_dict()))
    else:
        print(f"schedule {made.name}: {made.experiment}, {made.when}")


@schedule.command(name="list")
@explained
def list_(data: DataOption = None, settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Every schedule with its next times."""
    found = _book(settings_of(data, settings)).list()
    if as_json:
        print(json.dumps({"schedules": [one.to_dict() for one in found]}))
        return
    table = Table("name", "experiment", "instrument", "when", "next")
    for one in found:
        coming = one.upcoming[0] if one.upcoming else "-"
        table.add_row(one.name, one.experiment, one.instrument, one.when, coming)
    Console().print(table)


@schedule.command()
@explained
def remove(
    name: Annotated[str, typer.Argument(help="as `schedule list` shows it")],
    data: DataOption = None,
    settings: SettingsOption = None,
) -> None:
    """Take a schedule away; what it has submitted stays in the queue."""
    _book(settings_of(data, settings)).remove(name)
    print(f"schedule {name} is gone")


@app.command()
@explained
def scheduler(data: DataOption = None, settings: SettingsOption = None) -> None:
    """Submit what schedules make due, until Ctrl-C; `serve` starts one beside Prefect's server."""
    from workflows.flows.scheduler import run_scheduler

    log_to_stderr()
    run_scheduler(settings_of(data, settings), say)
    leave_at_once()
