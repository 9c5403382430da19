"""Workers: adapters and devices in other Pythons, which may hang in C, be killed, and lose their owner."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from instruments import (
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
    RunProcedure,
    StagePosition,
    Unsupported,
    registry,
)
from instruments.adapters.worker import WorkerMicroscope
from instruments.conformance import AdapterTarget, Conditions
from instruments.microscope import Forecasting, HiddenTruth, Linked, Rebuildable, Releasable, TakesDarkFrames
from instruments.workers import Program, Worker
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.other_pythons import ROOT, python_of
from tests.unit.instruments import replay_files

DEVICE = Path(__file__).with_name("hanging_device.py")
FAR_FILES = ("server.py", "protocol.py", "microscope_device.py", "device_server.py", "handshake.py")
FAR_SIDE = [
    *(ROOT / "instruments" / "workers" / name for name in FAR_FILES),
    *(ROOT / "instruments" / "adapters" / "devices").glob("*.py"),
]
WITHIN_S = 60.0


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


@pytest.fixture
def worker(diary: Path) -> Iterator[Worker]:
    made = Worker(
        Program(
            name="hanging", python=Path(sys.executable), file=DEVICE, config={"diary": str(diary)}, start_s=WITHIN_S
        )
    )
    yield made
    made.close()


def wait_for(happened: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.01)


# --- adapters


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = replay_files.write_record(tmp_path_factory.mktemp("record") / "record.npz", side_px=96)
    return replay_files.config(path, file=str(path), survey_dwell_time_us=4.0)  # the dwell that the kit asks for


def test_an_adapter_in_a_python_with_pydantic_and_numpy_alone(record: dict[str, Any]) -> None:
    there = registry.open("worker", python=str(python_of("micromanager")), adapter="replay", config=record)
    here = registry.open("replay", **record)
    assert isinstance(there, WorkerMicroscope)
    try:
        for protocol in (Forecasting, Rebuildable, HiddenTruth, Releasable):
            assert isinstance(there, protocol)
        assert not isinstance(there, TakesDarkFrames)
        assert there.capabilities() == here.capabilities()
        command = replay_files.command("a", side_px=8)
        frame, same = there.acquire(command), here.acquire(command)
        assert frame.state == same.state
        assert all(np.array_equal(frame.counts[line], counts) for line, counts in same.counts.items())
        assert there.outcome("a") == "delivered"
        moved = command.model_copy(update={"action_id": "b", "stage": StagePosition(x_nm=1.0)})
        with pytest.raises(CommandRefused, match="stage"):
            there.acquire(moved)
        with pytest.raises(Unsupported, match="procedure"):
            there.execute(RunProcedure(action_id="p", name="flash"))
        there.stop()
        with pytest.raises(InstrumentFault, match="stopped"):
            there.acquire(replay_files.command("c"))
        psutil.Process(there.worker.pid).kill()
        with pytest.raises(LinkLost, match="its process ended"):
            there.read_state()
        assert there.outcome("a") == "unknown", "a new worker knows nothing of it, and it was exposed"
        assert there.outcome("never") == "not_started"
        psutil.Process(there.worker.pid).kill()
        with pytest.raises(LinkLost):
            there.read_state()
        assert isinstance(there, Linked)
        assert there.is_link_lost()
        with there.events.subscribe() as told:
            there.reconnect()
            assert [event.kind for event in told.take()] == ["link_back"]
        assert not there.is_link_lost()
        assert there.acquire(replay_files.command("d")).action_id == "d"
    finally:
        there.close()


def test_a_worker_conforms_as_its_adapter_does(record: dict[str, Any]) -> None:
    conditions = Conditions(field_of_view_nm=64 * replay_files.PIXEL_NM, shape_px=(64, 64), subframe_count=1)
    target = AdapterTarget("worker", {"python": sys.executable, "adapter": "replay", "config": record})
    report = conformed(target, conditions, "replay, in a worker")
    needed = {"frame", "out_of_range", "unknown_control", "read_back", "known_action", "beam_shift_motion", "teardown"}
    assert needed <= names(report, "passed"), report.table()


def test_faults_of_a_configuration_are_the_adapters_own_words(record: dict[str, Any]) -> None:
    config = {"file": record["file"], "nominal_current_pa": 1.0}
    with pytest.raises(ConfigurationError, match="full_dwell_time_us is required"):
        registry.open("worker", python=sys.executable, adapter="replay", config=config)
    with pytest.raises(ConfigurationError, match="no instrument adapter is called 'nobody'"):
        registry.open("worker", python=sys.executable, adapter="nobody")
    with pytest.raises(ConfigurationError, match="worker configuration: python"):
        registry.open("worker", adapter="replay")


# --- devices


def test_arrays_come_whole_read_only_and_leave_nothing(worker: Worker) -> None:
    rng = np.random.default_rng(1)
    values = {
        "large": rng.integers(0, 65535, (3, 512, 512), np.uint16),
        "small": np.array([[1.5, -0.0], [np.inf, 1e-300]]),
        "empty": np.zeros((0, 4), np.int32),
        "words": ["counts", 3, None, {"deep": True}],
    }
    worker.start()
    before = psutil.Process().num_fds()
    for _ in range(3):
        found = worker.call("echo", {"value": values}, deadline_s=WITHIN_S)
    assert found["words"] == values["words"]
    for name in ("large", "small", "empty"):
        assert found[name].dtype == values[name].dtype  # type: ignore[union-attr]
        assert found[name].tobytes() == values[name].tobytes()  # type: ignore[union-attr]
    assert not found["large"].flags.writeable
    del found
    assert psutil.Process().num_fds() == before


def test_a_call_that_hangs_in_c_is_killed_and_the_next_one_finds_a_new_worker_stopped(
    worker: Worker, diary: Path
) -> None:
    worker.start()
    first = worker.pid
    with pytest.raises(ResultUnknown, match=r"no answer in 0\.5 s"):
        worker.call("hang", deadline_s=0.5, moves=True)
    assert first is not None
    assert not psutil.pid_exists(first)
    assert worker.call("echo", {"value": 1}, deadline_s=WITHIN_S) == 1
    said = [word for word in diary.read_text().split() if word != "hangs"]  # killed before it could say so, or after
    assert said == ["opened", "opened", "stopped"]
    with pytest.raises(LinkLost):
        worker.call("wait", {"duration_s": 60.0}, deadline_s=0.2)


def test_a_stop_that_hangs_too_is_done_by_a_new_worker(worker: Worker, diary: Path) -> None:
    errors: list[Exception] = []

    def hang() -> None:
        try:
            worker.call("hang", deadline_s=WITHIN_S, moves=True)
        except ResultUnknown as error:
            errors.append(error)

    caller = threading.Thread(target=hang)
    caller.start()
    wait_for(lambda: diary.exists() and "hangs" in diary.read_text())
    worker.stop(deadline_s=0.3)
    caller.join(WITHIN_S)
    assert [type(error) for error in errors] == [ResultUnknown]
    assert diary.read_text().split() == ["opened", "hangs", "opened", "stopped"]


def test_a_stop_comes_while_a_call_runs(worker: Worker, diary: Path, tmp_path: Path) -> None:
    results: list[Any] = []
    waiting = {"duration_s": WITHIN_S, "end": str(tmp_path / "end")}
    caller = threading.Thread(target=lambda: results.append(worker.call("wait", waiting, deadline_s=2 * WITHIN_S)))
    caller.start()
    wait_for(lambda: diary.exists() and "waits" in diary.read_text())
    with pytest.raises(InstrumentBusy, match="nothing moved"):
        worker.call("echo", {"value": 1}, deadline_s=0.05)
    worker.stop()
    assert "stopped" in diary.read_text()
    assert not results, "the call still runs"
    (tmp_path / "end").touch()
    caller.join(WITHIN_S)
    assert results == ["waited"]


def test_the_reply_of_a_call_that_was_interrupted_is_nobody_elses(worker: Worker, diary: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        """As Ctrl-C does, in the midst of a call."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    def interrupt_once_it_waits() -> None:
        wait_for(lambda: diary.exists() and "waits" in diary.read_text())
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    interrupting = threading.Thread(target=interrupt_once_it_waits)
    interrupting.start()
    try:
        with pytest.raises(Interrupted):
            worker.call("wait", {"duration_s": WITHIN_S, "end": str(tmp_path / "end")}, deadline_s=2 * WITHIN_S)
    finally:
        interrupting.join()
        (tmp_path / "end").touch()
        signal.signal(signal.SIGUSR1, before)
    assert worker.call("echo", {"value": 7}, deadline_s=WITHIN_S) == 7
    assert worker.start_count == 1


