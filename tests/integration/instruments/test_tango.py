"""The tango adapter against pytango's own device server, in a process of its own over loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Blank,
    CommandRefused,
    ConfigurationError,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    Optics,
    ResultUnknown,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import Bench, Conditions
from instruments.conformance.kit import check_named, run
from instruments.conformance.target import AdapterTarget
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.own_clock import assert_ours
from tests.ports import unused_port
from tests.waiting import until

SERVER = Path(__file__).with_name("tango_server.py")
START_S = 300.0
HASTE = {"answer_s": 2.0}  # for tests that wait in vain
OF_A_LINE = {"mute_server", "call_after_timeout", "lost_answer", "server_killed"}  # an IOR leads round any proxy


def tango() -> Any:
    try:
        import tango
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("pytango is not installed: pip install stempilot[tango]", pytrace=False)
        pytest.skip("pytango is not installed: pip install stempilot[tango]")
    return tango


class Server:
    """The process with the devices."""

    def __enter__(self) -> Self:
        self.port = unused_port()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SERVER, str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until_s = time.monotonic() + START_S
        while True:
            try:
                tango().DeviceProxy(self.device("camera")).ping()
                return
            except tango().DevFailed:
                assert self.process.poll() is None, "the device server ended at its start"
                assert time.monotonic() < until_s, "the device server does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def device(self, name: str) -> str:
        return f"tango://127.0.0.1:{self.port}/test/{name}/1#dbase=no"

    def config(self, **more: Any) -> dict[str, Any]:
        stage, camera = self.device("stage"), self.device("camera")
        axis = {"device": stage, "factor": 1e3, "tolerance": 0.01, "rate_per_s": 1e3}
        return {
            "axes": {"x_nm": {**axis, "attribute": "x", "maximum": 150}, "y_nm": {**axis, "attribute": "y"}},
            "blanker": {"device": self.device("blanker"), "attribute": "blanked"},
            "cameras": {
                "ccd": {
                    "device": camera, "exposure": "exposure", "start": "Start", "stop": "Stop", "image": "image",
                    "counter": "images", "shape_px": (64, 64), "pixel_size_nm": 1.0, "max_exposure_s": 30.0,
                    "gain_counts_per_electron": 1.0,
                }
            },
            "stop_commands": {stage: "Stop"},
            "probe_current_pa": 50.0,
            "beam_energy_ev": 60e3,
            "semi_convergence_angle_mrad": 31.5,
            "answer_s": 30.0,
            "beam_overhead_s": 30.0,
            "simulated": True,
            **more,
        }  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    tango()
    with Server() as server:
        yield server


@pytest.fixture
def microscope(server: Server) -> Iterator[DrivenMicroscope]:
    with opened(server) as microscope:
        yield microscope


@pytest.fixture
def hasty(server: Server) -> Iterator[DrivenMicroscope]:
    with opened(server, **HASTE) as microscope:
        yield microscope


@contextmanager
def opened(server: Server, **more: Any) -> Iterator[DrivenMicroscope]:
    microscope = registry.open("tango", **server.config(**more))
    assert isinstance(microscope, DrivenMicroscope)
    wait_for_the_camera(server)
    try:
        yield microscope
    finally:
        microscope.stop()
        microscope.close()


def wait_for_the_camera(server: Server) -> None:
    """An exposure that another test stopped ends a little later."""
    camera = tango().DeviceProxy(server.device("camera"))
    until(lambda: str(camera.state()) != "RUNNING", "the end of an exposure", waits_out=tango().DevFailed)


def frame(action_id: str, x_nm: float = 0.0, y_nm: float = 0.0, exposure_s: float = 0.02, **more: Any) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60.0,
        stage=StagePosition(x_nm=x_nm, y_nm=y_nm),
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=50.0),
        scan=ScanPattern(field_of_view_nm=64, shape_px=(64, 64), dwell_time_us=exposure_s * 1e6, at_once=True),
        mode="ccd",
        **more,
    )


def going(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values)


def test_it_conforms() -> None:
    """On a server of its own: an exposure that another test left running would make the camera busy."""
    tango()
    conditions = Conditions(shape_px=(64, 64), field_of_view_nm=64.0, dwell_time_us=2e4, stop_exposure_s=150.0)
    with Server() as server:
        config = server.config(answer_s=10.0)  # five answers are a stop's latency
        config["cameras"]["ccd"]["max_exposure_s"] = 300.0
        report = conformed(
            AdapterTarget("tango", config),
            conditions,
            without={"teardown": "pytango keeps its connection for two minutes; in a worker it passes"},
        )
    assert {"stage_motion", "blank", "dwell", "stop_latency"} <= names(report, "passed"), report.table()
    assert names(report, "skipped") >= OF_A_LINE, report.table()


def test_a_worker_takes_all_of_it_away(server: Server) -> None:
    """In process, pytango keeps its connection to a server for two minutes after the last proxy went."""
    wait_for_the_camera(server)
    config = {"python": Path(sys.executable), "adapter": "tango", "config": server.config()}
    with Bench(AdapterTarget("tango", config, "worker"), Conditions(patience_s=60)) as bench:
        report = run(bench, [check_named("teardown")])
    assert not report.has_failed, report.table()


def test_limits_are_the_narrower_of_device_and_facility(server: Server, microscope: DrivenMicroscope) -> None:
    axis = microscope.capabilities().axis("x_nm")
    assert axis is not None
    assert (axis.minimum, axis.maximum) == (-200.0, 150.0)
    for values in ({"x_nm": 151.0}, {"x_nm": -201.0}, {"y_nm": 1e12}):
        with pytest.raises(CommandRefused):
            microscope.execute(going(**values))
    with pytest.raises(Unsupported):
        microscope.execute(going(z_nm=1.0))
    proxy = tango().DeviceProxy(server.device("stage"))
    microscope.execute(going(x_nm=120.0, y_nm=-60.0))
    assert (proxy.x, proxy.y) == (pytest.approx(0.12), pytest.approx(-0.06))
    with pytest.raises(InstrumentFault, match=r"y_nm was sent to 199\.0 and reads 0\.0"):
        microscope.execute(going(y_nm=199.0))


def test_frames_come_once_and_the_beam_is_off_after_them(server: Server, microscope: DrivenMicroscope) -> None:
    one = microscope.acquire(frame("one", 20.0, subframe_count=2))
    assert one.counts["ccd"].shape == (2, 64, 64)
    assert_ours(one, server.device("camera"), 10.0)
    assert one.counts["ccd"].mean() > 0
    assert one.state.beam_blanked
    assert one.context["beam_on_s"] >= 0.04
    camera = tango().DeviceProxy(server.device("camera"))
    before = camera.images
    again = microscope.acquire(frame("one", 20.0, subframe_count=2))
    assert np.array_equal(again.counts["ccd"], one.counts["ccd"])
    assert camera.images == before
    for wrong in ({"exposure_s": 40.0}, {"x_nm": 160.0}):
        with pytest.raises(CommandRefused):
            microscope.acquire(frame("wrong", **wrong))
    assert camera.images == before


def test_a_stop_ends_an_exposure_and_keeps_the_beam_off(server: Server, microscope: DrivenMicroscope) -> None:
    said: list[InstrumentError] = []

    def expose() -> None:
        try:
            microscope.acquire(frame("long", exposure_s=25.0))
        except InstrumentError as error:
            said.append(error)

    blanker, camera = (tango().DeviceProxy(server.device(name)) for name in ("blanker", "camera"))
    before, thread = camera.images, threading.Thread(target=expose)
    thread.start()
    try:
        until(lambda: str(camera.state()) == "RUNNING", "the exposure", every_s=0.02)
        microscope.stop()
        assert blanker.blanked
        assert camera.images == before, "it did not wait for the end of the exposure"
    finally:
        thread.join()
    assert isinstance(said[0], AcquisitionFailed)
    assert microscope.outcome("long") == "unknown"
    with pytest.raises(InstrumentFault, match="was stopped"):
        microscope.execute(Unblank(action_id="on"))
    microscope.release()
    assert microscope.execute(Blank(action_id="off")).beam_blanked


def test_a_mute_and_a_killed_server(server: Server, hasty: DrivenMicroscope) -> None:
    microscope = hasty
    server.process.send_signal(signal.SIGSTOP)
    try:
        # The adapter's own words: it did not wait for pytango, which takes five seconds and more to notice.
        with pytest.raises(LinkLost, match=r"no answer in 2 s; assume that the beam is on"):
            microscope.execute(going(x_nm=10.0))
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert microscope.is_link_lost()
    microscope.reconnect()
    assert microscope.execute(going(x_nm=20.0)).stage.x_nm == pytest.approx(20.0), "no late reply is taken for this one"
    server.kill()
    with pytest.raises(LinkLost):
        microscope.read_state()
    server.start()
    microscope.reconnect()
    assert not microscope.is_link_lost()


def test_an_exposure_without_an_answer_is_unknown_and_never_repeated(server: Server, hasty: DrivenMicroscope) -> None:
    microscope = hasty
    camera = tango().DeviceProxy(server.device("camera"))

    def fall_silent() -> None:
        until(lambda: str(camera.state()) == "RUNNING", "the exposure", every_s=0.02)
        server.process.send_signal(signal.SIGSTOP)

    thread = threading.Thread(target=fall_silent)
    thread.start()
    try:
        with pytest.raises(ResultUnknown, match="dose counts as spent"):
            microscope.acquire(frame("lost", exposure_s=15.0))
    finally:
        thread.join()
        server.process.send_signal(signal.SIGCONT)
    assert microscope.outcome("lost") == "unknown"
    with pytest.raises(AcquisitionFailed, match="not exposed again"):
        microscope.acquire(frame("lost", exposure_s=15.0))
    until(lambda: camera.Stop() is None, "a server that answers again", waits_out=tango().DevFailed)


def test_what_is_configured_wrongly_is_named(server: Server) -> None:
    config = server.config()
    for axes, says in (
        ({"z_nm": {"device": server.device("stage"), "attribute": "z", "tolerance": 1}}, "z"),
        ({"z_nm": {"device": "no such name", "attribute": "z", "tolerance": 1}}, "no such name"),
        (
            {"z_nm": {"device": server.device("camera"), "attribute": "exposure", "tolerance": 1}},
            "neither .* limits it",
        ),
    ):
        with pytest.raises((ConfigurationError, Unsupported, InstrumentFault), match=says):
            registry.open("tango", **{**config, "axes": axes})


def test_the_experiment_that_runs_anywhere(server: Server) -> None:
    """Somebody else's exposure is waited for."""
    wait_for_the_camera(server)
    camera = tango().DeviceProxy(server.device("camera"))
    camera.exposure = 2.0
    camera.Start()
    answer = run_anywhere("tango", server.config())
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
