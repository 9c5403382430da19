"""Claims: the rows of instruments and of what runs on them, changed inside the caller's transaction.

The lease's row is locked first, then the entry's, then the experiment's: always in this order, so that nobody waits
in a circle. Neighbours: `queue` opens the transactions, `lease_watch` says what has lapsed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.catalogue import experiment_rows, schema
from orchestrator.catalogue.fencing import Fence, lost
from orchestrator.queue.entries import Claim, InstrumentLease, lease_of

_ENTRY = schema.queue_entry
_LEASE = schema.instrument_lease


def read_lease(connection: Connection, instrument: str) -> InstrumentLease | None:
    """The lease of an instrument, or None where nobody ever asked for it."""
    row = connection.execute(select(_LEASE).where(_LEASE.c.instrument == instrument)).mappings().first()
    return None if row is None else lease_of(row)


def locked_lease(connection: Connection, instrument: str) -> InstrumentLease:
    """The lease of an instrument, made if need be, its row held until the transaction ends."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    query = select(_LEASE).where(_LEASE.c.instrument == instrument).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        new = insert(_LEASE).values(instrument=instrument, fence=0, renewal_count=0, length_s=0.0)
        connection.execute(new.on_conflict_do_nothing())
        row = connection.execute(query).mappings().one()
    return lease_of(row)


def change_lease(connection: Connection, instrument: str, **values: object) -> None:
    """Change columns of a lease."""
    connection.execute(update(_LEASE).where(_LEASE.c.instrument == instrument).values(**values))


def next_entry(connection: Connection, instrument: str, now: datetime, *, lock: bool) -> RowMapping | None:
    """What a free worker of an instrument takes: one whose worker died, else the first in order that may start."""
    query = select(_ENTRY).where(_ENTRY.c.instrument == instrument).order_by(_ENTRY.c.priority.desc(), _ENTRY.c.seq)
    may_start = or_(_ENTRY.c.not_before.is_(None), _ENTRY.c.not_before <= now)
    for part in ([_ENTRY.c.status == "running"], [_ENTRY.c.status == "queued", may_start]):
        one = query.where(*part).limit(1)
        row = connection.execute(one.with_for_update() if lock else one).mappings().first()
        if row is not None:
            return row
    return None


def grant(
    connection: Connection, lease: InstrumentLease, entry: RowMapping, holder: str, lease_s: float, now: datetime
) -> Claim:
    """Give the instrument and the experiment to a holder, under the next fence."""
    fence, expires_at, own = lease.fence + 1, now + timedelta(seconds=lease_s), entry["experiment_id"]
    change_lease(
        connection, lease.instrument, holder=holder, experiment_id=own, fence=fence,
        renewal_count=lease.renewal_count + 1, length_s=lease_s, claimed_at=now, expires_at=expires_at,
        asked_at=now, asked_by=holder, blanked_at=None,
    )  # fmt: skip
    resumes = entry["started_count"] > 0
    query = update(_ENTRY).where(_ENTRY.c.experiment_id == own)
    connection.execute(
        query.values(
            status="running", claimed_by=holder, fence=fence, started_count=_ENTRY.c.started_count + 1, reason=None,
            started_at=entry["started_at"] or now, version=_ENTRY.c.version + 1,
        )
    )  # fmt: skip
    told = {"from": entry["status"], "by": holder, "instrument": lease.instrument, "fence": fence, "resumes": resumes}
    experiment_rows.set_status(connection, own, "running", None, now, **told)
    return Claim(
        experiment_id=own, instrument=lease.instrument, holder=holder, fence=fence, resumes=resumes,
        expires_at=expires_at,
    )  # fmt: skip


def held_lease(connection: Connection, claim: Fence) -> InstrumentLease:
    """The lease a claim was made with, its row held. Raises LeaseLost where it is not the claim's any more."""
    lease = locked_lease(connection, claim.instrument)
    if (lease.fence, lease.experiment_id) != (claim.fence, claim.experiment_id):
        raise lost(claim, lease.fence, lease.holder)
    return lease


def let_go(connection: Connection, instrument: str) -> None:
    """Nobody has the instrument any more; its fence stays, so that no later claim gets the same."""
    change_lease(connection, instrument, holder=None, experiment_id=None, expires_at=None, claimed_at=None)
