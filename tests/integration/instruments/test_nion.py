"""The nion adapter against nionswift-usim, in a process and a Python of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Blank,
    CommandRefused,
    ConfigurationError,
    InstrumentFault,
    Optics,
    ResultUnknown,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.nion_card import CAMERA_OFFSET, SCAN_OFFSET
from instruments.conformance import AdapterTarget, Conditions
from orchestrator.catalogue import Catalogue
from tests.integration.harness import stempilot
from tests.integration.instruments.anywhere import SPEC, check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.in_exposure import in_exposure
from tests.integration.instruments.other_pythons import python_of
from tests.integration.instruments.own_clock import assert_ours

PYTHON = str(python_of("nion"))
CONFIG: dict[str, Any] = {"python": PYTHON, "usim": True, "controls": {"EHT": 60e3, "ConvergenceAngle": 0.0315}}
OF_A_SERVER = {"concurrent_clients", "mute_server", "call_after_timeout", "lost_answer", "server_killed"}


@pytest.fixture(scope="module")
def microscope() -> Iterator[DrivenMicroscope]:
    opened = registry.open("nion", **CONFIG)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def frame_of(
    action_id: str, mode: str = "haadf", dwell_us: float = 2.0, side_px: int = 64, **optics: float
) -> AcquireFrame:
    fixed = {
        "beam_energy_ev": 60e3,
        "semi_convergence_angle_mrad": 31.5,
        "probe_current_pa": 100.0,
        "defocus_nm": 300.0,
    }
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60.0,
        optics=Optics(**{**fixed, **optics}),
        scan=ScanPattern(field_of_view_nm=100.0, shape_px=(side_px, side_px), dwell_time_us=dwell_us),
        mode=mode,
    )


def test_it_conforms_and_says_what_the_simulator_gets_wrong() -> None:
    conditions = Conditions(
        dwell_time_us=2.0, field_of_view_nm=100.0, shape_px=(128, 128), probe_current_pa=100.0, stop_exposure_s=16.0,
        stop_margin_s=5.0,
    )  # fmt: skip
    report = conformed(AdapterTarget("nion", CONFIG), conditions)
    assert names(report, "declared quirk") == {"blank"}  # HAADF stays lit: measured, and declared
    assert names(report, "skipped") == OF_A_SERVER | {"stage_tilt"}, report.table()
    assert "nion" not in {name.partition(".")[0] for name in sys.modules}


def test_cameras_follow_the_current_and_only_the_ronchigram_darkens(microscope: DrivenMicroscope) -> None:
    means = [
        float(
            microscope.acquire(frame_of(f"r{current}", "ronchigram", 1e5, 1, probe_current_pa=current))
            .counts["ronchigram"]
            .mean()
        )
        - CAMERA_OFFSET
        for current in (50.0, 200.0)
    ]
    assert means[1] / means[0] == pytest.approx(4.0, rel=0.01)
    dark = microscope.acquire_dark(frame_of("dark", "ronchigram", 1e5, 1))
    assert dark.counts["ronchigram"].mean() - CAMERA_OFFSET == pytest.approx(0.0, abs=1.0)
    assert dark.electrons == 0.0
    lit, blanked = (
        microscope.acquire(frame_of("e", "eels", 5e4, 1)),
        microscope.acquire_dark(frame_of("e0", "eels", 5e4, 1)),
    )
    assert lit.counts["eels"].shape == (1, 1, 1, 128, 512)
    assert lit.counts["eels"].mean() == pytest.approx(blanked.counts["eels"].mean(), rel=1e-3), "as its quirk says"
    assert microscope.read_state().beam_blanked


def test_what_would_come_out_wrong_is_refused_before_anything_moves(microscope: DrivenMicroscope) -> None:
    before = microscope.read_state()
    wrong: list[AcquireFrame] = [
        frame_of("zero", "ronchigram", 1e5, 1, defocus_nm=0.0),  # the simulator's frame would be empty
        frame_of("wide", "ronchigram", 1e5, 64),
        frame_of("energy", beam_energy_ev=100e3),
        frame_of("far").model_copy(update={"stage": StagePosition(x_nm=1e9)}),  # 1 m, which the simulator takes
    ]
    for command in wrong:
        with pytest.raises(CommandRefused):
            microscope.acquire(command)
    with pytest.raises(Unsupported, match="alpha_deg"):
        microscope.acquire(frame_of("tilt").model_copy(update={"stage": StagePosition(alpha_deg=5.0)}))
    with pytest.raises(Unsupported, match="image_shift_x_nm"):  # the simulator would say False
        microscope.execute(SetAxes(action_id="none", values={"image_shift_x_nm": 1.0}))
    after = microscope.read_state()
    assert (after.stage, after.optics) == (before.stage, before.optics)
    assert microscope.outcome("far") == "not_started"


def test_aberrations_are_polar_here_and_read_back(microscope: DrivenMicroscope) -> None:
    values = {"c12_nm": 12.0, "phi12_deg": -30.0, "c30_nm": 1500.0, "defocus_nm": -20.0, "x_nm": 33.0}
    state = microscope.execute(SetAxes(action_id="aberrations", values=values))
    assert all(reading.is_reached for reading in state.axes.values()), state.axes
    worker = driver_of(microscope).worker
    found = worker.read("read", names=["C10", "C12.x", "C12.y", "stage_position_m.x"])
    assert found["C10"] == pytest.approx(20e-9)
    assert (found["C12.x"], found["C12.y"]) == (pytest.approx(6e-9), pytest.approx(-12e-9 * 3**0.5 / 2))
    assert found["stage_position_m.x"] == pytest.approx(-33e-9)
    turned = microscope.execute(SetAxes(action_id="none", values={"c12_nm": 0.0, "phi12_deg": 40.0}))
    assert turned.axes["phi12_deg"].is_reached, "no astigmatism has any azimuth"
    for phi12_deg in (90.0, -90.0):
        edge = microscope.execute(SetAxes(action_id=f"to {phi12_deg}", values={"c12_nm": 5.0, "phi12_deg": phi12_deg}))
        assert edge.axes["phi12_deg"].is_reached
    microscope.execute(SetAxes(action_id="back", values=dict.fromkeys(values, 0.0)))


def test_a_scan_is_stopped_from_another_thread(microscope: DrivenMicroscope) -> None:
    with in_exposure(microscope, "long", microscope.stop), pytest.raises(AcquisitionFailed, match="stopped"):
        microscope.acquire(frame_of("long", dwell_us=1000.0, side_px=256))  # 66 s
    assert microscope.outcome("long") == "unknown"
    with pytest.raises(InstrumentFault, match="stopped"):
        microscope.acquire(frame_of("after"))
    assert microscope.execute(Blank(action_id="blank")).beam_blanked
    microscope.release()
    with pytest.raises(AcquisitionFailed, match="not exposed"):
        microscope.acquire(frame_of("long", dwell_us=1000.0, side_px=256))
    frame = microscope.acquire(frame_of("again"))
    assert frame.counts["haadf"].dtype == np.uint32
    assert frame.counts["haadf"].mean() > SCAN_OFFSET
    assert_ours(frame, "nion", 10.0)


def test_a_killed_client_costs_one_frame_and_comes_back_blanked(microscope: DrivenMicroscope) -> None:
    pid = driver_of(microscope).worker.worker.pid
    assert pid is not None
    killing = in_exposure(microscope, "lost", lambda: os.kill(pid, signal.SIGKILL))
    with killing, pytest.raises(ResultUnknown, match="assume that the beam is on"):
        microscope.acquire(frame_of("lost", dwell_us=1000.0, side_px=256))
    assert microscope.outcome("lost") == "unknown"
    state = microscope.read_state()
    assert state.beam_blanked
    assert state.optics.beam_energy_ev == 60e3, "what was set at the opening is set again"
    assert microscope.acquire(frame_of("next")).electrons > 0


def test_an_instrument_comes_with_a_plug_in_as_nion_swift_starts_it() -> None:
    plugin = {**CONFIG, "usim": False, "plugins": ["nionswift_plugin.usim"]}
    with pytest.raises(ConfigurationError, match="no hardware source superscan"):
        registry.open("nion", **plugin, scan="superscan")
    opened = registry.open("nion", **plugin)
    assert isinstance(opened, DrivenMicroscope)
    try:
        assert not opened.capabilities().simulated
        assert opened.acquire(frame_of("plugged")).counts.keys() == {"haadf", "maadf"}
    finally:
        opened.close()


def test_what_is_missing_is_said(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="install nionswift"):
        registry.open("nion", python=sys.executable, usim=True)
    with pytest.raises(ConfigurationError, match="cannot be run"):
        registry.open("nion", python=str(tmp_path / "python"), usim=True)


def test_the_experiment_that_runs_anywhere() -> None:
    answer = run_anywhere("nion", CONFIG)
    check(answer)
    assert answer.electrons > 0


def test_a_camera_s_frames_are_stored_and_shown(tmp_path: Path) -> None:
    limits = {"min_stage_x_nm": -100, "max_stage_x_nm": 100, "min_stage_y_nm": -100, "max_stage_y_nm": 100}
    lines = ["[instruments.bench]", 'adapter = "nion"', "[instruments.bench.config]", f'python = "{PYTHON}"']
    lines += ["usim = true", "controls = { EHT = 60000, ConvergenceAngle = 0.0315 }", "[instruments.bench.safety]"]
    lines += [f"{name} = {value}" for name, value in limits.items()]
    (tmp_path / "stempilot.toml").write_text("\n".join(lines))
    point = {"mode": "eels", "field_of_view_nm": 1, "pixel_size_nm": 1, "dwell_time_us": 50_000, "defocus_nm": 300}
    chosen = [word for name, value in point.items() for word in ("--set", f"instrument.fixed.{name}={value}")]
    options = ("--data", tmp_path, "--engine", "local", "--no-baselines", "--yes", "--json", "--set", "budget.frames=1")
    outcome = stempilot("run", SPEC, *options, *chosen)
    (entry,) = outcome.expect(0).document["frames"]
    with Catalogue.open(tmp_path, read_only=True) as catalogue:
        frame = catalogue.load_frame(entry["id"])
    assert frame.counts["eels"].shape == (1, 1, 1, 128, 512)
    assert frame.picture("eels").max() > CAMERA_OFFSET
    (report,) = tmp_path.rglob("report.html")
    assert f"Frame {entry['id']}: eels images" in report.read_text()


def driver_of(microscope: DrivenMicroscope) -> Any:
    return microscope._driver
