"""The queue: order, wishes of people, claims, words for every wait; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.errors import NotFound, SpecError
from orchestrator.queue import (
    ACTIONS,
    FINAL,
    STATUSES,
    TRANSITIONS,
    Claim,
    Conflict,
    ExperimentQueue,
    LeaseLost,
    PreconditionFailed,
    QueueEntry,
    possible_actions,
)
from orchestrator.queue.listing import page

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(catalogue_folder: Path, database_url: str | None, clock: Clock) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder, url=database_url, now=clock) as opened:
        yield opened


@pytest.fixture
def queue(catalogue: Catalogue) -> ExperimentQueue:
    return ExperimentQueue(catalogue)


def submit(queue: ExperimentQueue, name: str = "census", instrument: str = "haadf", **values: Any) -> QueueEntry:
    return queue.submit(name=name, spec={"instrument": {"name": instrument}}, seed=1, options={}, **values)


def test_one_view_stays_as_it_was_while_others_write(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    """An entry on its way from one status to another is in exactly one of them, in whatever order they are read."""
    own = submit(queue).id
    with catalogue.database.reading() as connection:
        assert page(connection, ["held"], None, 10, None) == []
        queue.hold(own)
        assert [entry.id for entry in page(connection, ["queued"], None, 10, None)] == [own]
    assert [[entry.id for entry in group] for group in queue.groups((("held",), 5), (("queued",), 5))] == [[own], []]


def names(entries: list[QueueEntry]) -> list[str]:
    return [entry.name for entry in entries]


def claimed(queue: ExperimentQueue, instrument: str = "haadf", holder: str = "w1") -> Claim:
    claim = queue.claim(instrument, holder)
    assert claim is not None
    return claim


def kinds(catalogue: Catalogue, experiment_id: str) -> list[str]:
    return [event.kind for event in catalogue.events(experiment_id)]


def test_the_order_is_priority_then_submission(queue: ExperimentQueue, clock: Clock) -> None:
    submit(queue, "first")
    clock.advance(-3600)  # somebody sets the clock: the order stays
    submit(queue, "second")
    submit(queue, "urgent", priority=10)
    submit(queue, "late", priority=-1)
    submit(queue, "elsewhere", instrument="other", priority=99)
    assert names(queue.entries(instrument="haadf")) == ["urgent", "first", "second", "late"]
    order = []
    while (claim := queue.claim("haadf", "w1")) is not None:
        order.append(queue.finish(claim, "completed", "the question is answered").name)
    assert order == ["urgent", "first", "second", "late"]
    assert queue.entries(statuses=["queued"])[0].name == "elsewhere"


def test_a_page_goes_on_where_the_last_one_ended(queue: ExperimentQueue) -> None:
    for number in range(7):
        submit(queue, str(number), priority=number % 2, hold=number == 4)
    order = ["1", "3", "5", "0", "2", "4", "6"]
    assert names(queue.entries()) == order
    page = queue.entries(limit=3)
    seen = names(page)
    queue.cancel(page[-1].id)  # it is gone from the waiting ones, its place is not
    while page := queue.entries(statuses=["queued", "held"], limit=3, after=page[-1].cursor):
        seen += names(page)
    assert seen == order
    assert names(queue.entries(statuses=["held"])) == ["4"]
    with pytest.raises(ValueError, match="'x' is no cursor"):
        queue.entries(after="x")


def test_a_claim_is_for_one_and_its_end_frees_the_instrument(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    assert queue.claim("haadf", "w1") is None
    first, second = submit(queue, "first"), submit(queue, "second")
    claim = claimed(queue)
    assert (claim.experiment_id, claim.fence, claim.resumes) == (first.id, 1, False)
    assert claim.expires_at == NOON + timedelta(seconds=10)
    assert queue.claim("haadf", "w2") is None
    running = queue.entry(first.id)
    assert (running.status, running.claimed_by, running.started_at) == ("running", "w1", NOON)
    assert catalogue.experiment(first.id).status == "running"
    assert queue.finish(claim, "completed", "budget spent").status == "completed"
    assert (catalogue.experiment(first.id).status, catalogue.experiment(first.id).reason) == (
        "completed",
        "budget spent",
    )
    assert claimed(queue, holder="w2").experiment_id == second.id
    with pytest.raises(LeaseLost, match=r"fence 1\) is lost: w2 has it now \(fence 2\)"):
        queue.finish(claim, "failed", "again")
    assert kinds(catalogue, first.id) == ["created", "status_changed", "status_changed"]


def test_the_run_itself_may_have_said_how_it_ended(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    submit(queue)
    claim = claimed(queue)
    catalogue.fenced_by(claim)
    catalogue.set_status(claim.experiment_id, "completed", "budget spent")
    assert queue.entry(claim.experiment_id).status == "completed"
    assert queue.finish(claim, "completed", "budget spent").reason == "budget spent"
    assert kinds(catalogue, claim.experiment_id).count("status_changed") == 2
    with pytest.raises(LeaseLost):
        catalogue.append(claim.experiment_id, "noted", {})


def test_a_dead_worker_s_experiment_is_resumed_first(queue: ExperimentQueue, clock: Clock) -> None:
    submit(queue, "mine")
    dead = claimed(queue)
    submit(queue, "urgent", priority=100)
    clock.advance(9.9)
    assert queue.claim("haadf", "w2") is None
    assert queue.lapsed() == []
    clock.advance(0.2)
    assert [lease.holder for lease in queue.lapsed()] == ["w1"]
    again = claimed(queue, holder="w2")
    assert (again.experiment_id, again.fence, again.resumes) == (dead.experiment_id, 2, True)
    for call in (lambda: queue.renew(dead), lambda: queue.wanted(dead), lambda: queue.finish(dead, "failed", "x")):
        with pytest.raises(LeaseLost):
            call()
    assert queue.lapsed() == []


def test_a_renewed_lease_lives_on(queue: ExperimentQueue, clock: Clock) -> None:
    submit(queue)
    claim = claimed(queue)
    for _ in range(10):
        clock.advance(8)
        claim = queue.renew(claim)
        assert queue.claim("haadf", "w2") is None
    clock.advance(11)  # late, but nobody else has it
    assert queue.renew(claim).expires_at == clock.now + timedelta(seconds=10)


def test_every_action_in_every_state_does_what_the_table_says(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    for status in STATUSES:
        for action, moves in ACTIONS.items():
            own = submit(queue, instrument=f"{status} {action}").id
            if status == "held":
                queue.hold(own)
            elif status == "cancelled":
                queue.cancel(own)
            elif status != "queued":
                claim = claimed(queue, f"{status} {action}")
                if status != "running":
                    queue.finish(claim, status, "so it is")
            do = getattr(queue, action)
            if status == "running" and action in ("pause", "cancel", "resume"):
                assert do(own).wanted == {"pause": "pause", "cancel": "cancel", "resume": None}[action]
                assert do(own).status == "running"
            elif status in moves:
                version = queue.entry(own).version
                assert do(own).status == moves[status]
                assert moves[status] in TRANSITIONS[status]
                assert catalogue.experiment(own).status == moves[status]
                assert queue.entry(own).version == version + 1
            elif status in moves.values():
                before = queue.entry(own)
                assert do(own) == before
            else:
                with pytest.raises(Conflict, match=f"is {status}; {action} is possible while") as error:
                    do(own)
                assert (error.value.status, error.value.possible) == (status, possible_actions(status))
    assert FINAL == ("completed", "cancelled", "refused")


def test_pause_and_cancel_of_a_running_one_are_wishes(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    own = submit(queue).id
    claim = claimed(queue)
    assert queue.wanted(claim) is None
    assert queue.pause(own, by="anna", reason="lunch").reason == "pause asked for by anna: lunch"
    assert queue.wanted(claim) == "pause"
    assert queue.resume(own).wanted is None
    assert queue.wanted(claim) is None
    queue.pause(own)
    assert queue.cancel(own, by="ben").wanted == "cancel"
    for late in (queue.pause, queue.resume):
        with pytest.raises(Conflict, match="its cancelling is under way"):
            late(own)
    ended = queue.finish(claim, "cancelled", "cancelled between frames")
    assert (ended.status, ended.wanted) == ("cancelled", None)
    assert ended.reason == "cancelled between frames (cancel asked for by ben)"
    assert catalogue.experiment(own).reason == ended.reason
    assert kinds(catalogue, own).count("wanted") == 4


def test_a_paused_one_goes_back_to_its_old_place_and_resumes(queue: ExperimentQueue) -> None:
    own = submit(queue, "first").id
    submit(queue, "second")
    queue.finish(claimed(queue), "paused", "paused by a person")
    assert "puts it back in the queue" in (queue.entry(own).wait_reason or "")
    assert names(queue.entries(statuses=["queued"])) == ["second"]
    queue.resume(own)
    assert names(queue.entries(statuses=["queued"])) == ["first", "second"]
    again = claimed(queue)
    assert (again.experiment_id, again.resumes) == (own, True)


def test_versions_protect_what_somebody_else_changed(queue: ExperimentQueue) -> None:
    entry = submit(queue)
    held = queue.hold(entry.id, if_version=entry.version)
    assert held.version == entry.version + 1
    for call in (
        lambda: queue.release(entry.id, if_version=entry.version),
        lambda: queue.change(entry.id, if_version=entry.version, priority=3),
        lambda: queue.remove(entry.id, if_version=entry.version),
    ):
        with pytest.raises(PreconditionFailed, match="at version 2, not 1"):
            call()
    assert queue.release(entry.id, if_version=held.version).status == "queued"


def test_windows_of_time(queue: ExperimentQueue, clock: Clock) -> None:
    evening = submit(queue, "evening", priority=5, not_before=NOON + timedelta(hours=10))
    tomorrow = submit(queue, "tomorrow", not_before=NOON + timedelta(hours=24))
    soon = submit(queue, "soon", not_after=NOON + timedelta(seconds=60), hold=True)
    assert evening.wait_reason == "not before 22:00 UTC"
    assert tomorrow.wait_reason == "not before 2026-03-02 12:00 UTC"
    assert queue.claim("haadf", "w1") is None
    clock.advance(61)
    assert queue.claim("haadf", "w1") is None
    ended = queue.entry(soon.id)
    assert ended.status == "cancelled"
    assert ended.reason == "not after 2026-03-01 12:01 UTC: it had not been started by then"
    clock.advance(36000)
    assert claimed(queue).experiment_id == evening.id
    swept = submit(queue, "listed", not_after=clock.now + timedelta(seconds=1))
    clock.advance(1)
    assert names(queue.entries(statuses=["cancelled"])) == ["soon", "listed"]
    assert queue.entry(swept.id).wait_reason is None


def test_one_that_was_started_in_time_may_go_on_later(queue: ExperimentQueue, clock: Clock) -> None:
    own = submit(queue, not_after=NOON + timedelta(seconds=5)).id
    claimed(queue)
    clock.advance(60)
    queue.finish(claimed(queue, holder="w2"), "paused", "paused by a person")
    queue.resume(own)
    assert claimed(queue).experiment_id == own


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"priority": 10_000_000}, "priority 10000000 is outside -1000000 to 1000000"),
        ({"not_after": NOON}, "is over: it is 2026-03-01"),
        ({"not_before": NOON + timedelta(2), "not_after": NOON + timedelta(1)}, "is not later than not_before"),
        ({"not_before": datetime(2027, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
def test_what_can_never_start_is_not_taken(queue: ExperimentQueue, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        submit(queue, **wrong)
    assert queue.entries() == []
    entry = submit(queue)
    with pytest.raises(SpecError, match=message):
        queue.change(entry.id, **wrong)
    assert queue.entry(entry.id) == entry
    with pytest.raises(SpecError, match=r"instrument\.name: missing"):
        queue.submit(name="n", spec={}, seed=1, options={})


def test_what_waits_can_be_changed(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    submit(queue, "first")
    own = submit(queue, "second", not_before=NOON + timedelta(hours=1)).id
    changed = queue.change(own, priority=3, not_before=None, labels={"project": "x"}, by="anna")
    assert (changed.priority, changed.not_before, changed.version) == (3, None, 2)
    assert catalogue.experiment(own).spec["labels"] == {"project": "x"}
    assert queue.change(own, priority=3, labels={"project": "x"}).version == 2
    (event,) = catalogue.events(own, kinds=["queue_changed"])
    assert event.payload == {"changes": {"priority": 3, "not_before": None, "labels": {"project": "x"}}, "by": "anna"}
    assert claimed(queue).experiment_id == own
    with pytest.raises(Conflict, match="it can be changed while queued or held; possible now: cancel, pause"):
        queue.change(own, priority=4)


def test_only_what_exposed_nothing_is_removed(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    from tests.unit.orchestrator.test_catalogue import intend

    gone, used = submit(queue, "gone"), submit(queue, "used")
    queue.remove(gone.id, by="anna")
    for look in (queue.entry, catalogue.experiment, queue.remove):
        with pytest.raises(NotFound, match="no experiment"):
            look(gone.id)
    assert [row.name for row in catalogue.experiments()] == ["used"]
    assert kinds(catalogue, gone.id) == ["created", "removed"]
    claim = claimed(queue)
    with pytest.raises(Conflict, match="one that runs is not removed"):
        queue.remove(used.id)
    intend(catalogue, used.id, 1)
    queue.finish(claim, "failed", "instrument: no answer")
    with pytest.raises(Conflict, match="frames are kept; possible now: resume"):
        queue.remove(used.id)


def test_a_reason_for_every_wait(queue: ExperimentQueue, clock: Clock) -> None:
    one, two = submit(queue, "one"), submit(queue, "two")

    def reasons() -> list[str | None]:
        both = [queue.entry(one.id).wait_reason, queue.entry(two.id).wait_reason]
        listed = {entry.id: entry.wait_reason for entry in queue.entries()}
        assert both == [listed[one.id], listed[two.id]]
        return both

    unasked = "no worker has asked for instrument haadf yet"
    assert reasons() == [unasked, f"{unasked}; 1 is before it"]
    queue.lock_instrument("haadf", "anna", "smoke")
    locked = (
        "instrument haadf is locked by anna since 12:00 UTC: smoke; clear it first (`stempilot estop haadf --clear`)"
    )
    assert reasons() == [locked, locked]
    assert queue.claim("haadf", "w1") is None
    queue.unlock_instrument("haadf", "anna")
    assert reasons() == ["a worker of haadf is free; it is next", "a worker of haadf is free; 1 is before it"]
    clock.advance(60)
    assert reasons()[0] == "no worker has asked for haadf since 12:00 UTC"
    claimed(queue)
    clock.advance(5)
    three = submit(queue, "three")
    assert reasons() == [None, f"waits for haadf, which runs {one.id[:12]}… (since 12:01 UTC)"]
    assert queue.entry(three.id).wait_reason == f"{reasons()[1]}; 1 is before it"
    clock.advance(120)
    dead = "its worker w1 has not answered since 12:01 UTC"
    assert reasons() == [
        f"{dead}; the next worker of haadf goes on with it",
        f"waits for haadf, which ran {one.id[:12]}…: {dead}; that goes on first",
    ]
    queue.cancel(one.id)
    assert reasons()[0] == f"{dead}; the next worker of haadf goes on with it (cancel is wanted, and obeyed then)"
    assert queue.hold(two.id, by="anna", reason="dirty").wait_reason == "held by anna: dirty"
    assert queue.cancel(two.id).wait_reason is None


def test_an_emergency_stop_is_in_the_journal_of_what_ran(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    submit(queue)
    claim = claimed(queue)
    assert queue.lock_instrument("haadf", "anna", "smoke").is_locked
    assert queue.lock_instrument("haadf", "ben", "fire").locked_by == "anna"
    assert not queue.unlock_instrument("haadf", "anna").is_locked
    assert kinds(catalogue, claim.experiment_id)[-2:] == ["instrument_locked", "instrument_unlocked"]
    assert queue.lease("other") is None
    assert [lease.instrument for lease in queue.leases()] == ["haadf"]


def test_a_blanked_beam_is_written_down_while_the_lease_is_the_same(
    queue: ExperimentQueue, catalogue: Catalogue, clock: Clock
) -> None:
    own = submit(queue).id
    claimed(queue)
    clock.advance(11)
    (lapsed,) = queue.lapsed()
    assert queue.note_blanked(lapsed, "the lease was not renewed")
    assert queue.leases()[0].blanked_at == clock.now
    claimed(queue, holder="w2")
    assert not queue.note_blanked(lapsed, "again")
    assert queue.leases()[0].blanked_at is None
    assert kinds(catalogue, own).count("beam_blanked") == 1


def test_an_experiment_run_without_the_queue_is_no_entry(queue: ExperimentQueue, catalogue: Catalogue) -> None:
    own = catalogue.create_experiment(name="n", spec={}, seed=1, engine="local", options={})
    for call in (queue.entry, queue.cancel):
        with pytest.raises(NotFound, match="was never in the queue"):
            call(own)
    assert queue.entries() == []
