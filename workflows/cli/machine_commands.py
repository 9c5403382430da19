"""`stempilot doctor`, `instruments` and `bench`: what this installation can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from instruments import CalibrationRegistry
from instruments.evidence import evidence_of
from instruments.registry import known_adapters
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, JsonOption, SettingsOption, settings_of
from workflows.doctor import examine


@app.command()
@explained
def doctor(data: DataOption = None, settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Devices, extras, data folder, versions: what works here, and what to do about what does not."""
    findings = examine(settings_of(data, settings))
    if as_json:
        print(json.dumps({"findings": [finding.to_dict() for finding in findings]}))
    else:
        table = Table("", "what", "found")
        for finding in findings:
            table.add_row(finding.level, finding.what, finding.found)
        Console().print(table)
    raise typer.Exit(1 if any(finding.level == "fault" for finding in findings) else 0)


@app.command(name="instruments")
@explained
def instruments_(data: DataOption = None, settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Configured instruments with their envelope, and the adapters found."""
    opened = settings_of(data, settings)
    configured = {
        name: {
            "adapter": entry.adapter,
            "config": entry.config,
            "safety": entry.safety.model_dump(exclude_none=True),
            "calibrations": [one.model_dump(mode="json") for one in entry.calibrations],
        }
        for name, entry in opened.instruments.items()
    }
    now = datetime.now(UTC)
    warnings = [
        f"{name}: {warning}"
        for name, entry in opened.instruments.items()
        for warning in CalibrationRegistry(entry.calibrations).check(now, "warn")
    ]
    if as_json:
        shown = {name: asdict(evidence_of(name)) for name in known_adapters()}
        print(
            json.dumps(
                {"instruments": configured, "adapters": known_adapters(), "evidence": shown, "warnings": warnings}
            )
        )
        return
    table = Table("instrument", "adapter", "envelope", title="configured")
    for name, entry in configured.items():
        table.add_row(name, str(entry["adapter"]), json.dumps(entry["safety"]))
    found = Table("adapter", "opens with", "tried against", title="adapters found")
    for name, target in sorted(known_adapters().items()):
        found.add_row(name, target, str(evidence_of(name)))
    Console().print(table, found)
    for warning in warnings:
        print(warning)


@app.command()
@explained
def bench(
    name: Annotated[str, typer.Argument(help="first_world, loop_overhead")] = "first_world",
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds")] = 20,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    data: DataOption = None,
) -> None:
    """Run a benchmark and print its table; JSON with --out."""
    from workflows.benchmarks import run_benchmark

    progress = out.with_suffix(".part") if out is not None else None
    result = run_benchmark(name, seeds, settings_of(data, None), lambda line: print(line, flush=True), progress)
    if out is not None and progress is not None:
        out.write_text(json.dumps(result, indent=1), encoding="utf-8")
        progress.unlink(missing_ok=True)
        print(f"wrote {out}")
