"""`stempilot show`, `list`, `report`, `replay`: looking at what is in the catalogue."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, IdArgument, JsonOption, SettingsOption, reading, settings_of
from workflows.documents import experiment_document, headline, listing
from workflows.replaying import replay_decisions
from workflows.reporting import write_report


@app.command()
@explained
def show(experiment: IdArgument = "latest", data: DataOption = None, as_json: JsonOption = False) -> None:
    """One experiment: status, score, budgets, decisions with their reasons, frames."""
    with reading(settings_of(data, None)) as catalogue:
        document = experiment_document(catalogue, catalogue.experiment(experiment).id)
    if as_json:
        print(json.dumps(document))
        return
    console = Console()
    for line in headline(document):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table("seq", "status", "purpose", "x_nm", "y_nm", "score", "why", title="decisions")
    for decision in document["decisions"]:
        point = decision["point"]
        table.add_row(
            str(decision["seq"]), decision["status"], str(point.get("purpose", "")), f"{point.get('x_nm', 0):.1f}",
            f"{point.get('y_nm', 0):.1f}", "" if decision["score"] is None else f"{decision['score']:.4g}",
            str(decision["reason"].get("why", "")),
        )  # fmt: skip
    console.print(table)


@app.command(name="list")
@explained
def list_(
    data: DataOption = None,
    children: Annotated[bool, typer.Option("--children", help="baselines too")] = False,
    as_json: JsonOption = False,
) -> None:
    """Every experiment in the data folder, newest first."""
    with reading(settings_of(data, None)) as catalogue:
        rows = listing(catalogue, include_children=children)
    if as_json:
        print(json.dumps({"experiments": rows}))
        return
    table = Table("id", "status", "name", "created")
    for row in rows:
        status = f"{row['status']} no more" if row["note"] else row["status"]
        table.add_row(row["id"], status, row["name"], row["created_at"])
    console = Console()
    console.print(table)
    for row in rows:
        if row["note"]:
            console.print(f"{row['id']}: {row['note']}", highlight=False, markup=False, soft_wrap=True)


@app.command()
@explained
def report(experiment: IdArgument = "latest", data: DataOption = None, settings: SettingsOption = None) -> None:
    """Write the report again and print where it is."""
    opened = settings_of(data, settings)
    with reading(opened) as catalogue:
        print(write_report(catalogue, opened, catalogue.experiment(experiment).id))


@app.command()
@explained
def replay(
    experiment: IdArgument = "latest",
    data: DataOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive every decision again from the catalogue alone and compare; status 1 when one differs."""
    opened = settings_of(data, settings)
    with reading(opened) as catalogue:
        outcome = replay_decisions(catalogue, opened, catalogue.experiment(experiment).id)
    if as_json:
        print(json.dumps(outcome))
    else:
        print(f"{outcome['decisions']} decisions derived again, {len(outcome['differences'])} differ")
        for difference in outcome["differences"]:
            print(f"  decision {difference['seq']}: recorded {difference['recorded']}, derived {difference['derived']}")
    raise typer.Exit(1 if outcome["differences"] else 0)
