"""Moments, durations and amounts as a person at the instrument reads them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

STATUS_WORDS: Final = {
    "queued": "waits for its turn",
    "held": "held: it will not start until it is released",
    "running": "running",
    "paused": "paused: it can go on where it stopped",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "refused": "refused: it could not start",
    "interrupted": "interrupted: it can go on where it stopped",
}
OUTCOME_WORDS: Final = {
    "intended": "exposing now",
    "stored": "frame stored, being measured",
    "done": "done",
    "refused": "refused, nothing was exposed",
    "failed": "failed, the dose is spent",
    "unknown": "no answer, the dose counts as spent",
}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def clock_time(moment: datetime, now: datetime) -> str:
    """The time of day where this computer stands, with seconds; with the date unless it is today's."""
    local, today = moment.astimezone(), now.astimezone().date()
    return local.strftime("%H:%M:%S") if local.date() == today else local.strftime("%-d %b %Y, %H:%M")


def duration(duration_s: float) -> str:
    """Seconds in the two largest units that matter.

    >>> duration(21.68), duration(600), duration(3725), duration(0)
    ('21.7 s', '10 min', '1 h 2 min', '0 s')
    """
    if duration_s < _MINUTE_S:
        return f"{duration_s:.3g} s"
    if duration_s < _HOUR_S:
        minutes, rest = divmod(round(duration_s), _MINUTE_S)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(duration_s / _MINUTE_S), _MINUTE_S)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def percent(fraction: float) -> str:
    """A share of a budget; what is spent never shows as nothing.

    >>> percent(0.0), percent(0.0004), percent(0.291), percent(1.0)
    ('0 %', '<1 %', '29 %', '100 %')
    """
    if 0 < fraction < 0.005:
        return "<1 %"
    return f"{100 * fraction:.0f} %"


def file_size(size_bytes: int) -> str:
    """Bytes in kB or MB.

    >>> file_size(279_652), file_size(2_500_000)
    ('280 kB', '2.5 MB')
    """
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def counted(number: int, thing: str) -> str:
    """A number and its noun.

    >>> counted(1, "frame"), counted(18, "frame")
    ('1 frame', '18 frames')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
