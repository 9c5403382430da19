"""`stempilot new`, `validate` and `schema`: specs before anything runs."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import json_schema
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, JsonOption, SettingsOption, overrides_of, settings_of
from workflows.validation import faults_of


@app.command()
@explained
def new(
    name: Annotated[Path, typer.Argument(help="file to write")] = Path("experiment.yaml"),
) -> None:
    """Write a commented spec, and the structure file it names, to start from."""
    target = name if name.suffix in (".yaml", ".yml") else name.with_name(name.name + ".yaml")
    structure = target.parent / "WSe2.extxyz"
    for path in (target, structure):
        if path.exists() and path == target:
            raise SpecError(f"{path} exists; choose another name, nothing was written")
    templates = files("workflows") / "templates"
    try:
        structure.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((templates / "experiment.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        if not structure.exists():
            structure.write_text((templates / "WSe2.extxyz").read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{target} cannot be written: {error}") from error
    print(f"wrote {target} and {structure}\nnext: stempilot validate {target}; stempilot run {target}")


@app.command()
@explained
def validate(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml")],
    data: DataOption = None,
    settings: SettingsOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Report every error of a spec at once, each with its path, value, allowed range and unit. Nothing runs."""
    overrides = overrides_of(set_ or [])
    faults = faults_of(spec_file, overrides, settings_of(data, settings))
    if as_json:
        print(json.dumps({"valid": not faults, "errors": faults}))
    elif not faults:
        spec = ExperimentSpec.from_yaml(spec_file, overrides)
        print(
            f"{spec_file}: valid ({spec.objective.name}, policy {spec.policy.name}, instrument {spec.instrument.name})"
        )
    else:
        print(f"{spec_file}: {len(faults)} error(s)\n  " + "\n  ".join(faults))
    raise typer.Exit(2 if faults else 0)


@app.command()
@explained
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    print(json.dumps(json_schema(), indent=2, sort_keys=True))
