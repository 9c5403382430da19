"""The page about serving names only commands, options and settings that there are."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.settings import Settings
from workflows.cli.commands import app

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (`[a-z].*?) \| (.*) \|$", flags=re.MULTILINE)


@cache
def commands_of_the_app() -> Any:
    """All of them; to build them takes a second."""
    return typer.main.get_command(app)


def options_of(command: str) -> set[str]:
    """Every option of a sub-command."""
    group = commands_of_the_app()
    found = group.get_command(typer.Context(group), command)
    assert found is not None, command
    return {option for parameter in found.params for option in parameter.opts}


def test_every_command_and_option_of_the_table_exists() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) >= 9
    for commands, does in rows:
        names = re.findall(r"`([a-z-]+)", commands)
        known = set[str]().union(*map(options_of, names))
        told = set(re.findall(r"--[a-z-]+", commands + does))
        assert told <= known | options_of("serve"), (names, told - known)
    for name in ("hold", "release", "cancel", "pause", "resume", "estop"):
        assert {"--data", "--json", "--reason", "--server"} <= options_of(name)
    for name in ("submit", "queue"):
        assert {"--data", "--json", "--server"} <= options_of(name)


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL))
def test_the_settings_of_the_page_are_settings(text: str, tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text(text, encoding="utf-8")
    settings = Settings.load(tmp_path, environment={})
    assert settings.serve.model_dump(exclude_unset=True) == tomllib.loads(text)["serve"]
