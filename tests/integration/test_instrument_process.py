"""An instrument in its own process: the same bits and errors as in this one, one owner, a stop line, a long life."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import instruments
from instruments import (
    Blank,
    Command,
    CommandRefused,
    ConfigurationError,
    Forecasting,
    HiddenTruth,
    InstrumentError,
    InstrumentFault,
    Microscope,
    Park,
    Rebuildable,
    ResultUnknown,
    Unblank,
    Unsupported,
)
from instruments.remote import Endpoint, RemoteMicroscope, StopLine, connect, endpoint_path, read_endpoint
from orchestrator.settings import Settings
from tests.integration.bench_microscope import exposure, installed_bench
from tests.integration.instrument_processes import (
    HOST,
    RunningHost,
    host_process,
    same,
    started,
    twin_config,
    twin_frame,
    until,
)
from workflows.emergency_stop import clear, emergency_stop
from workflows.instrument_host import one_thread

_fences = iter(range(1, 1_000_000))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One process for all tests that leave it as they found it."""
    data = tmp_path_factory.mktemp("bench")
    (data / "stempilot.toml").write_text('[instruments.bench]\nadapter = "bench"\n')
    with host_process(data, "bench", installed_bench(data / "plugins")) as running:
        yield running


@pytest.fixture
def microscope(bench: RunningHost) -> Iterator[RemoteMicroscope]:
    """Loaded anew, by a new owner."""
    with bench.connected() as instrument:
        fence = next(_fences)
        yield instrument.load(f"session-{fence}", "bench", {}, fence)


# --- the twin: bit for bit


def test_the_twin_is_the_same_in_another_process(tmp_path: Path, image_cache: Path) -> None:
    config = twin_config(image_cache)
    one_thread("simulated")
    here = instruments.open("simulated", **config)
    last = twin_frame("c", beam_shift_x_nm=0.1 + 0.2, rotation_deg=12.3)
    commands: list[Command] = [
        twin_frame("a"),
        Unblank(action_id="u"),
        Park(action_id="p", beam_shift_x_nm=3.5, duration_s=0.01),
        Blank(action_id="b"),
        last,
    ]
    with host_process(tmp_path) as host, host.connected() as instrument:
        there = instrument.load("one", "simulated", config, 1)
        assert all(isinstance(there, kind) for kind in (Microscope, Forecasting, Rebuildable, HiddenTruth))
        assert same(there.capabilities(), here.capabilities())
        drive_both(here, there, commands)
        assert isinstance(here, HiddenTruth)
        assert isinstance(there, HiddenTruth)
        assert same(there.truth(), here.truth())
        again = instrument.load("two", "simulated", config, 2)
        assert not again.is_living
        assert isinstance(again, Rebuildable)
        assert again.outcome("c") == "not_started"
        again.rebuild(commands[:-1])
        assert same(again.acquire(last), here.acquire(last))
        with pytest.raises(CommandRefused) as refused:
            again.acquire(twin_frame("far", beam_shift_x_nm=1e5))
        with pytest.raises(CommandRefused) as refused_here:
            here.acquire(twin_frame("far", beam_shift_x_nm=1e5))
        assert str(refused.value) == str(refused_here.value)
        with pytest.raises(ConfigurationError, match="typo_nm"):
            instrument.load("three", "simulated", {**config, "typo_nm": 1}, 3)
        assert host.ends() == 0
    assert not endpoint_path(tmp_path / "run", "simulated").exists()


def drive_both(here: Microscope, there: Microscope, commands: list[Command]) -> None:
    for command in commands:
        if command.kind == "acquire_frame":
            assert isinstance(here, Forecasting)
            assert isinstance(there, Forecasting)
            assert same(there.forecast(command), here.forecast(command))
            assert same(there.acquire(command), here.acquire(command))
            assert same(there.acquire(command), here.acquire(command)), "given again"
        else:
            assert same(there.execute(command), here.execute(command))
        assert same(there.read_state(), here.read_state())
        assert there.outcome(command.action_id) == here.outcome(command.action_id) == "delivered"
        assert there.outcome("never") == here.outcome("never") == "not_started"


# --- errors, protocols


@pytest.mark.parametrize("kind", InstrumentError.__subclasses__())
def test_every_error_arrives_as_itself(microscope: RemoteMicroscope, kind: type[InstrumentError]) -> None:
    with pytest.raises(kind) as raised:
        microscope.acquire(exposure("a", f"raise {kind.__name__}"))
    assert type(raised.value) is kind
    assert str(raised.value) == f"bench says {kind.__name__}: 3 nm"


