"""Clients and instruments killed in the middle of an exposure; adapters that hang, politely and not."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import instruments
from instruments import AcquireFrame, InstrumentBusy, InstrumentFault, Rebuildable, ResultUnknown
from instruments.remote import StopLine, connect, read_endpoint
from orchestrator.settings import Settings
from tests.integration.bench_microscope import exposure, installed_bench
from tests.integration.instrument_processes import (
    RunningHost,
    Started,
    host_process,
    same,
    started,
    twin_config,
    twin_frame,
    until,
)
from workflows.emergency_stop import clear, emergency_stop
from workflows.instrument_host import one_thread

pytestmark = pytest.mark.faults
SLOW = 2000.0  # a frame of 0.12 s of simulated time has its beam on for four minutes, unless somebody stops it
COMMAND = twin_frame("slow", dwell_time_us=20.0)
CLIENT = """
import json, sys; from pathlib import Path; from instruments.remote import connect; from instruments import AcquireFrame
endpoint, adapter, config, fence, command = sys.argv[1:]
with connect(Path(endpoint)) as instrument:
    microscope = instrument.load("session", adapter, json.loads(config), int(fence))
    microscope.acquire(AcquireFrame.model_validate_json(command))
    print("acquired", flush=True)
"""


@contextmanager
def client(
    host: RunningHost, adapter: str, config: dict[str, Any], fence: int, command: AcquireFrame
) -> Iterator[Started]:
    """A worker's stand-in in its own process, in the middle of its exposure."""
    said = host.said.with_name(f"client-{fence}.log")
    arguments = (host.endpoint, adapter, json.dumps(config), fence, command.model_dump_json())
    with started(CLIENT, *arguments, said=said) as one:
        until(lambda: one.process.poll() is None and host.status().exposing == command.action_id, "its exposure")
        yield one


def expected(config: dict[str, Any], *commands: AcquireFrame) -> list[instruments.Frame]:
    """Frames of an undisturbed twin in this process."""
    one_thread("simulated")
    microscope = instruments.open("simulated", **{**config, "time_scale": 0.0})
    return [microscope.acquire(command) for command in commands]


def test_the_instrument_survives_its_worker_and_hands_the_frame_over(tmp_path: Path, image_cache: Path) -> None:
    config = twin_config(image_cache, time_scale=SLOW)
    with host_process(tmp_path) as host:
        with client(host, "simulated", config, 1, COMMAND) as worker:
            worker.kill()
        until(lambda: not host.status().has_owner, "the broken line to be noticed")
        status = host.status()
        assert (status.exposing, status.beam_blanked, status.session_id) == ("slow", False, "session")
        report = host.stop_line.blank("its worker is dead", fence=1)
        assert (report.beam_blanked, report.was_exposing) == (True, "slow")
        assert host.status().beam_blanked is True
        with host.connected() as instrument:
            next_owner = instrument.load("session", "simulated", config, 2)
            assert next_owner.is_living
            assert next_owner.outcome("slow") == "delivered"
            assert next_owner.forecast(twin_frame("other"))  # type: ignore[attr-defined]
            frames = [next_owner.acquire(COMMAND), *_quickly(host, next_owner, twin_frame("after", dwell_time_us=20.0))]
            assert same(frames, expected(config, COMMAND, twin_frame("after", dwell_time_us=20.0)))


def _quickly(host: RunningHost, microscope: instruments.Microscope, command: AcquireFrame) -> list[instruments.Frame]:
    """One slow frame, cut short by its owner: it counts as exposed whole."""
    frames: list[instruments.Frame] = []
    exposing = threading.Thread(target=lambda: frames.append(microscope.acquire(command)))
    exposing.start()
    until(lambda: host.status().exposing == command.action_id, "the exposure")
    microscope.stop()
    exposing.join()
    return frames


