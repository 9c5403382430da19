"""The command line in processes that need not import everything again: forked from a server that did, so that a test
can afford to kill twenty of them. The server forks before any experiment exists and has one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_PRELOADED = ("torch", "workflows.cli.commands", "simulation.specimens", "simulation.microscope", "alembic.command")
_context.set_forkserver_preload(list(_PRELOADED))


def _main(arguments: list[str], said: Path) -> None:
    from workflows.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["stempilot", *arguments]
    main()


def start(said: Path, *arguments: object) -> BaseProcess:
    """`stempilot ARGUMENTS`, started; what it says is appended to `said`."""
    child = _context.Process(target=_main, args=([str(argument) for argument in arguments], said))
    child.start()
    return child
