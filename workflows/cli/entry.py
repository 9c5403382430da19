"""The console script: it loads the sub-command that is asked for; an emergency stop goes ahead of that.

All commands together take three seconds of processor time to load, a stop line a third of one. Neighbour: `commands`.
"""

from __future__ import annotations

import gc
import getpass
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOMS: Final = {
    "calibrate survey": "flow_commands",
    "show list report replay": "look_commands",
    "conform": "conform_commands",
    "doctor instruments bench": "machine_commands",
    "worker gateway instrument-host watchdog prefect-server": "process_commands",
    "submit queue hold release cancel pause estop": "queue_commands",
    "run resume": "run_commands",
    "safety": "safety_commands",
    "schedule scheduler": "schedule_commands",
    "serve token": "serve_commands",
    "simulate": "simulate_commands",
    "new validate schema": "spec_commands",
}
ROOM_OF: Final = {word: room for words, room in ROOMS.items() for word in words.split()}
_INTERRUPTED: Final = 130
_WITH_VALUE: Final = ("--data", "--settings", "--reason", "--server")
_OF_A_STOP: Final = {"--data", "--settings", "--reason", "--json"}  # any other: not a stop, not here, or misspelt


def main() -> None:
    """Run the command line."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word == "estop":
        stop_first(sys.argv[2:], os.environ)
    gc.disable()  # nothing that is loaded is garbage, and to look for some takes a tenth of the time
    try:
        importlib.import_module(f"workflows.cli.{ROOM_OF.get(word, 'commands')}")
        from workflows.cli.app import app
    except KeyboardInterrupt:
        print("stempilot: interrupted; nothing was begun", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    gc.freeze()
    gc.enable()
    app()


def stop_first(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Stop, by their stop lines, the instruments that `stempilot estop ARGUMENTS` means; how many answered.

    It only goes ahead of the command, which stops them once more, locks the queue and says what came of it.
    """
    options, names = _parsed(arguments)
    if environment.get("STEMPILOT_SERVER") or not options.keys() <= _OF_A_STOP:
        return 0
    from instruments.remote import endpoint_path

    folder = Path(options.get("--data") or environment.get("STEMPILOT_DATA") or "stempilot-data").expanduser() / "run"
    files = [endpoint_path(folder, name) for name in names] or sorted(folder.glob("instrument-*.json"))
    reason = options.get("--reason") or "emergency stop"
    with ThreadPoolExecutor(max(1, len(files)), "stop") as pool:
        return sum(pool.map(lambda path: _stopped(path, reason), files))


def _stopped(path: Path, reason: str) -> bool:
    from instruments import InstrumentError
    from instruments.remote import StopLine

    try:
        StopLine.of(path).emergency_stop(reason, by=getpass.getuser())
    except InstrumentError:  # the command that follows says it, with what to do
        return False
    return True


def _parsed(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and what is no option."""
    options: dict[str, str] = {}
    names: list[str] = []
    rest: Iterator[str] = iter(arguments)
    for argument in rest:
        name, sign, value = argument.partition("=")
        if not argument.startswith("-"):
            names.append(argument)
        elif name in _WITH_VALUE and not sign:
            options[name] = next(rest, "")
        else:
            options[name] = value
    return options, names
