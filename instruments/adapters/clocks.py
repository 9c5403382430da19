"""How far another computer's clock is from this one's: from a question and its answer; no clock is ever set.

A frame's state keeps the offsets by device, so that times that devices wrote can be compared with ours afterwards.
Neighbour: `state.ClockOffset`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from instruments.state import ClockOffset, ColumnState, MicroscopeState

CLOCKS: Final = "column.clocks"
"""Where a state says why it knows of no clock: a key of `undetermined`."""
NOT_TOLD: Final = "nothing that this instrument's protocol carries tells the time there"
_HTTP_RESOLUTION_S: Final = 1.0


def offset_of(told_s: float, asked_s: float, answered_s: float, resolution_s: float = 0.0) -> ClockOffset:
    """The offset of a clock that read `told_s` at some time between two readings of ours; seconds since 1970.

    What is finer than `resolution_s` was cut off.

    >>> offset = offset_of(1005.0, 1000.0, 1000.5, resolution_s=1.0)
    >>> offset.offset_s, offset.uncertainty_s
    (5.25, 0.75)
    """
    middle_s = (asked_s + answered_s) / 2
    return ClockOffset(
        offset_s=told_s + resolution_s / 2 - middle_s,
        uncertainty_s=abs(answered_s - asked_s) / 2 + resolution_s / 2,
        measured_at=datetime.fromtimestamp(middle_s, UTC),
    )


def offset_by_date(date: str | None, asked_s: float, answered_s: float) -> ClockOffset | None:
    """The offset by the Date of an HTTP reply, which is in whole seconds; None where it has none."""
    if date is None:
        return None
    try:
        told_s = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    return offset_of(told_s, asked_s, answered_s, _HTTP_RESOLUTION_S)


def seen_through(clocks: Mapping[str, ClockOffset], nearer: ClockOffset) -> dict[str, ClockOffset]:
    """Offsets against our clock of those that were measured against a computer's whose own offset is `nearer`."""
    return {
        device: one.model_copy(
            update={
                "offset_s": one.offset_s + nearer.offset_s,
                "uncertainty_s": one.uncertainty_s + nearer.uncertainty_s,
            }
        )
        for device, one in clocks.items()
    }


def with_clocks(state: MicroscopeState, clocks: Mapping[str, ClockOffset], why_none: str = NOT_TOLD) -> MicroscopeState:
    """The state with these clocks beside those it has; where there are none at all, with the reason."""
    column = state.column or ColumnState()
    known = {**column.clocks, **clocks}
    if known:
        return state.model_copy(update={"column": column.model_copy(update={"clocks": known})})
    return state.model_copy(update={"undetermined": {CLOCKS: why_none, **state.undetermined}})
