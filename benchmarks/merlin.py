"""Patterns per second from a Merlin: through stempilot, and through LiberTEM-live.

    python -P benchmarks/merlin.py --libertem PYTHON [--out FILE.json]

PYTHON has libertem-live with all it asks for. Each client has a simulated Merlin of its own (LiberTEM-live's, sending
from memory), and they take turns; times are from arming to the last result, the smallest of each in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from instruments import AcquireFrame, Optics, ScanPattern  # noqa: E402
from instruments.adapters.merlin import MerlinMicroscope  # noqa: E402
from instruments.patterns import PatternGeometry  # noqa: E402
from orchestrator.features.patterns import Patterns  # noqa: E402
from tests.integration.instruments.merlin_target import MerlinTarget  # noqa: E402

SIDE_PX, SCAN, TURNS = 256, (32, 32), 8
GEOMETRY = PatternGeometry(shape_px=(SIDE_PX, SIDE_PX), centre_y_px=128, centre_x_px=128, mrad_per_px=0.5)
RINGS = {"bright_field": (0.0, 20.0), "dark_field": (30.0, 60.0)}
PEER = """
import json, sys, time
import numpy as np
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem_live.api import LiveContext
control, data, rows, columns = map(int, sys.argv[1:5])
y, x = np.mgrid[:256, :256] - 128
angle = np.hypot(y, x) * 0.5
masks = lambda: np.stack([angle < 20, (angle >= 30) & (angle < 60)]).astype(np.float32)
context = LiveContext.make_with("inline")
with context.make_connection("merlin").open(
    api_host="127.0.0.1", api_port=control, data_host="127.0.0.1", data_port=data
) as connection:
    for line in sys.stdin:
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        with connection.control() as merlin:
            merlin.cmd("STARTACQUISITION")
            merlin.cmd("SOFTTRIGGER")  # it looks at the first frame before it says that there is an acquisition
        pending = connection.wait_for_acquisition(30)
        scan = context.make_acquisition(conn=connection, nav_shape=(rows, columns), pending_aq=pending)
        udfs = [ApplyMasksUDF(mask_factories=masks), CoMUDF.with_params(cy=128, cx=128)]
        found = context.run_udf(dataset=scan, udf=udfs)
        took = [time.perf_counter() - begun_s, time.process_time() - cpu_s]
        total = float(found[0]["intensity"].data[..., 0].sum())
        print(json.dumps([*took, total]), flush=True)
"""


def command(number: int, mode: str) -> AcquireFrame:
    """One scan of all patterns."""
    return AcquireFrame(
        action_id=f"{mode}-{number}",
        deadline_s=120.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=20.0),
        scan=ScanPattern(field_of_view_nm=10.0, shape_px=SCAN, dwell_time_us=1000.0),
        mode=mode,
    )


Timed = tuple[float, float, float]
"""Wall seconds, processor seconds of the client, counts in the bright field of all patterns."""


def ours(merlin: MerlinMicroscope, mode: str) -> Callable[[int], Timed]:
    """Through the adapter, with two rings and centres of mass; in mode `patterns` all patterns are kept as well."""
    extractor = Patterns(GEOMETRY, RINGS)

    def run(number: int) -> Timed:
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        frame = merlin.acquire(command(number, mode))
        if mode == "patterns":
            total = float(extractor.extract(frame).arrays["bright_field"].sum())
        else:
            total = float(frame.counts["bright_field"].sum())
        return time.perf_counter() - begun_s, time.process_time() - cpu_s, total

    return run


def peer(process: subprocess.Popen[str]) -> Callable[[int], Timed]:
    """Through LiberTEM-live in its own process: the same masks and centres of mass."""

    def run(number: int) -> Timed:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        wall_s, cpu_s, total = json.loads(process.stdout.readline())
        return wall_s, cpu_s, total

    return run


def main() -> None:
    """Take turns, and say how fast each was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libertem", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    counts = np.random.default_rng(1).poisson(3.0, (*SCAN, SIDE_PX, SIDE_PX)).astype(np.uint16)
    rings = {name: {"inner_mrad": inner, "outer_mrad": outer} for name, (inner, outer) in RINGS.items()}
    config = {"geometry": GEOMETRY.model_dump(), "rings": rings}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = [
            stack.enter_context(MerlinTarget(arguments.libertem, folder / str(number), counts, config, is_fast=True))
            for number in range(2)
        ]
        merlin = targets[0].open()
        assert isinstance(merlin, MerlinMicroscope)
        stack.callback(merlin.close)
        ports = [str(port) for _, port in targets[1].addresses()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [str(arguments.libertem), "-c", PEER, *ports, *map(str, SCAN)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        stack.callback(process.communicate)
        stack.callback(process.kill)
        clients = {
            "stempilot, virtual detectors": ours(merlin, "virtual"),
            "stempilot, patterns kept": ours(merlin, "patterns"),
            "LiberTEM-live": peer(process),
        }
        found: dict[str, list[Timed]] = {name: [] for name in clients}
        for number in range(TURNS + 2):
            for name, client in clients.items():
                found[name].append(client(number))
    report(found, arguments.out)


def report(found: dict[str, list[Timed]], out: Path | None) -> None:
    """A line for each client; the first two turns, in which caches are filled and code is compiled, are left out."""
    count = SCAN[0] * SCAN[1]
    rows = {
        name: {
            "patterns_per_s": round(count / min(wall_s for wall_s, _, _ in times[2:])),
            "patterns_per_s_median": round(count / median(wall_s for wall_s, _, _ in times[2:])),
            "cpu_ms_per_pattern": round(min(cpu_s for _, cpu_s, _ in times[2:]) / count * 1e3, 4),
            "bright_field_counts": times[-1][2],
        }
        for name, times in found.items()
    }
    for name, row in rows.items():
        print(f"{name:<32}{row['patterns_per_s']:>8} /s, median {row['patterns_per_s_median']:>6} /s, "
              f"{row['cpu_ms_per_pattern']:.3f} ms CPU a pattern")  # fmt: skip
    if out is not None:
        about = {"cpus": os.cpu_count(), "load_1_min": os.getloadavg()[0], "python": platform.python_version()}
        pattern = {"shape_px": [SIDE_PX, SIDE_PX], "scan": list(SCAN), "bits": 16}
        out.write_text(json.dumps({"machine": about, "pattern": pattern, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
