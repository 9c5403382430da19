"""The one table of what an experiment's status may become, and by which action of a person. No database here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from orchestrator.errors import Conflict

Action = Literal["hold", "release", "cancel", "pause", "resume"]

STATUSES: Final = (
    "queued", "held", "running", "paused", "completed", "failed", "cancelled", "refused", "interrupted",
)  # fmt: skip
WAITING: Final = ("queued", "held")

TRANSITIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "queued": frozenset({"held", "running", "cancelled"}),
        "held": frozenset({"queued", "cancelled"}),
        "running": frozenset({"paused", "completed", "failed", "cancelled", "interrupted", "refused"}),
        "paused": frozenset({"queued", "cancelled"}),
        "interrupted": frozenset({"queued", "cancelled"}),
        "failed": frozenset({"queued"}),
        "completed": frozenset(),
        "cancelled": frozenset(),
        "refused": frozenset(),
    }
)
"""Status -> what it may become. `queued -> running` is a claim; out of `running` leads only the worker's word."""

FINAL: Final = tuple(status for status in STATUSES if not TRANSITIONS[status])

ACTIONS: Final[Mapping[Action, Mapping[str, str]]] = MappingProxyType(
    {
        "hold": {"queued": "held"},
        "release": {"held": "queued"},
        "cancel": dict.fromkeys(("queued", "held", "running", "paused", "interrupted"), "cancelled"),
        "pause": {"running": "paused"},
        "resume": dict.fromkeys(("paused", "interrupted", "failed"), "queued"),
    }
)
"""Action -> {status it is possible in: status it leads to}. On a running one it is a wish, obeyed between frames."""


def possible_actions(status: str) -> tuple[Action, ...]:
    """What a person may do with an experiment of that status.

    >>> possible_actions("paused")
    ('cancel', 'resume')
    """
    return tuple(action for action, moves in ACTIONS.items() if status in moves)


def target(action: Action, experiment_id: str, status: str) -> str:
    """The status an action leads to. Raises Conflict naming the current one and what is possible."""
    moves = ACTIONS[action]
    if status in moves:
        return moves[status]
    raise conflict(experiment_id, status, f"{action} is possible while {_either(tuple(moves))}")


def conflict(experiment_id: str, status: str, why: str) -> Conflict:
    """The error that says in which state the experiment is, why that does not do, and what does."""
    possible = possible_actions(status)
    does = f"possible now: {', '.join(possible)}" if possible else "nothing more can be done with it"
    return Conflict(f"experiment {experiment_id} is {status}; {why}; {does}", status=status, possible=possible)


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
