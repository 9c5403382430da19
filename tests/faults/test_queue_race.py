"""Ten processes race for 200 experiments on three instruments: each is claimed once, no instrument has two holders.

Who holds an instrument is also asked of a witness that knows nothing of the queue: a lock of the operating system.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from orchestrator.catalogue import Catalogue, schema
from orchestrator.queue import ExperimentQueue

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
PROCESSES, EXPERIMENTS = 10, 200
INSTRUMENTS = ("haadf", "eels", "simulated")
DEADLINE_S = 600.0
LEASE_S = 600.0  # the machine may be slow; nobody dies here


def race(folder: Path, url: str | None, number: int) -> None:
    """One process: opens the new catalogue together with the others, submits its share, works until all is done."""
    with Catalogue.open(folder / "data", url=url, shared=True) as catalogue:
        queue = ExperimentQueue(catalogue)
        for share in range(EXPERIMENTS // PROCESSES):
            spec = {"instrument": {"name": INSTRUMENTS[(number + share) % len(INSTRUMENTS)]}}
            queue.submit(name=f"{number}-{share}", spec=spec, seed=1, options={}, priority=share % 3)
        deadline_s = time.monotonic() + DEADLINE_S
        while completed_count(catalogue) < EXPERIMENTS:
            assert time.monotonic() < deadline_s, "the race does not end"
            worked = [work(queue, catalogue, folder, instrument, f"w{number}") for instrument in INSTRUMENTS]
            if not any(worked):
                time.sleep(0.3)


def completed_count(catalogue: Catalogue) -> int:
    with catalogue.database.reading() as connection:
        entry = schema.queue_entry
        query = select(func.count()).select_from(entry).where(entry.c.status == "completed")
        return connection.execute(query).scalar_one()


def work(queue: ExperimentQueue, catalogue: Catalogue, folder: Path, instrument: str, holder: str) -> bool:
    """Claim and finish one; with the witness that nobody else has the instrument meanwhile."""
    claim = queue.claim(instrument, holder, LEASE_S)
    if claim is None:
        return False
    catalogue.fenced_by(claim)
    with (folder / f"{instrument}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError where there are two
        catalogue.append(claim.experiment_id, "noted", {"holder": holder})
        with (folder / "claims").open("a") as log:
            log.write(json.dumps([claim.experiment_id, instrument, claim.fence, holder]) + "\n")
        fcntl.flock(lock, fcntl.LOCK_UN)
    queue.finish(claim, "completed", "raced")
    return True


def run_race(folder: Path, url: str | None) -> list[int]:
    """Fork the processes; how each ended."""
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                race(folder, url, number)
                os._exit(0)
            finally:
                import traceback

                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def test_ten_processes_race_for_two_hundred_experiments(tmp_path: Path, bare_database_url: str | None) -> None:
    script = "import sys, json; from pathlib import Path; from tests.faults import test_queue_race as t; "
    script += "print(json.dumps(t.run_race(Path(sys.argv[1]), json.loads(sys.argv[2]))))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path), json.dumps(bare_database_url)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [0] * PROCESSES, done.stderr[-3000:]
    claims = [json.loads(line) for line in (tmp_path / "claims").read_text().splitlines()]
    assert len({own for own, *_ in claims}) == len(claims) == EXPERIMENTS
    for instrument in INSTRUMENTS:
        fences = [fence for _, name, fence, _ in claims if name == instrument]
        assert fences == list(range(1, len(fences) + 1))
    with Catalogue.open(tmp_path / "data", url=bare_database_url) as catalogue:
        queue = ExperimentQueue(catalogue)
        entries = queue.entries(limit=1000)
        assert {entry.status for entry in entries} == {"completed"}
        assert sorted(entry.seq for entry in entries) == sorted({entry.seq for entry in entries})
        assert [entry.started_count for entry in entries] == [1] * EXPERIMENTS
        assert all(lease.holder is None for lease in queue.leases())
        for own, _, _, holder in claims[:: EXPERIMENTS // 10]:
            (noted,) = catalogue.events(own, kinds=["noted"])
            assert noted.payload == {"holder": holder}
