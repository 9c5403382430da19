"""The life of one action: accepted, running, then done, failed, cancelled or unknown.

Neighbours: `microscope.Outcome` is the instrument's own memory of it, `events` tells of every change.
"""

from __future__ import annotations

from typing import Final, Literal

from instruments.errors import (
    CommandRefused,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    ResultUnknown,
    Unsupported,
)
from instruments.microscope import Outcome

ActionState = Literal["accepted", "running", "done", "failed", "cancelled", "unknown"]
NOTHING_MOVED: Final = (CommandRefused, InstrumentBusy, Unsupported)


def state_after(error: InstrumentError) -> ActionState:
    """The state of an action that ended with this error. One that was refused did nothing: cancelled.

    >>> state_after(CommandRefused("outside")), state_after(ResultUnknown("no answer"))
    ('cancelled', 'unknown')
    """
    match error:
        case CommandRefused() | InstrumentBusy() | Unsupported():
            return "cancelled"
        case ResultUnknown() | InstrumentFault():
            return "unknown"
        case _:
            return "failed"


def reconciled(outcome: Outcome) -> ActionState:
    """What an unknown action turns out to be once the instrument answers again.

    >>> reconciled("delivered"), reconciled("not_started"), reconciled("unknown")
    ('done', 'cancelled', 'unknown')
    """
    states: dict[Outcome, ActionState] = {"delivered": "done", "not_started": "cancelled", "unknown": "unknown"}
    return states[outcome]
