"""What the guard holds to besides plain limits: steps, rates, tilts, permissions, a lost link, calibrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from instruments import (
    AcquireFrame,
    Axis,
    Blank,
    Calibration,
    CalibrationRegistry,
    CommandRefused,
    ConfigurationError,
    Frame,
    GuardedMicroscope,
    InstrumentFault,
    LinkLost,
    MicroscopeState,
    Outcome,
    Park,
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    SetAxes,
    StagePosition,
    Unsupported,
)
from instruments.arrangement import Arrangement
from instruments.axes import axis_values
from instruments.footprints import footprint
from instruments.guards import worst_charge
from instruments.limits import AxisLimit, StageBox
from instruments.units import electrons
from tests.unit.instruments.envelope_bench import CARD, CURRENT_PA, Bench, frame, guard, setting

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# --- axes


def test_set_axes_reports_what_was_read_back_for_each() -> None:
    bench = Bench(others={"holder.temperature_k": 293.0})
    state = guard(bench).execute(setting(x_nm=5.0, holder__temperature_k=300.0))
    assert {name: (one.requested, one.read_back) for name, one in state.axes.items()} == {
        "x_nm": (5.0, 5.0), "holder.temperature_k": (300.0, 300.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "limits", "words"),
    [
        ({"x_nm": 11.0}, {"max_stage_x_nm": 10}, "stage x 11 nm is above the limit 10 nm"),
        ({"z_nm": -11.0}, {"min_stage_z_nm": -10}, "stage z -11 nm is below"),
        ({"alpha_deg": -3.0}, {"max_stage_tilt_deg": 2}, "stage alpha -3 deg is below the limit -2 deg"),
        ({"c10_nm": 20.0}, {"min_defocus_nm": -15}, "defocus -20 nm is below the limit -15 nm"),
        (
            {"holder__temperature_k": 400.0},
            {"axes": {"holder.temperature_k": AxisLimit(maximum=350)}},
            "400 K is above",
        ),
        ({"column_valves": "open"}, {}, "permission 'valves' is not in the facility's envelope"),
        ({"column_valves": "closed"}, {"permissions": ("vacuum",)}, "column_valves may not be set"),
        ({"burner": 1.0}, {"permissions": ("valves",)}, "permission 'burner' is not"),
        ({"beam_energy_ev": 80e3}, {}, "permission 'high_tension'"),
        ({"x_nm": 2e6}, {}, "outside -1e\\+06 to 1e\\+06 nm"),
    ],
)
def test_set_axes_is_held_to_the_envelope(values: dict[str, Any], limits: dict[str, Any], words: str) -> None:
    bench = Bench()
    with pytest.raises(CommandRefused, match=words):
        guard(bench, **limits).execute(setting(**values))
    assert bench.told == []


def test_what_is_permitted_passes() -> None:
    bench = Bench()
    guard(bench, permissions=("valves", "burner")).execute(setting(column_valves="open", burner=1.0))
    assert len(bench.told) == 1


def test_an_axis_there_is_none_of_is_unsupported_and_nothing_moves() -> None:
    bench = Bench()
    with pytest.raises(Unsupported, match="no axis flow_ml_per_min"):
        guard(bench).execute(setting(x_nm=1.0, flow_ml_per_min=1.0))
    assert bench.told == []


def test_axes_do_not_move_under_an_open_beam_but_a_heater_may() -> None:
    bench = Bench(blanked=False)
    with pytest.raises(CommandRefused, match="would burn while axes move"):
        guard(bench).execute(setting(x_nm=1.0))
    guard(bench).execute(setting(holder__temperature_k=300.0))
    assert len(bench.told) == 1


def test_a_read_back_off_by_more_than_the_tolerance_is_a_fault() -> None:
    with pytest.raises(InstrumentFault, match=r"x_nm was sent to 5.0 and stands at 5.5"):
        guard(Bench(lie=0.5)).execute(setting(x_nm=5.0))


def test_the_energy_of_a_frame_is_the_high_tension_and_needs_permission() -> None:
    command = frame().model_copy(update={"optics": frame().optics.model_copy(update={"beam_energy_ev": 80e3})})
    with pytest.raises(CommandRefused, match="high_tension"):
        guard().acquire(command)
    guard(permissions=("high_tension",)).acquire(command)
    guard().acquire(frame())


# --- steps and rates

STEPS: dict[str, Any] = {"axes": {"x_nm": AxisLimit(max_step=100), "holder.temperature_k": AxisLimit(max_rate_per_s=2)}}


def test_a_step_is_counted_from_where_the_axis_stands() -> None:
    guarded = guard(**STEPS)
    guarded.execute(setting(x_nm=90.0))
    guarded.execute(setting(x_nm=180.0))
    with pytest.raises(CommandRefused, match="step of x_nm 180 nm is above the limit 100 nm"):
        guarded.acquire(frame())
    guarded.acquire(frame(stage={"x_nm": 80.0}))


def test_after_a_lost_answer_a_step_counts_from_both_ends() -> None:
    bench = Bench()
    guarded = guard(bench, **STEPS)
    bench.error = ResultUnknown("no answer")
    with pytest.raises(ResultUnknown):
        guarded.execute(setting(x_nm=90.0))
    with pytest.raises(CommandRefused, match="step of x_nm 150 nm"):
        guarded.execute(setting(x_nm=-60.0))
    guarded.execute(setting(x_nm=10.0))
    guarded.execute(setting(x_nm=-60.0))


def test_a_rate_counts_the_instrument_time_since_the_last_move() -> None:
    bench = Bench(others={"holder.temperature_k": 300.0})
    guarded = guard(bench, **STEPS)
    guarded.execute(setting(holder__temperature_k=310.0))
    bench.time_s = 4.0
    with pytest.raises(CommandRefused, match=r"faster than 2 K/s; wait 1 s"):
        guarded.execute(setting(holder__temperature_k=320.0))
    bench.time_s = 5.0
    guarded.execute(setting(holder__temperature_k=320.0))


def test_from_an_unknown_place_no_step_is_taken() -> None:
    with pytest.raises(CommandRefused, match=r"where holder\.temperature_k stands is not known"):
        guard(axes={"holder.temperature_k": AxisLimit(max_step=1)}).execute(setting(holder__temperature_k=300.0))
    with pytest.raises(CommandRefused, match="where x_nm stands is not known"):
        guard(Bench(undetermined={"stage": "not homed"}), **STEPS).execute(setting(x_nm=1.0))


# --- the pole piece

BOXES = (
    StageBox(max_alpha_deg=30, max_beta_deg=10, min_x_nm=-1000, max_x_nm=1000, min_z_nm=-500, max_z_nm=500),
    StageBox(max_alpha_deg=70, max_beta_deg=0, min_x_nm=-100, max_x_nm=100, min_z_nm=-10, max_z_nm=10),
)


def test_the_stage_box_shrinks_as_it_tilts() -> None:
    bench = Bench()
    guarded = guard(bench, pole_piece=BOXES)
    guarded.execute(setting(x_nm=900.0, alpha_deg=20.0))
    with pytest.raises(CommandRefused, match="no box of the pole-piece table holds that"):
        guarded.execute(setting(alpha_deg=60.0))
    with pytest.raises(CommandRefused, match=r"x_nm 50 to 900, .*alpha_deg 20 to 60"):
        guarded.acquire(frame(stage={"x_nm": 50.0, "alpha_deg": 60.0}))
    guarded.execute(setting(x_nm=50.0))
    guarded.acquire(frame(stage={"x_nm": 50.0, "alpha_deg": 60.0}))
    with pytest.raises(CommandRefused, match="no box"):
        guarded.execute(setting(beta_deg=1.0))
    assert len(bench.told) == 3


# --- narrowing


@pytest.mark.parametrize(
    ("facility", "wanted", "words"),
    [
        (
            {"axes": STEPS["axes"]},
            {"axes": {"x_nm": AxisLimit(max_step=200)}},
            "safety.axes.x_nm.max_step: 200 is wider",
        ),
        ({"pole_piece": BOXES}, {"pole_piece": (StageBox(max_alpha_deg=40),)}, "safety.pole_piece.0: reaches out"),
        ({}, {"permissions": ("valves",)}, "safety.permissions: valves is not permitted"),
        ({"procedures": ("home",)}, {"procedures": ("home", "normalise")}, "safety.procedures: normalise"),
        ({"expired_calibrations": "refuse"}, {"expired_calibrations": "warn"}, "safety.expired_calibrations: warn"),
    ],
)
def test_an_experiment_cannot_widen_any_of_it(facility: Any, wanted: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SafetyEnvelope(**facility).narrowed_by(SafetyEnvelope(**wanted))


def test_an_experiment_narrows_all_of_it() -> None:
    facility = SafetyEnvelope(
        axes={"x_nm": AxisLimit(max_step=100, maximum=50)}, pole_piece=BOXES, permissions=("valves", "vacuum"),
        procedures=("home",), required_calibrations=("dose",),
    )  # fmt: skip
    inner = (StageBox(max_alpha_deg=5, min_x_nm=-1, max_x_nm=1, min_z_nm=0, max_z_nm=0),)
    narrow = facility.narrowed_by(
        SafetyEnvelope(
            axes={"x_nm": AxisLimit(max_step=10), "y_nm": AxisLimit(minimum=0)}, pole_piece=inner, permissions=(),
            expired_calibrations="refuse", required_calibrations=("scale",),
        )
    )  # fmt: skip
    assert narrow.axes == {"x_nm": AxisLimit(max_step=10, maximum=50), "y_nm": AxisLimit(minimum=0)}
    assert (narrow.pole_piece, narrow.permissions, narrow.procedures) == (inner, (), ("home",))
    assert (narrow.expired_calibrations, narrow.required_calibrations) == ("refuse", ("dose", "scale"))
    assert facility.narrowed_by(SafetyEnvelope()) == facility
    with pytest.raises(ValidationError, match="swap them"):
        AxisLimit(minimum=2, maximum=1)


# --- cameras, procedures, stop latency


def test_a_camera_frame_is_debited_over_the_lit_disc() -> None:
    guarded = guard()
    command = frame("camera", dwell_time_us=1e6, illuminated_nm=40.0)
    guarded.acquire(command)
    spent = electrons(CURRENT_PA, 1.0)
    assert guarded.ledger.electrons == pytest.approx(spent)
    assert footprint(command.stage, command.scan).overlap_nm2.sum() == pytest.approx(np.pi * 20**2)
    assert guarded.ledger.max_e_per_a2 == pytest.approx(spent / (np.pi * 20**2 * 100), rel=1e-6)
    cells = guarded.ledger.mean_map(-25, -25, 50, 50)
    assert cells[25, 6] > 0
    assert cells[25, 3] == 0


def test_a_camera_is_exposed_at_once_and_a_scan_is_not() -> None:
    for mode, at_once in (("camera", False), ("haadf", True)):
        with pytest.raises(CommandRefused, match=r"scan\.at_once must be"):
            guard().acquire(frame(mode, at_once=at_once))


def test_without_a_beam_nothing_is_debited() -> None:
    light = CARD.model_copy(update={"has_beam": False})
    guarded = guard(Bench(card=light, blanked=False), max_electrons=1.0)
    guarded.execute(setting(x_nm=5.0))
    assert guarded.check(frame("camera", dwell_time_us=1e6)).electrons == 0


def test_a_procedure_is_denied_unless_permitted_and_its_dose_is_debited() -> None:
    run = RunProcedure(action_id="r", name="normalise")
    with pytest.raises(CommandRefused, match="'normalise' is not in the facility's envelope"):
        guard().execute(run)
    guarded = guard(procedures=("normalise",))
    guarded.execute(run)
    assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 2.0))
    assert guarded.ledger.max_e_per_a2 == pytest.approx(electrons(CURRENT_PA, 2.0) / 100)
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell after this procedure"):
        guard(procedures=("normalise",), max_dose_e_per_a2=1e4).execute(run)
    with pytest.raises(Unsupported, match="no procedure 'bake'"):
        guard(procedures=("bake",)).execute(RunProcedure(action_id="r", name="bake"))
    dark = guard(procedures=("home",))
    dark.execute(RunProcedure(action_id="r", name="home"))
    assert dark.ledger.electrons == 0


def test_exposures_that_cannot_be_interrupted_are_as_short_as_a_stop_must_be() -> None:
    deaf = Bench(card=CARD.model_copy(update={"can_interrupt": False, "stop_latency_s": 5.0}))
    guard(deaf).acquire(frame("camera", dwell_time_us=2e6))
    with pytest.raises(CommandRefused, match=r"cannot interrupt 2 s is above the limit 0\.5 s"):
        guard(deaf, max_stop_latency_s=0.5).acquire(frame("camera", dwell_time_us=2e6))
    slow = Bench(card=CARD.model_copy(update={"stop_latency_s": 3.0}))
    with pytest.raises(CommandRefused, match="stop latency of the instrument 3 s"):
        guard(slow, max_stop_latency_s=0.5).acquire(frame())


# --- a lost link


def test_a_lost_link_stops_everything_until_blanked_debited_and_acknowledged() -> None:
    bench, seconds = Bench(), [100.0]
    guarded = GuardedMicroscope(bench, SafetyEnvelope(), clock=lambda: seconds[0])
    guarded.acquire(frame())
    before = guarded.ledger.electrons
    bench.error, bench.lost = ResultUnknown("sent, the line broke"), True
    with guarded.events.subscribe() as told:
        with pytest.raises(ResultUnknown):
            guarded.acquire(frame())
        in_full = guarded.ledger.electrons
        assert in_full > before
        seconds[0] += 30.0
        for refused in (lambda: guarded.acquire(frame()), lambda: guarded.execute(Park(action_id="p"))):
            with pytest.raises(LinkLost, match="nothing is issued: the link was lost 30 s ago"):
                refused()
        with pytest.raises(LinkLost, match="still nobody"):
            guarded.reconnect()
        with pytest.raises(LinkLost, match="30 s ago"):
            guarded.acknowledge("anna")
        bench.lost = False
        guarded.reconnect()
        assert isinstance(bench.told[-1], Blank)
        assert guarded.ledger.electrons - in_full == pytest.approx(electrons(CURRENT_PA, 30.0))
        assert guarded.ledger.max_e_per_a2 > electrons(CURRENT_PA, 30.0) / 100, "all of it may have gone to one cell"
        with pytest.raises(InstrumentFault, match="a person has to look"):
            guarded.acquire(frame())
        guarded.acknowledge("anna")
        guarded.acquire(frame())
        kinds = [event.kind for event in told.take() if event.kind != "action"]
    assert kinds == ["link_lost", "link_back", "acknowledged"]


def test_a_beam_that_was_parked_is_debited_where_it_was_parked() -> None:
    bench, seconds = Bench(), [0.0]
    guarded = GuardedMicroscope(bench, SafetyEnvelope(), clock=lambda: seconds[0])
    guarded.acquire(frame(stage={"x_nm": 100.0}))
    guarded.execute(Park(action_id="p", beam_shift_x_nm=20.0))
    bench.error = LinkLost("gone")
    with pytest.raises(LinkLost):
        guarded.execute(Blank(action_id="b"))
    seconds[0] = 10.0
    guarded.reconnect()
    assert guarded.ledger.mean_map(120, 0, 1, 1)[0, 0] == pytest.approx(electrons(CURRENT_PA, 10.0) / 100)


def test_a_beam_that_is_not_confirmed_off_is_not_back() -> None:
    bench = Bench()
    guarded = guard(bench)
    bench.error = LinkLost("gone")
    with pytest.raises(LinkLost):
        guarded.execute(Park(action_id="p"))
    bench.blanked = False
    with pytest.raises(InstrumentFault, match="not blanked"):
        guarded.reconnect()
    with pytest.raises(LinkLost, match="nothing is issued"):
        guarded.acquire(frame())
    guarded.execute(Blank(action_id="b"))
    assert isinstance(bench.told[-1], Blank)


def test_an_answer_lost_on_a_line_that_holds_is_no_lost_link() -> None:
    bench = Bench(error=ResultUnknown("overran"))
    guarded = guard(bench)
    with pytest.raises(ResultUnknown):
        guarded.acquire(frame())
    guarded.acquire(frame())


def test_the_states_of_an_action_are_told() -> None:
    bench = Bench()
    guarded = guard(bench)
    with guarded.events.subscribe() as told:
        guarded.acquire(frame())
        bench.error = ResultUnknown("no answer")
        with pytest.raises(ResultUnknown):
            guarded.execute(setting(x_nm=1.0))
        guarded.stop()
        states = [(event.command, event.state) for event in told.take()]
    assert states == [
        ("acquire_frame", "accepted"), ("acquire_frame", "running"), ("acquire_frame", "done"),
        ("set_axes", "accepted"), ("set_axes", "running"), ("set_axes", "unknown"), (None, None),
    ]  # fmt: skip


def test_an_unknown_action_is_told_once_as_what_it_turned_out_to_be() -> None:
    bench = Bench(error=ResultUnknown("no answer"))
    guarded = guard(bench)
    with pytest.raises(ResultUnknown):
        guarded.acquire(frame())
    with guarded.events.subscribe() as told:
        assert guarded.outcome("f") == "unknown"
        bench.remembers = "delivered"
        assert [guarded.outcome("f"), guarded.outcome("f")] == ["delivered", "delivered"]
        assert [(event.action_id, event.state) for event in told.take()] == [("f", "done")]


# --- calibrations


def calibrated(days: float, **limits: Any) -> GuardedMicroscope:
    calibration = Calibration(
        id="dose-7", quantity="probe_current_pa", values={"gain": 1.0}, uncertainties={"gain": 0.02},
        standard="Faraday cup", measured_at=NOON, expires_at=NOON + timedelta(days=30),
    )  # fmt: skip
    return GuardedMicroscope(
        Bench(), SafetyEnvelope(**limits), calibrations=CalibrationRegistry([calibration]),
        now=lambda: NOON + timedelta(days=days),
    )  # fmt: skip


def test_frames_name_the_calibrations_in_use() -> None:
    assert calibrated(1).acquire(frame()).state.calibrations == ("dose-7",)


def test_an_expired_calibration_warns_once_or_refuses() -> None:
    guarded = calibrated(31)
    with guarded.events.subscribe() as told:
        guarded.acquire(frame())
        guarded.acquire(frame())
        warnings = [event.message for event in told.take() if event.kind == "calibration_expired"]
    assert len(warnings) == 1
    with pytest.raises(CommandRefused, match="'dose-7' of probe_current_pa expired"):
        calibrated(31, expired_calibrations="refuse").acquire(frame())
    with pytest.raises(CommandRefused, match="scale has no calibration"):
        calibrated(1, expired_calibrations="refuse", required_calibrations=("scale",)).acquire(frame())


# --- readings of the current that are off


def frames_until_refused(guarded: GuardedMicroscope) -> tuple[int, str]:
    for count in range(50):
        try:
            guarded.acquire(frame())
        except CommandRefused as error:
            return count, str(error)
    pytest.fail("50 frames and no refusal")


def test_the_dose_limit_is_held_against_the_books_and_the_uncertainty_of_the_current() -> None:
    """On a specimen that really gets so much more than is read, no cell is above its limit."""
    once = guard()
    once.acquire(frame())
    limit = once.ledger.max_e_per_a2 * 20.2  # 20 frames by the books
    counts: dict[float | None, int] = {}
    for stated in (None, 0.0, 0.3):
        guarded = guard(max_dose_e_per_a2=limit, current_uncertainty_fraction=stated)
        counts[stated], refusal = frames_until_refused(guarded)
        booked = guarded.ledger.max_e_per_a2
        assert booked == pytest.approx(counts[stated] * limit / 20.2), "the books keep what was measured"
        assert guarded.dose_judged_e_per_a2 == pytest.approx(booked * (1 + (stated or 0.0)))
        assert guarded.dose_judged_e_per_a2 <= limit
        assert ("times 1.3 for the uncertainty of the current" in refusal) == (stated == 0.3)
    assert counts == {None: 20, 0.0: 20, 0.3: 15}


def test_without_a_word_of_the_facility_the_calibration_of_the_current_tells_its_uncertainty() -> None:
    guarded = calibrated(1)
    guarded.acquire(frame())
    assert guarded.dose_judged_e_per_a2 == pytest.approx(guarded.ledger.max_e_per_a2 * 1.04)  # two deviations
    said = calibrated(1, current_uncertainty_fraction=0.1)
    said.acquire(frame())
    assert said.dose_judged_e_per_a2 == pytest.approx(said.ledger.max_e_per_a2 * 1.1)


def test_a_procedure_is_judged_so_too() -> None:
    limits: dict[str, Any] = {"procedures": ("normalise",), "unknown_illumination": "assume"}
    burnt = electrons(CURRENT_PA, 2.0) / 100
    run = RunProcedure(action_id="r", name="normalise")
    guard(**limits, max_dose_e_per_a2=1.1 * burnt).execute(run)
    with pytest.raises(CommandRefused, match=r"after this procedure .* times 1\.2 for the uncertainty"):
        guard(**limits, max_dose_e_per_a2=1.1 * burnt, current_uncertainty_fraction=0.2).execute(run)


def test_an_experiment_makes_no_reading_better() -> None:
    facility = SafetyEnvelope(current_uncertainty_fraction=0.05)
    assert facility.narrowed_by(SafetyEnvelope()).current_uncertainty_fraction == 0.05
    assert facility.narrowed_by(SafetyEnvelope(current_uncertainty_fraction=0.1)).current_uncertainty_fraction == 0.1
    with pytest.raises(ConfigurationError, match=r"uncertainty_fraction: 0\.01 is less than the facility's 0\.05"):
        facility.narrowed_by(SafetyEnvelope(current_uncertainty_fraction=0.01))


def test_what_an_envelope_checks_is_every_axis_a_command_sets() -> None:
    assert {"x_nm", "defocus_nm", "dwell_time_us"} <= axis_values(frame()).keys()
    with pytest.raises(CommandRefused, match="dwell_time_us 1 us is below the limit 2 us"):
        guard(axes={"dwell_time_us": AxisLimit(minimum=2)}).acquire(frame())


# --- what finds a lost link out, and what it is worth


@dataclass
class Asked(Bench):
    """Its answers to questions can be lost too."""

    silent: bool = False

    def read_state(self) -> MicroscopeState:
        self._heard()
        return super().read_state()

    def outcome(self, action_id: str) -> Outcome:
        self._heard()
        return super().outcome(action_id)

    def stop(self) -> None:
        self._heard()
        super().stop()

    def _heard(self) -> None:
        if self.silent:
            raise LinkLost("nobody answers")


@pytest.mark.parametrize("question", ["read_state", "outcome", "stop", "park"])
def test_a_link_found_lost_by_a_question_is_lost(question: str) -> None:
    bench = Asked()
    guarded = GuardedMicroscope(bench, SafetyEnvelope())
    questions: dict[str, Callable[[], object]] = {
        "read_state": guarded.read_state,
        "outcome": lambda: guarded.outcome("a"),
        "stop": guarded.stop,
        "park": lambda: guarded.execute(Park(action_id="p")),
    }
    bench.silent = True
    with pytest.raises(LinkLost, match="nobody answers"):
        questions[question]()
    bench.silent = False
    for refused in (lambda: guarded.acquire(frame()), lambda: guarded.fetch(frame())):
        with pytest.raises(LinkLost, match="nothing is issued"):
            refused()
    assert bench.told == []
    guarded.reconnect()
    guarded.acknowledge("anna")
    guarded.acquire(frame())


def test_a_link_lost_before_any_frame_costs_the_current_that_is_read_back() -> None:
    bench, seconds = Bench(), [0.0]
    bench.at = Arrangement(StagePosition(x_nm=500.5), frame().optics)
    guarded = GuardedMicroscope(bench, SafetyEnvelope(), clock=lambda: seconds[0])
    bench.error = LinkLost("gone")
    with pytest.raises(LinkLost):
        guarded.execute(Blank(action_id="b"))
    seconds[0] = 10.0
    guarded.reconnect()
    assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 10.0))
    assert guarded.ledger.mean_map(500, 0, 1, 1)[0, 0] > 0


def test_a_beam_whose_blanker_cannot_be_read_counts_as_on() -> None:
    guarded = guard(Bench(undetermined={"beam_blanked": "no line to the blanker"}))
    for command in (Park(action_id="p"), setting(x_nm=5.0)):
        with pytest.raises(CommandRefused, match="not blanked"):
            guarded.execute(command)
    with pytest.raises(InstrumentFault, match="not blanked"):
        guarded.reconnect()


def test_a_frame_moves_no_interlocked_axis_either() -> None:
    axes = tuple(axis.model_copy(update={"interlocked": axis.name == "x_nm"}) for axis in CARD.axes)
    card = CARD.model_copy(update={"axes": axes})
    with pytest.raises(CommandRefused, match="x_nm may not be set"):
        guard(Bench(card=card)).acquire(frame(stage={"x_nm": 5.0}))
    guard(Bench(card=card)).acquire(frame())
    guard(Bench(card=card), permissions=("x_nm",)).acquire(frame(stage={"x_nm": 5.0}))


@pytest.mark.parametrize("told", [-1e15, float("nan"), float("inf")])
def test_electrons_that_cannot_be_are_no_correction(told: float) -> None:
    class Lying(Bench):
        def acquire(self, command: AcquireFrame) -> Frame:
            return replace(super().acquire(command), electrons=told)

    guarded = guard(Lying())
    guarded.acquire(frame())
    assert guarded.ledger.electrons == worst_charge(frame(), CARD).electrons > 0


def test_what_an_adapter_should_not_raise_leaves_its_action_unknown() -> None:
    class Interrupted(Bench):
        def acquire(self, command: AcquireFrame) -> Frame:
            raise KeyboardInterrupt

    guarded = guard(Interrupted())
    with guarded.events.subscribe() as told, pytest.raises(KeyboardInterrupt):
        guarded.acquire(frame())
    assert [event.state for event in told.take()] == ["accepted", "running", "unknown"]
    assert guarded.ledger.electrons > 0


def test_a_side_of_more_pixels_than_a_number_holds_is_refused() -> None:
    with pytest.raises(CommandRefused, match="over 1e9 px"):
        guard().acquire(frame(shape_px=(10, 10**400)))


@pytest.mark.parametrize("command", [frame(), Park(action_id="p"), setting(x_nm=1.0), Blank(action_id="b")])
def test_a_deadline_beyond_all_bounds_is_none(command: AcquireFrame | Park | SetAxes | Blank) -> None:
    endless = command.model_copy(update={"deadline_s": 1e300})
    guarded = guard()
    with pytest.raises(CommandRefused, match=r"deadline 1e\+300 s is above the limit 604800 s"):
        guarded.acquire(endless) if isinstance(endless, AcquireFrame) else guarded.execute(endless)


def test_a_limit_on_an_axis_that_is_not_there_is_noticed() -> None:
    with pytest.raises(ConfigurationError, match=r"safety\.axes\.x_mn: instrument 'bench' has no such axis.*x_nm"):
        guard(axes={"x_mn": AxisLimit(maximum=1)})
    with pytest.raises(ConfigurationError, match=r"no 'valve' to permit; there are valves, .* axes: burner"):
        guard(permissions=("vacuum", "burner", "valve"))


def test_a_current_that_flows_and_cannot_be_set_is_counted() -> None:
    """A frame that says less would be booked with less than the specimen gets."""
    bench = Bench()
    less = frame().model_copy(update={"optics": frame().optics.model_copy(update={"probe_current_pa": 1.0})})
    with pytest.raises(CommandRefused, match="1 is less than the 50 pA that flow"):
        guard(bench).acquire(less)
    assert bench.told == []
    fixed = (Axis(name="probe_current_pa", minimum=80, maximum=80),)
    with pytest.raises(CommandRefused, match="probe_current_pa 50 pA cannot be set: it is fixed at 80 pA"):
        guard(Bench(card=CARD.model_copy(update={"axes": (*CARD.axes, *fixed)}))).acquire(frame())
