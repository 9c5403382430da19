"""Instruments, watchdogs and clients as processes of their own, started and always ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from instruments import AcquireFrame, Frame, InstrumentFault, Optics, ScanPattern
from instruments.remote import InstrumentStatus, RemoteInstrument, StopLine, connect, endpoint_path
from tests import waiting

ROOT = Path(__file__).resolve().parents[2]
STRUCTURE = str(ROOT / "examples" / "structures" / "WSe2.extxyz")
DEADLINE_S = 600.0
T = TypeVar("T")
START = """
import sys; from pathlib import Path; from orchestrator.settings import Settings
import logging; logging.basicConfig(level="INFO")
settings = Settings.load(Path(sys.argv[1]))
"""
HOST = START + "from workflows.instrument_host import run_instrument_host as run\nrun(settings, sys.argv[2])"
WATCHDOG = START + "from workflows.watchdog import run_watchdog as run\nrun(settings)"


def until(condition: Callable[[], T | None], what: str) -> T:
    """What `condition` gives once it is neither None nor False; its InstrumentFaults are waited out."""
    return waiting.until(condition, what, every_s=0.02, waits_out=InstrumentFault)


@dataclass
class Started:
    """A process of its own and what it says."""

    process: subprocess.Popen[bytes]
    said: Path

    def kill(self) -> None:
        """kill -9, and wait for the end of it."""
        self.process.kill()
        self.process.wait()

    def ends(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    @property
    def text(self) -> str:
        return self.said.read_text()


@contextmanager
def started(code: str, *arguments: object, said: Path, python_path: Path | None = None) -> Iterator[Started]:
    """Python code in a process of its own."""
    paths = [str(path) for path in (ROOT, python_path) if path is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    with said.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    try:
        yield Started(process, said)
    finally:
        process.kill()
        process.wait()


@dataclass
class RunningHost(Started):
    """An instrument's process that answers."""

    endpoint: Path

    @property
    def stop_line(self) -> StopLine:
        return StopLine.of(self.endpoint)

    def status(self) -> InstrumentStatus:
        return self.stop_line.status()

    def connected(self) -> RemoteInstrument:
        return connect(self.endpoint)


@contextmanager
def host_process(data: Path, name: str = "simulated", python_path: Path | None = None) -> Iterator[RunningHost]:
    """The process of a configured instrument, ready."""
    endpoint, said = endpoint_path(data / "run", name), data / f"{name}.log"
    with started(HOST, data, name, said=said, python_path=python_path) as one:

        def ready() -> bool:
            assert one.process.poll() is None, one.text
            return endpoint.exists() and StopLine.of(endpoint).status().pid == one.process.pid

        until(ready, "the instrument's process")
        yield RunningHost(one.process, said, endpoint)


def twin_config(cache: Path, **changes: Any) -> dict[str, Any]:
    """A small world."""
    return {
        "structure": STRUCTURE, "seed": 3, "phonon_count": 1, "cache_folder": str(cache), "width_nm": 60.0,
        "height_nm": 60.0, **changes,
    }  # fmt: skip


def twin_frame(action_id: str, *, dwell_time_us: float = 1.0, **scan: Any) -> AcquireFrame:
    """A small frame of the twin: 48 x 64 px, 2 sub-frames."""
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0)
    pattern = ScanPattern(**{"field_of_view_nm": 4.0, "shape_px": (48, 64), "dwell_time_us": dwell_time_us, **scan})
    return AcquireFrame(
        action_id=action_id, deadline_s=3600, optics=optics, scan=pattern, mode="maadf", subframe_count=2
    )


def same(one: Any, two: Any) -> bool:
    """Equal bit for bit, types included, through dicts, lists and tuples."""
    if type(one) is not type(two):
        return False
    if isinstance(one, Frame):
        return all(same(getattr(one, name), getattr(two, name)) for name in Frame.__dataclass_fields__)
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape) == (two.dtype, two.shape) and one.tobytes() == two.tobytes()
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)
