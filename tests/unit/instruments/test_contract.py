"""The words of the contract: axes and their names, deadlines, states of an action, events, retries, calibrations."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from instruments import (
    AcquireFrame,
    Axis,
    Blank,
    Calibration,
    CalibrationRegistry,
    Capabilities,
    ClockOffset,
    ColumnState,
    Command,
    CommandRefused,
    Detector,
    Events,
    InstrumentEvent,
    MicroscopeState,
    Mode,
    Optics,
    Park,
    Procedure,
    RunProcedure,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
    Unsupported,
    axis_values,
    deadline_for,
    is_idempotent,
    moved_by,
)
from instruments.arrangement import Arrangement
from instruments.axes import KNOWN_AXES, permission_for, unit_of
from instruments.events import ToldOnce
from instruments.state import AxisReading

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20, probe_current_pa=30)
CARD = Capabilities(
    name="bench",
    simulated=True,
    axes=(
        Axis(name="x_nm", minimum=-1e6, maximum=1e6, resolution=1.0, settle_s=2.0, rate_per_s=1e5, frame="stage"),
        Axis(name="alpha_deg", minimum=-30, maximum=30, tolerance=0.1, frame="stage"),
        Axis(name="screen", choices=("up", "down"), frame="detector"),
        Axis(name="gauge.vacuum_mbar", maximum=1.0, read_only=True, frame="column"),
        Axis(name="dwell_time_us", minimum=0.1, maximum=1e6, frame="scan"),
    ),
    modes=(Mode(name="tem", kind="tem_image", detectors=(Detector(name="ccd", shape_px=(64, 64)),)),),
    procedures=(Procedure(name="normalise", duration_s=20.0),),
    stop_latency_s=0.5,
)


def camera_frame(**scan: Any) -> AcquireFrame:
    pattern = {"field_of_view_nm": 500.0, "shape_px": (64, 64), "dwell_time_us": 2e6, "at_once": True, **scan}
    return AcquireFrame(
        action_id="f", deadline_s=30, optics=OPTICS, scan=ScanPattern.model_validate(pattern), mode="tem"
    )


def test_every_known_name_ends_in_a_unit_or_takes_words() -> None:
    words = {name for name in KNOWN_AXES if unit_of(name) is None}
    assert words == {
        "line_sync", "condenser_aperture", "objective_aperture", "selected_area_aperture", "position", "screen",
        "column_valves", "high_tension", "vacuum",
    }  # fmt: skip
    assert unit_of("gun.vacuum_mbar") == "mbar"
    assert unit_of("dose_e_per_a2") == "e/A2"


def test_axis_values_of_a_frame_are_every_field_that_is_commanded() -> None:
    values = axis_values(camera_frame())
    assert set(values) <= KNOWN_AXES.keys()
    assert values["field_of_view_nm"] == 500
    assert values["pixel_size_nm"] == pytest.approx(7.8125)
    assert "camera_length_mm" not in values, "None is left as it is"
    assert axis_values(Park(action_id="p", beam_shift_x_nm=3)) == {"beam_shift_x_nm": 3, "beam_shift_y_nm": 0}
    assert axis_values(Blank(action_id="b")) == {}


@pytest.mark.parametrize("value", [True, None, "", float("nan"), float("inf"), [1.0], {"a": 1}])
def test_a_value_is_a_finite_number_or_a_word(value: Any) -> None:
    with pytest.raises(ValidationError):
        SetAxes.model_validate({"action_id": "a", "values": {"x_nm": value}})


def test_commands_come_back_from_json_as_they_were() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Command)
    for command in (
        SetAxes(action_id="a", values={"x_nm": 1 / 3, "screen": "up"}),
        RunProcedure(action_id="r", name="normalise"),
        camera_frame(illuminated_nm=900),
    ):
        assert adapter.validate_json(command.model_dump_json()) == command


def test_an_older_frame_without_the_new_words_still_loads() -> None:
    old = camera_frame(at_once=False).model_dump()
    del old["scan"]["at_once"], old["scan"]["illuminated_nm"]
    assert AcquireFrame.model_validate(old).scan.at_once is False
    state = {"time_s": 0.0, "stage": {}, "optics": OPTICS.model_dump()}
    assert MicroscopeState.model_validate(state).axes == {}


def test_values_are_checked_against_the_axes() -> None:
    CARD.check_values({"x_nm": 1e6, "screen": "down"})
    with pytest.raises(Unsupported, match="no axis y_nm; it has x_nm, alpha_deg"):
        CARD.check_values({"x_nm": 2e9, "y_nm": 0.0})
    for values, words in (
        ({"x_nm": 1.1e6}, "x_nm 1.1e\\+06 is outside -1e\\+06 to 1e\\+06 nm"),
        ({"x_nm": "far"}, "'far' is not a choice of this instrument: numbers only"),
        ({"screen": 1.0}, "screen 1.0 is not a choice of this instrument: up, down"),
        ({"gauge.vacuum_mbar": 0.0}, "can be read, not set"),
        ({"dwell_time_us": 1.0}, "comes with each frame"),
    ):
        with pytest.raises(CommandRefused, match=words):
            CARD.check_values(values)


def test_a_reading_says_whether_the_axis_stands_where_it_was_sent() -> None:
    state = MicroscopeState(time_s=0, stage=StagePosition(x_nm=5.4, alpha_deg=2.0), optics=OPTICS)
    readings = state.with_readings({"x_nm": 5.0, "alpha_deg": 9.0, "screen": "up"}, CARD).axes
    assert {name: reading.is_reached for name, reading in readings.items()} == {
        "x_nm": True, "alpha_deg": False, "screen": None,
    }  # fmt: skip
    assert readings["x_nm"].tolerance == pytest.approx(0.5, abs=0.01)
    assert AxisReading(requested="up", read_back="down").is_reached is False


def test_an_exposure_at_once_takes_as_long_as_one_pixel() -> None:
    assert camera_frame().scan.duration_s(3) == pytest.approx(6.0)
    assert camera_frame(at_once=False, dwell_time_us=1.0).scan.duration_s() == pytest.approx(64 * 64e-6)


def test_deadlines_follow_from_what_is_asked() -> None:
    assert deadline_for(Blank(action_id="b"), CARD) == pytest.approx(10.5)
    assert deadline_for(camera_frame(), CARD) == pytest.approx(10.5 + 2 * (2.0 + 2.0 + 10.0))
    assert deadline_for(SetAxes(action_id="a", values={"x_nm": 1e6}), CARD) == pytest.approx(10.5 + 2 * (2.0 + 20.0))
    assert deadline_for(RunProcedure(action_id="r", name="normalise"), CARD) == pytest.approx(10.5 + 40)
    assert deadline_for(Park(action_id="p", duration_s=7), CARD) == pytest.approx(10.5 + 14)


def test_only_absolute_settings_may_be_sent_again() -> None:
    again = [Blank(action_id="b"), Park(action_id="p"), SetAxes(action_id="a", values={"x_nm": 1.0})]
    never = [
        camera_frame(), Unblank(action_id="u"), Park(action_id="p", duration_s=1),
        RunProcedure(action_id="r", name="normalise"),
        SetAxes(action_id="v", values={"x_nm": 1.0, "column_valves": "open"}),
        SetAxes(action_id="v", values={"maker.Gun_Valve": 1.0}),
    ]  # fmt: skip
    assert all(map(is_idempotent, again))
    assert not any(map(is_idempotent, never))


@pytest.mark.parametrize(
    ("name", "permission"),
    [("high_tension", "high_tension"), ("airlock.pump", "vacuum"), ("column_valves", "valves"), ("x_nm", None)],
)
def test_dangerous_names_need_permission_whatever_an_adapter_says(name: str, permission: str | None) -> None:
    assert permission_for(name) == permission


def test_a_relative_move_becomes_absolute_where_the_place_is_known() -> None:
    state = MicroscopeState(
        time_s=0, stage=StagePosition(x_nm=5), optics=OPTICS, axes={"screen": AxisReading(read_back="up")}
    )
    assert moved_by(state, {"x_nm": -2, "probe_current_pa": 1}, action_id="m").values == {
        "x_nm": 3.0, "probe_current_pa": 31.0,
    }  # fmt: skip
    for name in ("screen", "temperature_k"):
        with pytest.raises(CommandRefused, match=name):
            moved_by(state, {name: 1.0}, action_id="m")


def test_arrangement_takes_numbers_of_its_own_axes_only() -> None:
    start = Arrangement(StagePosition(y_nm=1), OPTICS)
    now = start.with_values({"x_nm": 2.0, "c12_nm": 3.0, "beam_shift_y_nm": 4.0, "defocus_nm": 5.0})
    assert (now.stage.x_nm, now.stage.y_nm, now.optics.aberrations.c12_nm) == (2, 1, 3)
    assert (now.beam_shift_nm, now.optics.defocus_nm, now.optics.probe_current_pa) == ((0, 4), 5, 30)
    with pytest.raises(Unsupported, match="temperature_k"):
        start.with_values({"temperature_k": 100.0})
    with pytest.raises(CommandRefused, match="takes a number"):
        start.with_values({"x_nm": "left"})


def test_detectors_declare_their_references_or_why_not() -> None:
    assert not Detector(name="d").is_declared
    assert Detector(name="d", without_references="the maker does not say").is_declared
    assert Detector(
        name="d", gain_counts_per_electron=2.0, dark_reference="dark-7", gain_reference="gain-3"
    ).is_declared


# --- events


def test_events_reach_every_subscriber_and_a_slow_one_loses_its_oldest() -> None:
    events = Events()
    with events.subscribe() as quick, events.subscribe(limit_count=2) as slow:
        for number in range(3):
            events.publish(InstrumentEvent(kind="action", action_id=str(number), state="running"))
        assert [event.action_id for event in quick.take()] == ["0", "1", "2"]
        assert [event.action_id for event in slow.take()] == ["1", "2"]
        assert (quick.missed_count, slow.missed_count) == (0, 1)
    events.publish(InstrumentEvent(kind="stopped"))
    assert quick.next(0.0) is None


def test_what_two_guards_tell_of_one_action_is_heard_once_and_everything_else_always() -> None:
    """One here, one behind a gateway, whose events come later, or sooner; the same frame may be asked for again."""
    events = Events()
    both = ToldOnce(events)
    states = [InstrumentEvent(kind="action", action_id="a", state=state) for state in ("accepted", "running", "done")]
    elsewhere = [InstrumentEvent(kind="taken_elsewhere", action_id="a", message=words) for words in ("off", "small")]
    nobodys = [InstrumentEvent(kind="stopped", message="estop"), InstrumentEvent(kind="link_lost")]
    with events.subscribe() as told:
        for _ in range(2):
            for event in (*states, *nobodys):
                both.publish(event)
            for event in (*states, *elsewhere, *nobodys):
                both.put(event)
            for event in elsewhere:
                both.publish(event)
        assert told.take() == [*states, *nobodys, *elsewhere, *nobodys] * 2
        both.put(InstrumentEvent(kind="action", action_id="another client's", state="done"))
        assert len(told.take()) == 1


def test_a_subscriber_can_wait_for_an_event_of_another_thread() -> None:
    events = Events()
    with events.subscribe() as subscription:
        thread = threading.Thread(target=events.publish, args=(InstrumentEvent(kind="link_lost", message="cut"),))
        thread.start()
        event = subscription.next(60.0)
        thread.join()
    assert event is not None
    assert (event.kind, event.message) == ("link_lost", "cut")


# --- calibrations

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def calibration(name: str, quantity: str, days: float, lasts_days: float | None = 30, **changes: Any) -> Calibration:
    measured_at = MARCH + timedelta(days=days)
    fields: dict[str, Any] = {
        "id": name,
        "quantity": quantity,
        "values": {"scale": 1.01},
        "uncertainties": {"scale": 0.002},
        "standard": "gold cross grating 463 nm",
        "measured_at": measured_at,
        "expires_at": measured_at + timedelta(days=lasts_days) if lasts_days else None,
    }
    return Calibration.model_validate(fields | changes)


def test_the_newest_calibration_of_each_quantity_is_in_use() -> None:
    registry = CalibrationRegistry([
        calibration("a", "field_of_view_nm", 0), calibration("c", "field_of_view_nm", 20),
        calibration("b", "field_of_view_nm", 10), calibration("d", "camera_length_mm", 0, None),
    ])  # fmt: skip
    assert [one.id for one in registry.in_use(MARCH + timedelta(days=15))] == ["d", "b"]
    found = registry.of("field_of_view_nm", MARCH + timedelta(days=25))
    assert found is not None
    assert found.id == "c"
    assert registry.of("probe_current_pa", MARCH) is None


def test_an_expired_calibration_warns_or_refuses_as_the_facility_sets() -> None:
    registry = CalibrationRegistry(
        [calibration("a", "field_of_view_nm", 0), calibration("d", "camera_length_mm", 0, None)]
    )
    later = MARCH + timedelta(days=40)
    assert registry.check(MARCH + timedelta(days=29), "refuse") == []
    (warning,) = registry.check(later, "warn")
    assert "'a' of field_of_view_nm expired at 2026-03-31T00:00+00:00; measure it again against gold" in warning
    with pytest.raises(CommandRefused, match="expired"):
        registry.check(later, "refuse")
    missing = registry.check(MARCH, "warn", ["camera_length_mm", "dose"])
    assert missing == ["dose has no calibration; measure it and enter it"]
    with pytest.raises(CommandRefused, match="probe_current_pa has no calibration"):
        registry.check(MARCH, "refuse", ["probe_current_pa"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uncertainties": {}}, "scale needs a value and an uncertainty"),
        ({"uncertainties": {"scale": -1.0}}, "uncertainty of scale is below 0"),
        ({"expires_at": MARCH - timedelta(days=1)}, "expires before it was measured"),
        ({"measured_at": "2026-03-01T00:00:00"}, "timezone"),
    ],
)
def test_a_calibration_without_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        calibration("a", "field_of_view_nm", 0, **changes)


def test_calibration_ids_are_used_once() -> None:
    with pytest.raises(ValueError, match="used twice: a"):
        CalibrationRegistry([calibration("a", "x", 0), calibration("a", "y", 0)])


def test_what_else_is_recorded_crosses_as_json() -> None:
    column = ColumnState(
        extraction_v=4100, emission_ua=180, since_flash_s=3600, vacuum_mbar={"gun": 2e-10}, holder="double tilt 3",
        current_method="Faraday cup", current_measured_at=MARCH,
        clocks={"camera": ClockOffset(offset_s=-0.012, uncertainty_s=0.003, measured_at=MARCH)},
    )  # fmt: skip
    state = MicroscopeState(time_s=0, stage=StagePosition(), optics=OPTICS, column=column)
    assert MicroscopeState.model_validate_json(state.model_dump_json()) == state
