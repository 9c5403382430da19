"""What an instrument in a process of its own costs: calls, frames and stops, against the same in this process.

    python -P benchmarks/instrument_host.py [OUT.json]

The frame has 512 x 512 px, four sub-frames, two detectors (4 MB). Prints wall times in ms as JSON; on a busy machine
the smallest are the figure to read.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from statistics import median
from typing import Any

import instruments
from instruments import AcquireFrame, Frame, InstrumentFault, Microscope, Optics, ScanPattern
from instruments.remote import RemoteMicroscope, connect, endpoint_path
from instruments.remote.wire import receive, send
from workflows.instrument_host import one_thread

ROOT = Path(__file__).resolve().parents[1]
FRAMES, CALLS, STOPS = 9, 200, 9
HOST = (
    "import sys; from pathlib import Path; from orchestrator.settings import Settings\n"
    "from workflows.instrument_host import run_instrument_host\n"
    "run_instrument_host(Settings.load(Path(sys.argv[1])), 'simulated')"
)


def command(action_id: str, dwell_time_us: float = 1.0) -> AcquireFrame:
    """A field of 20 nm, 512 x 512 px, four sub-frames."""
    return AcquireFrame(
        action_id=action_id,
        deadline_s=600.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0),
        scan=ScanPattern(field_of_view_nm=20.0, shape_px=(512, 512), dwell_time_us=dwell_time_us),
        mode="maadf",
        subframe_count=4,
    )


def config(cache: Path, time_scale: float = 0.0) -> dict[str, Any]:
    """A small world of the simulated microscope."""
    return {
        "structure": str(ROOT / "examples" / "structures" / "WSe2.extxyz"), "seed": 3, "phonon_count": 1,
        "cache_folder": str(cache), "width_nm": 60.0, "height_nm": 60.0, "time_scale": time_scale,
    }  # fmt: skip


@contextmanager
def running(data: Path) -> Iterator[Path]:
    """The endpoint of an instrument's process."""
    endpoint = endpoint_path(data / "run", "simulated")
    with subprocess.Popen([sys.executable, "-c", HOST, data], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            while not endpoint.exists():
                time.sleep(0.05)
            yield endpoint
        finally:
            process.terminate()


def times_ms(call: Callable[[], object], count: int) -> list[float]:
    """Wall time of each call."""
    found: list[float] = []
    for _ in range(count):
        started_s = time.perf_counter()
        call()
        found.append((time.perf_counter() - started_s) * 1e3)
    return found


def summary(found: list[float]) -> dict[str, float]:
    """Median, smallest, largest."""
    return {"median_ms": round(median(found), 3), "min_ms": round(min(found), 3), "max_ms": round(max(found), 3)}


def new_frames(here: Microscope, there: Microscope) -> dict[str, Any]:
    """Frames never exposed before, in turns, so that both meet the same load."""
    found: dict[str, list[float]] = {"here": [], "remote": []}
    for n in range(FRAMES):
        for name, microscope in (("here", here), ("remote", there)):
            found[name] += times_ms(lambda: microscope.acquire(command(f"f{n}")), 1)  # noqa: B023
    return {name: summary(times) for name, times in found.items()}


def over_a_pipe(frame: Frame) -> dict[str, Any]:
    """The frame through a pipe within this process: this wire format, and pickle."""
    there, here = Pipe()

    def crossing(give: Callable[[], object], take: Callable[[], object]) -> list[float]:
        def once() -> None:
            giver = threading.Thread(target=give)
            giver.start()
            take()
            giver.join()

        return times_ms(once, 5 * FRAMES)

    wire = crossing(lambda: send(there, frame), lambda: receive(here))
    pickled = crossing(lambda: there.send_bytes(pickle.dumps(frame)), lambda: pickle.loads(here.recv_bytes()))
    return {"wire": summary(wire), "pickle": summary(pickled)}


def stops(endpoint: Path, cache: Path, first_fence: int) -> list[float]:
    """From the call of `blank` to its answer, in the middle of an exposure that would take an hour."""
    found: list[float] = []
    for n in range(STOPS):
        with connect(endpoint) as instrument:
            slow = instrument.load("stops", "simulated", config(cache, 1000.0), first_fence + n)
            exposing = threading.Thread(target=slow.acquire, args=(command(f"s{n}"),))
            exposing.start()
            while instrument.stop_line.status().exposing is None:
                time.sleep(0.02)
            found += times_ms(lambda: instrument.stop_line.blank("benchmark"), 1)
            exposing.join()
    return found


def measure(data: Path) -> dict[str, Any]:
    """All of it."""
    cache = data / "images"
    cache.mkdir()
    one_thread("simulated")
    here = instruments.open("simulated", **config(cache))
    frame = here.acquire(command("warm"))
    with running(data) as endpoint, connect(endpoint) as instrument:
        there: RemoteMicroscope = instrument.load("one", "simulated", config(cache), 1)
        there.acquire(command("warm"))
        return {
            "frame_bytes": sum(counts.nbytes for counts in frame.counts.values()),
            "new_frame": new_frames(here, there),
            "frame_handed_over_again": {"remote": summary(times_ms(lambda: there.acquire(command("f8")), 5 * FRAMES))},
            "read_state": {
                "here": summary(times_ms(here.read_state, CALLS)), "remote": summary(times_ms(there.read_state, CALLS)),
            },
            "frame_over_a_pipe": over_a_pipe(frame),
            "status_on_the_stop_line": summary(times_ms(instrument.stop_line.status, CALLS)),
            "connect": summary(times_ms(lambda: connect(endpoint).close(), CALLS)),
            "blank_during_an_exposure": summary(stops(endpoint, cache, 2)),
        }  # fmt: skip


def main() -> None:
    """Measure in a temporary folder; write where told."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            document = {
                "machine": {
                    "cpus": os.cpu_count(),
                    "load_1_min": os.getloadavg()[0],
                    "python": platform.python_version(),
                },
                **measure(Path(folder)),
            }
        except InstrumentFault as error:
            sys.exit(str(error))
    text = json.dumps(document, indent=2)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
