"""`stempilot serve` and `stempilot token`: the installation as a service, and who may use it from afar."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated

import typer

from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, JsonOption, SettingsOption, settings_in_use, settings_of
from workflows.cli.process_commands import leave_at_once, log_to_stderr, say


@app.command()
@explained
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on (else [serve] host, 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free (else [serve] port, 8765)")] = None,
    instrument: Annotated[
        list[str] | None, typer.Option("--instrument", help="serve only this one; may be repeated")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="start no workers; they run elsewhere")] = False,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="show runs at no Prefect server")] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="only API and page; systemd or a container engine starts the rest")
    ] = False,
    no_tokens: Annotated[bool, typer.Option("--no-tokens", help="ask nobody for a token; this machine only")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="end what a killed serve left running, then leave")] = False,
    data: DataOption = None,
    settings: SettingsOption = None,
) -> None:
    """REST API, page, and for each configured instrument its process and a worker, until Ctrl-C."""
    from workflows.serve import ServeOptions, run_serve, stop_everything

    opened = settings_in_use(data, settings)
    if stop:
        stop_everything(opened, say)
        return
    opened = _chosen(opened, instrument, no_prefect=no_prefect, no_tokens=no_tokens)
    options = ServeOptions(
        host=host or opened.serve.host,
        port=opened.serve.port if port is None else port,
        with_workers=not no_worker,
        is_alone=alone,
        settings_file=settings.resolve() if settings is not None else None,
    )
    log_to_stderr(quiet=True)
    run_serve(opened, options, say)
    leave_at_once()


def _chosen(settings: Settings, instrument: list[str] | None, *, no_prefect: bool, no_tokens: bool) -> Settings:
    """The settings with what the command line says differently."""
    changed = {
        **({"instruments": instrument} if instrument else {}),
        **({"prefect": False} if no_prefect else {}),
        **({"tokens": False} if no_tokens else {}),
    }
    return settings.model_copy(update={"serve": settings.serve.model_copy(update=changed)})


@app.command()
@explained
def token(
    name: Annotated[str, typer.Argument(help="whose it is: the record says this name")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, experiments:write, queue:operate, instruments:control, admin"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="until it ends")] = 90,
    data: DataOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token for the API of this data folder and print it, once; whoever may write the folder may."""
    from orchestrator.api import Tokens

    opened = settings_of(data, settings)
    with Catalogue.open(opened.data_folder, url=opened.database_url, visitor=True) as catalogue:
        made = Tokens.open(catalogue).create(name, tuple(scope or ("read",)), catalogue.now() + timedelta(days=days))
    if as_json:
        document = {"id": made.id, "name": made.name, "scopes": made.scopes, "secret": made.secret}
        print(json.dumps({**document, "expires_at": made.expires_at.isoformat()}))
    else:
        print(made.secret)
