"""What somebody would try who wants a beam where it may not be, and what instruments and computers do by themselves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from instruments import (
    AcquireFrame,
    Axis,
    Blank,
    Calibration,
    CalibrationRegistry,
    CommandRefused,
    Frame,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    MicroscopeState,
    SafetyEnvelope,
    SetAxes,
)
from instruments.footprints import spot
from instruments.limits import AxisLimit, StageBox
from instruments.units import electrons
from tests.unit.instruments.envelope_bench import CARD, CURRENT_PA, Bench, frame, guard, setting

FRAME = electrons(CURRENT_PA, 1e-4)
WAIT_S = 120.0


@dataclass
class Slow(Bench):
    """It exposes until it is told to go on, and says when it began."""

    began: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def acquire(self, command: AcquireFrame) -> Frame:
        self.began.set()
        assert self.goes_on.wait(WAIT_S)
        return super().acquire(command)


def named(action_id: str) -> AcquireFrame:
    return frame().model_copy(update={"action_id": action_id})


# --- several threads


def test_of_two_frames_at_once_that_cannot_both_be_paid_one_is_refused() -> None:
    bench = Slow()
    guarded = guard(bench, max_electrons=1.5 * FRAME)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(guarded.acquire, named("a"))
        assert bench.began.wait(WAIT_S)
        second = pool.submit(guarded.acquire, named("b"))
        bench.goes_on.set()
        wait([first, second], timeout=WAIT_S)
    assert first.exception() is None
    assert isinstance(second.exception(), CommandRefused)
    assert guarded.ledger.electrons == pytest.approx(FRAME)


def test_no_axis_is_set_under_an_exposure_of_another_thread_and_a_stop_waits_for_nobody() -> None:
    bench = Slow()
    guarded = guard(bench)
    with ThreadPoolExecutor(2) as pool:
        exposing = pool.submit(guarded.acquire, named("a"))
        assert bench.began.wait(WAIT_S)
        moving = SetAxes(action_id="s", values={"x_nm": 5.0}, deadline_s=0.05)
        with pytest.raises(InstrumentBusy, match=r"another command has run for 0\.05 s; nothing moved"):
            guarded.execute(moving)
        assert bench.told == []
        for darken in (guarded.stop, lambda: guarded.execute(Blank(action_id="b", deadline_s=0.05))):
            bench.blanked = False
            with suppress(InstrumentBusy):
                darken()
            assert bench.blanked
        bench.goes_on.set()
        wait([exposing], timeout=WAIT_S)
    assert exposing.exception() is None
    guarded.execute(moving)


def test_values_that_are_changed_after_the_check_are_not_sent() -> None:
    class Changing(Bench):
        def read_state(self) -> MicroscopeState:
            values["x_nm"] = 1e6  # by another thread, between check and command
            return super().read_state()

    values: dict[str, float | str] = {"x_nm": 5.0}
    bench = Changing()
    guard(bench, max_stage_x_nm=10.0).execute(SetAxes.model_construct(action_id="s", deadline_s=60.0, values=values))
    [sent] = bench.told
    assert isinstance(sent, SetAxes)
    assert sent.values == {"x_nm": 5.0}


# --- clocks


def test_an_instrument_clock_that_begins_again_gives_no_time_back() -> None:
    bench = Bench(time_s=90.0)
    guarded = guard(bench, max_instrument_time_s=100.0)
    guarded.acquire(named("a"))
    bench.time_s = 0.0
    guarded.acquire(named("b"))
    bench.time_s = 11.0
    with pytest.raises(CommandRefused, match="microscope time after this frame 101 s is above"):
        guarded.acquire(named("c"))


def test_an_instrument_clock_that_goes_back_makes_no_move_faster() -> None:
    bench = Bench(others={"holder.temperature_k": 300.0}, time_s=100.0)
    guarded = guard(bench, axes={"holder.temperature_k": AxisLimit(max_rate_per_s=2)})
    guarded.execute(setting(holder__temperature_k=310.0))
    bench.time_s = -1e9
    with pytest.raises(CommandRefused, match="faster than 2 K/s"):
        guarded.execute(setting(holder__temperature_k=311.0))


def test_a_computer_whose_clock_is_set_back_revives_no_calibration() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    today = [noon + timedelta(days=31)]
    calibration = Calibration(
        id="dose-7", quantity="probe_current_pa", values={"gain": 1.0}, uncertainties={"gain": 0.02},
        standard="Faraday cup", measured_at=noon, expires_at=noon + timedelta(days=30),
    )  # fmt: skip
    guarded = GuardedMicroscope(
        Bench(), SafetyEnvelope(expired_calibrations="refuse"), calibrations=CalibrationRegistry([calibration]),
        now=lambda: today[0],
    )  # fmt: skip
    for days in (31, 1):
        today[0] = noon + timedelta(days=days)
        with pytest.raises(CommandRefused, match="'dose-7' of probe_current_pa expired"):
            guarded.acquire(frame())


# --- readings that are none


@pytest.mark.parametrize("x_nm", [float("nan"), float("inf"), -float("inf")])
def test_a_stage_that_reads_back_nothing_finite_does_not_move(x_nm: float) -> None:
    class Lost(Bench):
        def read_state(self) -> MicroscopeState:
            state = super().read_state()
            stage = state.stage.model_copy(update={"x_nm": x_nm})
            return state.model_copy(update={"stage": stage})

    box = StageBox(max_alpha_deg=70.0, min_x_nm=-100.0, max_x_nm=100.0)
    for limits in ({"pole_piece": (box,)}, {"axes": {"x_nm": AxisLimit(max_step=1e3)}}):
        with pytest.raises(CommandRefused, match="where x_nm stands is not known"):
            guard(Lost(), **limits).execute(setting(x_nm=5.0))
    stuck = guard(Lost())
    stuck.acquire(frame())
    with pytest.raises(InstrumentFault, match=f"x_nm is {x_nm}"):
        stuck.acquire(frame())


@pytest.mark.parametrize("told", [float("nan"), float("inf")])
def test_a_measured_current_that_is_no_number_hides_nothing(told: float) -> None:
    class Odd(Bench):
        def read_state(self) -> MicroscopeState:
            return super().read_state().model_copy(update={"measured_current_pa": told})

    less = frame().model_copy(update={"optics": frame().optics.model_copy(update={"probe_current_pa": 1.0})})
    with pytest.raises(CommandRefused, match="1 is less than the 50 pA that flow"):
        guard(Odd()).acquire(less)
    guarded = guard(Odd())
    guarded.acquire(frame())
    assert guarded.ledger.electrons == pytest.approx(FRAME)


@pytest.mark.parametrize("whose", [{"action_id": "somebody else's"}, {"requested": frame(dwell_time_us=0.25)}])
def test_the_frame_of_another_command_is_a_fault_and_leaves_the_debit(whose: dict[str, object]) -> None:
    class Mixed(Bench):
        def acquire(self, command: AcquireFrame) -> Frame:
            return replace(super().acquire(command), electrons=0.0, **whose)

    guarded = guard(Mixed())
    with pytest.raises(InstrumentFault, match="its answers are mixed up"):
        guarded.acquire(frame())
    assert guarded.ledger.electrons == pytest.approx(FRAME)


# --- ways round a limit


def test_one_pixel_over_a_huge_field_is_a_spot() -> None:
    guarded = guard(max_dose_e_per_a2=1e4)
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell"):
        guarded.acquire(frame(field_of_view_nm=2e4, shape_px=(1, 1), dwell_time_us=1e4))
    few = frame(field_of_view_nm=2e4, shape_px=(1, 1), dwell_time_us=1.0)
    guarded.acquire(few)
    assert guarded.ledger.peak_after(spot(0.0, 0.0), 0.0) >= electrons(CURRENT_PA, 1e-6) / 100 * (1 - 1e-9)


def test_sub_frames_are_counted_one_by_one() -> None:
    guarded = guard(max_electrons=100.5 * FRAME)
    many = frame().model_copy(update={"subframe_count": 101})
    with pytest.raises(CommandRefused, match="electrons after this frame"):
        guarded.acquire(many)
    guarded.acquire(many.model_copy(update={"subframe_count": 100}))


def test_an_exposure_longer_than_any_is_refused_without_a_limit() -> None:
    with pytest.raises(CommandRefused, match=r"exposure 1e\+09 s is above the limit 604800 s"):
        guard().acquire(frame(dwell_time_us=1e7, shape_px=(10_000, 10_000)))


def test_a_tilt_series_stays_in_the_table_on_its_way_and_not_only_at_its_ends() -> None:
    """Each end is in a box, and so is each axis by itself; the corner between them is in none."""
    flat, steep = StageBox(max_alpha_deg=5, min_x_nm=-900, max_x_nm=900), StageBox(
        max_alpha_deg=60, min_x_nm=-90, max_x_nm=90
    )  # fmt: skip
    bench = Bench()
    guarded = guard(bench, pole_piece=(flat, steep))
    guarded.acquire(frame(stage={"x_nm": 500.0}))
    with pytest.raises(CommandRefused, match="no box of the pole-piece table"):
        guarded.acquire(frame(stage={"x_nm": 0.0, "alpha_deg": 50.0}))
    for step in ({"x_nm": 0.0}, {"alpha_deg": 25.0}, {"alpha_deg": 50.0}):
        guarded.acquire(frame(stage=step))
    with pytest.raises(CommandRefused, match="no box"):
        guarded.acquire(frame(stage={"x_nm": 500.0}))


def test_a_second_stage_does_not_go_past_the_pole_piece_table() -> None:
    card = CARD.model_copy(
        update={"axes": (*CARD.axes, Axis(name="piezo.z_nm", minimum=-1e6, maximum=1e6, frame="stage"))}
    )
    with pytest.raises(CommandRefused, match=r"piezo\.z_nm moves the specimen past the pole-piece table"):
        guard(Bench(card=card), pole_piece=(StageBox(max_alpha_deg=70),)).execute(setting(piezo__z_nm=1.0))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_wherever_they_stand(number: float) -> None:
    bench = Bench()
    base = frame()
    wrong: list[AcquireFrame] = [
        base.model_copy(update={"stage": base.stage.model_copy(update={"x_nm": number})}),
        base.model_copy(update={"optics": base.optics.model_copy(update={"probe_current_pa": number})}),
        *(
            base.model_copy(update={"scan": base.scan.model_copy(update={name: number})})
            for name in ("field_of_view_nm", "dwell_time_us", "flyback_time_us", "rotation_deg", "illuminated_nm")
        ),
        base.model_copy(update={"deadline_s": number}),
    ]
    guarded = guard(bench)
    for command in wrong:
        with pytest.raises(CommandRefused, match="no valid command"):
            guarded.acquire(command)
    with pytest.raises(CommandRefused):
        guarded.execute(SetAxes.model_construct(action_id="s", deadline_s=60.0, values={"x_nm": number}))
    assert bench.told == []


def test_a_blank_is_never_refused_whatever_holds() -> None:
    bench = Bench(blanked=False)
    guarded = guard(bench, max_electrons=1.0, max_position_error_nm=1.0)
    with pytest.raises(InstrumentError):
        guarded.acquire(frame())
    guarded.execute(Blank(action_id="b"))
    assert isinstance(bench.told[-1], Blank)
