"""The ophyd adapter against an EPICS server of its own process, through ophyd and pyepics; ophyd's own simulation."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentFault,
    LinkLost,
    Optics,
    ScanPattern,
    SetAxes,
    StagePosition,
)
from instruments.adapters.ophyd import OphydMicroscope
from instruments.conformance import Conditions, OpenedTarget

if missing := [name for name in ("ophyd", "epics", "caproto") if find_spec(name) is None]:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)} not installed: pip install 'stempilot[ophyd,dev]'", pytrace=False)
    pytest.skip(f"{', '.join(missing)} not installed", allow_module_level=True)

from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.epics_instrument import HERE, SoftIoc, configuration
from tests.integration.instruments.ophyd_bench import bench, count, in_thread, opened
from tests.integration.instruments.own_clock import assert_ours
from tests.waiting import until

MUTE_S = 9.0  # Channel Access takes a server for mute after 7 s


@pytest.fixture(scope="module")
def ioc() -> Iterator[SoftIoc]:
    with SoftIoc() as server:
        yield server


@pytest.fixture(scope="module")
def tem(ioc: SoftIoc) -> Iterator[OphydMicroscope]:
    microscope = opened(configuration(ioc.environment))
    yield microscope
    microscope.close()


@pytest.fixture(scope="module")
def hasty(ioc: SoftIoc) -> Iterator[OphydMicroscope]:
    """For tests that wait in vain."""
    microscope = opened(configuration(ioc.environment, answer_s=3.0, connect_s=15.0))
    yield microscope
    microscope.close()


@pytest.fixture(autouse=True)
def _free(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did: the server runs, nothing is jammed or stopped."""
    yield
    for name in {"tem", "hasty"}.intersection(request.fixturenames):
        request.getfixturevalue("ioc").resume()
        tem = request.getfixturevalue(name)
        tem.release()
        jam(tem, 0)
        tem.execute(going(**{"holder.pace_fraction": 1.0}))


def going(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values)


def jam(tem: OphydMicroscope, kind: int) -> None:
    tem.execute(going(**{"holder.jam_index": float(kind)}))


def image(action_id: str, *, x_nm: float = 0.0, dwell_time_us: float = 20.0, subframe_count: int = 1) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=20.0,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=60_000, semi_convergence_angle_mrad=31.5, probe_current_pa=20),
        scan=ScanPattern(field_of_view_nm=100, shape_px=(32, 32), dwell_time_us=dwell_time_us),
        mode="haadf",
        subframe_count=subframe_count,
    )


def test_conforms(ioc: SoftIoc) -> None:
    # electrons are counted as long as the beam is seen to be on, which on a busy machine is longer than the scan
    conditions = Conditions(shape_px=(32, 32), dwell_time_us=900, client_call_count=5)
    config = configuration(ioc.environment, blanker_settle_s=30.0)
    target = OpenedTarget("ophyd", lambda: opened(config))
    report = conformed(target, conditions)
    assert names(report, "passed") >= {
        "out_of_range", "unknown_control", "frame", "counts", "read_back", "metadata", "known_action", "dwell",
        "beam_shift_motion", "stage_motion", "calibration", "blank", "stop_latency", "teardown",
    }  # fmt: skip


def test_the_tighter_of_the_facilitys_and_the_devices_limits_holds(tem: OphydMicroscope) -> None:
    limits = {axis.name: (axis.minimum, axis.maximum) for axis in tem.capabilities().axes}

    assert limits["x_nm"] == (-20_000, 20_000)  # the motor record would go to 40 um
    assert limits["beam_shift_x_nm"] == (-500, 500)  # only the server says so
    assert limits["defocus_nm"] == (-1000, 1000)


def test_a_put_that_the_server_refuses_and_the_client_calls_done_is_a_fault(tem: OphydMicroscope) -> None:
    tem.execute(going(defocus_nm=10.0))

    with pytest.raises(InstrumentFault, match=r"defocus_nm was set to 950.* and reads 10"):
        tem.execute(going(defocus_nm=950.0))

    assert tem.read_state().optics.defocus_nm == 10.0


def test_a_device_that_says_done_and_did_not_move_is_a_fault_and_exposes_nothing(tem: OphydMicroscope) -> None:
    jam(tem, 1)
    command = image("jammed")
    shifted = command.model_copy(update={"scan": command.scan.model_copy(update={"beam_shift_x_nm": 33.0})})

    with pytest.raises(InstrumentFault, match=r"beam_shift_x_nm was set to 33.* and reads -?\d"):
        tem.acquire(shifted)

    assert tem.outcome("jammed") == "not_started"
    assert tem.read_state().beam_blanked


def test_a_detector_that_says_done_without_a_new_image_gives_no_frame(tem: OphydMicroscope) -> None:
    tem.acquire(image("before"))
    jam(tem, 2)

    with pytest.raises(AcquisitionFailed, match="no new image"):
        tem.acquire(image("stale"))

    assert tem.read_state().beam_blanked


