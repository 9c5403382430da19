"""The command line. `main` is the console script; sub-commands are loaded as they are asked for."""

from workflows.cli.entry import main

__all__ = ["main"]
