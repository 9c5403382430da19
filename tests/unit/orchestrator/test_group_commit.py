"""Group commit: one sync for many writers, each write whole or not there, an error for whom it concerns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from orchestrator.catalogue import Catalogue
from orchestrator.errors import DiskFull, NotFound
from orchestrator.queue import ExperimentQueue
from tests.unit.orchestrator.test_queue import submit

THREADS = 8


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder, shared=True, group_commit=True) as opened:
        yield opened


@pytest.fixture
def commits() -> Iterator[list[int]]:
    """How many transactions that write were committed, counted in place."""
    seen: list[int] = []

    def on_commit(connection: object) -> None:
        if connection.get_execution_options().get("stempilot_writes"):  # type: ignore[attr-defined]
            seen.append(1)

    event.listen(Engine, "commit", on_commit)
    yield seen
    event.remove(Engine, "commit", on_commit)


def together(work: Callable[[int], object]) -> list[object]:
    """Run it in several threads that begin at once; what each returned or raised."""
    barrier = threading.Barrier(THREADS)

    def one(number: int) -> object:
        barrier.wait()
        try:
            return work(number)
        except (NotFound, DiskFull, ValueError) as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def test_a_lone_write_is_committed_at_once(catalogue: Catalogue, commits: list[int]) -> None:
    own = submit(ExperimentQueue(catalogue)).id
    catalogue.append(own, "noted", {})
    assert len(commits) == 2
    with Catalogue.open(catalogue.data_folder, read_only=True) as reader:
        assert [found.kind for found in reader.events(own)] == ["created", "noted"]


def test_threads_that_write_at_once_share_a_commit(catalogue: Catalogue, commits: list[int]) -> None:
    queue = ExperimentQueue(catalogue)
    inside, enough = threading.Event(), threading.Event()

    def slow() -> None:
        with catalogue.database.writing():
            inside.set()
            enough.wait(60)

    first = threading.Thread(target=slow)
    first.start()
    inside.wait(60)
    group = catalogue.database._group
    assert group is not None
    with ThreadPoolExecutor(THREADS) as pool:
        submitted = [pool.submit(submit, queue, str(number)) for number in range(THREADS)]
        while group._waiting_count < THREADS:
            threading.Event().wait(0.01)
        enough.set()
        entries = [future.result() for future in submitted]
    first.join()
    assert len({entry.seq for entry in entries}) == THREADS
    assert len(queue.entries()) == THREADS
    assert 1 <= len(commits) <= THREADS // 2  # a batch may be closed by its age on a slow machine


def test_one_that_fails_takes_nobody_with_it(catalogue: Catalogue) -> None:
    own = submit(ExperimentQueue(catalogue)).id

    def work(number: int) -> object:
        if number % 2:
            with catalogue.database.writing() as connection:
                connection.exec_driver_sql("UPDATE experiment SET name = 'half done'")
                raise ValueError("changed its mind")
        return catalogue.append(own, "noted", {"number": number})

    for _ in range(3):
        outcomes = together(work)
        assert [isinstance(outcome, ValueError) for outcome in outcomes] == [number % 2 == 1 for number in range(8)]
    assert catalogue.experiment(own).name == "census"
    numbers = [found.payload["number"] for found in catalogue.events(own, kinds=["noted"])]
    assert sorted(numbers) == sorted([0, 2, 4, 6] * 3)
    assert [found.seq for found in catalogue.events(own)] == list(range(1, 14))


def test_a_full_disk_is_said_to_whom_it_concerns_and_what_was_acknowledged_is_there(catalogue: Catalogue) -> None:
    own = submit(ExperimentQueue(catalogue)).id
    with catalogue.database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 40}")
    acknowledged: list[object] = []
    refused = 0
    for turn in range(10):
        outcomes = together(
            lambda number, turn=turn: catalogue.append(own, "noted", {"at": f"{turn} {number}"}, arrays=bytes(9000))
        )
        refused += sum(isinstance(outcome, DiskFull) for outcome in outcomes)
        acknowledged += [outcome.payload["at"] for outcome in outcomes if not isinstance(outcome, DiskFull)]  # type: ignore[attr-defined]
    assert refused > 0
    with catalogue.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
    found = [stored.payload["at"] for stored in catalogue.events(own, kinds=["noted"])]
    assert set(acknowledged) == set(found)
    catalogue.append(own, "noted", {"at": "there is room again"})


def test_a_batch_whose_next_writer_never_comes_is_committed(catalogue: Catalogue) -> None:
    own = submit(ExperimentQueue(catalogue)).id
    group = catalogue.database._group
    assert group is not None
    group._waiting_count += 1  # somebody who was about to write and died
    catalogue.append(own, "noted", {})
    with Catalogue.open(catalogue.data_folder, read_only=True) as reader:
        assert [found.kind for found in reader.events(own)] == ["created", "noted"]