def test_errors_of_an_adapters_own_making_arrive_as_what_they_are(microscope: RemoteMicroscope) -> None:
    with pytest.raises(CommandRefused, match="bench says Worn: 3 nm"):
        microscope.acquire(exposure("a", "raise Worn"))
    with pytest.raises(InstrumentFault, match="the adapter raised ZeroDivisionError: bench says"):
        microscope.acquire(exposure("b", "raise ZeroDivisionError"))
    with pytest.raises(InstrumentFault, match="answered what cannot be sent: a object"):
        microscope.acquire(exposure("c", "unsendable"))
    assert microscope.acquire(exposure("d")).counts["haadf"].shape == (1, 2, 5)


def test_only_what_the_adapter_can(microscope: RemoteMicroscope) -> None:
    assert isinstance(microscope, Microscope)
    assert not any(isinstance(microscope, kind) for kind in (Forecasting, Rebuildable, HiddenTruth))
    with pytest.raises(Unsupported, match="cannot answer 'truth'"):
        microscope.ask("truth", {})
    with pytest.raises(Unsupported, match="not simulated"):
        microscope.ask("rebuild", {"commands": []})


def test_what_cannot_be_sent_moves_nothing(bench: RunningHost) -> None:
    with bench.connected() as instrument:
        with pytest.raises(CommandRefused, match="load cannot be sent: a set cannot cross"):
            instrument.load("unsent", "bench", {"stop": {1, 2}}, next(_fences))
        assert instrument.load("unsent", "bench", {}, next(_fences)).read_state().time_s == 0.0


def test_configuration_is_checked_there(bench: RunningHost) -> None:
    with bench.connected() as instrument:
        with pytest.raises(ConfigurationError, match="refuse = 7 is not known"):
            instrument.load("configured", "bench", {"refuse": 7}, next(_fences))
        with pytest.raises(ConfigurationError, match="is for adapter 'bench', not 'replay'"):
            instrument.load("configured", "replay", {}, next(_fences))


# --- who may


def test_the_newest_fence_owns_it(bench: RunningHost) -> None:
    old, new = next(_fences), next(_fences)
    with bench.connected() as first, bench.connected() as second:
        mine = first.load("mine", "bench", {}, old)
        mine.acquire(exposure("m1"))
        theirs = second.load("mine", "bench", {}, new)
        assert theirs.is_living
        too_old = f"fence {old} is older than {new}"
        with pytest.raises(CommandRefused, match=too_old):
            mine.acquire(exposure("m2"))
        with pytest.raises(CommandRefused, match=too_old):
            mine.read_state()
        with pytest.raises(CommandRefused, match=too_old):
            first.load("mine", "bench", {}, old)
        mine.stop()  # not theirs to stop any more
        assert theirs.acquire(exposure("m3")).counts["haadf"][0, 0, 0] == 2
        assert bench.status().fence == new


def test_nobody_commands_without_loading(bench: RunningHost, microscope: RemoteMicroscope) -> None:
    ahead = microscope.fence + 1000
    with bench.connected() as instrument:
        loaded = instrument.load("ahead", "bench", {}, next(_fences))
        with pytest.raises(CommandRefused, match=f"fence {ahead} has loaded nothing"):
            loaded._line.call("read_state", ahead, {}, patience_s=60)


def test_the_wrong_secret_opens_nothing(bench: RunningHost) -> None:
    right = read_endpoint(bench.endpoint)
    wrong = Endpoint(**{**right.model_dump(), "secret": "0" * 64})
    with pytest.raises(InstrumentFault, match="refuses this secret"):
        connect(wrong)
    with pytest.raises(InstrumentFault, match="refuses this secret"):
        StopLine(wrong).emergency_stop("no", by="nobody")
    assert bench.status().lock is None
    assert bench.endpoint.stat().st_mode & 0o777 == 0o600
    assert right.secret not in repr(right)


def test_another_protocol_is_named(bench: RunningHost) -> None:
    other = Endpoint(**{**read_endpoint(bench.endpoint).model_dump(), "protocol": 99})
    with pytest.raises(InstrumentFault, match="speaks protocol 99"):
        connect(other)


def test_garbage_and_silence_hold_up_nobody(bench: RunningHost, microscope: RemoteMicroscope) -> None:
    rng, endpoint = random.Random(5), read_endpoint(bench.endpoint)
    silent = []
    for port in (endpoint.port, endpoint.stop_port):
        for size in (1, 3, 4, 100, 70_000):
            with socket.create_connection((endpoint.host, port), 60) as line:
                line.sendall(rng.randbytes(size))
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x00" * 9, b"\xff" * 64):
            with socket.create_connection((endpoint.host, port), 60) as line:
                line.sendall(text)
        silent += [socket.create_connection((endpoint.host, port), 60) for _ in range(3)]
    assert bench.status().beam_blanked is True
    assert microscope.acquire(exposure("still")).action_id == "still"
    for line in silent:
        line.close()


