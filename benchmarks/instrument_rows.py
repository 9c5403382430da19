"""The rows of `benchmarks/instruments.py`: one adapter each, reached in one way, beside its bare client.

To add one, write a context manager that yields a `Row` (or, where it cannot be opened here, a sentence that says why)
and name it in `ROWS`, as `instrument_rows_tem` does in its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import instruments
from instruments import AcquireFrame, Microscope, Optics, Park, Releasable, ScanPattern, SetAxes
from instruments.conformance.hosted import HostedTarget
from instruments.guards import GuardedMicroscope
from instruments.limits import SafetyEnvelope

ROOT = Path(__file__).resolve().parents[1]
Way = Literal["in process", "worker", "own process"]


@dataclass
class Row:
    """What is timed. `bare_...` do the same without stempilot, `long` is an exposure to be stopped.

    `frame_is_ready` says that the frame costs the instrument nothing, so that its rate is that of the way it takes.
    """

    name: str
    way: Way
    bare: str
    microscope: Microscope
    setting: Callable[[int], Any]
    bare_read: Callable[[int], object]
    bare_setting: Callable[[int], object]
    frame: Callable[[int], AcquireFrame] | None = None
    bare_frame: Callable[[int], object] = lambda number: None
    frame_is_ready: bool = False
    long: Callable[[int], AcquireFrame] | None = None
    reconnect: Callable[[], object] | None = None

    def go_on(self) -> None:
        """Ready again after a stop."""
        if isinstance(self.microscope, Releasable):
            self.microscope.release()
        elif self.reconnect is not None:
            self.reconnect()


# --- the simulated microscope: the bare client is the adapter in this process

_serial = iter(range(1_000_000_000))


def _frame(number: int, *, dwell_time_us: float = 1.0, side_px: int = 256, **more: Any) -> AcquireFrame:
    return AcquireFrame(
        action_id=f"frame-{number}-{next(_serial)}",
        deadline_s=600.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0),
        scan=ScanPattern(field_of_view_nm=20.0, shape_px=(side_px, side_px), dwell_time_us=dwell_time_us),
        mode="maadf",
        **more,
    )


def _long(number: int) -> AcquireFrame:
    return _frame(number, dwell_time_us=1000.0, side_px=64, subframe_count=1)


def _shift(number: int) -> Park:
    return Park(action_id=f"park-{next(_serial)}", beam_shift_x_nm=float(number % 7))


def _twin_config(folder: Path) -> dict[str, Any]:
    cache = folder / "images"
    cache.mkdir(exist_ok=True)
    return {
        "structure": str(ROOT / "examples" / "structures" / "WSe2.extxyz"), "seed": 3, "phonon_count": 1,
        "cache_folder": str(cache), "width_nm": 60.0, "height_nm": 60.0, "time_scale": 1.0, "max_dwell_time_us": 1000.0,
    }  # fmt: skip


def _beside(name: str, way: Way, here: Microscope, there: Microscope, **more: Any) -> Row:
    return Row(
        name=name,
        way=way,
        bare="the adapter itself, in this process",
        microscope=there,
        setting=_shift,
        bare_read=lambda _: here.read_state(),
        bare_setting=lambda number: here.execute(_shift(number)),
        **more,
    )


@contextmanager
def simulated_guarded(folder: Path) -> Iterator[Row]:
    """The guard and its ledger around the twin."""
    here = instruments.open("simulated", **_twin_config(folder))
    guarded = GuardedMicroscope(here, SafetyEnvelope(max_dose_e_per_a2=1e12, max_current_pa=200.0))
    yield _beside(
        "simulated, guarded", "in process", here, _ReleasedWith(guarded, here), frame=_frame,
        bare_frame=lambda number: here.acquire(_frame(number)), long=_long,
    )  # fmt: skip


class _ReleasedWith:
    """A guarded microscope that is released by what it guards."""

    def __init__(self, guarded: GuardedMicroscope, inner: Microscope) -> None:
        self.capabilities, self.read_state, self.execute = guarded.capabilities, guarded.read_state, guarded.execute
        self.acquire, self.outcome, self.stop = guarded.acquire, guarded.outcome, guarded.stop
        self._inner = inner

    def release(self) -> None:
        """That of the inner one."""
        if isinstance(self._inner, Releasable):
            self._inner.release()


@contextmanager
def simulated_worker(folder: Path) -> Iterator[Row]:
    """The twin in a worker of this Python."""
    config = _twin_config(folder)
    here = instruments.open("simulated", **config)
    there = instruments.open("worker", python=sys.executable, adapter="simulated", config=config, path=[str(ROOT)])
    try:
        yield _beside("simulated, worker", "worker", here, there, **_frames_and_stops(here))
    finally:
        _close(there)


@contextmanager
def simulated_own_process(folder: Path) -> Iterator[Row]:
    """The twin in an instrument's process, as `stempilot serve` runs it."""
    config = _twin_config(folder)
    here = instruments.open("simulated", **config)
    with HostedTarget("twin", config, "simulated") as target:
        reopened = _Reopened(target)
        more = _frames_and_stops(here)
        yield _beside("simulated, own process", "own process", here, reopened, **more, reconnect=reopened.again)


def _frames_and_stops(here: Microscope) -> dict[str, Any]:
    return {"frame": _frame, "bare_frame": lambda number: here.acquire(_frame(number)), "long": _long}


class _Reopened:
    """Whatever microscope of a target was opened last."""

    def __init__(self, target: HostedTarget) -> None:
        self._target = target
        self._now = target.open()

    def again(self) -> None:
        """Hang up, connect, and ask for the state."""
        self._target.close(self._now)
        self._now = self._target.open()
        self._now.read_state()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)


# --- a replay: its survey is there already, so that a frame costs the copying of it


