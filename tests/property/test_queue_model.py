"""Whatever people and workers do, in whatever order: the queue does what a plain model of it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator.catalogue import Catalogue
from orchestrator.queue import (
    FINAL,
    STATUSES,
    TRANSITIONS,
    Claim,
    Conflict,
    ExperimentQueue,
    LeaseLost,
    QueueEntry,
    possible_actions,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE_S = 10.0
MOVES = {  # written out once more, so that a slip in the table is seen
    "hold": {"queued": "held"},
    "release": {"held": "queued"},
    "cancel": {"queued": "cancelled", "held": "cancelled", "paused": "cancelled", "interrupted": "cancelled"},
    "pause": {},
    "resume": {"paused": "queued", "interrupted": "queued", "failed": "queued"},
}
ONE = st.sampled_from([0, 0, 0, 1])  # mostly the same, so that something happens there
AIMS = {"hold": "held", "release": "queued", "cancel": "cancelled", "pause": "paused", "resume": "queued"}
ENDS = sorted(TRANSITIONS["running"])
ENOUGH = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@dataclass
class Time:
    """The clock of the catalogue, moved by the machine."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Modelled:
    """What the model knows of one experiment."""

    instrument: str
    priority: int
    seq: int
    status: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    wanted: str | None = None
    started: bool = False


@dataclass
class ModelledLease:
    """What the model knows of one instrument."""

    claim: Claim | None = None
    fence: int = 0
    expires: datetime = NOON
    locked: bool = False


