"""`stempilot worker`, `gateway`, and what `serve` starts beside a worker."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator.errors import SpecError
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, SettingsOption, settings_in_use, settings_of

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@app.command()
@explained
def worker(
    instrument: Annotated[str, typer.Option("--instrument", help="a configured instrument; it runs what waits for it")],
    data: DataOption = None,
    settings: SettingsOption = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="show runs at no Prefect server")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="end when nothing is left to run")] = False,
) -> None:
    """Run experiments from the queue on one instrument, one after another, until Ctrl-C (the frame is finished)."""
    from workflows.worker import run_worker

    log_to_stderr()
    opened = settings_in_use(data, settings)
    if no_prefect:
        opened = opened.model_copy(update={"serve": opened.serve.model_copy(update={"prefect": False})})
    run_worker(opened, instrument, say, until_idle=drain)
    leave_at_once()


@app.command(name="instrument-host", hidden=True)
@explained
def instrument_host(
    name: Annotated[str, typer.Argument(help="a configured instrument")],
    data: DataOption = None,
    settings: SettingsOption = None,
) -> None:
    """Be the process of one instrument, until SIGTERM; it owns the adapter, workers come and go."""
    from workflows.instrument_host import run_instrument_host

    log_to_stderr()
    run_instrument_host(settings_in_use(data, settings), name)


@app.command()
@explained
def gateway(
    instrument: Annotated[str, typer.Option("--instrument", help="a configured instrument")],
    host: Annotated[str, typer.Option(help="address of this machine to listen at; 0.0.0.0: all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the command line; 0: any free one")] = 0,
    stop_port: Annotated[int, typer.Option(min=0, max=65535, help="of the stop line; 0: any free one")] = 0,
    address: Annotated[str | None, typer.Option(help="what the ticket calls this machine; else --host")] = None,
    ticket: Annotated[Path | None, typer.Option(help="file for the ticket (else in the data folder's run/)")] = None,
    specimen: Annotated[str, typer.Option(help="what is in the microscope; its dose is counted on")] = "specimen",
    certificate: Annotated[Path | None, typer.Option(help="PEM of this machine; else one is made")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="its key, PEM")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="no encryption, though other machines can listen in")] = False,
    data: DataOption = None,
    settings: SettingsOption = None,
) -> None:
    """Serve one instrument, within its limits, to whoever holds the ticket, from another machine; until SIGTERM."""
    from instruments.remote import Listening
    from workflows.gateway import Gateway, run_gateway

    log_to_stderr()
    if (certificate is None) != (certificate_key is None) or (plain and certificate is not None):
        raise SpecError("give --certificate and --certificate-key together, and --plain without them")
    listening = Listening(
        host=host, port=port, stop_port=stop_port, certificate=certificate, certificate_key=certificate_key
    )
    wanted = Gateway(
        listening=listening,
        address=address or listening.own_address,
        specimen=specimen,
        ticket=ticket,
        is_plain=plain,
    )
    run_gateway(settings_in_use(data, settings), instrument, wanted)


@app.command(hidden=True)
@explained
def watchdog(data: DataOption = None, settings: SettingsOption = None) -> None:
    """Blank an instrument whose worker was not heard of for the length of its lease, until SIGTERM."""
    from workflows.watchdog import run_watchdog

    log_to_stderr()
    run_watchdog(settings_of(data, settings))


@app.command(name="prefect-server", hidden=True)
@explained
def prefect_server(data: DataOption = None, settings: SettingsOption = None) -> None:
    """Be the Prefect server of a served installation, on loopback, until SIGTERM."""
    from workflows.prefect_server import run_prefect_server

    run_prefect_server(settings_of(data, settings))


def say(text: str) -> None:
    """A line on stdout, at once."""
    print(text, flush=True)


def log_to_stderr(*, quiet: bool = False) -> None:
    """What libraries log goes to stderr, which for a child of `serve` is its log file; `quiet`: errors alone."""
    logging.basicConfig(level=logging.ERROR if quiet else logging.INFO, format=_FORMAT, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def leave_at_once() -> NoReturn:
    """Threads of Prefect that wait for a server which is gone must not keep a process that has done its work."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