def test_a_mute_server_is_said_in_time_and_its_late_replies_meet_nobody(
    tem: OphydMicroscope, hasty: OphydMicroscope, ioc: SoftIoc
) -> None:
    hasty.execute(going(defocus_nm=20.0))
    ioc.suspend()
    muted_s = time.monotonic()
    try:
        with pytest.raises(LinkLost, match="assume that the beam is on"):
            hasty.read_state()
        with pytest.raises(InstrumentFault):
            hasty.stop()
        time.sleep(max(muted_s + MUTE_S - time.monotonic(), 0.0))
    finally:
        ioc.resume()
    hasty.release()
    assert hasty.execute(going(defocus_nm=30.0)).optics.defocus_nm == 30.0
    # who asked nothing meanwhile may have been told that all rights are gone, and never that they are back
    assert tem.execute(going(defocus_nm=40.0, x_nm=60.0)).optics.defocus_nm == 40.0
    tem.stop()
    tem.release()


def test_a_server_killed_in_mid_exposure_is_never_exposed_again_alone(hasty: OphydMicroscope, ioc: SoftIoc) -> None:
    tem = hasty
    long = image("killed", dwell_time_us=5000.0)
    thread, ended = in_thread(lambda: tem.acquire(long))
    until(lambda: tem.is_exposing or ended, "the exposure", every_s=0.01)
    ioc.kill()
    thread.join()

    assert isinstance(ended[0], InstrumentFault)  # the beam cannot be confirmed off: a person has to look
    assert tem.outcome("killed") == "unknown"
    ioc.start()
    with pytest.raises(AcquisitionFailed, match="exposed before"):
        tem.acquire(long)
    assert until(lambda: tem.read_state().beam_blanked, "the server started again", waits_out=LinkLost)


def test_frames_are_raw_counts_with_what_made_them(tem: OphydMicroscope) -> None:
    first, second = tem.acquire(image("one")), tem.acquire(image("two", x_nm=40.0, subframe_count=2))

    assert first.counts["haadf"].dtype == np.uint32
    assert second.counts["haadf"].shape == (2, 32, 32)
    assert second.state.stage.x_nm == pytest.approx(40.0, abs=0.2)
    assert second.state.measured_current_pa == pytest.approx(20.4)
    assert second.electrons > second.dose_e_per_a2 * 100 * 100 * 100  # the blanker's time counts
    assert second.context["software"]["ophyd"]
    assert tem.acquire(image("one")) is first
    assert_ours(second, "blanked", 60.0)  # the server's, by the time it stamped the blanker's last change


def test_stimuli_of_a_holder_are_devices_like_any_other(tem: OphydMicroscope) -> None:
    sent = {
        "holder.temperature_k": 350.0, "holder.bias_v": -2.5, "holder.flow_ml_per_min": 0.4,
        "holder.strain_fraction": 0.01,
    }  # fmt: skip
    state = tem.execute(SetAxes(action_id="stimulate", values=dict(sent)))
    assert {name: state.axes[name].read_back for name in sent} == pytest.approx(sent)
    assert all(state.axes[name].is_reached for name in sent)
    with pytest.raises(CommandRefused, match=r"temperature_k 2000 is outside 80 to 1300 K"):
        tem.execute(SetAxes(action_id="melt", values={"holder.temperature_k": 2000.0}))
    room = {"holder.temperature_k": 293.0, "holder.bias_v": 0.0}
    assert tem.execute(SetAxes(action_id="room", values=dict(room))).axes["holder.bias_v"].is_reached


def test_the_experiment_that_runs_anywhere(tem: OphydMicroscope, ioc: SoftIoc) -> None:
    tem.execute(going(**{"holder.pace_fraction": 0.01}))
    answer = run_anywhere("ophyd", configuration(ioc.environment, stop_line="shared"))
    check(answer)
    assert answer.electrons > 4 * 64 * 64 * 1000 * 50 * 6.24


def test_nobody_there_is_said_at_opening() -> None:
    with SoftIoc() as ioc:
        ioc.kill()
        with pytest.raises(LinkLost, match="see whether its server runs"):
            opened(configuration(ioc.environment, connect_s=1.0, stop_line="shared"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": "json:nothing"}, "nothing"),
        ({"path": ["WITHOUT_OPHYD", str(HERE)]}, r"pip install 'stempilot\[ophyd\]'"),
    ],
)
def test_a_wrong_configuration_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "ophyd.py").write_text("raise ModuleNotFoundError(\"No module named 'ophyd'\", name='ophyd')\n")
    if "path" in changes:
        changes = {"path": [str(tmp_path), str(HERE)]}
    with pytest.raises(ConfigurationError, match=words):
        opened(configuration({}, stop_line="shared", **changes))


def test_ophyds_simulated_devices_are_an_instrument_without_a_beam() -> None:
    axes = {"y_nm": {"signal": "slow", "minimum": -10, "maximum": 10}, "dwell_time_us": {"fixed": 1000}}
    config = bench("simulated_devices:bench", [HERE], axes, "counter", {"counter": "counter"}, set_s=0.5)
    microscope = opened(config)
    try:
        means = [microscope.acquire(count(f"at {x_nm}", x_nm)).counts["counter"].item() for x_nm in (0.0, 3.0)]
        with pytest.raises(InstrumentFault, match=r"y_nm was set to 1.0 and reads 0.*moves too slowly"):
            microscope.execute(going(y_nm=1.0))
        microscope.stop()
        with pytest.raises(InstrumentFault, match="stopped"):
            microscope.acquire(count("stopped", 1.0))
        with pytest.raises(CommandRefused, match="rows"):
            microscope.acquire(count("large", 1.0, shape_px=(2, 1)))
    finally:
        microscope.close()

    assert means[0] > 10 * means[1] > 0  # ophyd's own Gaussian around 0
