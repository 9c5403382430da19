"""A worker that dies, or falls silent, in the middle of an exposure: the watchdog takes the beam off the specimen."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from instruments import AcquireFrame, InstrumentFault
from instruments.remote import StopLine, read_endpoint
from orchestrator.catalogue import Catalogue
from orchestrator.events import Event
from orchestrator.queue import ExperimentQueue, InstrumentLease
from tests.integration.bench_microscope import exposure, installed_bench
from tests.integration.harness import stempilot
from tests.integration.instrument_processes import (
    WATCHDOG,
    RunningHost,
    Started,
    host_process,
    started,
    twin_config,
    twin_frame,
    until,
)

pytestmark = pytest.mark.faults
SLOW = 2000.0
# A worker: it claims what is in the queue, renews its lease, loads, exposes; and once more, whatever became of that.
WORKER = """
import json, sys, threading, time; from pathlib import Path
from instruments import AcquireFrame, InstrumentError
from instruments.remote import connect
from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
data, instrument, adapter, config, lease_s, command = sys.argv[1:]
lease_s, command = float(lease_s), AcquireFrame.model_validate_json(command)
catalogue = Catalogue.open(Path(data), shared=True)
queue = ExperimentQueue(catalogue)
while (claim := queue.claim(instrument, f"worker of {instrument}", lease_s)) is None:
    time.sleep(0.1)
def renewing():
    while True:
        time.sleep(lease_s / 10)
        queue.renew(claim, lease_s)
threading.Thread(target=renewing, daemon=True).start()
with connect(Path(data) / "run" / f"instrument-{instrument}.json") as connected:
    microscope = connected.load(claim.experiment_id, adapter, json.loads(config), claim.fence)
    for action_id in (command.action_id, "another"):
        try:
            microscope.acquire(command.model_copy(update={"action_id": action_id}))
            print("acquired", action_id, flush=True)
        except InstrumentError as error:
            print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the twin and two instruments of the test's own adapter."""
    (tmp_path / "stempilot.toml").write_text(
        '[instruments.bench]\nadapter = "bench"\n[instruments.other]\nadapter = "bench"\n'
    )
    installed_bench(tmp_path / "plugins")
    return tmp_path


@pytest.fixture
def catalogue(data: Path) -> Iterator[Catalogue]:
    with Catalogue.open(data, shared=True) as opened:
        yield opened


@pytest.fixture
def watchdog(data: Path, catalogue: Catalogue) -> Iterator[Started]:
    with started(WATCHDOG, data, said=data / "watchdog.log", python_path=data / "plugins") as one:
        until(lambda: "watches the leases" in one.text, "the watchdog")
        yield one


@contextmanager
def exposing(
    catalogue: Catalogue,
    host: RunningHost,
    adapter: str,
    command: AcquireFrame,
    *,
    lease_s: float = 10.0,
    config: dict[str, Any] | None = None,
    is_mute: bool = False,
) -> Iterator[tuple[str, Started]]:
    """An experiment's id and its worker, in the middle of its exposure."""
    data, name = catalogue.data_folder, host.endpoint.stem.removeprefix("instrument-")
    spec = {"name": "x", "instrument": {"name": name}}
    experiment_id = ExperimentQueue(catalogue).submit(name="x", spec=spec, seed=0, options={}).id
    arguments = (data, name, adapter, json.dumps(config or {}), lease_s, command.model_dump_json())
    with started(WORKER, *arguments, said=data / f"worker-{name}.log") as worker:

        def is_exposing() -> bool:
            assert worker.process.poll() is None, worker.text
            return silent(host) if is_mute else host.status().exposing == command.action_id

        until(is_exposing, "its exposure")
        yield experiment_id, worker


def silent(host: RunningHost) -> bool:
    try:
        StopLine(read_endpoint(host.endpoint), timeout_s=1.0).status()
    except InstrumentFault as error:
        return "does not answer" in str(error)
    return False


def lease_of(catalogue: Catalogue, instrument: str) -> InstrumentLease:
    lease = ExperimentQueue(catalogue).lease(instrument)
    assert lease is not None
    return lease


def told(catalogue: Catalogue, experiment_id: str) -> list[Event]:
    kinds = ("beam_blanked", "beam_not_blanked")
    return [event for event in catalogue.events(experiment_id) if event.kind in kinds]