def _record(folder: Path, side_px: int = 2048) -> Path:
    path = folder / "record.npz"
    if not path.exists():
        rng = np.random.default_rng(1)
        survey = rng.integers(0, 2**31, (side_px, side_px), np.uint32)
        np.savez(path, survey=survey, pixel_size_nm=0.1, counts_Fe_Ka=np.zeros((side_px, side_px), np.uint16))
    return path


def _survey(number: int) -> AcquireFrame:
    return AcquireFrame(
        action_id=f"survey-{number}-{next(_serial)}",
        deadline_s=600.0,
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=10.0, probe_current_pa=100.0),
        scan=ScanPattern(field_of_view_nm=204.8, shape_px=(2048, 2048), dwell_time_us=1.0),
        mode="survey",
    )


def _replay_config(folder: Path) -> dict[str, Any]:
    return {"file": str(_record(folder)), "full_dwell_time_us": 1000.0, "nominal_current_pa": 100.0}


def _replayed(here: Microscope) -> dict[str, Any]:
    return {
        "frame": _survey, "bare_frame": lambda number: here.acquire(_survey(number)), "frame_is_ready": True,
    }  # fmt: skip


@contextmanager
def replay_guarded(folder: Path) -> Iterator[Row]:
    """The guard around a replay."""
    here = instruments.open("replay", **_replay_config(folder))
    guarded = GuardedMicroscope(here, SafetyEnvelope(max_current_pa=200.0))
    yield _beside("replay, guarded", "in process", here, guarded, **_replayed(here))


@contextmanager
def replay_worker(folder: Path) -> Iterator[Row]:
    """A replay in a worker of this Python."""
    config = _replay_config(folder)
    here = instruments.open("replay", **config)
    there = instruments.open("worker", python=sys.executable, adapter="replay", config=config, path=[str(ROOT)])
    try:
        yield _beside("replay, worker", "worker", here, there, **_replayed(here))
    finally:
        _close(there)


@contextmanager
def replay_own_process(folder: Path) -> Iterator[Row]:
    """A replay in an instrument's process."""
    config = _replay_config(folder)
    here = instruments.open("replay", **config)
    with HostedTarget("replay", config) as target:
        reopened = _Reopened(target)
        yield _beside("replay, own process", "own process", here, reopened, **_replayed(here), reconnect=reopened.again)


# --- libraries in Pythons of their own: nobody can call them from here, so the overhead is the whole time, with theirs


@contextmanager
def nion_worker(folder: Path) -> Iterator[Row | str]:
    """nionswift-usim: a stage move, the simulator's own time included, and a scan of 1 us a pixel beside Nion's own."""
    python = ROOT / ".venv" / "nion" / "bin" / "python"
    if not python.exists():
        yield "make .venv/nion/installed"
        return
    there = instruments.open("nion", python=str(python), usim=True)
    optics = there.read_state().optics

    def frame(number: int) -> AcquireFrame:
        return _frame(number, side_px=512).model_copy(update={"mode": "haadf", "optics": optics})

    def long(number: int) -> AcquireFrame:
        return _frame(number, side_px=128, dwell_time_us=1000.0).model_copy(update={"mode": "haadf", "optics": optics})

    bare = subprocess.Popen(
        [str(python), "-P", str(ROOT / "benchmarks/nion_bare.py"), "512", "1.0", str(frame(0).scan.field_of_view_nm)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    try:
        row = _outside("nion, worker", there, "x_nm", frame=frame, long=long, bare_frame=lambda _: _asked(bare))
        yield replace(row, bare="of frames Nion's own classes in a process of their own; else nothing")
    finally:
        bare.communicate(timeout=60)
        _close(there)


def _asked(bare: subprocess.Popen[str]) -> None:
    """One line to a process, and its answer."""
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write("scan\n")
    bare.stdin.flush()
    if int(bare.stdout.readline() or 0) != 2:
        raise RuntimeError("Nion's own scan gave no two images")


@contextmanager
def micromanager_worker(folder: Path) -> Iterator[Row | str]:
    """A focus move and an image of 512 x 512 px exposed for 1 ms, of the demonstration; the core's time included."""
    python = ROOT / ".venv" / "micromanager" / "bin" / "python"
    if not python.exists():
        yield "make .venv/micromanager/installed"
        return
    there = instruments.open("micromanager", python=str(python), demo=True)

    def frame(number: int) -> AcquireFrame:
        scan = ScanPattern(field_of_view_nm=512e3, shape_px=(512, 512), dwell_time_us=1000.0, at_once=True)
        return _frame(number).model_copy(update={"mode": "camera", "scan": scan})

    try:
        yield _outside("micromanager, worker", there, "z_nm", frame=frame)
    finally:
        _close(there)


def _outside(name: str, there: Microscope, axis: str, **more: Any) -> Row:
    def setting(number: int) -> SetAxes:
        return SetAxes(action_id=f"set-{next(_serial)}", values={axis: float(number % 7) * 50.0})

    return Row(
        name=name,
        way="worker",
        bare="nothing: the library's own time is in ours",
        microscope=there,
        setting=setting,
        bare_read=lambda _: None,
        bare_setting=lambda _: None,
        **more,
    )


def _close(microscope: Microscope) -> None:
    if isinstance(microscope, instruments.microscope.Closable):
        microscope.close()


ROWS: dict[str, Callable[[Path], AbstractContextManager[Row | str]]] = {
    "simulated-guarded": simulated_guarded,
    "simulated-worker": simulated_worker,
    "simulated-own-process": simulated_own_process,
    "replay-guarded": replay_guarded,
    "replay-worker": replay_worker,
    "replay-own-process": replay_own_process,
    "nion-worker": nion_worker,
    "micromanager-worker": micromanager_worker,
}
