"""The console script: an emergency stop goes out before the rest is loaded; then the command line does its work.

Loading every command takes seconds on a busy machine; the stop line needs a third of a second. Neighbour: `cli`.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_WITH_VALUE: Final = ("--data", "--settings", "--reason", "--server")
_ELSEWHERE: Final = ("--clear", "--help", "--server")  # nothing is to be stopped, or not on this machine


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["estop"]:
        stop_first(sys.argv[2:], os.environ)
    from workflows.cli import main as command_line

    command_line()


def stop_first(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Stop, by their stop lines, the instruments that `stempilot estop ARGUMENTS` means; how many answered.

    It only goes ahead of the command, which stops them once more, locks the queue and says what came of it.
    """
    options, names = _parsed(arguments)
    if environment.get("STEMPILOT_SERVER") or any(name in options for name in _ELSEWHERE):
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
