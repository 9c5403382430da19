"""A worker is killed, another one goes on; a worker stands still, and what it does when it wakes changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.queue import Claim, ExperimentQueue, LeaseLost
from tests.unit.orchestrator.test_catalogue import intend

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 2.0
DEADLINE_S = 120.0


def worker(folder: Path, url: str | None) -> None:
    """Claims, writes an intent, says so, waits for a word; then renews and writes until it may no longer; says why."""
    with Catalogue.open(folder, url=url, shared=True) as catalogue:
        queue = ExperimentQueue(catalogue)
        claim = queue.claim("haadf", f"worker {os.getpid()}", LEASE_S)
        assert claim is not None
        catalogue.fenced_by(claim)
        intend(catalogue, claim.experiment_id, 1)
        print(json.dumps({"fence": claim.fence, "experiment_id": claim.experiment_id}), flush=True)
        sys.stdin.readline()
        try:
            while True:
                catalogue.append(claim.experiment_id, "noted", {"by": "the first worker"})
                claim = queue.renew(claim, LEASE_S)
                print(json.dumps({"renewed": str(claim.expires_at)}), flush=True)
                time.sleep(0.1)
        except LeaseLost as error:
            lost = str(error)
        try:
            queue.renew(claim, LEASE_S)
        except LeaseLost:
            print(json.dumps({"lost": lost}), flush=True)


@contextmanager
def running(folder: Path, url: str | None) -> Iterator[subprocess.Popen[str]]:
    script = "import sys, json; from pathlib import Path; from tests.faults import test_queue_crash as t; "
    script += "t.worker(Path(sys.argv[1]), json.loads(sys.argv[2]))"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(folder), json.dumps(url)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def claimed_in_the_end(queue: ExperimentQueue) -> Claim:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if (claim := queue.claim("haadf", "the second worker", lease_s=DEADLINE_S)) is not None:
            return claim
        time.sleep(0.1)
    raise AssertionError("the lease of a dead worker does not lapse")


@pytest.fixture
def queue(tmp_path: Path, database_url: str | None) -> Iterator[tuple[Catalogue, ExperimentQueue]]:
    with Catalogue.open(tmp_path / "data", url=database_url, shared=True) as catalogue:
        queue = ExperimentQueue(catalogue)
        queue.submit(name="census", spec={"instrument": {"name": "haadf"}}, seed=1, options={})
        yield catalogue, queue


def test_after_kill_9_another_worker_goes_on(
    tmp_path: Path, database_url: str | None, queue: tuple[Catalogue, ExperimentQueue]
) -> None:
    catalogue, mine = queue
    with running(tmp_path / "data", database_url) as process:
        first = said(process)
        tell(process)
        assert "renewed" in said(process)
        mine.submit(name="urgent", spec={"instrument": {"name": "haadf"}}, seed=1, options={}, priority=100)
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = mine.lease("haadf")
    claim = claimed_in_the_end(mine)
    assert left is not None
    assert left.expires_at is not None
    assert claim.expires_at - timedelta(seconds=DEADLINE_S) >= left.expires_at
    assert (claim.experiment_id, claim.resumes) == (first["experiment_id"], True)
    assert claim.fence == first["fence"] + 1  # type: ignore[operator]
    catalogue.fenced_by(claim)
    (pending,) = catalogue.pending(claim.experiment_id)
    catalogue.mark(pending, "unknown", "the worker died before the answer")
    assert mine.finish(claim, "completed", "by the second worker").started_count == 2
    second = mine.claim("haadf", "the second worker", LEASE_S)
    assert second is not None
    assert not second.resumes


def test_a_worker_that_stood_still_writes_nothing_when_it_wakes(
    tmp_path: Path, database_url: str | None, queue: tuple[Catalogue, ExperimentQueue]
) -> None:
    """It stands outside a transaction: one inside keeps SQLite's lock until it wakes or is killed."""
    catalogue, mine = queue
    with running(tmp_path / "data", database_url) as process:
        first = said(process)
        process.send_signal(signal.SIGSTOP)
        claim = claimed_in_the_end(mine)
        catalogue.fenced_by(claim)
        before = [event.seq for event in catalogue.events(claim.experiment_id)]
        process.send_signal(signal.SIGCONT)
        tell(process)
        lost = str(said(process)["lost"])
        assert f"(fence {first['fence']}) is lost: the second worker has it now (fence {claim.fence})" in lost
        assert process.wait(timeout=DEADLINE_S) == 0
        assert [event.seq for event in catalogue.events(claim.experiment_id)] == before
        lease = mine.lease("haadf")
        assert lease is not None
        assert lease.holder == "the second worker"
