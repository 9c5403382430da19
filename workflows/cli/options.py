"""Options that several sub-commands share, and what they open."""

from __future__ import annotations

import os
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from orchestrator.catalogue import Catalogue
from orchestrator.errors import NotFound, SpecError
from orchestrator.settings import Settings
from orchestrator.signature import public_key_path

DataOption = Annotated[
    Path | None, typer.Option("--data", help="data folder (else STEMPILOT_DATA, else ./stempilot-data)")
]
SettingsOption = Annotated[
    Path | None, typer.Option("--settings", help="stempilot.toml (else the one in the data folder)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
_EXAMPLES = {"--set": "budget.electrons=1e8", "--optics": "beam_energy_ev=200e3", "--coherence": "source_size_nm=0.08"}
IdArgument = Annotated[str, typer.Argument(help="experiment id, the start of one, or `latest`")]


def overrides_of(pairs: list[str], option: str = "--set") -> dict[str, Any]:
    """`KEY=VALUE` pairs with YAML values. Raises SpecError, naming the option, for one without `=`."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SpecError(f"{option} {pair}: write KEY=VALUE, such as {_EXAMPLES.get(option, 'KEY=1')}")
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SpecError(f"{option} {pair}: the value is not YAML: {' '.join(str(error).split())}") from error
        if isinstance(result[key], str):
            result[key] = _number(result[key])
    return result


def _number(text: str) -> float | str:
    """YAML reads 1e8 as text; a person means the number."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if isfinite(number) else text


def settings_of(data: Path | None, settings: Path | None) -> Settings:
    """Settings with the data folder chosen."""
    return Settings.load(data=data, settings=settings)


def settings_in_use(data: Path | None, settings: Path | None) -> Settings:
    """Settings of a program that will command an instrument; its data folder notes them, the first time too.

    Where the facility signs, an older file is refused from then on.
    """
    opened = settings_of(data, settings)
    if public_key_path(os.environ) is None or opened.data_folder.is_dir():
        return opened
    with suppress(OSError):  # whoever opens it says why
        opened.data_folder.mkdir(parents=True)
    return settings_of(data, settings)


def reading(settings: Settings) -> Catalogue:
    """The catalogue for looking only. Raises NotFound where there is none."""
    if not settings.data_folder.is_dir():
        raise NotFound(
            f"{settings.data_folder}: there is no data folder here yet; `stempilot run` makes one, --data names another"
        )
    return Catalogue.open(settings.data_folder, url=settings.database_url, read_only=True)


def writing(settings: Settings) -> Catalogue:
    """The catalogue for writing; one writer at a time."""
    return Catalogue.open(settings.data_folder, url=settings.database_url)
