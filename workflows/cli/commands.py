"""Every sub-command; each registers itself with `app` on import. Neighbour: `entry`, which loads only one room."""

from workflows.cli import (
    conform_commands,
    flow_commands,
    look_commands,
    machine_commands,
    process_commands,
    queue_commands,
    run_commands,
    safety_commands,
    schedule_commands,
    serve_commands,
    simulate_commands,
    spec_commands,
)
from workflows.cli.app import app

__all__ = [
    "app",
    "conform_commands",
    "flow_commands",
    "look_commands",
    "machine_commands",
    "process_commands",
    "queue_commands",
    "run_commands",
    "safety_commands",
    "schedule_commands",
    "serve_commands",
    "simulate_commands",
    "spec_commands",
]
