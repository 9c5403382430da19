"""The queue as everybody uses it; every change is one short transaction that is on disk when the call returns.

Rooms behind it: `transitions` (what may become what), `submission`, `actions` (of people), `leasing` (of workers),
`listing` and `waiting` (reading).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Unpack

from sqlalchemy import Connection, select

from orchestrator import events
from orchestrator.catalogue import Catalogue, event_log, experiment_rows, schema
from orchestrator.errors import LeaseLost
from orchestrator.queue import actions, leasing, listing, submission
from orchestrator.queue.entries import Claim, InstrumentLease, QueueEntry, Wish
from orchestrator.queue.lease_watch import LeaseWatch
from orchestrator.queue.submission import Changes
from orchestrator.queue.transitions import STATUSES, TRANSITIONS, WAITING, Action, conflict
from orchestrator.queue.waiting import ASKED_AGAIN_S, Surroundings

LEASE_S = 10.0
Also = Callable[[Connection, QueueEntry], None]  # written in the same transaction as what it is told of


class ExperimentQueue:
    """The queue of one catalogue; an id may be whole, its unique beginning or `latest`, as for `Catalogue.experiment`.

    Changes that name `if_version` raise PreconditionFailed where the entry was changed since. What `also` writes joins
    the change's transaction: both are there or neither is.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._database = catalogue.database
        self._watch = LeaseWatch()

    # --- people: submit, look, change

    def submit(
        self,
        *,
        name: str,
        spec: Mapping[str, Any],
        seed: int,
        options: Mapping[str, Any],
        priority: int = 0,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        hold: bool = False,
        submitted_by: str | None = None,
        parent_id: str | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """A new experiment at the end of its priority class, durably there when this returns. Raises SpecError.

        It may start from `not_before` on; one not started by `not_after` is cancelled. `hold` keeps it from starting
        until it is released. The greatest priority goes first.
        """
        experiment = experiment_rows.new_row(
            name=name, status="held" if hold else "queued", spec=spec, seed=seed, options=options,
            engine=str(options.get("engine", "prefect")), parent_id=parent_id, now=self._catalogue.now(),
        )  # fmt: skip
        if hold:
            experiment["reason"] = actions.told("held at submission", submitted_by, None)
        with self._database.writing() as connection:
            submission.add(
                connection, experiment, priority=priority, not_before=not_before, not_after=not_after,
                submitted_by=submitted_by,
            )  # fmt: skip
            return self._settled(connection, experiment["id"], also)

    def entry(self, experiment_id: str) -> QueueEntry:
        """One entry as it stands, with why it waits. Raises NotFound, also for an experiment run without the queue."""
        with self._database.reading() as connection:
            own = experiment_rows.find(connection, experiment_id, self._catalogue.data_folder).id
            return self._told(connection, own)

    def entries(
        self,
        *,
        statuses: Sequence[str] | None = None,
        instrument: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[QueueEntry]:
        """A page in the order of execution (priority falling, then submission); `after` is an entry's `cursor`.

        The order is the same for every status, so running ones stand where they stood. Raises ValueError for a
        cursor that is none.
        """
        if not self._database.read_only:
            self._cancel_overdue()
        with self._database.reading() as connection:
            found = listing.page(connection, statuses or STATUSES, instrument, limit, after)
            return listing.with_reasons(connection, found, self._surroundings(connection))

    def groups(self, *wanted: tuple[Sequence[str], int]) -> list[list[QueueEntry]]:
        """For each (statuses, limit) its entries, all seen at one moment, so that none is missing on its way."""
        if not self._database.read_only:
            self._cancel_overdue()
        with self._database.reading() as connection:
            around = self._surroundings(connection)
            found = [listing.page(connection, statuses, None, limit, None) for statuses, limit in wanted]
            return [listing.with_reasons(connection, entries, around) for entries in found]

    def hold(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """Keep a queued one from starting. Raises Conflict, PreconditionFailed, NotFound."""
        return self._act("hold", experiment_id, by, reason, if_version, also)

    def release(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """Let a held one start in its turn. Raises Conflict, PreconditionFailed, NotFound."""
        return self._act("release", experiment_id, by, reason, if_version, also)

    def cancel(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """End it for good; a running one finishes its frame first. Raises Conflict, PreconditionFailed, NotFound."""
        return self._act("cancel", experiment_id, by, reason, if_version, also)

    def pause(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """Let a running one stop after its frame and free the instrument. Raises Conflict, PreconditionFailed."""
        return self._act("pause", experiment_id, by, reason, if_version, also)

    def resume(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
    ) -> QueueEntry:
        """Put a paused, interrupted or failed one back in its old place, or unwish a pause. Raises Conflict."""
        return self._act("resume", experiment_id, by, reason, if_version, also)

    def change(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        if_version: int | None = None,
        also: Also | None = None,
        **changes: Unpack[Changes],
    ) -> QueueEntry:
        """Other `priority`, `not_before`, `not_after` or `labels` while it waits. Raises Conflict, SpecError."""
        with self._database.writing() as connection:
            entry = actions.locked_entry(connection, experiment_id, if_version)
            if entry["status"] not in WAITING:
                raise conflict(entry["experiment_id"], entry["status"], "it can be changed while queued or held")
            submission.change(connection, entry, changes, by, self._catalogue.now())
            return self._settled(connection, entry["experiment_id"], also)

    def remove(
        self,
        experiment_id: str,
        *,
        by: str | None = None,
        if_version: int | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Take it out of every list, as long as nothing was exposed for it; its journal stays. Raises Conflict."""
        with self._database.writing() as connection:
            entry = actions.locked_entry(connection, experiment_id, if_version)
            actions.remove(connection, entry, by, self._catalogue.now())
            if also is not None:
                also(connection)

    # --- workers: claim, renew, obey, finish

    def claim(self, instrument: str, holder: str, lease_s: float = LEASE_S) -> Claim | None:
        """The next experiment of an instrument for this holder, or None: nothing to do, locked, or in other hands.

        First comes one whose worker died, then by priority, then by submission. `holder` names one process for ever.
        """
        now = self._catalogue.now()
        with self._database.reading() as connection:
            late = actions.overdue(connection, now)
            if not late and not self._is_worth_a_try(connection, instrument, now):
                return None
        if late:
            self._cancel_overdue()
        with self._database.writing() as connection:
            lease = leasing.locked_lease(connection, instrument)
            now = self._catalogue.now()  # whoever had the lock may have had it for a while
            if lease.is_locked or self._is_held(lease, now):
                leasing.change_lease(connection, instrument, asked_at=now, asked_by=holder)
                return None
            entry = leasing.next_entry(connection, instrument, now, lock=True)
            if entry is None:
                leasing.let_go(connection, instrument)
                leasing.change_lease(connection, instrument, asked_at=now, asked_by=holder)
                return None
            return leasing.grant(connection, lease, entry, holder, lease_s, now)

    def renew(self, claim: Claim, lease_s: float = LEASE_S) -> Claim:
        """The claim with a later end. Raises LeaseLost when somebody else has the instrument or the experiment."""
        expires_at = self._catalogue.now() + timedelta(seconds=lease_s)
        with self._database.writing() as connection:
            lease = leasing.held_lease(connection, claim)
            leasing.change_lease(
                connection, claim.instrument, expires_at=expires_at, length_s=lease_s,
                renewal_count=lease.renewal_count + 1,
            )  # fmt: skip
        return replace(claim, expires_at=expires_at)

    def wanted(self, claim: Claim) -> Wish | None:
        """What a person wants of the running experiment. Raises LeaseLost. One cheap read."""
        table = schema.queue_entry
        query = select(table.c.wanted, table.c.fence, table.c.claimed_by)
        with self._database.reading() as connection:
            row = connection.execute(query.where(table.c.experiment_id == claim.experiment_id)).mappings().first()
        if row is None or (row["fence"], row["claimed_by"]) != (claim.fence, claim.holder):
            raise LeaseLost(
                f"experiment {claim.experiment_id} is no longer in the hands of {claim.holder}; end at once"
            )
        return row["wanted"]

    def finish(self, claim: Claim, status: str, reason: str, *, frees_instrument: bool = True) -> QueueEntry:
        """Write down how it ended and free the instrument. Raises LeaseLost; ValueError for a status that is no end.

        An instrument that is not freed stays the holder's until its lease lapses, which the watchdog acts on.
        """
        if status not in TRANSITIONS["running"]:
            raise ValueError(f"status {status!r} is none of {', '.join(sorted(TRANSITIONS['running']))}")
        now = self._catalogue.now()
        with self._database.writing() as connection:
            leasing.held_lease(connection, claim)
            entry = actions.locked_entry(connection, claim.experiment_id)
            actions.settle(connection, entry, status, reason, now)
            if frees_instrument:
                leasing.let_go(connection, claim.instrument)
        return self.entry(claim.experiment_id)

    # --- instruments

    def lock_instrument(self, name: str, by: str | None, reason: str) -> InstrumentLease:
        """Nothing is claimed on it until `unlock_instrument`; what runs there reads of it in its journal."""
        values = {"locked_reason": reason, "locked_by": by, "locked_at": self._catalogue.now()}
        return self._change_lease(name, events.INSTRUMENT_LOCKED, {"by": by, "reason": reason}, values)

    def unlock_instrument(self, name: str, by: str | None) -> InstrumentLease:
        """Let experiments start on it again; harmless where it is not locked."""
        values = {"locked_reason": None, "locked_by": None, "locked_at": None}
        return self._change_lease(name, events.INSTRUMENT_UNLOCKED, {"by": by}, values)

    def lease(self, name: str) -> InstrumentLease | None:
        """Who has an instrument, or None where no worker ever asked for it."""
        with self._database.reading() as connection:
            return leasing.read_lease(connection, name)

    def leases(self) -> list[InstrumentLease]:
        """All instruments that were ever asked for or locked, by name."""
        with self._database.reading() as connection:
            found = listing.leases(connection)
        return [found[name] for name in sorted(found)]

    def lapsed(
        self, now: datetime | None = None, *, among: Sequence[InstrumentLease] | None = None
    ) -> list[InstrumentLease]:
        """Leases that were not renewed in time, of all or of those that were read before (`among`: nothing is read).

        Ask again and again: see `LeaseWatch` for what a moved clock does.
        """
        now, elapsed_s = now or self._catalogue.now(), self._catalogue.elapsed_s()
        found = self.leases() if among is None else among
        return [lease for lease in found if self._watch.has_lapsed(lease, now, elapsed_s)]

    def note_blanked(self, lease: InstrumentLease, reason: str) -> bool:
        """Write down that the beam was blanked because this lease lapsed; False where it is in other hands by now."""
        now = self._catalogue.now()
        with self._database.writing() as connection:
            found = leasing.locked_lease(connection, lease.instrument)
            if found.fence != lease.fence or found.experiment_id is None:
                return False
            leasing.change_lease(connection, lease.instrument, blanked_at=now)
            payload = {"instrument": lease.instrument, "fence": lease.fence, "holder": lease.holder, "reason": reason}
            event_log.add(connection, found.experiment_id, events.BEAM_BLANKED, payload, now)
        return True

    # --- inside

    def _act(
        self,
        action: Action,
        experiment_id: str,
        by: str | None,
        reason: str | None,
        if_version: int | None,
        also: Also | None,
    ) -> QueueEntry:
        with self._database.writing() as connection:
            entry = actions.locked_entry(connection, experiment_id, if_version)
            actions.act(connection, action, entry, by, reason, self._catalogue.now())
            return self._settled(connection, entry["experiment_id"], also)

    def _settled(self, connection: Connection, experiment_id: str, also: Also | None) -> QueueEntry:
        """The entry as this transaction leaves it, shown to what joins the transaction."""
        entry = self._told(connection, experiment_id)
        if also is not None:
            also(connection, entry)
        return entry

    def _cancel_overdue(self) -> None:
        now = self._catalogue.now()
        with self._database.reading() as connection:
            if not actions.overdue(connection, now):
                return
        with self._database.writing() as connection:
            actions.cancel_overdue(connection, now)

    def _is_worth_a_try(self, connection: Connection, instrument: str, now: datetime) -> bool:
        """Whether claiming would change anything; a worker that waits is written down every few seconds."""
        lease = leasing.read_lease(connection, instrument)
        if lease is None or lease.asked_at is None or abs((now - lease.asked_at).total_seconds()) >= ASKED_AGAIN_S:
            return True
        if lease.is_locked or self._is_held(lease, now):
            return False
        return lease.holder is not None or leasing.next_entry(connection, instrument, now, lock=False) is not None

    def _is_held(self, lease: InstrumentLease, now: datetime) -> bool:
        lapsed = self._watch.has_lapsed(lease, now, self._catalogue.elapsed_s())
        return lease.holder is not None and not lapsed

    def _told(self, connection: Connection, experiment_id: str) -> QueueEntry:
        """An entry with why it waits. Raises NotFound."""
        found = listing.one(connection, experiment_id)
        if found is None:
            raise actions.not_queued(experiment_id)
        return listing.with_reasons(connection, [found], self._surroundings(connection))[0]

    def _surroundings(self, connection: Connection) -> Surroundings:
        now, elapsed_s = self._catalogue.now(), self._catalogue.elapsed_s()
        found = listing.leases(connection)
        lapsed = frozenset(name for name, lease in found.items() if self._watch.has_lapsed(lease, now, elapsed_s))
        return Surroundings(leases=found, lapsed=lapsed, now=now)

    def _change_lease(
        self, name: str, kind: str, payload: Mapping[str, Any], values: Mapping[str, Any]
    ) -> InstrumentLease:
        with self._database.writing() as connection:
            before = leasing.locked_lease(connection, name)
            if before.is_locked == (values["locked_at"] is not None):
                return before
            leasing.change_lease(connection, name, **values)
            if before.experiment_id is not None:
                event_log.add(
                    connection, before.experiment_id, kind, {"instrument": name, **payload}, self._catalogue.now()
                )
            return leasing.locked_lease(connection, name)
