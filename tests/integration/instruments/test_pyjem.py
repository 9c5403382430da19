"""The pyjem adapter against a double of the names it uses of PyJEM, in a worker; JEOL's own library has not run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquisitionFailed,
    Blank,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentFault,
    SafetyEnvelope,
    SetAxes,
    Unblank,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from tests.integration.instruments import vendor_target
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.in_exposure import in_exposure
from tests.integration.instruments.vendor_target import DOUBLES, VendorTarget, doubled, going

CALIBRATION = {"neutral": (32768, 32768), "scale": ((0.05, 0.01), (-0.012, 0.048)), "maximum": 200.0}
CONFIG: dict[str, Any] = {
    "python": sys.executable, "path": [str(DOUBLES)], "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5,
    "probe_current_pa": 50.0, "spot": 3, "sides_px": (64, 128, 512), "settle_s": 0.0, "arrive_s": 0.3, "answer_s": 8.0,
    "detectors": {"adf": {"name": "ADF1", "number": 10, "raw_type": "<u2"}, "bf": {"name": "BF", "raw_type": "<u2"}},
    "fields": [
        {"selector": 2, "magnification": 2e6, "field_of_view_nm": 64.0},
        {"selector": 1, "magnification": 1e6, "field_of_view_nm": 128.0},
    ],
    "limits": {"x_nm": (-200, 200), "y_nm": (-200, 200), "alpha_deg": (-30, 30)},
    "tolerances": {"x_nm": 0.01, "y_nm": 0.01}, "beam_shift": CALIBRATION,
    "focus": {"neutral": 32768, "scale_nm": -0.5, "limit_nm": 1000.0}, "stops_a_scan": True,
    "beam_overhead_s": 30.0,
}  # fmt: skip


frame = partial(vendor_target.frame, mode="adf")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorTarget]:
    with doubled(tmp_path_factory.mktemp("pyjem")) as target:
        yield target


@pytest.fixture(scope="module")
def microscope(target: VendorTarget) -> Iterator[DrivenMicroscope]:
    opened = registry.open("pyjem", **CONFIG)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def test_it_conforms(target: VendorTarget) -> None:
    vendor_target.conforms_but_for_a_server("pyjem", {**CONFIG, "dwell_time_us": (1, 200)}, "PyJEM")


def test_what_is_set_is_read_back_in_house_units(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    values = {"x_nm": 120.0, "alpha_deg": -3.0, "beam_shift_x_nm": 30.0, "beam_shift_y_nm": -12.0, "defocus_nm": 250.0}
    state = microscope.execute(going(**values))
    assert all(reading.is_reached for name, reading in state.axes.items() if name in values), state.axes
    assert state.axes["spot_index"].read_back == 3
    assert {"optics.tilt_x_mrad", "optics.semi_convergence_angle_mrad"} <= state.undetermined.keys()
    before = len(target.diary)
    for wrong in ({"x_nm": 300.0}, {"x_nm": 50.0, "alpha_deg": 31.0}, {"beam_shift_x_nm": 201.0}):
        with pytest.raises(CommandRefused):
            microscope.execute(going(**wrong))
    with pytest.raises(Unsupported, match="tilt_x_mrad"):  # not calibrated, so not there
        microscope.execute(going(tilt_x_mrad=1.0))
    assert target.since(before) == []
    assert microscope.read_state().stage.x_nm == 120.0
    microscope.execute(going(**dict.fromkeys(values, 0.0)))


def test_a_frame_is_lit_once_and_never_exposed_again(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    before = len(target.diary)
    taken = microscope.acquire(frame("one", 20.0, count=2))
    assert target.since(before) == ["blank", "unblank", "scan", "scan", "blank"][-len(target.since(before)) :]
    assert target.since(before).count("unblank") == 1
    assert (taken.counts["adf"].shape, taken.counts["adf"].dtype) == ((2, 64, 64), np.uint16)
    assert not np.array_equal(*taken.counts["adf"])
    assert microscope.acquire(frame("one", 20.0, count=2)) is taken
    dark = microscope.acquire_dark(frame("dark"))
    assert (dark.counts["adf"].max(), dark.electrons) == (0, 0.0)
    assert target.since(before).count("unblank") == 1


def test_what_temcenter_would_do_otherwise_is_refused_before_the_beam(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    before = len(target.diary)
    for number, wrong in enumerate(({"shape_px": (64, 32)}, {"shape_px": (96, 96)}, {"field_of_view_nm": 100.0})):
        with pytest.raises(CommandRefused):
            microscope.acquire(frame(f"wrong {number}", **wrong))
    with pytest.raises(CommandRefused, match="max_scan_s"):
        microscope.acquire(frame("too long", dwell_us=1000.0, shape_px=(512, 512)))
    for fault in ("in TEM", "retracted", "other dwell", "integrates", "REST fails"):
        with target.doing_wrong(fault), pytest.raises(CommandRefused):
            microscope.acquire(frame(fault))
        assert microscope.outcome(fault) == "not_started"
    assert "unblank" not in target.since(before)


@pytest.mark.parametrize("fault", ["clamps", "stuck", "limiter", "never rests"])
def test_a_stage_that_does_not_arrive_is_a_fault(
    target: VendorTarget, microscope: DrivenMicroscope, fault: str
) -> None:
    there = microscope.read_state().stage.y_nm
    move = SetAxes(action_id=fault, deadline_s=1.0, values={"y_nm": 150.0})
    with target.doing_wrong(fault), pytest.raises(InstrumentFault):
        microscope.execute(move)
    assert microscope.read_state().stage.y_nm in (there, 100.0, 150.0)
    microscope.execute(going(y_nm=there))  # sent although it reads so: it may still drive to 150 nm
    microscope.execute(going(y_nm=0.0))
    assert microscope.read_state().stage.y_nm == 0.0
    with target.doing_wrong("piezo"), pytest.raises(CommandRefused, match="motor"):
        microscope.execute(going(y_nm=1.0))


@pytest.mark.parametrize("fault", ["stale", "no image", "short", "hurries", "fails in the scan"])
def test_an_exposure_without_its_image_is_spent_and_dark_again(
    target: VendorTarget, microscope: DrivenMicroscope, fault: str
) -> None:
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_dose_e_per_a2=1e12))
    guarded.acquire(frame(f"before {fault}"))
    spent = guarded.ledger.electrons
    with target.doing_wrong(fault), pytest.raises(AcquisitionFailed):
        guarded.acquire(frame(fault, dwell_us=50.0))
    assert guarded.ledger.electrons > spent
    assert microscope.outcome(fault) == "unknown"
    assert microscope.read_state().beam_blanked
    with pytest.raises(AcquisitionFailed, match="not exposed again"):
        microscope.acquire(frame(fault))


def test_a_library_that_hangs_is_killed_and_the_next_one_blanks(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    vendor_target.killed_when_it_hangs(target, microscope, frame("hung", deadline_s=2.5))
    microscope.reconnect()
    assert target.diary[-2:] == ["blank", "halt"]
    assert microscope.read_state().beam_blanked
    assert microscope.acquire(frame("after the hang")).electrons > 0


def test_a_stop_blanks_in_the_middle_of_a_scan(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    with in_exposure(microscope, "long", microscope.stop), pytest.raises(AcquisitionFailed, match="stopped"):
        microscope.acquire(frame("long", dwell_us=200.0, count=60))  # 49 s
    for command in (going(x_nm=1.0), Unblank(action_id="on")):
        with pytest.raises(InstrumentFault, match="stopped"):
            microscope.execute(command)
    assert microscope.execute(Blank(action_id="off")).beam_blanked
    microscope.release()
    assert microscope.acquire(frame("after the stop")).counts["adf"].any()


def test_a_beam_that_cannot_be_blanked_or_stays_on_too_long_is_a_fault(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    microscope.execute(Unblank(action_id="lit"))
    with target.doing_wrong("deaf blanker"), pytest.raises(InstrumentFault, match="assume that it is on"):
        microscope.execute(Blank(action_id="off"))
    assert not microscope.read_state().beam_blanked
    microscope.execute(Blank(action_id="off again"))
    opened = registry.open("pyjem", **{**CONFIG, "beam_overhead_s": 0.0})
    assert isinstance(opened, DrivenMicroscope)
    try:
        with pytest.raises(InstrumentFault, match="raise beam_overhead_s"):
            opened.acquire(frame("overhead"))
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("fault", "more", "words"),
    [
        ("kilovolts", {}, "reads a high tension of 60 V"),
        ("", {"detectors": {"adf": {"name": "ADF7", "raw_type": "<u2"}}}, "no detector ADF7"),
        ("", {"path": []}, "name the Python"),
        ("", {"beam_shift": {**CALIBRATION, "maximum": 1e5}}, "beyond the converters"),
    ],
)
def test_what_does_not_fit_the_configuration_is_found_at_opening(
    target: VendorTarget, fault: str, more: dict[str, Any], words: str
) -> None:
    before = len(target.diary)
    with target.doing_wrong(fault), pytest.raises(ConfigurationError, match=words):
        registry.open("pyjem", **{**CONFIG, **more})
    assert {"unblank", "scan"}.isdisjoint(target.since(before))


def test_the_experiment_that_runs_anywhere(target: VendorTarget) -> None:
    with target.doing_wrong("hurries"):  # 16 s of dwell times
        answer = run_anywhere("pyjem", {**CONFIG, "least_duration_fraction": 0.0})
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