def test_garbage_of_somebody_with_the_secret(bench: RunningHost) -> None:
    from instruments.remote.lines import dial

    endpoint = read_endpoint(bench.endpoint)
    wrong = (b"", b"{", b"[1, 2]", b'[{"$": "array", "index": 7}, []]', b'[{}, [["<f8", [-1]]]]', b'[{}, [["O", [1]]]]',
             b'[{"request": {"call": "load", "fence": -1, "wait_s": 1}, "arguments": {}}, []]',
             b'[{"$": "record", "name": "Popen", "fields": {}}, []]', b'[{"call": "blank", "reason": 5}, []]',
             b'[{}, [["<f8", [99999999999]]]]')  # fmt: skip
    for port in (endpoint.port, endpoint.stop_port):
        for message in wrong:
            with dial(endpoint.host, port, endpoint.authkey(), 60) as line:
                line.send_bytes(message)
                with pytest.raises((EOFError, OSError)):
                    line.recv_bytes()
    assert bench.status().name == "bench"


# --- frames outlive their owner


def test_the_last_frame_is_given_to_the_next_owner(bench: RunningHost) -> None:
    """Also where the instrument itself cannot tell what became of an action."""
    command = exposure("kept")
    with bench.connected() as instrument:
        frame = instrument.load("kept", "bench", {}, next(_fences)).acquire(command)
    with bench.connected() as instrument:
        again = instrument.load("kept", "bench", {}, next(_fences))
        assert again.is_living
        assert (again.outcome("kept"), again.outcome("other")) == ("delivered", "unknown")
        assert same(again.acquire(command), frame)
        again.stop()
        assert same(again.acquire(command), frame), "handing it over exposes nothing"


# --- the stop line


def test_stop_while_it_exposes(bench: RunningHost) -> None:
    with bench.connected() as instrument:
        fence = next(_fences)
        microscope = instrument.load("stop", "bench", {}, fence)
        frames: list[Any] = []
        exposing = threading.Thread(
            target=lambda: frames.append(microscope.acquire(exposure("long", "expose", beam_on_s=3000)))
        )
        exposing.start()
        status = until(lambda: (found := bench.status()).exposing and found, "the exposure")
        assert (status.exposing, status.beam_blanked, status.has_owner) == ("long", False, True)
        assert bench.stop_line.blank("too late", fence=fence - 1).is_ignored
        assert bench.status().beam_blanked is False
        report = bench.stop_line.blank("a test", fence=fence)
        assert (report.beam_blanked, report.was_exposing, report.is_locked) == (True, "long", False)
        exposing.join()
        assert [frame.action_id for frame in frames] == ["long"]
        assert bench.stop_line.blank("again").beam_blanked is True
        with pytest.raises(InstrumentFault, match="was blanked: a test; claim it again"):
            microscope.acquire(exposure("next"))
        assert microscope.execute(Blank(action_id="off")).beam_blanked
        after = instrument.load("stop", "bench", {}, next(_fences))
        assert not after.is_living, "this adapter cannot go on after a stop: it was opened again"
        assert after.acquire(exposure("next")).action_id == "next"
        assert bench.status().stopped is None


def test_a_command_past_its_deadline_is_stopped_and_its_frame_kept(bench: RunningHost) -> None:
    command = exposure("late", "expose", beam_on_s=3000, deadline_s=0.5)
    with bench.connected() as instrument:
        microscope = instrument.load("late", "bench", {}, next(_fences))
        with pytest.raises(ResultUnknown, match=r"acquire late was not done within its deadline of 0\.5 s and was"):
            microscope.acquire(command)
        status = bench.status()
        assert status.beam_blanked is True
        assert status.stopped == "acquire late was not done within its deadline of 0.5 s"
        with pytest.raises(InstrumentFault, match="was blanked: acquire late was not done within"):
            microscope.acquire(exposure("next"))
        after = instrument.load("late", "bench", {}, next(_fences))
        assert after.outcome("late") == "delivered"
        assert after.acquire(command).action_id == "late"


def test_an_emergency_stop_holds_until_it_is_cleared(bench: RunningHost, microscope: RemoteMicroscope) -> None:
    for reason in ("smoke", "more smoke"):
        report = bench.stop_line.emergency_stop(reason, by="anna")
        assert (report.beam_blanked, report.is_locked) == (True, True)
    status = bench.status()
    assert status.lock is not None
    assert (status.lock.reason, status.lock.by, status.beam_blanked) == ("smoke", "anna", True)
    with pytest.raises(InstrumentFault, match=r"locked by an emergency stop of anna at .* UTC: smoke"):
        microscope.acquire(exposure("x"))
    with bench.connected() as instrument:
        with pytest.raises(InstrumentFault, match="stempilot estop bench --clear"):
            instrument.load("locked", "bench", {}, next(_fences))
        assert bench.stop_line.clear(by="anna").lock is None
        assert bench.stop_line.clear(by="anna").lock is None
        with pytest.raises(InstrumentFault, match="claim it again"):
            microscope.acquire(exposure("x"))
        assert instrument.load("locked", "bench", {}, next(_fences)).acquire(exposure("x")).action_id == "x"


