"""`stempilot submit`, `queue`, `hold`, `release`, `cancel`, `pause` and `estop`: the queue, here or at a server."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from orchestrator.client import SERVER_VARIABLE, Action
from orchestrator.spec import ExperimentSpec
from workflows.cli.app import app
from workflows.cli.fail import DONE, INSTRUMENT, explained
from workflows.cli.options import DataOption, IdArgument, JsonOption, SettingsOption, overrides_of, settings_of
from workflows.desk import SHOWN, Desk, When, open_desk
from workflows.run_options import RunOptions
from workflows.submission import moment_of

ServerOption = Annotated[
    str | None, typer.Option("--server", help="URL of a `stempilot serve` elsewhere (else STEMPILOT_SERVER, else here)")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="for the record")]
ALL: Final = (*SHOWN, "interrupted", "failed", "completed", "cancelled", "refused")
_REFRESH_S = 1.0


def is_remote(server: str | None) -> bool:
    """Whether the command goes to a server."""
    return bool(server or os.environ.get(SERVER_VARIABLE))


def desk_of(server: str | None, data: Path | None, settings: Path | None = None) -> Desk:
    """Where the command acts."""
    return open_desk(settings_of(data, settings), server, os.environ)


@app.command()
@explained
def submit(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="the experiment; files it names go along")],
    priority: Annotated[int, typer.Option(help="greater runs earlier")] = 0,
    not_before: Annotated[str | None, typer.Option(metavar="TIME", help="22:00, or 2026-11-21T22:00")] = None,
    not_after: Annotated[str | None, typer.Option(metavar="TIME", help="cancelled if it still waits then")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="not before somebody releases it")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of policy and, where it is simulated, world")] = 0,
    instrument: Annotated[str | None, typer.Option(help="another configured instrument than the spec's")] = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="do not run the baselines afterwards")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="write no report; `stempilot report` does it whenever it is wanted")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a value of the spec")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an experiment into the queue; a worker of its instrument runs it in its turn."""
    overrides = overrides_of(set_ or [])
    if instrument is not None:
        overrides["instrument.name"] = instrument
    spec = ExperimentSpec.from_yaml(spec_file, overrides)
    now = datetime.now(UTC).astimezone()
    when = When(
        priority=priority,
        not_before=moment_of(not_before, now) if not_before else None,
        not_after=moment_of(not_after, now) if not_after else None,
        hold=hold,
    )
    entry = desk_of(server, data, settings).submit(
        spec, RunOptions(seed=seed, baselines=not no_baselines, report=not no_report), when
    )
    tell_entry(entry, as_json=as_json, follow=True)


@app.command()
@explained
def queue(
    watch: Annotated[bool, typer.Option("--watch", help="keep the table up to date until Ctrl-C")] = False,
    everything: Annotated[bool, typer.Option("--all", help="what has ended too")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What runs and what waits, in the order of execution, and why it waits."""
    desk, statuses = desk_of(server, data), ALL if everything else SHOWN
    entries = desk.entries(statuses, limit)
    if as_json:
        print(json.dumps({"entries": entries}))
    elif not watch:
        Console().print(_table(entries))
    else:
        _watch(desk, statuses, limit)


def _watch(desk: Desk, statuses: tuple[str, ...], limit: int) -> None:
    try:
        with Live(_table(desk.entries(statuses, limit)), auto_refresh=False) as live:
            while True:
                time.sleep(_REFRESH_S)
                live.update(_table(desk.entries(statuses, limit)), refresh=True)
    except KeyboardInterrupt:
        return


def _table(entries: list[dict[str, Any]]) -> Table:
    table = Table(Column("id", no_wrap=True), "status", "priority", "instrument", "name", Column("why", ratio=1))
    for entry in entries:
        status = f"{entry['status']}, {entry['wanted']} asked for" if entry["wanted"] else entry["status"]
        why = entry["wait_reason"] or entry["reason"] or _since(entry)
        table.add_row(entry["id"][:12], status, str(entry["priority"]), entry["instrument"], entry["name"], why)
    if not entries:
        table.caption = (
            "nothing waits and nothing runs; `stempilot submit SPEC.yaml` adds something, --all shows what was"
        )
    return table


def _action(action: Action, what: str) -> None:
    """The command of that name: one thing a person may do with one experiment of the queue."""

    def act(
        experiment: IdArgument,
        reason: ReasonOption = None,
        server: ServerOption = None,
        data: DataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        tell_entry(desk_of(server, data).act(action, experiment, reason), as_json=as_json)

    app.command(action, help=what)(explained(act))


_action("hold", "Keep a queued experiment from starting until it is released.")
_action("release", "Let a held experiment start in its turn.")
_action("cancel", "End an experiment for good; a running one finishes its frame first.")
_action("pause", "Let a running experiment stop after its frame and free the instrument; `resume` goes on with it.")


def _since(entry: dict[str, Any]) -> str:
    """Since when it runs, in local time."""
    if entry["status"] != "running" or entry["started_at"] is None:
        return ""
    return f"since {datetime.fromisoformat(entry['started_at']).astimezone():%H:%M}"


def tell_entry(entry: dict[str, Any], *, as_json: bool, follow: bool = False) -> None:
    """What became of an experiment, and why it waits."""
    if as_json:
        print(json.dumps(entry))
        return
    why = entry["wait_reason"] or entry["reason"]
    wish = f" ({entry['wanted']} asked for, obeyed between frames)" if entry["wanted"] else ""
    print(f"{entry['id']}  {entry['status']}{wish}{f': {why}' if why else ''}")
    if follow:
        print(f"follow it with: stempilot queue --watch; stempilot show {entry['id'][:12]}")


@app.command()
@explained
def estop(
    instrument: Annotated[str | None, typer.Argument(help="a configured instrument; all of them without")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="take the lock off, after a look at the instrument")] = False,
    reason: Annotated[str, typer.Option("--reason", help="for the record")] = "emergency stop",
    server: ServerOption = None,
    data: DataOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Blank the beam now and lock the instrument until `estop --clear`; needs neither worker nor API."""
    desk = desk_of(server, data, settings)
    stops = desk.clear(instrument) if clear else desk.stop(instrument, reason)
    if as_json:
        print(json.dumps({"instruments": stops}))
    else:
        for stop in stops:
            print(_stop_line(stop))
    is_done = all(stop["is_reached"] and (_is_free(stop) if clear else stop["beam_blanked"]) for stop in stops)
    raise typer.Exit(DONE if is_done else INSTRUMENT)


def _stop_line(stop: dict[str, Any]) -> str:
    beam = {True: "beam blanked", False: "BEAM ON", None: "beam not confirmed"}[stop["beam_blanked"]]
    lock = {
        (True, True): "locked",
        (True, False): "locked, though the queue is not",
        (False, True): "not locked, though the queue is: nothing starts",
        (False, False): "not locked",
    }[stop["is_locked"], stop["is_queue_locked"]]
    return f"{stop['instrument']}: {beam}, {lock}; {stop['message']}"


def _is_free(stop: dict[str, Any]) -> bool:
    """Whether neither the instrument nor the queue is locked any more."""
    return not stop["is_locked"] and not stop["is_queue_locked"]
