"""What the queue costs: submissions with and without group commit, claims and pages among 10^5 entries, both databases.

    python -m benchmarks.queue [FOLDER]

FOLDER should lie on the disk in question; both databases sync there. PostgreSQL is measured where it is installed.
Prints JSON and writes it to benchmarks/results/queue.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from sqlalchemy import text

from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from tests.postgresql import new_database, programs_folder, throw_away_server

RESULTS = Path(__file__).parent / "results" / "queue.json"
ENTRIES = 100_000
REPEATS = 200
THREADS = 16
SPEC = {"name": "census", "instrument": {"name": "haadf"}, "policy": {"name": "census"}}

SERIES = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)",
        "printf('%032x', i)",
    ),
    "postgresql": ("WITH n(i) AS (SELECT generate_series(1, :count))", "lpad(to_hex(i), 32, '0')"),
}
EXPERIMENTS = (
    "INSERT INTO experiment"
    " (id, name, status, instrument, spec, seed, engine, options, context, created_at, updated_at)"
    " {series} SELECT {id}, 'census', 'queued', 'haadf', '{{}}', 1, 'prefect', '{{}}', '{{}}',"
    " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000' FROM n"
)
QUEUED = (
    "INSERT INTO queue_entry (experiment_id, seq, instrument, status, priority, started_count, version, created_at)"
    " {series} SELECT {id}, i, 'haadf', 'queued', i - i / 3 * 3, 0, 1, '2026-01-01 00:00:00.000000' FROM n"
)
BEGUN = (
    "INSERT INTO event (experiment_id, seq, kind, recorded_at, payload)"
    " {series} SELECT {id}, 1, 'created', '2026-01-01 00:00:00.000000', '{{}}' FROM n"
)


def fill(catalogue: Catalogue, count: int) -> None:
    """That many queued entries, in three classes of priority."""
    series, identity = SERIES[catalogue.database.dialect]
    with catalogue.database.writing() as connection:
        for statement in (EXPERIMENTS, QUEUED, BEGUN):
            connection.execute(text(statement.format(series=series, id=identity)), {"count": count})
        if catalogue.database.dialect == "postgresql":
            connection.execute(text("SELECT setval('queue_entry_order', :count)"), {"count": count})
    if catalogue.database.dialect == "postgresql":
        with catalogue.database.writing() as connection:
            connection.execute(text("ANALYZE"))


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Median and 99th percentile of wall time, median of processor time, in ms."""
    return in_turn(call)[0]


def in_turn(*calls: Callable[[], object]) -> list[dict[str, float]]:
    """The same for calls that need each other, made one after the other again and again."""
    walls, cpus = [[] for _ in calls], [[] for _ in calls]
    for _ in range(REPEATS):
        for call, wall, cpu in zip(calls, walls, cpus, strict=True):
            begun_s, cpu_s = time.perf_counter(), time.process_time()
            call()
            cpu.append(1e3 * (time.process_time() - cpu_s))
            wall.append(1e3 * (time.perf_counter() - begun_s))
    return [
        {
            "median_ms": round(median(wall), 3),
            "p99_ms": round(quantiles(wall, n=100)[98], 3),
            "cpu_ms": round(median(cpu), 3),
        }
        for wall, cpu in zip(walls, cpus, strict=True)
    ]


def submit(queue: ExperimentQueue) -> None:
    """One submission."""
    queue.submit(name="census", spec=SPEC, seed=1, options={})


def crowd(queue: ExperimentQueue) -> dict[str, float]:
    """Submissions of several threads at once."""
    walls: list[float] = []
    barrier = threading.Barrier(THREADS)

    def one(number: int) -> None:
        barrier.wait()
        for _ in range(REPEATS // 4):
            begun_s = time.perf_counter()
            submit(queue)
            walls.append(1e3 * (time.perf_counter() - begun_s))

    begun_s = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(THREADS)))
    per_s = len(walls) / (time.perf_counter() - begun_s)
    return {
        "per_s": round(per_s, 1),
        "median_ms": round(median(walls), 2),
        "p99_ms": round(quantiles(walls, n=100)[98], 2),
    }


def measure(folder: Path, url: str | None, *, group_commit: bool) -> dict[str, Any]:
    """Submissions to an empty queue, then everything among `ENTRIES` entries."""
    found: dict[str, Any] = {}
    with Catalogue.open(folder, url=url, shared=True, group_commit=group_commit) as catalogue:
        queue = ExperimentQueue(catalogue)
        fill(catalogue, 10)
        found["submit"] = timed(lambda: submit(queue))
        found[f"submit_{THREADS}_threads"] = crowd(queue)
    return found


def among_many(folder: Path, url: str | None) -> dict[str, Any]:
    """Claims, pages and submissions among `ENTRIES` waiting entries."""
    found: dict[str, Any] = {"entries": ENTRIES}
    with Catalogue.open(folder, url=url, shared=True) as catalogue:
        queue = ExperimentQueue(catalogue)
        fill(catalogue, ENTRIES)
        claims = []

        def claim() -> None:
            claimed = queue.claim("haadf", f"w{len(claims)}")
            assert claimed is not None
            claims.append(claimed)

        def finish() -> None:
            queue.finish(claims[-1], "completed", "measured")

        deep = queue.entry(f"{ENTRIES * 9 // 10:032x}").cursor
        found["claim"], found["finish"] = in_turn(claim, finish)
        running = queue.claim("haadf", "w")
        assert running is not None
        found["claim_refused"] = timed(lambda: queue.claim("haadf", "other"))
        found["renew"] = timed(lambda: queue.renew(running))
        found["wanted"] = timed(lambda: queue.wanted(running))
        waiting = ("queued", "held")
        found["first_page_of_100"] = timed(lambda: queue.entries(statuses=waiting, limit=100))
        found["deep_page_of_100"] = timed(lambda: queue.entries(statuses=waiting, limit=100, after=deep))
        found["page_of_all_states"] = timed(lambda: queue.entries(limit=100, after=deep))
        found["entry"] = timed(lambda: queue.entry(f"{ENTRIES // 2:032x}"))
        found["submit"] = timed(lambda: submit(queue))
    return found


def main() -> None:
    """Measure in the named folder, or in a temporary one."""
    load = os.getloadavg()[0]
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load_before": round(load, 1)}
    }
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        results["sqlite"] = {
            "one_transaction_each": measure(folder / "single", None, group_commit=False),
            "group_commit": measure(folder / "grouped", None, group_commit=True),
            "among_many": among_many(folder / "many", None),
        }
        if (programs := programs_folder()) is not None:
            with throw_away_server(programs, ("max_connections=100",)) as server:
                with new_database(server) as url:
                    empty = measure(folder / "postgresql", url, group_commit=True)
                with new_database(server) as url:
                    many = among_many(folder / "postgresql-many", url)
            results["postgresql"] = {"one_transaction_each": empty, "among_many": many}
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