def test_what_a_device_raises_and_cannot_answer_is_a_fault_in_its_words(worker: Worker) -> None:
    with pytest.raises(InstrumentFault, match="fail raised ValueError: the vendor's own words"):
        worker.call("fail", deadline_s=WITHIN_S)
    with pytest.raises(InstrumentFault, match="cannot cross"):
        worker.call("unsendable", deadline_s=WITHIN_S)
    with pytest.raises(CommandRefused, match="nothing moved"):
        worker.call("echo", {"value": object()}, deadline_s=WITHIN_S)
    with pytest.raises(InstrumentFault, match="no call '_write'"):
        worker.call("_write", {"word": "x"}, deadline_s=WITHIN_S)
    assert worker.start_count == 1


def test_a_closed_worker_says_so(worker: Worker, diary: Path) -> None:
    worker.start()
    worker.close()
    worker.close()
    assert worker.pid is None
    assert diary.read_text().split() == ["opened", "stopped"]
    with pytest.raises(LinkLost, match="closed"):
        worker.call("echo", {"value": 1}, deadline_s=1.0)


def test_a_worker_whose_owner_is_killed_stops_its_device_and_leaves(diary: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from instruments.workers import Program, Worker\n"
        f"worker = Worker(Program(name='x', python=Path(sys.executable), file=Path({str(DEVICE)!r}),"
        f" config={{'diary': {str(diary)!r}}}))\n"
        "worker.start(); print(worker.pid, flush=True); worker.call('wait', {'duration_s': 600.0}, deadline_s=600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        wait_for(lambda: "waits" in diary.read_text())
    finally:
        owner.kill()
        owner.wait()
        if owner.stdout is not None:
            owner.stdout.close()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert diary.read_text().split() == ["opened", "waits", "stopped"]


@pytest.mark.parametrize("path", FAR_SIDE, ids=lambda path: path.name)
def test_the_far_side_needs_the_standard_library_and_numpy_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {
        name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= sys.stdlib_module_names | {"numpy"} | {one.stem for one in FAR_SIDE}
    assert "instruments" not in imported