class QueueMachine(RuleBasedStateMachine):
    """The queue beside its model. Instruments have new names in each example, so one catalogue serves all."""

    catalogue: Catalogue
    time: Time
    examples = count()

    experiments = Bundle("experiments")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.time.now = NOON
        self.queue = ExperimentQueue(self.catalogue)
        number = next(self.examples)
        self.instruments = [f"{number}-a", f"{number}-b"]
        self.model: dict[str, Modelled] = {}
        self.leases = {name: ModelledLease() for name in self.instruments}
        self.holders = count()

    @property
    def now(self) -> datetime:
        return self.time.now

    def sweep(self) -> None:
        for entry in self.model.values():
            late = entry.not_after is not None and entry.not_after <= self.now
            if late and not entry.started and entry.status in ("queued", "held"):
                entry.status = "cancelled"

    @initialize(target=experiments, priorities=st.lists(st.integers(-1, 1), min_size=2, max_size=5))
    def some_wait(self, priorities: list[int]) -> object:
        return multiple(*(self.submit(0, priority, None, None, hold=False) for priority in priorities))

    @rule(
        target=experiments,
        instrument=ONE,
        priority=st.integers(-1, 1),
        before=st.none() | st.integers(1, 30),
        window=st.none() | st.integers(1, 60),
        hold=st.booleans(),
    )
    def submit(self, instrument: int, priority: int, before: int | None, window: int | None, *, hold: bool) -> str:
        name = self.instruments[instrument]
        not_before = None if before is None else self.now + timedelta(seconds=before)
        not_after = None if window is None else (not_before or self.now) + timedelta(seconds=window)
        entry = self.queue.submit(
            name="n", spec={"instrument": {"name": name}}, seed=1, options={}, priority=priority,
            not_before=not_before, not_after=not_after, hold=hold,
        )  # fmt: skip
        assert all(entry.seq > known.seq for known in self.model.values())
        status = "held" if hold else "queued"
        self.model[entry.id] = Modelled(name, priority, entry.seq, status, not_before, not_after)
        return entry.id

    @rule(own=experiments, action=st.sampled_from(sorted(MOVES)))
    def act(self, own: str, action: str) -> None:
        self.entries()  # a listing cancels what is overdue, so that the model need not guess when
        known = self.model[own]
        do = getattr(self.queue, action)
        if known.status == "running":
            self.wish(known, action, own)
        elif known.status in MOVES[action]:
            known.status, known.wanted = MOVES[action][known.status], None
            assert do(own).status == known.status
        elif known.status == AIMS[action]:
            assert do(own).status == known.status
        else:
            with pytest.raises(Conflict) as refused:
                do(own)
            assert refused.value.status == known.status
            assert refused.value.possible == possible_actions(known.status)

    def wish(self, known: Modelled, action: str, own: str) -> None:
        wishes = {"pause": "pause", "cancel": "cancel", "resume": None}
        too_late = known.wanted == "cancel" and action != "cancel"
        if action not in wishes or too_late:
            with pytest.raises(Conflict):
                getattr(self.queue, action)(own)
            return
        known.wanted = wishes[action]
        entry = getattr(self.queue, action)(own)
        assert (entry.status, entry.wanted) == ("running", known.wanted)

    @rule(own=experiments, priority=st.integers(-2, 2))
    def change(self, own: str, priority: int) -> None:
        self.entries()
        known = self.model[own]
        if known.status in ("queued", "held"):
            known.priority = priority
            assert self.queue.change(own, priority=priority).priority == priority
            return
        with pytest.raises(Conflict):
            self.queue.change(own, priority=priority)

    @rule(target=claims, instrument=ONE)
    def claim(self, instrument: int) -> object:
        name = self.instruments[instrument]
        holder = f"w{next(self.holders)}"
        self.sweep()
        expected = self.expected(name)
        claim = self.queue.claim(name, holder, LEASE_S)
        if expected is None:
            assert claim is None
            return multiple()
        assert claim is not None
        known, lease = self.model[expected], self.leases[name]
        assert claim.experiment_id == expected
        assert claim.fence > lease.fence
        assert claim.resumes == known.started
        known.status, known.started = "running", True
        self.leases[name] = ModelledLease(claim, claim.fence, self.now + timedelta(seconds=LEASE_S), lease.locked)
        return claim

    @precondition(lambda self: any(lease.claim and not lease.locked for lease in self.leases.values()))
    @rule(target=claims, moment=st.sampled_from([0.5, 9.5, 10.0, 10.5]))
    def fall_silent(self, moment: float) -> object:
        """A worker is not heard of; another one asks, and when it gets the experiment, the first wakes up."""
        name = next(name for name, lease in self.leases.items() if lease.claim and not lease.locked)
        silent = self.leases[name].claim
        assert silent is not None
        self.time.now += timedelta(seconds=moment)
        taken = self.claim(self.instruments.index(name))
        self.renew(silent)
        self.look_for_a_wish(silent)
        return taken

    def expected(self, name: str) -> str | None:
        """What the model says a claim gets."""
        lease = self.leases[name]
        if lease.locked or (lease.claim is not None and self.now < lease.expires):
            return None
        own = {key: known for key, known in self.model.items() if known.instrument == name}
        died = [key for key, known in own.items() if known.status == "running"]
        if died:
            return died[0]
        ready = [
            (-known.priority, known.seq, key)
            for key, known in own.items()
            if known.status == "queued" and (known.not_before is None or known.not_before <= self.now)
        ]
        return min(ready)[2] if ready else None

    def is_held(self, claim: Claim) -> bool:
        return self.leases[claim.instrument].claim == claim

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        if not self.is_held(claim):
            with pytest.raises(LeaseLost):
                self.queue.renew(claim, LEASE_S)
            return
        self.queue.renew(claim, LEASE_S)
        self.leases[claim.instrument].expires = self.now + timedelta(seconds=LEASE_S)

    @rule(claim=claims)
    def look_for_a_wish(self, claim: Claim) -> None:
        if self.is_held(claim):
            assert self.queue.wanted(claim) == self.model[claim.experiment_id].wanted
        else:
            with pytest.raises(LeaseLost):
                self.queue.wanted(claim)

    @rule(claim=consumes(claims), status=st.sampled_from(ENDS))
    def finish(self, claim: Claim, status: str) -> None:
        if not self.is_held(claim):
            with pytest.raises(LeaseLost):
                self.queue.finish(claim, status, "so it ended")
            return
        known = self.model[claim.experiment_id]
        known.status, known.wanted = status, None
        self.leases[claim.instrument].claim = None
        assert self.queue.finish(claim, status, "so it ended").status == status

    @rule(claim=claims)
    def write(self, claim: Claim) -> None:
        """A journal write passes exactly for who holds the lease."""
        self.catalogue.fenced_by(claim)
        try:
            if self.is_held(claim):
                self.catalogue.append(claim.experiment_id, "noted", {})
            else:
                with pytest.raises(LeaseLost):
                    self.catalogue.append(claim.experiment_id, "noted", {})
        finally:
            self.catalogue._fences.clear()

    @precondition(lambda self: any(lease.locked for lease in self.leases.values()) or self.time.now.second % 3 == 0)
    @rule(instrument=ONE)
    def lock_or_unlock(self, instrument: int) -> None:
        name = next((name for name, lease in self.leases.items() if lease.locked), self.instruments[instrument])
        lease = self.leases[name]
        lease.locked = not lease.locked
        if lease.locked:
            assert self.queue.lock_instrument(name, "anna", "smoke").is_locked
        else:
            assert not self.queue.unlock_instrument(name, "anna").is_locked

    @rule(seconds=st.sampled_from([1, 5, 9, 11, 40]))
    def wait(self, seconds: int) -> None:
        self.time.now += timedelta(seconds=seconds)

    @precondition(lambda self: len(self.model) > 2)
    @rule(limit=st.integers(1, 4))
    def page(self, limit: int) -> None:
        whole = [entry.id for entry in self.entries()]
        for name in self.instruments:
            seen: list[QueueEntry] = []
            while page := self.queue.entries(instrument=name, limit=limit, after=seen[-1].cursor if seen else None):
                seen += page
            assert [entry.id for entry in seen] == [own for own in whole if self.model[own].instrument == name]

    def entries(self) -> list[QueueEntry]:
        self.sweep()
        found = [entry for name in self.instruments for entry in self.queue.entries(instrument=name, limit=1000)]
        return sorted(found, key=lambda entry: (-entry.priority, entry.seq))

    @invariant()
    def the_queue_is_as_the_model_says(self) -> None:
        found = self.entries()
        order = sorted(self.model, key=lambda own: (-self.model[own].priority, self.model[own].seq))
        assert [entry.id for entry in found] == order
        running: dict[str, int] = dict.fromkeys(self.instruments, 0)
        for entry in found:
            known = self.model[entry.id]
            assert (entry.status, entry.wanted) == (known.status, known.wanted)
            waits = known.status in ("queued", "held", "paused", "interrupted")
            orphaned = known.status == "running" and self.now >= self.leases[known.instrument].expires
            assert (entry.wait_reason is not None) == (waits or orphaned)
            running[entry.instrument] += entry.status == "running"
            assert entry.status in STATUSES
        assert all(number <= 1 for number in running.values())

    def teardown(self) -> None:
        """The journal tells the same."""
        for own, known in self.model.items():
            assert self.catalogue.experiment(own).status == known.status
            if known.status in FINAL:
                last = [event.payload["status"] for event in self.catalogue.events(own, kinds=["status_changed"])][-1]
                assert last == known.status


@pytest.fixture
def opened(tmp_path: Path, database_url: str | None) -> Iterator[tuple[Catalogue, Time]]:
    time = Time()
    with Catalogue.open(tmp_path, url=database_url, now=time) as catalogue:
        yield catalogue, time


def test_the_queue_does_what_its_model_does(opened: tuple[Catalogue, Time]) -> None:
    machine = type("Machine", (QueueMachine,), {"catalogue": opened[0], "time": opened[1]})
    enough = ENOUGH if opened[0].database.dialect == "sqlite" else settings(ENOUGH, max_examples=4)
    run_state_machine_as_test(machine, settings=enough)
