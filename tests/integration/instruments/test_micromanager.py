"""The micromanager adapter against Micro-Manager's own core and demonstration devices: a contract without electrons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Blank,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentFault,
    LinkLost,
    Optics,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import AdapterTarget, Conditions
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.in_exposure import in_exposure
from tests.integration.instruments.other_pythons import python_of

PYTHON = str(python_of("micromanager"))
BEADS = {"Camera": {"Mode": "Fluorescent Beads"}}
CONFIG: dict[str, Any] = {"python": PYTHON, "demo": True, "properties": BEADS}
OF_A_SERVER = {"concurrent_clients", "mute_server", "call_after_timeout", "lost_answer", "server_killed"}


@pytest.fixture(scope="module")
def microscope() -> Iterator[DrivenMicroscope]:
    opened = registry.open("micromanager", **CONFIG)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def image(action_id: str, x_nm: float = 0.0, exposure_us: float = 1e4, count: int = 1, **scan: Any) -> AcquireFrame:
    fixed = {"field_of_view_nm": 128e3, "shape_px": (96, 128), "dwell_time_us": exposure_us, "at_once": True}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60.0,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=20.0, probe_current_pa=50.0),
        scan=ScanPattern(**{**fixed, **scan}),
        mode="camera",
        subframe_count=count,
    )


def test_it_conforms_without_a_beam() -> None:
    conditions = Conditions(shape_px=(256, 256), field_of_view_nm=256e3, dwell_time_us=1e4)
    report = conformed(AdapterTarget("micromanager", CONFIG), conditions)
    assert names(report, "declared quirk") == {"blank", "dwell"}
    assert names(report, "skipped") >= OF_A_SERVER, report.table()
    assert "stage_motion" in names(report, "passed"), "the beads move as the stage is told"
    assert report.electrons == 0


def test_a_region_of_the_chip_through_the_guard(microscope: DrivenMicroscope) -> None:
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_stage_x_nm=5e4, max_dose_e_per_a2=1.0))
    frame = guarded.acquire(image("region", 2e4, count=3))
    assert frame.counts["camera"].shape == (3, 96, 128)
    assert frame.counts["camera"].dtype.kind == "u"
    assert frame.state.stage.x_nm == pytest.approx(2e4, abs=15)
    assert (frame.electrons, guarded.ledger.electrons) == (0, 0)
    with pytest.raises(CommandRefused, match="above"):
        guarded.acquire(image("outside", 6e4))


def test_what_the_core_would_take_or_choke_on_is_refused(microscope: DrivenMicroscope) -> None:
    before = microscope.read_state().stage
    with pytest.raises(CommandRefused, match="x_nm 1e"):
        microscope.execute(SetAxes(action_id="far", values={"x_nm": 1e15}))  # the core would go there
    with pytest.raises(Unsupported, match="beam_shift_x_nm"):
        microscope.acquire(image("shift", beam_shift_x_nm=5.0))
    for wrong in ({"at_once": False}, {"shape_px": (600, 128)}, {"field_of_view_nm": 64e3}, {"dwell_time_us": 2e6}):
        with pytest.raises(CommandRefused):
            microscope.acquire(image(f"wrong {wrong}", **wrong))
    assert microscope.read_state().stage == before


def test_what_the_device_refuses_is_a_fault_in_its_words() -> None:
    more = {"max_height_nm": 1e7, "min_exposure_s": 1e-7}  # than drive and camera have
    opened = registry.open("micromanager", **CONFIG, **more)
    assert isinstance(opened, DrivenMicroscope)
    try:
        with pytest.raises(InstrumentFault, match="out of range"):
            opened.execute(SetAxes(action_id="high", values={"z_nm": 5e6}))
        assert opened.read_state().stage.z_nm == 0.0
        with pytest.raises(CommandRefused, match="would expose for 0 s"):
            opened.acquire(image("short", exposure_us=0.1))
        assert opened.outcome("short") == "not_started"
    finally:
        opened.close()


def test_a_stop_comes_between_two_images(microscope: DrivenMicroscope) -> None:
    stopping = in_exposure(microscope, "series", microscope.stop)
    with stopping, pytest.raises(AcquisitionFailed, match=r"stopped after \d+ of 60"):
        microscope.acquire(image("series", exposure_us=2e5, count=60))
    with pytest.raises(InstrumentFault, match="release"):
        microscope.acquire(image("after"))
    microscope.release()
    assert microscope.acquire(image("again")).counts["camera"].any()


def test_the_shutter_is_the_blanker(microscope: DrivenMicroscope) -> None:
    assert not microscope.execute(Unblank(action_id="open")).beam_blanked
    assert microscope.execute(Blank(action_id="close")).beam_blanked


def test_a_driver_that_crashes_takes_its_worker_along_and_nothing_else() -> None:
    crash = {"Camera": {"SimulateCrash": "Dereference Null Pointer"}}
    with pytest.raises(LinkLost, match="did not start"):
        registry.open("micromanager", **{**CONFIG, "properties": crash})


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        registry.open("micromanager", python=PYTHON)
    with pytest.raises(ConfigurationError, match=r"nowhere\.cfg"):
        registry.open("micromanager", python=PYTHON, file="/nowhere.cfg")


def test_the_experiment_that_runs_anywhere() -> None:
    # An objective that nobody has: its pixels are those of the file.
    answer = run_anywhere("micromanager", {**CONFIG, "pixel_size_nm": 1.0, "stage_resolution_nm": 15.0})
    check(answer)
    assert answer.electrons == 0
