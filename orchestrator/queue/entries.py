"""What the queue answers with: entries, leases, claims. Their neighbour `waiting` finds the words of a wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import RowMapping

Wish = Literal["pause", "cancel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One experiment in the queue, as it stands now.

    `wanted` is what a person wants of a running one; `reason` is why it is held, cancelled, failed and so on, in words;
    `wait_reason` is why it does not run now, computed when it was read, None where it does not wait. `version` grows
    with every change. `started_at` is the first start.
    """

    id: str
    name: str
    status: str
    instrument: str
    priority: int
    seq: int
    not_before: datetime | None
    not_after: datetime | None
    wanted: Wish | None
    wanted_by: str | None
    reason: str | None
    wait_reason: str | None
    claimed_by: str | None
    fence: int | None
    started_count: int
    started_at: datetime | None
    version: int
    submitted_by: str | None
    created_at: datetime
    parent_id: str | None

    @property
    def cursor(self) -> str:
        """Where a page that ends with this entry goes on: give it as `after`."""
        return f"{self.priority}.{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to command one instrument for one experiment, until `expires_at` unless renewed.

    `resumes` says that the experiment was started before. Whoever claims the instrument next gets a greater `fence`.
    """

    experiment_id: str
    instrument: str
    holder: str
    fence: int
    resumes: bool
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentLease:
    """Who has an instrument (nobody where `holder` is None), whether a person locked it, when a worker last asked."""

    instrument: str
    holder: str | None
    experiment_id: str | None
    fence: int
    renewal_count: int
    length_s: float
    claimed_at: datetime | None
    expires_at: datetime | None
    asked_at: datetime | None
    asked_by: str | None
    locked_reason: str | None
    locked_by: str | None
    locked_at: datetime | None
    blanked_at: datetime | None

    @property
    def is_locked(self) -> bool:
        """Whether a person must clear it before anything is claimed."""
        return self.locked_at is not None


def lease_of(row: RowMapping) -> InstrumentLease:
    """A row of `instrument_lease`."""
    return InstrumentLease(**{name: row[name] for name in InstrumentLease.__dataclass_fields__})


def entry_of(row: RowMapping) -> QueueEntry:
    """A row of `queue_entry` joined with its experiment; the reason of its wait is not known yet."""
    values = {name: row[name] for name in QueueEntry.__dataclass_fields__ if name not in ("id", "wait_reason")}
    return QueueEntry(id=row["experiment_id"], wait_reason=None, **values)
