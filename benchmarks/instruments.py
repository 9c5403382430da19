"""What commanding an instrument through stempilot costs over the bare client, in process and through other processes.

    python -P benchmarks/instruments.py [--only ROW] [--out FILE.json] [--page docs/conformance.md]

Each row is one adapter and one way to reach it (`instrument_rows` adds more). Calls of ours and of the bare client are
made in turns, so that both meet the same load; wall times in ms. The table and the goals take the smallest of each,
which a busy machine disturbs least; medians, and the load of each row, are in the file. With `--only`, the other rows
of the file stay as they are.
"""

from __future__ import annotations

import argparse
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
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.instrument_page import put  # noqa: E402
from benchmarks.instrument_rows import ROWS as FIRST_ROWS  # noqa: E402
from benchmarks.instrument_rows import Row  # noqa: E402
from benchmarks.instrument_rows_doubles import DOUBLE_ROWS  # noqa: E402
from benchmarks.instrument_rows_ophyd import OPHYD_ROWS  # noqa: E402
from benchmarks.instrument_rows_tango import TANGO_ROWS  # noqa: E402
from benchmarks.instrument_rows_tem import TEM_ROWS  # noqa: E402
from instruments import AcquireFrame, InstrumentError  # noqa: E402

COMMANDS, FRAMES, STOPS = 600, 12, 5
ROWS = FIRST_ROWS | OPHYD_ROWS | TEM_ROWS | TANGO_ROWS | DOUBLE_ROWS
GOALS = {
    "in process": {"command_overhead_ms": 0.3},
    "worker": {"command_overhead_ms": 1.0, "frame_mb_per_s": 500.0},
    "own process": {"command_overhead_ms": 1.0, "frame_mb_per_s": 500.0},
}


