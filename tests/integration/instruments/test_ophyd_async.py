"""The ophyd adapter over ophyd-async: a PV Access server in a process of its own, and ophyd-async's simulated devices.

ophyd-async comes from `.venv/ophyd-async`, laid over this environment in the devices' process alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    LinkLost,
    Optics,
    ScanPattern,
    SetAxes,
)
from instruments.adapters.ophyd import OphydMicroscope
from instruments.conformance import Bench, Conditions, OpenedTarget, run
from tests.integration.instruments.conformed import keep
from tests.integration.instruments.epics_instrument import HERE, SoftIoc
from tests.integration.instruments.ophyd_bench import bench, count, in_thread, opened
from tests.waiting import until

ROOT = Path(__file__).parents[3]
OVERLAYS = list((ROOT / ".venv" / "ophyd-async" / "lib").glob("python*/site-packages"))
if not OVERLAYS:
    if os.environ.get("CI") == "true":
        pytest.fail("ophyd-async is not there: make .venv/ophyd-async/installed", pytrace=False)
    pytest.skip("ophyd-async is not there: make .venv/ophyd-async/installed", allow_module_level=True)

OVERLAY = OVERLAYS[0]
RANGE = {"minimum": -20_000, "maximum": 20_000}
CONFIG: dict[str, Any] = {
    "devices": "pva_devices:microscope",
    "path": [str(HERE), str(OVERLAY)],
    "label": "pva",
    "simulated": True,
    "axes": {
        "x_nm": {"signal": "x", "tolerance": 0.01, **RANGE},
        "y_nm": {"signal": "y", "tolerance": 0.01, **RANGE},
        "probe_current_pa": {"signal": "current", "tolerance": 0.01},
        "beam_energy_ev": {"fixed": 200_000},
        "semi_convergence_angle_mrad": {"fixed": 25},
        "field_of_view_nm": {"signal": "field", "tolerance": 0.001},
        "dwell_time_us": {"signal": "dwell", "tolerance": 0.001},
    },
    "rows": {"signal": "rows"},
    "columns": {"signal": "columns"},
    "blanker": {"signal": "blanked", "blanked": 1, "unblanked": 0},
    "stop": [{"signal": "abort", "value": 1}],
    "modes": {
        "haadf": {
            "trigger": "acquire",
            "trigger_value": 1,
            "frame_counter": "count",
            "images": {"haadf": "haadf"},
            "dtype": "uint16",
            "detectors": [{"name": "haadf", "gain_counts_per_electron": 1.0, "without_references": "counts electrons"}],
        }
    },
    "connect_s": 300.0,
    "answer_s": 30.0,
    "set_s": 60.0,
    "stop_latency_s": 0.5,
}


@pytest.fixture(scope="module")
def ioc() -> Iterator[SoftIoc]:
    with SoftIoc("pva_ioc.py", OVERLAY) as server:
        yield server


@pytest.fixture(scope="module")
def tem(ioc: SoftIoc) -> Iterator[OphydMicroscope]:
    microscope = opened({**CONFIG, "environment": ioc.environment})
    yield microscope
    microscope.close()


def image(action_id: str, dwell_time_us: float = 20.0) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=20.0,
        optics=Optics(beam_energy_ev=200_000, semi_convergence_angle_mrad=25, probe_current_pa=20),
        scan=ScanPattern(field_of_view_nm=100, shape_px=(32, 48), dwell_time_us=dwell_time_us),
        mode="haadf",
    )


def test_conforms(tem: OphydMicroscope) -> None:
    conditions = Conditions(
        shape_px=(32, 32),
        dwell_time_us=50,
        subframe_count=1,
        stop_exposure_s=40.0,
        stop_margin_s=12.0,
        patience_s=120.0,
    )

    class Kept(OpenedTarget):
        def close(self, microscope: object) -> None:
            """The fixture closes it."""

    with Bench(Kept("ophyd-async", lambda: tem), conditions) as bench:
        report = run(bench)
    tem.release()
    keep(report, "ophyd-async over PVA")

    assert not report.has_failed, report.table()
    passed = {finding.check for finding in report.findings if finding.verdict == "passed"}
    assert passed >= {"out_of_range", "unknown_control", "frame", "metadata", "known_action", "dwell", "stop_latency"}


def test_limits_are_the_servers_where_they_are_tighter(tem: OphydMicroscope) -> None:
    axis = tem.capabilities().axis("probe_current_pa")

    assert axis is not None
    assert (axis.minimum, axis.maximum) == (0, 200)
    with pytest.raises(CommandRefused, match="outside 0 to 200"):
        tem.execute(SetAxes(action_id="a", values={"probe_current_pa": 201.0}))


def test_images_come_as_rows_and_columns(tem: OphydMicroscope) -> None:
    frame = tem.acquire(image("image"))

    assert frame.counts["haadf"].shape == (1, 32, 48)
    assert frame.counts["haadf"].dtype == np.uint16
    assert frame.counts["haadf"].mean() > 10
    assert {"ophyd-async", "p4p"} <= frame.context["software"].keys()
    assert "stamps" in frame.state.undetermined["column.clocks"], "this server stamps its values with 0"


def test_a_stop_from_another_thread_ends_an_exposure(tem: OphydMicroscope) -> None:
    thread, ended = in_thread(lambda: tem.acquire(image("long", 10_000.0)))
    until(lambda: tem.is_exposing or ended, "the exposure", every_s=0.01)
    tem.stop()
    thread.join()
    tem.release()

    assert isinstance(ended[0], AcquisitionFailed), "it was not waited for"
    assert tem.read_state().beam_blanked


def test_a_mute_server_is_said_in_time(ioc: SoftIoc) -> None:
    hasty = opened({**CONFIG, "environment": ioc.environment, "answer_s": 2.0})
    try:
        ioc.suspend()
        try:
            with pytest.raises(LinkLost):
                hasty.read_state()
        finally:
            ioc.resume()
        hasty.reconnect()
        assert hasty.execute(SetAxes(action_id="b", values={"x_nm": 30.0})).stage.x_nm == 30.0
    finally:
        hasty.close()


def test_ophyd_asyncs_simulated_devices_are_an_instrument_without_a_beam() -> None:
    dwell = {"signal": "detector.acquire_time", "scale": 1e-6, "minimum": 1e3, "maximum": 1e6}
    images = {"first": "detector.channel.1.value", "second": "detector.channel.2.value"}
    microscope = opened(bench("pva_devices:bench", [HERE, OVERLAY], {"dwell_time_us": dwell}, "detector", images))
    try:
        frame = microscope.acquire(count("count", 3.0, dwell_time_us=150_000))
        microscope.stop()
    finally:
        microscope.close()

    assert frame.state.stage.x_nm == 3.0
    assert frame.counts["first"].item() > 0
    assert frame.instrument_time_s > 0.15
