"""Whether a lease has lapsed, also while somebody sets the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.queue import Claim, ExperimentQueue, InstrumentLease, LeaseLost
from orchestrator.queue.lease_watch import LeaseWatch

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Time:
    """A wall clock that can be set and a stopwatch that cannot; the same for every process of the machine."""

    def __init__(self) -> None:
        self.elapsed_s = 1000.0
        self.set_by_s = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed_s - 1000.0 + self.set_by_s)


def lease(time: Time, renewal_count: int = 1, fence: int = 1, holder: str | None = "w1") -> InstrumentLease:
    return InstrumentLease(
        instrument="haadf", holder=holder, experiment_id="e", fence=fence, renewal_count=renewal_count, length_s=10.0,
        claimed_at=NOON, expires_at=time.now() + timedelta(seconds=10), asked_at=None, asked_by=None,
        locked_reason=None, locked_by=None, locked_at=None, blanked_at=None,
    )  # fmt: skip


def test_who_comes_later_believes_the_time_of_expiry() -> None:
    time = Time()
    held = lease(time)
    time.elapsed_s += 9.9
    assert not LeaseWatch().has_lapsed(held, time.now(), time.elapsed_s)
    time.elapsed_s += 0.1
    assert LeaseWatch().has_lapsed(held, time.now(), time.elapsed_s)
    assert not LeaseWatch().has_lapsed(lease(time, holder=None), time.now(), time.elapsed_s)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 86400.0])
def test_a_clock_that_was_set_ends_no_living_lease_and_keeps_no_dead_one(step_s: float) -> None:
    time, watch = Time(), LeaseWatch()
    held = lease(time)
    assert not watch.has_lapsed(held, time.now(), time.elapsed_s)
    time.set_by_s = step_s
    for renewal in range(2, 40):  # alive: renewed each 2.5 s, looked at each 0.5 s
        for _ in range(5):
            time.elapsed_s += 0.5
            assert not watch.has_lapsed(held, time.now(), time.elapsed_s), (renewal, time.elapsed_s)
        held = lease(time, renewal)
    seen_s = time.elapsed_s = time.elapsed_s + 0.5
    watch.has_lapsed(held, time.now(), time.elapsed_s)
    time.set_by_s -= step_s  # dead from here on, and the clock is set once more
    while not watch.has_lapsed(held, time.now(), time.elapsed_s):
        time.elapsed_s += 0.5
        assert time.elapsed_s - seen_s <= 10.5
    assert time.elapsed_s - seen_s >= 9.5


def test_each_renewal_is_watched_anew() -> None:
    time, watch = Time(), LeaseWatch()
    time.set_by_s = -100000.0
    for renewal in range(20):
        held = lease(time, renewal)
        for _ in range(9):
            time.elapsed_s += 1
            assert not watch.has_lapsed(held, time.now(), time.elapsed_s)
    time.elapsed_s += 2
    assert watch.has_lapsed(held, time.now(), time.elapsed_s)
    assert not watch.has_lapsed(lease(time, 0, fence=2), time.now(), time.elapsed_s)


def test_two_workers_and_a_clock_set_by_an_hour(catalogue_folder: Path) -> None:
    """Nobody takes a living worker's instrument over; a dead one's is taken over after the lease, under a new fence."""
    time = Time()
    with Catalogue.open(catalogue_folder, now=time.now, elapsed_s=lambda: time.elapsed_s) as catalogue:
        worker, other, watchdog = ExperimentQueue(catalogue), ExperimentQueue(catalogue), ExperimentQueue(catalogue)
        for name in ("first", "second"):
            worker.submit(name=name, spec={"instrument": {"name": "haadf"}}, seed=1, options={})
        claim = worker.claim("haadf", "w1")
        assert claim is not None
        for step_s in (3600.0, 0.0, -3600.0):
            assert watchdog.lapsed() == []
            assert other.claim("haadf", "w2") is None
            time.set_by_s = step_s
            for _ in range(30):
                time.elapsed_s += 0.5
                assert other.claim("haadf", "w2") is None
                assert watchdog.lapsed() == []
                claim = worker.renew(claim)
        died_s, taken = time.elapsed_s, None
        time.set_by_s = -7200.0
        while taken is None:
            time.elapsed_s += 0.5
            taken = other.claim("haadf", "w2")
            assert time.elapsed_s - died_s <= 11
        assert isinstance(taken, Claim)
        assert (taken.experiment_id, taken.fence, taken.resumes) == (claim.experiment_id, claim.fence + 1, True)
        assert time.elapsed_s - died_s >= 10
        with pytest.raises(LeaseLost):
            worker.renew(claim)


def test_who_has_only_just_begun_to_look_may_be_fooled_and_the_fence_settles_it(catalogue_folder: Path) -> None:
    time = Time()
    with Catalogue.open(catalogue_folder, now=time.now, elapsed_s=lambda: time.elapsed_s) as catalogue:
        worker = ExperimentQueue(catalogue)
        own = worker.submit(name="n", spec={"instrument": {"name": "haadf"}}, seed=1, options={}).id
        claim = worker.claim("haadf", "w1")
        assert claim is not None
        catalogue.fenced_by(claim)
        time.set_by_s = 3600.0
        taken = ExperimentQueue(catalogue).claim("haadf", "w2")  # before the next renewal, which comes too late
        assert taken is not None
        for call in (lambda: worker.renew(claim), lambda: catalogue.append(own, "noted", {})):
            with pytest.raises(LeaseLost, match="w2 has it now"):
                call()
        assert worker.lease("haadf").holder == "w2"  # type: ignore[union-attr]