def in_turns(calls: dict[str, Callable[[int], object]], count: int) -> dict[str, list[float]]:
    """Wall times of each call in ms, one after another, the first of each left out."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + 1):
        for name, call in calls.items():
            started_s = time.perf_counter()
            call(number)
            found[name].append((time.perf_counter() - started_s) * 1e3)
    return {name: times[1:] for name, times in found.items()}


def compared(ours: Callable[[int], object], bare: Callable[[int], object], count: int) -> dict[str, float]:
    """Times of both, and what ours costs over the bare one."""
    times = in_turns({"ours": ours, "bare": bare}, count)
    return {
        "ours_ms": round(median(times["ours"]), 4),
        "ours_min_ms": round(min(times["ours"]), 4),
        "bare_ms": round(median(times["bare"]), 4),
        "bare_min_ms": round(min(times["bare"]), 4),
        "overhead_ms": round(median(times["ours"]) - median(times["bare"]), 4),
        "overhead_min_ms": round(min(times["ours"]) - min(times["bare"]), 4),
    }


def frames(row: Row) -> dict[str, float]:
    """Times of frames, and how fast their counts come."""
    asked = row.frame
    assert asked is not None
    size_mb = sum(counts.nbytes for counts in row.microscope.acquire(asked(-1)).counts.values()) / 1e6
    found = compared(lambda n: row.microscope.acquire(asked(n)), row.bare_frame, FRAMES)
    rates = {
        "frame_mb": round(size_mb, 3),
        "mb_per_s": round(size_mb / found["ours_min_ms"] * 1e3, 1),
        "way_mb_per_s": round(size_mb / max(found["overhead_min_ms"], 1e-3) * 1e3, 1),  # what is not the bare client's
    }
    return {**rates, **found}


def stops(row: Row) -> dict[str, float]:
    """From the call of stop, in another thread than the exposure's, to its return and to the exposure's end."""
    assert row.long is not None
    answered: list[float] = []
    ended: list[float] = []
    for number in range(STOPS):
        command = row.long(number)
        with ThreadPoolExecutor(1) as owner:
            exposing = owner.submit(_quietly, row, command)
            time.sleep(0.3)
            if exposing.done():
                raise RuntimeError(f"{row.name}: the long exposure was over before it could be stopped")
            started_s = time.perf_counter()
            row.microscope.stop()
            answered.append((time.perf_counter() - started_s) * 1e3)
            exposing.result()
            ended.append((time.perf_counter() - started_s) * 1e3)
        row.go_on()
    return {
        "stop_ms": round(median(answered), 3),
        "stop_min_ms": round(min(answered), 3),
        "exposure_ended_ms": round(median(ended), 3),
        "exposure_ended_min_ms": round(min(ended), 3),
    }


def _quietly(row: Row, command: AcquireFrame) -> None:
    try:
        row.microscope.acquire(command)
    except InstrumentError:
        return


def measured(row: Row) -> dict[str, Any]:
    """One row, as far as it can be measured."""
    document: dict[str, Any] = {"way": row.way, "bare": row.bare, "frame_is_ready": row.frame_is_ready}
    document["read"] = compared(lambda _: row.microscope.read_state(), row.bare_read, COMMANDS)
    document["command"] = compared(
        lambda n: row.microscope.execute(row.setting(n)), lambda n: row.bare_setting(n), COMMANDS
    )
    if row.frame is not None:
        document["frame"] = frames(row)
    if row.long is not None:
        document["stop"] = stops(row)
    if row.reconnect is not None:
        times = in_turns({"again": lambda _: row.reconnect()}, STOPS)["again"]  # pyright: ignore[reportOptionalCall]
        document["reconnect"] = {"median_ms": round(median(times), 3), "min_ms": round(min(times), 3)}
    document["goals"] = _goals(row, document)
    return document


def _goals(row: Row, document: dict[str, Any]) -> dict[str, dict[str, float | bool]]:
    """Each goal of this way, what was measured against it, and whether it was met."""
    goals = GOALS[row.way]
    met: dict[str, dict[str, float | bool]] = {}
    overhead_ms = document["command"]["overhead_min_ms"]
    most_ms = goals["command_overhead_ms"]
    met["command_overhead_ms"] = {"goal": most_ms, "measured": overhead_ms, "met": overhead_ms <= most_ms}
    least, frame = goals.get("frame_mb_per_s"), document.get("frame")
    if least is not None and frame is not None and row.frame_is_ready:
        rate = frame["way_mb_per_s"]
        met["frame_mb_per_s"] = {"goal": least, "measured": rate, "met": rate >= least}
    return met


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a person reads them."""
    lines = [
        f"{'row':<34}{'read':>9}{'command':>9}{'frame':>9}{'MB/s':>8}{'stop':>9}{'again':>9}   ms over the bare client"
    ]
    for name, row in rows.items():
        if "skipped" in row:
            lines.append(f"{name:<34}{row['skipped']}")
            continue
        cells = [
            f"{row['read']['overhead_min_ms']:.3f}", f"{row['command']['overhead_min_ms']:.3f}",
            f"{row['frame']['overhead_min_ms']:.2f}" if "frame" in row else "",
            f"{row['frame']['way_mb_per_s']:.0f}" if "frame_mb_per_s" in row["goals"] else "",
            f"{row['stop']['stop_min_ms']:.1f}" if "stop" in row else "",
            f"{row['reconnect']['min_ms']:.1f}" if "reconnect" in row else "",
        ]  # fmt: skip
        lines.append(
            f"{name:<34}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (9, 9, 9, 8, 9, 9), strict=True))
        )
        lines += [f"    missed: {goal} {one['measured']}" for goal, one in row["goals"].items() if not one["met"]]
    return "\n".join(lines)


def main() -> None:
    """Measure every row that can be opened here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="this row; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--page", type=Path, help="page of the documentation to write the table into, of all rows")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or list(ROWS):
            with ROWS[name](Path(folder)) as row:
                load = round(os.getloadavg()[0], 1)
                rows[name] = {"skipped": row} if isinstance(row, str) else {"load_1_min": load, **measured(row)}
            print(f"{name}: {json.dumps(rows[name])}", file=sys.stderr, flush=True)
    document = {
        "machine": {
            "cpus": os.cpu_count(), "python": platform.python_version(),
            "load_1_min": [load_before, os.getloadavg()[0]],
            "threads_left": threading.active_count() - 1,
        },
        "rows": rows,
    }  # fmt: skip
    print(table(rows))
    if arguments.out is not None:
        if arguments.only and arguments.out.exists():
            document["rows"] = json.loads(arguments.out.read_text())["rows"] | rows
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    if arguments.page is not None:
        put(document, arguments.page)


if __name__ == "__main__":
    main()
