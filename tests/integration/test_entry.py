"""What the console script loads, and what it leaves alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

import pytest
import typer

from workflows.cli.commands import app
from workflows.cli.entry import ROOM_OF, main


def test_every_command_is_loaded_from_the_room_that_has_it() -> None:
    group = typer.main.get_command(app)
    found = {}
    rooms_of_groups = {one.name: one.typer_instance.registered_commands[0].callback for one in app.registered_groups}
    for name in group.list_commands(typer.Context(group)):  # type: ignore[attr-defined]
        callbacks = [command.callback for command in app.registered_commands if _name(command) == name]
        found[name] = (callbacks or [rooms_of_groups[name]])[0].__module__.rpartition(".")[2]
    assert found == ROOM_OF


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or command.callback.__name__.replace("_", "-")


def test_the_command_answers(tmp_path: Path) -> None:
    command = Path(get_path("scripts")) / "stempilot"
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_ctrl_c_while_a_command_is_loaded_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt(name)

    monkeypatch.setattr(importlib, "import_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["stempilot", "simulate", "SrTiO3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stempilot: interrupted; nothing was begun\n"


@pytest.mark.parametrize("word", ["watchdog", "instrument-host", "prefect-server"])
def test_processes_load_no_learning_library(word: str) -> None:
    code = (
        f"import sys; sys.argv = ['stempilot', '{word}', '--help']\n"
        "from workflows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'botorch', 'prefect', 'fastapi', 'simulation') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"Usage: stempilot {word}" in done.stdout