def test_a_killed_workers_beam_is_blanked_and_its_frame_kept(
    catalogue: Catalogue, watchdog: Started, image_cache: Path
) -> None:
    config, command = twin_config(image_cache, time_scale=SLOW), twin_frame("slow", dwell_time_us=20.0)
    with host_process(catalogue.data_folder) as host:
        with exposing(catalogue, host, "simulated", command, config=config) as (own, worker):
            worker.kill()
        events = until(lambda: told(catalogue, own), "the journal to know")
        assert [event.kind for event in events] == ["beam_blanked"]
        payload = events[0].payload
        assert (payload["instrument"], payload["fence"]) == ("simulated", 1)
        assert "worker of simulated was not heard of" in payload["reason"]
        assert "during exposure slow: beam blanked" in payload["reason"]
        status, lease = host.status(), lease_of(catalogue, "simulated")
        assert status.beam_blanked is True
        assert lease.expires_at is not None
        assert lease.blanked_at is not None
        late_s = (lease.blanked_at - lease.expires_at).total_seconds()
        print(f"blanked {late_s:.2f} s after the lease ended")
        assert late_s >= 0
        claim = ExperimentQueue(catalogue).claim("simulated", "the next worker")
        assert claim is not None
        assert (claim.experiment_id, claim.fence, claim.resumes) == (own, 2, True)
        with host.connected() as instrument:
            microscope = instrument.load(own, "simulated", config, claim.fence)
            assert microscope.is_living
            assert microscope.outcome("slow") == "delivered"
            assert microscope.acquire(command).action_id == "slow"
    assert watchdog.ends() == 0


def test_a_worker_that_only_fell_silent_may_not_go_on(catalogue: Catalogue, watchdog: Started) -> None:
    command = exposure("long", "expose", beam_on_s=3000)
    data = catalogue.data_folder
    with (
        host_process(data, "bench", data / "plugins") as host,
        exposing(catalogue, host, "bench", command) as (own, worker),
    ):
        worker.process.send_signal(signal.SIGSTOP)
        assert [event.kind for event in until(lambda: told(catalogue, own), "the journal to know")] == ["beam_blanked"]
        worker.process.send_signal(signal.SIGCONT)
        assert worker.process.wait(120) == 0
        assert "acquired long" in worker.text
        assert "InstrumentFault the beam of instrument 'bench' was blanked: worker of bench" in worker.text
        assert "acquired another" not in worker.text
    assert watchdog.process.poll() is None


def test_an_emergency_stop_without_worker_watchdog_and_api(catalogue: Catalogue) -> None:
    """Nobody but the instrument lives, its beam is on."""
    data = catalogue.data_folder
    with host_process(data, "bench", data / "plugins") as host:
        with exposing(catalogue, host, "bench", exposure("long", "expose", beam_on_s=3000)) as (_, worker):
            worker.kill()
        assert host.status().exposing == "long"
        stopped = stempilot("estop", "bench", "--data", data, "--json").expect(0).document["instruments"]
        bench = next(line for line in stopped if line["instrument"] == "bench")
        assert (bench["beam_blanked"], bench["is_locked"]) == (True, True)
        assert host.status().beam_blanked is True
        assert lease_of(catalogue, "bench").is_locked


def test_a_renewed_lease_is_left_alone_and_a_second_watchdog_refused(catalogue: Catalogue, watchdog: Started) -> None:
    command = exposure("long", "expose", beam_on_s=3000)
    data = catalogue.data_folder
    with (
        host_process(data, "bench", data / "plugins") as host,
        exposing(catalogue, host, "bench", command) as (own, _),
    ):
        before = lease_of(catalogue, "bench").renewal_count
        until(lambda: lease_of(catalogue, "bench").renewal_count > before + 13, "more than one length of the lease")
        status = host.status()
        assert (status.exposing, status.beam_blanked) == ("long", False)
        assert told(catalogue, own) == []
        assert lease_of(catalogue, "bench").blanked_at is None
    with started(WATCHDOG, data, said=data / "second.log") as second:
        assert second.process.wait(120) != 0
    assert f"process {watchdog.process.pid} is the watchdog" in second.text
    assert watchdog.process.poll() is None


def test_neither_a_mute_instrument_nor_a_busy_database_holds_it_up(catalogue: Catalogue, watchdog: Started) -> None:
    data = catalogue.data_folder
    with (
        host_process(data, "bench", data / "plugins") as mute,
        host_process(data, "other", data / "plugins") as other,
        exposing(catalogue, mute, "bench", exposure("held", "hold"), is_mute=True) as (mute_id, first),
        exposing(catalogue, other, "bench", exposure("long", "expose", beam_on_s=3000)) as (other_id, second),
    ):
        with closing(sqlite3.connect(data / "catalogue.sqlite", isolation_level=None)) as database:
            database.execute("PRAGMA busy_timeout = 60000")
            database.execute("BEGIN IMMEDIATE")  # nobody else can write
            first.kill()
            second.kill()
            until(lambda: other.status().beam_blanked, "the beam to be off")
            assert told(catalogue, other_id) == []
            database.execute("ROLLBACK")
        assert [event.kind for event in until(lambda: told(catalogue, other_id), "the journal to know")] == [
            "beam_blanked"
        ]
        events = until(lambda: told(catalogue, mute_id), "the journal to know of the mute one")
        assert [event.kind for event in events] == ["beam_not_blanked"]
        assert f"kill process {mute.process.pid}" in events[0].payload["reason"]
        mute.kill()
    assert watchdog.process.poll() is None
