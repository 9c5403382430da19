"""Errors to exit statuses: one clear message on stderr, no traceback, the documented status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

from instruments import CommandRefused, ConfigurationError, InstrumentError
from orchestrator.errors import OrchestratorError
from policies import PolicyError

P = ParamSpec("P")
R = TypeVar("R")

DONE, ENDED, INVALID, REFUSED, INSTRUMENT, NOT_FOUND, STORAGE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
EXIT_OF_STATUS = {"completed": DONE, "interrupted": INTERRUPTED, "refused": REFUSED}


def exit_status_of(error: Exception) -> int:
    """The documented exit status of an error."""
    if isinstance(error, OrchestratorError):
        return error.exit_status
    if isinstance(error, ConfigurationError | PolicyError):
        return INVALID
    if isinstance(error, CommandRefused):
        return REFUSED
    return INSTRUMENT


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose known errors end in a message and a status."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (OrchestratorError, PolicyError, InstrumentError) as error:
            print(f"stempilot: {error}", file=sys.stderr)
            raise typer.Exit(exit_status_of(error)) from None
        except KeyboardInterrupt:
            print("stempilot: interrupted before the first frame; nothing was exposed", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return wrapper