# --- processes


def test_one_process_for_one_instrument(bench: RunningHost, tmp_path: Path) -> None:
    data = bench.endpoint.parents[1]
    with started(HOST, data, "bench", said=tmp_path / "second.log", python_path=data / "plugins") as second:
        assert second.process.wait(120) != 0
    assert f"DataFolderBusy: process {bench.process.pid} is the instrument-bench" in second.text
    assert bench.status().pid == bench.process.pid


def test_it_outlives_who_started_it_and_keeps_what_must_be_kept(tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text('[instruments.bench]\nadapter = "bench"\n')
    plugins = installed_bench(tmp_path / "plugins")
    endpoint = endpoint_path(tmp_path / "run", "bench")
    parent = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)\ntime.sleep(600)"
    )
    pid = None
    try:
        with started(parent, HOST, tmp_path, "bench", said=tmp_path / "parent.log", python_path=plugins) as one:
            pid = until(lambda: endpoint.exists() and StopLine.of(endpoint).status().pid, "the instrument's process")
            one.kill()
        with connect(endpoint) as instrument:
            assert instrument.load("s", "bench", {}, 41).acquire(exposure("a")).action_id == "a"
        StopLine.of(endpoint).emergency_stop("smoke", by="anna")
        os.kill(pid, signal.SIGTERM)
        until(lambda: not endpoint.exists(), "its end")
    finally:
        if pid is not None:
            _end(pid)
    settings = Settings.load(tmp_path)
    with pytest.raises(InstrumentFault, match="stempilot instrument-host bench"):
        connect(endpoint)
    with host_process(tmp_path, "bench", plugins) as again:
        with again.connected() as instrument, pytest.raises(InstrumentFault, match="emergency stop of anna"):
            instrument.load("s", "bench", {}, 42)
        (cleared,) = clear(settings, "bench", by="otto")
        assert (cleared.is_reached, cleared.is_locked, cleared.is_queue_locked) == (True, False, False)
        with again.connected() as instrument:
            with pytest.raises(CommandRefused, match="fence 40 is older than 41"):
                instrument.load("s", "bench", {}, 40)
            assert instrument.load("s", "bench", {}, 42).acquire(exposure("b")).action_id == "b"


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_stale_endpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text('[instruments.bench]\nadapter = "bench"\n')
    with host_process(tmp_path, "bench", installed_bench(tmp_path / "plugins")) as host:
        host.kill()
    with pytest.raises(InstrumentFault, match=rf"process {host.process.pid}, which wrote .*, is dead.*instrument-host"):
        connect(host.endpoint)
    settings = Settings.load(tmp_path)
    (stopped,) = emergency_stop(settings, "bench", by="anna", reason="smoke")
    assert stopped.is_reached
    assert (stopped.is_locked, stopped.is_queue_locked, stopped.beam_blanked) == (True, True, None)
    with host_process(tmp_path, "bench", tmp_path / "plugins") as again:
        lock = again.status().lock
        assert lock is not None
        assert lock.reason == "smoke"
    (cleared,) = clear(settings, "bench", by="anna")
    assert (cleared.is_locked, cleared.is_queue_locked) == (False, False)


def test_importing_it_loads_little() -> None:
    code = "import instruments.remote, sys; print('torch' in sys.modules, 'simulation' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_emergency_stop_goes_out_before_anything_else_is_loaded(tmp_path: Path, image_cache: Path) -> None:
    ahead = (
        "import os, sys; from workflows.cli.entry import stop_first; count = stop_first(sys.argv[1:], os.environ); "
        "print(count, any(name in sys.modules for name in ('torch', 'scipy', 'sqlalchemy', 'orchestrator', 'typer')))"
    )

    def stop_first(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", ahead, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    with host_process(tmp_path) as host, host.connected() as instrument:
        there = instrument.load("one", "simulated", twin_config(image_cache), 1)
        line = there.stop_line
        assert stop_first("--data", str(tmp_path), "--clear") == ["0", "False"]
        assert stop_first("--data", str(tmp_path), "--clera") == ["0", "False"], "misspelt: nothing is stopped"
        assert stop_first("--data", str(tmp_path), "nowhere") == ["0", "False"]
        assert line.status().lock is None
        assert stop_first(f"--data={tmp_path}", "--reason", "smoke", "simulated") == ["1", "False"]
        lock = line.status().lock
        assert lock is not None
        assert lock.reason == "smoke"
        with pytest.raises(InstrumentFault):
            there.acquire(twin_frame("after"))
        line.clear(by="somebody")
        assert stop_first("--data", str(tmp_path)) == ["1", "False"]
