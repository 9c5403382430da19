"""A small adapter for tests of processes: what a command does to it, hang included, its `purpose` says.

Opened by name through an entry point, as a stranger's adapter is: `installed_bench` writes its metadata.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy as np

import instruments
from instruments import (
    AcquireFrame,
    Blank,
    Capabilities,
    Command,
    CommandRefused,
    Detector,
    Frame,
    InstrumentError,
    InstrumentFault,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    ScanPattern,
    StagePosition,
)

MODE = Mode(name="dark", detectors=(Detector(name="haadf"),))
OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0)
FOREVER_S = 3600


def installed_bench(folder: Path) -> Path:
    """A folder for PYTHONPATH that makes the adapter `bench` known by its entry point."""
    metadata = folder / "bench_microscope-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-microscope\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[stempilot.instruments]\nbench = tests.integration.bench_microscope:open_bench\n"
    )
    return folder


def exposure(
    action_id: str, purpose: str = "frame", *, beam_on_s: float = 0.001, deadline_s: float = 3600.0
) -> AcquireFrame:
    """A command; with `purpose` `expose` the beam is really on for `beam_on_s` of wall time."""
    scan = ScanPattern(field_of_view_nm=1.0, shape_px=(2, 5), dwell_time_us=beam_on_s * 1e5)
    return AcquireFrame(
        action_id=action_id, deadline_s=deadline_s, optics=OPTICS, scan=scan, mode="dark", purpose=purpose
    )


def open_bench(**config: Any) -> BenchMicroscope:
    if "refuse" in config:
        raise instruments.ConfigurationError(f"refuse = {config['refuse']!r} is not known; remove it")
    return BenchMicroscope(config.get("stop", "works"))


class BenchMicroscope:
    """A Microscope and nothing more: it cannot forecast, is not rebuilt, knows no truth, and is done for after stop."""

    def __init__(self, how_to_stop: str) -> None:
        self._how_to_stop = how_to_stop
        self._stopped = threading.Event()
        self._count = 0

    def capabilities(self) -> Capabilities:
        return Capabilities(name="bench", simulated=False, axes=(), modes=(MODE,))

    def read_state(self) -> MicroscopeState:
        return MicroscopeState(time_s=float(self._count), stage=StagePosition(), optics=OPTICS)

    def execute(self, command: Command) -> MicroscopeState:
        if self._stopped.is_set() and not isinstance(command, Blank):
            raise InstrumentFault("bench: stopped")
        return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        if self._stopped.is_set():
            raise InstrumentFault("bench: stopped")
        what, _, detail = command.purpose.partition(" ")
        self._count += 1
        match what:
            case "raise":
                raise self._error(detail)
            case "hang":
                threading.Event().wait(FOREVER_S)
            case "hold":  # a vendor's call that never lets go of the interpreter
                ctypes.PyDLL(None).sleep(FOREVER_S)
            case "expose":
                self._stopped.wait(command.scan.duration_s())
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=self.read_state(),
            mode=MODE,
            counts={"haadf": np.full((1, *command.scan.shape_px), self._count, dtype=np.uint16)},
            pixel_size_nm=command.scan.pixel_size_nm,
            dose_e_per_a2=1.0,
            electrons=100.0,
            started_s=0.0,
            ended_s=1.0,
            instrument="bench",
            simulated=False,
            context={"object": object()} if what == "unsendable" else {"count": self._count},
        )

    def outcome(self, action_id: str) -> Outcome:
        del action_id
        return "unknown"

    def stop(self) -> None:
        if self._how_to_stop == "hangs":
            threading.Event().wait(FOREVER_S)
        if self._how_to_stop == "raises":
            raise OSError("the blanker's cable is out")
        self._stopped.set()

    def _error(self, name: str) -> Exception:
        known: dict[str, type[Exception]] = {kind.__name__: kind for kind in InstrumentError.__subclasses__()}
        return {**known, "Worn": Worn, "ZeroDivisionError": ZeroDivisionError}[name](f"bench says {name}: 3 nm")


class Worn(CommandRefused):
    """A refusal of the adapter's own making."""
