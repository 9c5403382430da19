"""Why an experiment does not run now, in words, found when it is read. Neighbour: `listing` reads the entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.queue.entries import InstrumentLease, QueueEntry

MAX_COUNTED: Final = 1000
ASKED_AGAIN_S: Final = 5.0  # how often a worker that waits is written down
_SILENT_S: Final = 3 * ASKED_AGAIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a wait depends on: the instruments, which leases have lapsed, and the time."""

    leases: Mapping[str, InstrumentLease]
    lapsed: frozenset[str]
    now: datetime


def wait_reason(entry: QueueEntry, before_count: int, around: Surroundings) -> str | None:
    """Why it waits, or None where it does not; `before_count` are queued before it on the same instrument."""
    match entry.status:
        case "held":
            return entry.reason or "held"
        case "paused" | "interrupted":
            return f"{entry.reason or entry.status}; `stempilot resume {entry.id}` puts it back in the queue"
        case "queued":
            return _queued(entry, before_count, around)
        case "running" if (lease := around.leases.get(entry.instrument)) and entry.instrument in around.lapsed:
            wish = f" ({entry.wanted} is wanted, and obeyed then)" if entry.wanted else ""
            return f"{_silence(lease, around.now)}; the next worker of {entry.instrument} goes on with it{wish}"
        case _:
            return None


def _queued(entry: QueueEntry, before_count: int, around: Surroundings) -> str:
    lease = around.leases.get(entry.instrument)
    if lease is not None and lease.locked_at is not None:
        by = f" by {lease.locked_by}" if lease.locked_by else ""
        return (
            f"instrument {lease.instrument} is locked{by} since {_clock(lease.locked_at, around.now)}: "
            f"{lease.locked_reason}; clear it first (`stempilot estop {lease.instrument} --clear`)"
        )
    if entry.not_before is not None and entry.not_before > around.now:
        return f"not before {_clock(entry.not_before, around.now)}"
    queue = _before(before_count)
    if lease is None or (lease.asked_at is None and lease.holder is None):
        return f"no worker has asked for instrument {entry.instrument} yet{queue}"
    if lease.holder is not None and entry.instrument in around.lapsed:
        silence = _silence(lease, around.now)
        return f"waits for {lease.instrument}, which ran {_short(lease)}: {silence}; that goes on first{queue}"
    if lease.holder is not None:
        since = "" if lease.claimed_at is None else f" (since {_clock(lease.claimed_at, around.now)})"
        return f"waits for {lease.instrument}, which runs {_short(lease)}{since}{queue}"
    if lease.asked_at is not None and around.now - lease.asked_at > timedelta(seconds=_SILENT_S):
        return f"no worker has asked for {lease.instrument} since {_clock(lease.asked_at, around.now)}{queue}"
    return f"a worker of {lease.instrument} is free{queue or '; it is next'}"


def _silence(lease: InstrumentLease, now: datetime) -> str:
    since = "" if lease.expires_at is None else f" since {_clock(lease.expires_at, now)}"
    return f"its worker {lease.holder} has not answered{since}"


def _before(count: int) -> str:
    if count == 0:
        return ""
    return f"; {'more than ' if count >= MAX_COUNTED else ''}{count} {'is' if count == 1 else 'are'} before it"


def _short(lease: InstrumentLease) -> str:
    return f"{(lease.experiment_id or 'nothing')[:12]}…"


def _clock(moment: datetime, now: datetime) -> str:
    same_day = moment.date() == now.astimezone(moment.tzinfo).date()
    return f"{moment:%H:%M} UTC" if same_day else f"{moment:%Y-%m-%d %H:%M} UTC"