def test_a_killed_instrument_is_not_waited_for_and_rebuilt(tmp_path: Path, image_cache: Path) -> None:
    config = twin_config(image_cache)
    first = twin_frame("first")
    with host_process(tmp_path) as host, host.connected() as instrument:
        microscope = instrument.load("session", "simulated", {**config, "time_scale": SLOW}, 1)
        assert isinstance(microscope, Rebuildable)
        microscope.rebuild([first])
        killer = threading.Thread(
            target=lambda: until(lambda: host.status().exposing == "slow", "the exposure") and host.kill()
        )
        killer.start()
        with pytest.raises(ResultUnknown, match="broke during acquire"):
            microscope.acquire(COMMAND)
        killer.join()
        with pytest.raises(InstrumentFault, match="nothing was sent"):
            microscope.acquire(twin_frame("later"))
        with pytest.raises(InstrumentFault, match="start it with"):
            microscope.stop()
    with host_process(tmp_path) as host, host.connected() as instrument:
        again = instrument.load("session", "simulated", config, 2)
        assert not again.is_living
        assert isinstance(again, Rebuildable)
        again.rebuild([first])
        assert again.outcome("slow") == "not_started"
        assert same(again.acquire(COMMAND), expected(config, first, COMMAND)[1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two instruments of the test's own adapter."""
    (tmp_path / "stempilot.toml").write_text(
        '[instruments.bench]\nadapter = "bench"\n[instruments.other]\nadapter = "bench"\n'
    )
    installed_bench(tmp_path / "plugins")
    return tmp_path


def test_told_to_end_during_an_exposure_it_blanks_and_hands_the_frame_over(data: Path) -> None:
    command = exposure("long", "expose", beam_on_s=3000)
    with host_process(data, "bench", data / "plugins") as host:
        with client(host, "bench", {}, 1, command) as worker:
            assert host.ends() == 0
            assert worker.process.wait(120) == 0
            assert "acquired" in worker.text
        assert "ended, beam blanked" in host.text


@pytest.mark.parametrize("stop", ["works", "hangs", "raises"])
def test_a_hanging_adapter_is_reported_on_and_stopped_as_far_as_it_can_be(data: Path, stop: str) -> None:
    told = {"works": "beam blanked", "hangs": "has not come back in", "raises": "blanker's cable is out"}[stop]
    with (
        host_process(data, "bench", data / "plugins") as host,
        client(host, "bench", {"stop": stop}, 1, exposure("stuck", "hang")),
    ):
        status = host.status()
        assert (status.doing, status.exposing, status.beam_blanked) == ("acquire", "stuck", False)
        report = host.stop_line.blank("it hangs")
        assert told in report.message
        assert report.was_exposing == "stuck"
        assert report.beam_blanked is (True if stop == "works" else None)
        assert host.status().beam_blanked is (stop == "works")
        with host.connected() as instrument, pytest.raises(InstrumentBusy, match="busy with acquire since"):
            instrument._line.call("load", 2, LOAD, patience_s=60, wait_s=0.1)
        assert host.ends(signal.SIGTERM) == (0 if stop == "works" else 4), "ends although the adapter does not"
    with host_process(data, "bench", data / "plugins") as again, again.connected() as instrument:
        assert instrument.load("session", "bench", {}, 3).acquire(exposure("next")).action_id == "next"


LOAD = {"session_id": "session", "adapter": "bench", "config": {}}


def test_an_instrument_that_holds_its_interpreter_is_given_up_and_killed(data: Path) -> None:
    """Its process cannot even answer; others are stopped all the same."""
    settings = Settings.load(data)
    with host_process(data, "bench", data / "plugins") as host, host_process(data, "other", data / "plugins") as other:
        command = exposure("held", "hold")
        said = data / "client.log"
        arguments = (host.endpoint, "bench", "{}", 1, command.model_dump_json())
        with started(CLIENT, *arguments, said=said):
            until(lambda: _is_mute(host), "the silence")
            stops = {line.instrument: line for line in emergency_stop(settings, None, by="anna", reason="smoke")}
            assert not stops["bench"].is_reached
            assert stops["bench"].beam_blanked is None
            assert f"kill process {host.process.pid}" in stops["bench"].message
            assert stops["other"].is_reached
            assert all(stop.is_queue_locked for stop in stops.values())
            assert other.status().lock is not None
            host.kill()
    with host_process(data, "bench", data / "plugins") as again:
        assert again.status().lock is None, "it was never told"
        assert all(not line.is_locked for line in clear(settings, "bench", by="anna"))


def _is_mute(host: RunningHost) -> bool:
    try:
        StopLine(read_endpoint(host.endpoint), timeout_s=1.0).status()
    except InstrumentFault as error:
        return "does not answer" in str(error)
    return False


def test_a_second_instrument_after_a_kill_takes_the_place(data: Path) -> None:
    with host_process(data, "bench", data / "plugins") as host:
        host.kill()
    with host_process(data, "bench", data / "plugins") as again, connect(again.endpoint) as instrument:
        assert instrument.endpoint.pid == again.process.pid
        assert again.process.pid != host.process.pid
