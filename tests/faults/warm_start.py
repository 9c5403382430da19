"""The command line in processes that need not import everything again: forked from a server that did, so that a test
can afford to kill twenty of them. The server forks before any experiment exists and has one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

from instruments import AcquireFrame, Frame
from tests.integration.harness import acknowledged

_context = multiprocessing.get_context("forkserver")
_PRELOADED = ("torch", "workflows.cli.commands", "simulation.specimens", "simulation.microscope", "alembic.command")
_context.set_forkserver_preload(list(_PRELOADED))


def _main(arguments: list[str], said: Path, held: tuple[Path, int] | None) -> None:
    from workflows.cli import main

    if held is not None:
        _hold(*held)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["stempilot", *arguments]
    main()


def _hold(data: Path, frame_count: int) -> None:
    """Once so many frames are stored nothing more is exposed: who waits to kill this process comes in time."""
    from simulation.microscope import SimulatedMicroscope

    acquire = SimulatedMicroscope.acquire

    def held_back(self: SimulatedMicroscope, command: AcquireFrame) -> Frame:
        if len(acknowledged(data)) >= frame_count:
            threading.Event().wait()
        return acquire(self, command)

    SimulatedMicroscope.acquire = held_back


def start(said: Path, *arguments: object, held: tuple[Path, int] | None = None) -> BaseProcess:
    """`stempilot ARGUMENTS`, started; what it says is appended to `said`.

    `held`: a data folder, and the number of frames in it with which the process goes no further.
    """
    child = _context.Process(target=_main, args=([str(argument) for argument in arguments], said, held))
    child.start()
    return child
