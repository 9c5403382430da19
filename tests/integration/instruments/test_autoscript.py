"""The autoscript adapter against a double of the names it uses of AutoScript TEM; the maker's client has not run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentError,
    InstrumentFault,
    SafetyEnvelope,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from tests.integration.instruments import vendor_target
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.in_exposure import in_exposure
from tests.integration.instruments.vendor_target import DOUBLES, VendorTarget, doubled, going

CONFIG: dict[str, Any] = {
    "python": sys.executable, "path": [str(DOUBLES)], "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5,
    "probe_current_pa": 50.0, "settle_s": 0.0, "answer_s": 8.0, "stops_a_scan": True, "beam_overhead_s": 30.0,
    "detectors": {"haadf": {"name": "HAADF"}, "bf": {"name": "BF"}}, "max_beam_shift_nm": 100.0,
    "max_defocus_nm": 500.0, "tolerances": {"x_nm": 0.01, "y_nm": 0.01},
    "cameras": {"ceta": {"name": "BM-Ceta", "side_px": 64, "pixel_size_nm": 1.0}},
    "limits": {"x_nm": (-200, 200), "y_nm": (-200, 200), "z_nm": (-1e9, 1e9), "alpha_deg": (-30, 30)},
}  # fmt: skip


frame = partial(vendor_target.frame, mode="stem")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorTarget]:
    with doubled(tmp_path_factory.mktemp("autoscript")) as target:
        yield target


@pytest.fixture(scope="module")
def microscope(target: VendorTarget) -> Iterator[DrivenMicroscope]:
    opened = registry.open("autoscript", **CONFIG)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def test_it_conforms(target: VendorTarget) -> None:
    vendor_target.conforms_but_for_a_server(
        "autoscript", {**CONFIG, "dwell_time_us": (0.1, 200), "cameras": {}}, "autoscript_tem_microscope_client"
    )


def test_metres_radians_and_signs_stay_on_the_other_side(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    values = {"x_nm": 120.0, "alpha_deg": -3.0, "beam_shift_x_nm": 30.0, "beam_shift_y_nm": -12.0, "defocus_nm": 250.0}
    state = microscope.execute(going(**values))
    assert all(reading.is_reached for name, reading in state.axes.items() if name in values), state.axes
    raw = microscope._driver.worker.read("read")
    assert raw["position"]["x"] == pytest.approx(120e-9)
    assert raw["position"]["a"] == pytest.approx(-0.0523599)
    assert raw["shift"] == pytest.approx([30e-9, -12e-9])
    assert raw["defocus_m"] == pytest.approx(-250e-9), "overfocus is positive there, as configured"
    assert state.axes["column_valves"].read_back == "open"
    microscope.execute(going(**dict.fromkeys(values, 0.0)))


def test_the_narrower_limits_hold_and_nothing_moves_beyond_them(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    z = microscope.capabilities().axis("z_nm")
    assert z is not None
    assert (z.minimum, z.maximum) == pytest.approx((-3e5, 3e5)), "the microscope's own, not the configured 1 m"
    before = microscope.read_state().stage
    for wrong in ({"z_nm": 4e5}, {"y_nm": 50.0, "x_nm": 300.0}, {"column_valves": "closed"}):
        with pytest.raises(CommandRefused):
            microscope.execute(going(**wrong))
    with pytest.raises(Unsupported, match="beta_deg"):
        microscope.execute(going(beta_deg=1.0))
    assert microscope.read_state().stage == before


def test_detectors_are_read_together_from_the_middle_of_a_full_scan(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    before = len(target.diary)
    taken = microscope.acquire(frame("one", 20.0, count=2, shape_px=(32, 100), field_of_view_nm=50.0))
    assert target.since(before).count("unblank") == 1
    assert target.since(before)[-3:] == ["scan", "scan", "blank"]
    assert {name: (array.shape, array.dtype.str) for name, array in taken.counts.items()} == {
        "haadf": ((2, 32, 100), "<u2"),
        "bf": ((2, 32, 100), "<u2"),
    }
    haadf, bf = (taken.counts[name][0].astype(int) for name in ("haadf", "bf"))
    white = (haadf + bf).min()
    assert np.array_equal(np.maximum(white - haadf, 0), bf), "each under its own name"
    raw = microscope._driver.worker.read("read")
    assert raw["field_m"] == pytest.approx(64e-9), "128 px of 0.5 nm, of which 100 x 32 px are the middle"
    assert microscope.acquire(frame("one", 20.0, count=2, shape_px=(32, 100), field_of_view_nm=50.0)) is taken


def test_what_would_be_scanned_otherwise_is_refused_before_the_beam(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    before = len(target.diary)
    for number, wrong in enumerate(({"shape_px": (64, 9000)}, {"field_of_view_nm": 0.3}, {"dwell_us": 900.0})):
        shape = {"shape_px": (2048, 2048)} if "dwell_us" in wrong else {}
        with pytest.raises(CommandRefused):
            microscope.acquire(frame(f"wrong {number}", **wrong, **shape))
    for fault in ("in TEM", "retracted", "clamps the field"):
        with target.doing_wrong(fault), pytest.raises(CommandRefused):
            microscope.acquire(frame(fault))
        assert microscope.outcome(fault) == "not_started"
    assert "unblank" not in target.since(before)


def test_a_camera_in_tem_mode_sees_all_at_once(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    at_once = {"at_once": True, "illuminated_nm": 100.0}
    command = frame("camera", dwell_us=5e4, count=2, **at_once).model_copy(update={"mode": "ceta"})
    with pytest.raises(CommandRefused, match="in mode Stem"):
        microscope.acquire(command)
    with target.doing_wrong("in TEM"):
        taken = microscope.acquire(command)
        assert (taken.counts["ceta"].shape, taken.counts["ceta"].dtype) == ((2, 64, 64), np.uint16)
        dark = microscope.acquire_dark(command.model_copy(update={"action_id": "dark camera"}))
        assert dark.counts["ceta"].max() == 0 < taken.counts["ceta"].min()
        for wrong in ({"shape_px": (32, 32)}, {"dwell_us": 6e6}, {"dwell_us": 1e3}):
            off = frame("off", **{"dwell_us": 5e4, **at_once, **wrong}).model_copy(update={"mode": "ceta"})
            with pytest.raises(CommandRefused):
                microscope.acquire(off)
    assert microscope.outcome("off") == "not_started"


@pytest.mark.parametrize("fault", ["clamps", "stuck"])
def test_a_stage_that_does_not_arrive_is_a_fault(
    target: VendorTarget, microscope: DrivenMicroscope, fault: str
) -> None:
    with target.doing_wrong(fault), pytest.raises(InstrumentFault):
        microscope.execute(going(y_nm=150.0))
    microscope.execute(going(y_nm=0.0))


@pytest.mark.parametrize(
    "fault", ["hurries", "fails in the scan", "loses a detector", "pixels in nm", "gives floats", "below zero"]
)
def test_an_exposure_without_its_images_is_spent_and_dark_again(
    target: VendorTarget, microscope: DrivenMicroscope, fault: str
) -> None:
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_dose_e_per_a2=1e12))
    with target.doing_wrong(fault), pytest.raises(AcquisitionFailed):
        guarded.acquire(frame(fault, dwell_us=50.0))
    assert guarded.ledger.electrons > 0
    assert microscope.outcome(fault) == "unknown"
    assert microscope.read_state().beam_blanked


def test_a_client_that_hangs_is_killed_and_the_next_one_blanks(
    target: VendorTarget, microscope: DrivenMicroscope
) -> None:
    vendor_target.killed_when_it_hangs(target, microscope, frame("hung", deadline_s=2.5))
    with target.doing_wrong("nobody there"), pytest.raises(InstrumentError, match="cannot connect"):
        microscope.reconnect()
    microscope.reconnect()
    assert target.diary[-1] == "blank"
    assert microscope.read_state().beam_blanked
    assert microscope.acquire(frame("after the hang")).electrons > 0


def test_a_stop_blanks_in_the_middle_of_a_scan(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    with in_exposure(microscope, "long", microscope.stop), pytest.raises(AcquisitionFailed, match="stopped"):
        microscope.acquire(frame("long", dwell_us=200.0, count=60))  # 49 s
    with pytest.raises(InstrumentFault, match="stopped"):
        microscope.execute(going(x_nm=1.0))
    microscope.release()
    assert microscope.acquire(frame("after the stop")).counts["haadf"].any()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"detectors": {"haadf": {"name": "DF4"}}}, "no scanning detector DF4"),
        ({"path": []}, "name the Python"),
        ({"limits": {"z_nm": (1e6, 2e6)}}, "outside the microscope's own"),
        ({"beam_energy_ev": 300e3}, "reads a high tension of 60000 V"),
    ],
)
def test_what_does_not_fit_the_configuration_is_found_at_opening(
    target: VendorTarget, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        registry.open("autoscript", **{**CONFIG, **more})


def test_the_experiment_that_runs_anywhere(target: VendorTarget) -> None:
    with target.doing_wrong("hurries"):  # 16 s of dwell times
        answer = run_anywhere("autoscript", {**CONFIG, "least_duration_fraction": 0.0})
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
