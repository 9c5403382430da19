"""The command line. `main` is the console script; sub-commands register themselves on import."""

from workflows.cli import (
    flow_commands,
    look_commands,
    machine_commands,
    process_commands,
    queue_commands,
    run_commands,
    schedule_commands,
    serve_commands,
    spec_commands,
)
from workflows.cli.app import app

__all__ = [
    "app",
    "flow_commands",
    "look_commands",
    "machine_commands",
    "main",
    "process_commands",
    "queue_commands",
    "run_commands",
    "schedule_commands",
    "serve_commands",
    "spec_commands",
]


def main() -> None:
    """Run the command line."""
    app()
