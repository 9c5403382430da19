"""What the stop line of an instrument's process answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from instruments.models import Record


class Lock(Record):
    """An emergency stop that a person has not cleared yet."""

    reason: str
    by: str
    at: datetime


class InstrumentStatus(Record):
    """An instrument's process now, as it knows without asking the instrument; times are UTC."""

    name: str
    pid: int
    at: datetime
    started_at: datetime
    session_id: str | None = Field(default=None, description="what is loaded, an experiment; None: nothing")
    adapter: str | None = None
    instrument: str | None = Field(default=None, description="the name in its capabilities")
    fence: int = Field(default=0, description="the newest owner's")
    has_owner: bool = Field(default=False, description="somebody's command line is connected")
    doing: str | None = Field(default=None, description="the call that runs: load, acquire, ...; None: idle")
    doing_since: datetime | None = None
    exposing: str | None = Field(default=None, description="action id of the exposure that runs")
    beam_blanked: bool | None = Field(default=None, description="None: not known; then assume that the beam is on")
    not_blanked: str | None = Field(
        default=None, description="why the last stop was not confirmed; None: it was, or there was none"
    )
    stopped: str | None = Field(default=None, description="why it was blanked by the stop line; None: it was not")
    lock: Lock | None = None


class StopReport(Record):
    """What a stop achieved. `beam_blanked` is None where the instrument did not confirm it."""

    name: str
    beam_blanked: bool | None
    was_exposing: str | None = Field(default=None, description="action id of the exposure that ran")
    is_locked: bool = False
    is_ignored: bool = Field(default=False, description="a newer owner than the one to be stopped has it")
    took_s: float = Field(ge=0)
    message: str
