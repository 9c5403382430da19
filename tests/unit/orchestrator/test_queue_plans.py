"""Every query of the queue is a range of an index: 10^5 entries cost what ten cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from tests.unit.orchestrator.test_queue import NOON, Clock, claimed, submit

SMALL = ("instrument_lease", "CONSTANT ROW", "anon_")  # one row for each instrument, none at all


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(connection, cursor, statement, parameters, context, executemany) -> None:
        if statement.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_no_query_scans_or_sorts(catalogue_folder: Path) -> None:
    clock = Clock()
    with Catalogue.open(catalogue_folder, now=clock) as catalogue:
        queue = ExperimentQueue(catalogue)
        own = [submit(queue, str(number), priority=number % 3).id for number in range(9)]
        with statements() as seen:
            late = submit(queue, "late", not_after=NOON + timedelta(seconds=1))
            clock.advance(2)
            claim = claimed(queue)
            queue.renew(claim)
            queue.wanted(claim)
            queue.hold(own[0])
            queue.change(own[0], priority=2)
            page = queue.entries(limit=3)
            queue.entries(statuses=["queued", "held"], instrument="haadf", limit=3, after=page[-1].cursor)
            queue.entry(own[5])
            queue.entry(own[5][:31])
            queue.finish(claim, "completed", "answered")
            queue.remove(own[0])
            assert queue.entry(late.id).status == "cancelled"
        plans = []
        with catalogue.database.reading() as connection:
            for statement, parameters in dict.fromkeys((text, tuple(values)) for text, values in seen):
                steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                plans += [(step.detail, statement) for step in steps]
    assert len(plans) > 20
    assert any("ix_queue_entry_claim" in plan for plan, _ in plans)
    assert any("ix_queue_entry_page" in plan for plan, _ in plans)
    assert any("ix_queue_entry_window" in plan for plan, _ in plans)
    wrong = [
        (plan, statement)
        for plan, statement in plans
        if "TEMP B-TREE" in plan or (plan.startswith("SCAN") and not any(name in plan for name in SMALL))
    ]
    assert wrong == []
