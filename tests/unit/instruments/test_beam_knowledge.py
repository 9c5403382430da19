"""What the guard knows of the beam: how wide it is lit, which current flows, and where a frame was really taken."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import pi
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    Axis,
    Command,
    CommandRefused,
    ConfigurationError,
    Frame,
    GuardedMicroscope,
    InstrumentFault,
    LinkLost,
    MicroscopeState,
    Park,
    Procedure,
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    SetAxes,
    StagePosition,
)
from instruments.axes import changes_current
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.footprints import spot
from instruments.illumination import Lit, exposed
from instruments.limits import BeamSetting, StageBox
from instruments.state import AxisReading, ColumnState
from instruments.units import electrons
from tests.unit.instruments.envelope_bench import CARD, CURRENT_PA, START, Bench, frame, setting

CAMERA_S = 1e-3
SPENT = electrons(CURRENT_PA, CAMERA_S)
COLUMN = (
    Axis(name="probe_current_pa", minimum=CURRENT_PA, maximum=CURRENT_PA),
    Axis(name="spot_index", minimum=1, maximum=11),
    Axis(name="gun.lens", minimum=0, maximum=8, changes_current=True),
    Axis(name="beam_shift_x_nm", minimum=-1e3, maximum=1e3, frame="beam_shift"),
)


@dataclass
class Column(Bench):
    """Its current is declared, its spot size can be set; `read` are values that its state tells besides."""

    read: dict[str, Any] = field(default_factory=dict[str, Any])
    displaced: dict[str, float] = field(default_factory=dict[str, float])

    def read_state(self) -> MicroscopeState:
        state = super().read_state()
        hidden = {"optics.probe_current_pa": "declared"} | state.undetermined
        return state.model_copy(update={"undetermined": hidden} | self.read)

    def acquire(self, command: AcquireFrame) -> Frame:
        frame = super().acquire(command)
        stage = frame.state.stage.model_copy(update=self.displaced)
        return replace(frame, state=frame.state.model_copy(update={"stage": stage}))


def column(**fields: Any) -> Column:
    card = CARD.model_copy(update={"axes": (*CARD.axes, *COLUMN)})
    return Column(card=card, others={"spot_index": 3.0}, **fields)


def guarded(bench: Bench | None = None, **limits: Any) -> GuardedMicroscope:
    return GuardedMicroscope(bench or column(), SafetyEnvelope(**limits))


def camera(**scan: Any) -> AcquireFrame:
    return frame("camera", dwell_time_us=CAMERA_S * 1e6, **scan)


def disc_e_per_a2(diameter_nm: float) -> float:
    return SPENT / (pi / 4 * diameter_nm**2 * 100)


# --- how wide


def row(**fields: Any) -> tuple[BeamSetting, ...]:
    return (BeamSetting(mode="camera", **fields),)


def test_a_beam_that_may_be_narrower_than_commanded_is_booked_at_its_narrowest_anywhere_in_the_disc() -> None:
    microscope = guarded(beam=row(min_illuminated_nm=10.0))
    microscope.acquire(camera(illuminated_nm=40.0))
    ledger = microscope.ledger
    assert ledger.max_e_per_a2 == pytest.approx(disc_e_per_a2(10.0), rel=1e-6)
    assert ledger.electrons == pytest.approx(SPENT)
    cells = ledger.mean_map(-25, -25, 50, 50)
    assert cells.sum() * 100 == pytest.approx(SPENT), "the mean is spread over the wide disc"
    narrow_elsewhere = camera(illuminated_nm=10.0)
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell"):
        GuardedMicroscope(
            column(), SafetyEnvelope(beam=row(min_illuminated_nm=10.0), max_dose_e_per_a2=disc_e_per_a2(10.0) * 0.99)
        ).acquire(narrow_elsewhere)


@pytest.mark.parametrize("field_nm", [0.5, 1.0, 10.0, 3000.0, 5000.0])
@pytest.mark.parametrize("known_nm", [0.3, 2.0, 900.0, 7000.0])
@pytest.mark.parametrize("said_nm", [None, 0.8, 950.0, 6000.0])
def test_the_bound_holds_for_every_disc_between_the_known_ones(
    field_nm: float, known_nm: float, said_nm: float | None
) -> None:
    """On cells of 1 nm and of 64 nm: nothing that can be lit is left out, nothing is thinner than booked."""
    scan = camera(field_of_view_nm=field_nm, shape_px=(10, 20), illuminated_nm=said_nm).scan
    lit = Lit.between(scan, [known_nm])
    assert lit is not None
    marks, factor = exposed(StagePosition(), scan, lit)
    area_nm2 = float(marks.overlap_nm2.sum())
    thinnest_nm2 = min(pi / 4 * known_nm**2, scan.area_nm2 if said_nm is None else pi / 4 * said_nm**2)
    assert factor / area_nm2 == pytest.approx(max(1 / thinnest_nm2, 1 / area_nm2))
    for reach_nm in (known_nm / 2, (said_nm or 0.0) / 2, scan.field_of_view_nm / 2 if said_nm is None else 0.0):
        column_index = int(np.floor(0.999 * reach_nm / marks.cell_nm)) - marks.first_column
        row_index = -marks.first_row
        assert marks.overlap_nm2[row_index, column_index] > 0


def test_nobody_knows_how_wide_so_nothing_is_exposed_where_dose_is_limited() -> None:
    with pytest.raises(CommandRefused, match=r"nobody knows how wide the beam is in mode 'camera'.*min_illuminated_nm"):
        guarded(max_dose_e_per_a2=1e9).acquire(camera(illuminated_nm=40.0))
    with pytest.raises(CommandRefused, match="nobody knows how wide"):
        guarded(unknown_illumination="refuse").acquire(camera())
    guarded(max_dose_e_per_a2=1e9, unknown_illumination="assume").acquire(camera(illuminated_nm=40.0))
    guarded().acquire(camera())
    guarded(max_dose_e_per_a2=1e9).acquire(frame())


def test_what_the_instrument_reads_back_of_its_width_counts_before_and_after() -> None:
    reading = {"illuminated_nm": AxisReading(read_back=20.0)}
    microscope = guarded(column(read={"axes": reading}), max_dose_e_per_a2=1e9)
    microscope.acquire(camera(illuminated_nm=40.0))
    assert microscope.ledger.max_e_per_a2 == pytest.approx(disc_e_per_a2(20.0), rel=1e-6)

    class Narrowing(Column):
        def acquire(self, command: AcquireFrame) -> Frame:
            taken = super().acquire(command)
            return replace(taken, state=taken.state.model_copy(update={"axes": reading}))

    narrowing = Narrowing(card=CARD)
    microscope = guarded(narrowing, beam=row(min_illuminated_nm=30.0))
    with microscope.events.subscribe() as told:
        microscope.acquire(camera(illuminated_nm=40.0))
        assert "taken_elsewhere" in [event.kind for event in told.take()]
    assert microscope.ledger.max_e_per_a2 >= disc_e_per_a2(20.0)
    assert microscope.ledger.electrons == pytest.approx(SPENT), "counted once"


def test_a_lit_disc_wider_than_the_ledger_is_refused() -> None:
    with pytest.raises(CommandRefused, match="lit disc for the dose ledger 300000 nm"):
        guarded(beam=row(min_illuminated_nm=3e5)).acquire(camera())


# --- which current


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("spot_index", True), ("fei.spot_index", True), ("gun_lens_index", True), ("condenser_aperture", True),
        ("monochromator_state", True), ("extraction_v", True), ("intensity_fraction", True), ("flash", True),
        ("objective_aperture", False), ("selected_area_aperture", False), ("x_nm", False), ("defocus_nm", False),
    ],
)  # fmt: skip
def test_names_tell_what_changes_the_current(name: str, does: bool) -> None:
    assert changes_current(name) is does


def test_after_a_change_of_spot_nothing_is_exposed_until_the_current_is_known() -> None:
    bench = column()
    microscope = guarded(bench)
    microscope.acquire(frame())
    microscope.execute(setting(spot_index=3.0, x_nm=1.0))
    microscope.acquire(frame())
    microscope.execute(setting(spot_index=1.0))
    told = len(bench.told)
    with pytest.raises(CommandRefused, match=r"the current is not known since spot_index = 1\.0: measure it"):
        microscope.acquire(frame())
    assert len(bench.told) == told
    microscope.tell_current(CURRENT_PA * 3, "anna")
    before = microscope.ledger.electrons
    microscope.acquire(frame())
    assert microscope.ledger.electrons - before == pytest.approx(3 * electrons(CURRENT_PA, 1e-4))
    microscope.execute(setting(gun__lens=4.0))
    with pytest.raises(CommandRefused, match=r"not known since gun\.lens = 4\.0"):
        microscope.acquire(frame())


@pytest.mark.parametrize("told", [-1.0, float("nan"), float("inf")])
def test_what_is_no_current_is_not_taken_for_one(told: float) -> None:
    with pytest.raises(CommandRefused, match="is none"):
        guarded().tell_current(told, "anna")


def test_a_lost_answer_and_a_hand_at_the_panel_change_the_current_too() -> None:
    bench = column(error=ResultUnknown("no answer"))
    microscope = guarded(bench)
    with pytest.raises(ResultUnknown):
        microscope.execute(setting(spot_index=1.0))
    with pytest.raises(CommandRefused, match="the current is not known"):
        microscope.acquire(frame())
    bench = column()
    microscope = guarded(bench)
    microscope.acquire(frame())
    bench.others["spot_index"] = 2.0
    with pytest.raises(CommandRefused, match=r"spot_index went from 3\.0 to 2\.0"):
        microscope.acquire(frame())


def test_a_procedure_that_changes_the_current_says_so_by_its_name() -> None:
    card = column().card.model_copy(
        update={"procedures": (Procedure(name="flash", duration_s=1.0, exposes=False), *CARD.procedures)}
    )
    microscope = guarded(replace(column(), card=card), procedures=("flash", "home"))
    microscope.execute(RunProcedure(action_id="h", name="home"))
    microscope.acquire(frame())
    microscope.execute(RunProcedure(action_id="r", name="flash"))
    with pytest.raises(CommandRefused, match="since procedure flash"):
        microscope.acquire(frame())


def test_a_current_measured_after_the_change_is_known_an_older_one_is_not() -> None:
    for age_s, is_known in ((-60.0, False), (60.0, True)):
        measured = ColumnState(current_measured_at=datetime.now(UTC) + timedelta(seconds=age_s))
        bench = column(read={"measured_current_pa": CURRENT_PA, "column": measured})
        microscope = guarded(bench)
        microscope.execute(setting(spot_index=1.0))
        if is_known:
            microscope.acquire(frame())
        else:
            with pytest.raises(CommandRefused, match="the current is not known"):
                microscope.acquire(frame())


TABLE = (
    BeamSetting(axes={"spot_index": 3}, max_current_pa=60.0),
    BeamSetting(axes={"spot_index": 1}, max_current_pa=400.0),
)


def test_the_facilitys_table_is_booked_where_nobody_reads_the_current() -> None:
    bench = column()
    microscope = guarded(bench, beam=TABLE)
    taken = microscope.acquire(frame())
    dwell = electrons(60.0, 1e-4)
    assert microscope.ledger.electrons == pytest.approx(dwell)
    assert taken.electrons == pytest.approx(dwell), "the frame says what was booked, so that a restart books the same"
    microscope.execute(setting(spot_index=1.0))
    microscope.acquire(frame())
    assert microscope.ledger.electrons == pytest.approx(dwell + electrons(400.0, 1e-4))
    microscope.execute(setting(spot_index=2.0))
    with pytest.raises(CommandRefused, match="not known since spot_index"):
        microscope.acquire(frame())
    with pytest.raises(CommandRefused, match="probe current of this setting 60 pA is above the limit 55 pA"):
        guarded(beam=TABLE, max_current_pa=55.0).acquire(frame())


def test_a_declared_current_is_not_believed_at_a_setting_that_the_table_leaves_out() -> None:
    """Somebody may have changed it before this program began."""
    bench = column()
    bench.others["spot_index"] = 7.0
    with pytest.raises(CommandRefused, match=r"not known at this setting, which no row of safety\.beam"):
        guarded(bench, beam=TABLE).acquire(frame())
    told = guarded(bench, beam=TABLE)
    told.tell_current(CURRENT_PA, "anna")
    told.acquire(frame())


def test_a_setting_that_is_not_read_back_is_no_row_of_the_table() -> None:
    bench = column()
    bench.others.clear()
    microscope = guarded(bench, beam=TABLE)
    microscope.execute(setting(spot_index=5.0))
    bench.others.clear()
    with pytest.raises(CommandRefused, match="the current is not known"):
        microscope.acquire(frame())


def test_more_current_than_was_booked_is_debited_and_told() -> None:
    class Surge(Column):
        def acquire(self, command: AcquireFrame) -> Frame:
            taken = super().acquire(command)
            return replace(taken, state=taken.state.model_copy(update={"measured_current_pa": 4 * CURRENT_PA}))

    microscope = guarded(Surge(card=CARD))
    with microscope.events.subscribe() as told:
        microscope.acquire(frame())
        assert [event.kind for event in told.take() if event.kind != "action"] == ["more_current"]
    assert microscope.ledger.electrons == pytest.approx(4 * electrons(CURRENT_PA, 1e-4))


def test_a_row_that_can_never_be_about_this_instrument_is_noticed_at_opening() -> None:
    wrong = (BeamSetting(mode="ceta", axes={"spot_indx": 3}, max_current_pa=60.0),)
    with pytest.raises(ConfigurationError, match=r"safety\.beam\.0: .*no axis 'spot_indx'.*no mode 'ceta'"):
        guarded(beam=wrong)


def test_an_experiment_cannot_say_what_the_beam_can_be() -> None:
    with pytest.raises(ConfigurationError, match=r"safety\.beam: what the beam can be is the facility's"):
        SafetyEnvelope().narrowed_by(SafetyEnvelope(beam=TABLE))
    with pytest.raises(ConfigurationError, match=r"unknown_illumination: assume is wider"):
        SafetyEnvelope().narrowed_by(SafetyEnvelope(unknown_illumination="assume"))
    facility = SafetyEnvelope(beam=TABLE, unknown_illumination="assume")
    assert facility.narrowed_by(facility) == facility.narrowed_by(SafetyEnvelope()) == facility
    assert facility.narrowed_by(SafetyEnvelope(unknown_illumination="refuse")).unknown_illumination == "refuse"


# --- where


def test_a_frame_taken_elsewhere_is_booked_there_as_well_and_told() -> None:
    kept: list[BookEntry] = []
    bench = column(displaced={"x_nm": 100.0})
    microscope = replace(guarded(bench), keep=kept.append)
    with microscope.events.subscribe() as told:
        microscope.acquire(frame())
        [event] = [event for event in told.take() if event.kind == "taken_elsewhere"]
    assert "x_nm 100 instead of 0" in event.message
    there = microscope.ledger.mean_map(95, -5, 10, 10)
    assert there.min() > 0
    here, elsewhere = (microscope.ledger.peak_after(spot(x_nm, 0.0), 0.0) for x_nm in (0.0, 100.0))
    assert elsewhere == pytest.approx(here)
    assert microscope.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 1e-4))
    again = guarded(column())
    [debit] = kept
    assert isinstance(debit, ExtraDebit)
    again.book_again(debit)
    assert again.ledger.electrons == 0.0
    assert np.array_equal(again.ledger.mean_map(95, -5, 10, 10), there)
    bench.displaced = {}
    microscope.acquire(frame())


@pytest.mark.parametrize(
    ("displaced", "limits", "words"),
    [
        ({"x_nm": 100.0}, {"max_position_error_nm": 50.0}, r"x_nm 100 nm instead of 0 nm, more than 50 nm off"),
        ({"x_nm": 100.0}, {"max_stage_x_nm": 90.0}, "stage x 100 nm is above the limit 90 nm"),
        (
            {"alpha_deg": 45.0},
            {"pole_piece": (StageBox(max_alpha_deg=40.0),)},
            "taken where it may not be: the stage would pass",
        ),
    ],
)
def test_nothing_more_is_issued_after_a_frame_too_far_off_until_a_person_has_looked(
    displaced: dict[str, float], limits: dict[str, Any], words: str
) -> None:
    bench = column(displaced=displaced)
    microscope = guarded(bench, **limits)
    microscope.acquire(frame())
    bench.displaced = {}
    commands: tuple[Command, ...] = (setting(x_nm=1.0), Park(action_id="p"))
    for command in commands:
        with pytest.raises(InstrumentFault, match=f"{words}.*acknowledge"):
            microscope.execute(command)
    with pytest.raises(InstrumentFault, match=words):
        microscope.acquire(frame())
    microscope.acknowledge("anna")
    microscope.acquire(frame())


# --- a lost link on the way


def test_a_move_without_an_answer_debits_the_whole_way_of_a_beam_that_counts_as_on() -> None:
    kept: list[BookEntry] = []
    seconds = [0.0]
    bench = column()
    microscope = GuardedMicroscope(bench, SafetyEnvelope(), clock=lambda: seconds[0], keep=kept.append)
    microscope.acquire(frame())
    before = microscope.ledger.electrons
    bench.error = LinkLost("gone")
    with pytest.raises(LinkLost):
        microscope.execute(SetAxes(action_id="s", values={"x_nm": 300.0, "y_nm": 40.0}))
    [loss] = kept
    assert isinstance(loss, LinkLoss)
    seconds[0] = 10.0
    microscope.reconnect()
    burnt = electrons(CURRENT_PA, 10.0)
    assert microscope.ledger.electrons - before == pytest.approx(burnt)
    for x_nm, y_nm in ((0, 0), (300, 40), (300, 0), (0, 40), (150, 20)):
        assert microscope.ledger.mean_map(x_nm, y_nm, 1, 1)[0, 0] > 0, "old place, target, and all between"
    assert isinstance(kept[-1], ExtraDebit)
    assert kept[-1].settles == loss.lost_at


def test_a_way_beyond_all_cells_is_in_the_books_too() -> None:
    seconds = [0.0]
    bench = column()
    microscope = GuardedMicroscope(bench, SafetyEnvelope(max_dose_e_per_a2=1e6), clock=lambda: seconds[0])
    microscope.acquire(frame())
    bench.error = LinkLost("gone")
    with pytest.raises(LinkLost):
        microscope.execute(setting(x_nm=900_000.0))
    seconds[0] = 10.0
    microscope.reconnect()
    microscope.acknowledge("anna")
    for x_nm in (0.0, 450_000.0, 900_000.0):
        with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell"):
            microscope.acquire(frame(stage={"x_nm": x_nm}))
    microscope.acquire(frame(stage={"x_nm": -5_000.0}))


def test_what_a_sleeping_computer_did_not_count_is_debited_by_the_wall_clock() -> None:
    wall = [datetime(2026, 3, 1, tzinfo=UTC)]
    bench = column(error=LinkLost("gone"), at=START)
    microscope = GuardedMicroscope(bench, SafetyEnvelope(), clock=lambda: 0.0, now=lambda: wall[0])
    with pytest.raises(LinkLost):
        microscope.acquire(frame())
    before = microscope.ledger.electrons
    wall[0] += timedelta(hours=1)
    microscope.reconnect()
    assert microscope.ledger.electrons - before == pytest.approx(electrons(CURRENT_PA, 3600.0))


def test_a_clock_set_back_over_a_lost_link_is_no_reason_to_debit_nothing() -> None:
    lost_at = datetime(2026, 3, 1, tzinfo=UTC)
    loss = LinkLoss(lost_at=lost_at, because="gone", current_pa=CURRENT_PA)
    with pytest.raises(InstrumentFault, match="set this computer's clock right"):
        guarded().settle(loss, lost_at - timedelta(seconds=1))
