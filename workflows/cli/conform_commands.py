"""`stempilot conform NAME`: the conformance kit on one instrument, its report as a table and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from instruments.conformance import CHECKS, Bench, Check, check_named, run
from instruments.conformance.kit import shots_of
from orchestrator.errors import Refused, SpecError
from workflows.cli.app import app
from workflows.cli.fail import DONE, ENDED, INTERRUPTED, explained
from workflows.cli.options import DataOption, SettingsOption, settings_of
from workflows.conformance import planned
from workflows.interrupting import terminable


@app.command()
@explained
def conform(
    name: Annotated[str, typer.Argument(help="a configured instrument, or an adapter")],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML or TOML with `config` of the adapter, `conditions` of the kit")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report there; - is stdout")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="this check alone; may be repeated")
    ] = None,
    at_the_microscope: Annotated[
        str | None,
        typer.Option(metavar="YOUR-NAME", help="who stands there and lets a real one be moved and exposed; else asked"),
    ] = None,
    data: DataOption = None,
    settings: SettingsOption = None,
) -> None:
    """Try on an instrument what every instrument must do; say what it does, and what is to be done about the rest.

    Example: stempilot conform simulated --json report.json
    """
    plan = planned(settings_of(data, settings), name, config)
    checks = [check_named(wanted) for wanted in only] if only else list(CHECKS)
    try:
        with terminable(), plan.bench() as bench:
            by = ""
            if not bench.capabilities.simulated and not plan.is_harmless:
                plan.refuse_unfit()
                by = _consent(name, bench, checks, at_the_microscope)
            report = run(bench, checks).model_copy(update={"consented_by": by})
    except KeyboardInterrupt:
        print("stempilot: interrupted; the instrument was told to blank", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if json_file is not None:
        _write(json_file, report.model_dump_json(indent=1))
    if str(json_file) != "-":
        print(report.table())
    raise typer.Exit(ENDED if report.has_failed else DONE)


def _consent(name: str, bench: Bench, checks: Sequence[Check], given: str | None) -> str:
    """Say what is going to be done to a real instrument, and what dose it costs; who lets it. Raises Refused on no."""
    electrons, dose_e_per_a2 = bench.worst(shots_of(checks))
    for check in checks:
        if check.shots or check.may_expose:
            print(f"  {check.name}: {check.does}", file=sys.stderr)
    cost = f"{electrons:.3g} electrons, {dose_e_per_a2:.3g} e/A2 on the worst spot"
    if given is not None and given.strip():
        return given.strip()
    if given is not None or not sys.stdin.isatty():
        raise Refused(
            f"instrument {name!r} is real, is going to move, and this costs its specimen {cost}; go to the microscope, "
            "and add --at-the-microscope with your name"
        )
    print(f"{name!r} is real, is going to move, and this costs its specimen {cost}.", file=sys.stderr)
    named: str = typer.prompt("Your name, if you are at the microscope and let it (empty: no)", default="", err=True)
    if not named.strip():
        raise Refused("nobody let it; nothing was moved or exposed")
    return named.strip()


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        print(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error}") from error
