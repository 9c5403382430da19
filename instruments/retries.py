"""What may be sent again: when its answer was lost, or when the instrument was busy. The one place that knows.

Setting an absolute value twice does what setting it once does. Everything that exposes, that changes the vacuum, or
that the instrument does of its own is never repeated: it becomes unknown, its dose counts as spent, and it is
reconciled with what the instrument remembers. With a busy instrument nothing moved: anything may be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from instruments.axes import permission_for
from instruments.commands import Blank, Command, Park, SetAxes
from instruments.errors import CommandRefused, InstrumentBusy
from instruments.state import MicroscopeState

T = TypeVar("T")
_ASK_AGAIN_S: Final = 0.5


def _always() -> bool:
    return True


def when_free(
    ask: Callable[[], T],
    patience_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
    is_wanted: Callable[[], bool] = _always,
) -> T:
    """The answer, asked for again every half second while the instrument is busy, with which nothing moved.

    Raises InstrumentBusy once its patience is over, or it is not wanted any more.
    """
    until_s = clock() + patience_s
    while True:
        try:
            return ask()
        except InstrumentBusy:
            if not is_wanted() or clock() >= until_s:
                raise
            wait(_ASK_AGAIN_S)


def is_idempotent(command: Command) -> bool:
    """Whether `command` may be sent again after a reconnection, its result read back.

    >>> is_idempotent(SetAxes(action_id="a", values={"x_nm": 5.0}))
    True
    >>> is_idempotent(SetAxes(action_id="a", values={"column_valves": "open"}))
    False
    """
    match command:
        case Blank():
            return True
        case Park():
            return command.duration_s == 0
        case SetAxes():
            return all(permission_for(name) is None for name in command.values)
        case _:
            return False


def moved_by(state: MicroscopeState, steps: dict[str, float], *, action_id: str, deadline_s: float = 60.0) -> SetAxes:
    """The absolute command of a relative move from where the axes were read back.

    Raises CommandRefused for an axis whose place is not known, or that has no numbers.
    """
    values: dict[str, float | str] = {}
    for name, step in steps.items():
        now = state.axis_value(name)
        if not isinstance(now, float | int):
            raise CommandRefused(
                f"{name} cannot be moved by {step:g}: it was read back as {now!r}, and only a known number can be made "
                "absolute; set a value instead"
            )
        values[name] = now + step
    return SetAxes(action_id=action_id, deadline_s=deadline_s, values=values)
