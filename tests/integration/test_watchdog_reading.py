"""A watchdog whose database falls silent: it goes by the leases it was told last, and blanks when they lapse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from instruments import Frame
from instruments.remote import InstrumentHost, StopLine, connect
from orchestrator.catalogue import Catalogue
from orchestrator.errors import StorageError
from orchestrator.queue import ExperimentQueue, InstrumentLease
from tests.integration.bench_microscope import exposure, open_bench
from tests.integration.instrument_processes import until
from workflows.lease_reader import LeaseReader
from workflows.roles import run_folder
from workflows.watchdog import Watchdog

FOREVER_S = LEASE_S = 600.0


class Silent(ExperimentQueue):
    """A queue that can be made unreadable, in either way a database is."""

    how = "answers"
    spoken: threading.Event

    def leases(self) -> list[InstrumentLease]:
        if self.how == "raises":
            raise StorageError("disk I/O error")
        if self.how == "hangs":
            self.spoken.wait(FOREVER_S)
        return super().leases()


class Scene:
    """An instrument in the middle of an exposure; the lease that nobody renews is known to a watchdog.

    It lapses when the test says so: `an_hour_passes`.
    """

    def __init__(self, folder: Path, on_exit: ExitStack, url: str | None = None) -> None:
        self.catalogue = on_exit.enter_context(Catalogue.open(folder, url=url, shared=True))
        self.host = InstrumentHost("bench", run_folder(folder), lambda adapter, config: open_bench(**config))
        endpoint = self.host.start()
        on_exit.callback(self.host.end, "the test is over")
        self.stop_line = StopLine(endpoint)
        self.queue = Silent(self.catalogue)
        self.queue.spoken = threading.Event()
        on_exit.callback(self.queue.spoken.set)
        spec: dict[str, Any] = {"name": "x", "instrument": {"name": "bench"}}
        self.own = self.queue.submit(name="x", spec=spec, seed=0, options={}).id
        claim = self.queue.claim("bench", "a worker", LEASE_S)
        assert claim is not None
        instrument = connect(endpoint)
        microscope = instrument.load(self.own, "bench", {}, claim.fence)
        self.frames: list[Frame] = []
        command = exposure("long", "expose", beam_on_s=3000)
        exposing = threading.Thread(target=lambda: self.frames.append(microscope.acquire(command)))
        self.watchdog = Watchdog(self.catalogue, run_folder(folder), queue=self.queue)
        on_exit.callback(self.watchdog.close)
        self.watchdog.look()
        exposing.start()
        on_exit.callback(exposing.join)
        on_exit.callback(self.stop_line.blank, "the test is over")
        until(lambda: self.stop_line.status().exposing, "the exposure")

    def an_hour_passes(self) -> None:
        """By all clocks that the catalogue has."""
        now, elapsed_s = self.catalogue.now, self.catalogue.elapsed_s
        self.catalogue.now = lambda: now() + timedelta(hours=1)
        self.catalogue.elapsed_s = lambda: elapsed_s() + 3600

    def is_dark(self) -> bool:
        self.watchdog.look()
        return self.stop_line.status().beam_blanked is True

    def told(self) -> list[str]:
        self.watchdog.look()
        return [event.kind for event in self.catalogue.events(self.own) if event.kind.startswith("beam_")]


@pytest.fixture
def on_exit() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_it_blanks_although_the_database_is_silent(tmp_path: Path, on_exit: ExitStack, how: str) -> None:
    scene = Scene(tmp_path, on_exit)
    scene.queue.how = how
    scene.an_hour_passes()
    until(scene.is_dark, "the beam to be off")
    assert scene.watchdog.trouble is not None
    assert "going by the leases it told last" in scene.watchdog.trouble
    scene.queue.how = "answers"
    scene.queue.spoken.set()
    until(lambda: scene.told() == ["beam_blanked"], "the journal to know")
    until(lambda: (scene.watchdog.look(), scene.watchdog.trouble is None)[1], "the trouble to be over")


def test_it_blanks_although_a_table_is_locked(tmp_path: Path, on_exit: ExitStack, postgresql_database: str) -> None:
    """PostgreSQL makes readers wait for who has locked the table."""
    scene = Scene(tmp_path, on_exit, postgresql_database)
    with scene.catalogue.database.writing() as connection:
        connection.execute(sqlalchemy.text("LOCK TABLE instrument_lease IN ACCESS EXCLUSIVE MODE"))
        scene.an_hour_passes()
        until(scene.is_dark, "the beam to be off")
        assert "has not told the leases for" in (scene.watchdog.trouble or "")
    until(lambda: scene.told() == ["beam_blanked"], "the journal to know")


def test_nobody_waits_twice_for_one_silence() -> None:
    """A read that hangs is waited for once; all who ask meanwhile are told at once what is known."""
    spoken, asked = threading.Event(), list[int]()

    def read() -> list[InstrumentLease]:
        asked.append(len(asked))
        spoken.wait(FOREVER_S)
        return []

    reader = LeaseReader(read, read_s=0.05)
    said: list[Callable[[], object]] = [reader.leases] * 5
    assert [ask() for ask in said] == [[]] * 5
    assert len(asked) == 1
    assert reader.trouble is not None
    spoken.set()
    until(lambda: (reader.leases(), reader.trouble is None)[1], "the answer")
