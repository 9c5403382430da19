"""The one command `stempilot`; every sub-command lives in a module of its own beside this one."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="stempilot",
    help="Adaptive autonomous experiments for scanning transmission electron microscopy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Keeps the name of a sub-command where only one was loaded."""
