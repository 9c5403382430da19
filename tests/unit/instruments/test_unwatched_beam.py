"""A beam while nobody knows of it: until an answer is given up, found on between two exposures, standing still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Blank,
    Command,
    CommandRefused,
    DoseLedger,
    Frame,
    GuardedMicroscope,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    MicroscopeState,
    Mode,
    Procedure,
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
)
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.footprints import spot
from instruments.limits import BeamSetting
from instruments.units import electrons
from tests.unit.instruments.envelope_bench import CARD, CURRENT_PA, Bench, frame

FRAME = electrons(CURRENT_PA, 1e-4)
PROCEDURE = RunProcedure(action_id="p", name="normalise")


@dataclass
class Late(Bench):
    """Every exposure takes `takes_s` on the clock."""

    takes_s: float = 0.0
    now_s: float = 0.0
    kept: list[BookEntry] = field(default_factory=list[BookEntry])

    def acquire(self, command: AcquireFrame) -> Frame:
        self.now_s += self.takes_s
        return super().acquire(command)

    def execute(self, command: Command) -> MicroscopeState:
        self.blanked = self.blanked or isinstance(command, Blank)
        return super().execute(command)

    def guarded(self, **limits: object) -> GuardedMicroscope:
        return GuardedMicroscope(
            self,
            SafetyEnvelope.model_validate({"procedures": ("normalise",), **limits}),
            clock=lambda: self.now_s,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s),
            keep=self.kept.append,
        )


def named(action_id: str) -> AcquireFrame:
    return frame().model_copy(update={"action_id": action_id})


def test_a_link_that_is_found_lost_at_a_deadline_was_lost_since_the_command() -> None:
    bench = Late(takes_s=60.0, error=LinkLost("gone"))
    guarded = bench.guarded()
    with pytest.raises(LinkLost):
        guarded.acquire(named("a"))
    bench.now_s += 5.0
    guarded.reconnect()
    assert guarded.ledger.electrons == pytest.approx(FRAME + electrons(CURRENT_PA, 65.0))
    [loss, _] = bench.kept
    assert isinstance(loss, LinkLoss)
    assert loss.lost_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("error", [ResultUnknown("no answer"), InstrumentFault("it hung")])
def test_an_exposure_without_an_answer_counts_until_it_was_given_up(error: InstrumentError) -> None:
    bench = Late(takes_s=60.0, error=error)
    guarded = bench.guarded()
    with pytest.raises(type(error)):
        guarded.acquire(named("a"))
    assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 60.0))
    fresh = DoseLedger()
    for entry in bench.kept:
        assert not isinstance(entry, LinkLoss)
        entry.book(fresh)
    assert fresh.electrons == pytest.approx(electrons(CURRENT_PA, 60.0) - FRAME)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_beam_that_nobody_read_after_a_fault_counts_until_it_is_blanked(is_stopped: bool) -> None:
    bench = Late(takes_s=60.0, error=InstrumentFault("it hung"))
    guarded = bench.guarded()
    with pytest.raises(InstrumentFault):
        guarded.acquire(named("a"))
    bench.now_s += 40.0
    for _ in range(2):  # once
        if is_stopped:
            guarded.stop()
        else:
            guarded.execute(Blank(action_id="dark"))
        assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 100.0))
        bench.now_s += 40.0


def test_a_beam_that_was_stopped_or_read_dark_after_a_fault_is_in_no_doubt() -> None:
    class Stopped(Late):
        def acquire(self, command: AcquireFrame) -> Frame:
            guarded.stop()
            return super().acquire(command)

    for bench in (Stopped(error=InstrumentFault("stopped")), Late(error=InstrumentFault("it hung"))):
        guarded = bench.guarded()
        with pytest.raises(InstrumentFault):
            guarded.acquire(named("a"))
        if not isinstance(bench, Stopped):
            guarded.read_state()
        bench.now_s += 3600.0
        guarded.execute(Blank(action_id="dark"))
        assert guarded.ledger.electrons == pytest.approx(FRAME)


@pytest.mark.parametrize(("error", "takes_s"), [(AcquisitionFailed("dropped"), 60.0), (ResultUnknown("?"), 5e-5)])
def test_what_is_known_to_have_ended_counts_as_it_was_booked(error: InstrumentError, takes_s: float) -> None:
    bench = Late(takes_s=takes_s, error=error)
    guarded = bench.guarded()
    with pytest.raises(type(error)):
        guarded.acquire(named("a"))
    assert guarded.ledger.electrons == pytest.approx(FRAME)


def test_nothing_burns_in_a_world_that_is_rebuilt_from_its_commands() -> None:
    class World(Late):
        def rebuild(self, commands: Sequence[Command]) -> None:
            raise NotImplementedError

    bench = World(takes_s=60.0, error=ResultUnknown("its process was killed"))
    guarded = bench.guarded()
    with pytest.raises(ResultUnknown):
        guarded.acquire(named("a"))
    assert guarded.ledger.electrons == pytest.approx(FRAME)
    assert bench.kept == []


def test_a_procedure_without_an_answer_counts_until_it_was_given_up() -> None:
    class Hanging(Late):
        def _note(self, command: object) -> None:
            self.now_s += 300.0
            raise ResultUnknown("no answer")

    bench = Hanging()
    guarded = bench.guarded()
    with pytest.raises(ResultUnknown):
        guarded.execute(PROCEDURE)
    assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 300.0))


def test_a_procedure_that_lights_a_disc_is_booked_over_it() -> None:
    """Anywhere in the widest disc that is known, as thin as the narrowest; what has no width is a spot."""
    tableau = Procedure(name="tableau", duration_s=2.0, illuminated_nm=40.0)
    bench = Late(card=CARD.model_copy(update={"procedures": (tableau,)}))
    run = RunProcedure(action_id="p", name="tableau")
    allowed = {"procedures": ("tableau",), "max_dose_e_per_a2": 1.01 * electrons(CURRENT_PA, 2.0) / disc_a2(40.0)}
    guarded = bench.guarded(**allowed)
    guarded.execute(run)
    assert guarded.ledger.peak_after(spot(19.0, 19.0), 0.0) == pytest.approx(electrons(CURRENT_PA, 2.0) / disc_a2(40.0))
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell after this procedure"):
        guarded.execute(run)
    narrower = (BeamSetting(min_illuminated_nm=20.0),)
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell after this procedure"):
        bench.guarded(**allowed, beam=narrower).execute(run)
    lost = Late(card=bench.card, error=LinkLost("gone")).guarded(procedures=("tableau",))
    with pytest.raises(LinkLost):
        lost.execute(run)
    lost.reconnect()
    assert lost.ledger.mean_map(19, 0, 1, 1)[0, 0] > 0


def test_a_disc_on_a_tilted_specimen_is_booked_as_long_as_it_is() -> None:
    tableau = Procedure(name="tableau", duration_s=2.0, illuminated_nm=40.0)
    bench = Late(card=CARD.model_copy(update={"procedures": (tableau,), "height_error_nm": 0.0}))
    guarded = bench.guarded(procedures=("tableau",))
    guarded.execute(SetAxes(action_id="tilt", values={"alpha_deg": 60.0}))
    guarded.execute(RunProcedure(action_id="p", name="tableau"))
    assert guarded.ledger.peak_after(spot(0.0, 39.0), 0.0) > 0  # 20 nm over the cosine of 60 degrees


def disc_a2(diameter_nm: float) -> float:
    return math.pi / 4 * diameter_nm**2 * 100


def test_nothing_is_issued_under_a_beam_that_is_found_on_and_its_time_is_debited() -> None:
    bench = Late()
    guarded = bench.guarded()
    guarded.acquire(named("a"))
    bench.blanked, bench.now_s = False, 600.0
    for ask in (lambda: guarded.acquire(named("b")), lambda: guarded.execute(PROCEDURE)):
        with pytest.raises(LinkLost, match=r"the beam was last seen off 600 s ago \(it is on though nothing is expo"):
            ask()
    assert [command.action_id for command in bench.told] == ["a"]
    bench.now_s = 610.0
    guarded.reconnect()
    assert bench.blanked
    assert guarded.ledger.electrons == pytest.approx(FRAME + electrons(CURRENT_PA, 610.0))
    with pytest.raises(InstrumentFault, match="a person has to look"):
        guarded.acquire(named("b"))
    guarded.acknowledge("anna")
    guarded.acquire(named("b"))


def test_a_link_that_is_lost_under_a_beam_that_was_seen_on_was_lost_since_then() -> None:
    bench = Late()
    guarded = bench.guarded()
    guarded.acquire(named("a"))
    bench.blanked = False
    guarded.read_state()
    bench.now_s, bench.error = 300.0, LinkLost("gone")
    with pytest.raises(LinkLost):
        guarded.execute(Blank(action_id="end"))
    bench.now_s = 400.0
    guarded.reconnect()
    guarded.read_state()
    assert guarded.ledger.electrons == pytest.approx(FRAME + electrons(CURRENT_PA, 400.0))


@pytest.mark.parametrize("ends", ["blank", "look"])
def test_a_beam_that_was_seen_on_and_is_off_again_is_debited_though_nothing_was_asked(ends: str) -> None:
    """By a procedure that left it on, then by a hand: until it was blanked, or read back as off after a stop."""
    bench = Late()
    guarded = bench.guarded()
    guarded.acquire(named("a"))
    bench.now_s, bench.blanked = 100.0, False
    guarded.read_state()
    bench.now_s = 600.0
    if ends == "look":
        guarded.stop()
        guarded.read_state()
    else:
        guarded.execute(Blank(action_id="end"))
    burnt = electrons(CURRENT_PA, 600.0)
    assert guarded.ledger.electrons == pytest.approx(FRAME + burnt)
    assert [entry.electrons for entry in bench.kept if isinstance(entry, ExtraDebit)] == pytest.approx([burnt])
    guarded.acquire(named("b"))
    assert guarded.ledger.electrons == pytest.approx(2 * FRAME + burnt)


def test_a_beam_that_nobody_saw_off_yet_is_blanked_before_anything_moves() -> None:
    class Stuck(Late):
        def read_state(self) -> MicroscopeState:
            return super().read_state().model_copy(update={"beam_blanked": False})

    bench, stuck = Late(blanked=False), Stuck()
    bench.guarded().acquire(named("a"))
    assert [type(command) for command in bench.told] == [Blank, AcquireFrame]
    with pytest.raises(CommandRefused, match="the beam is on and does not blank"):
        stuck.guarded().acquire(named("a"))
    assert [type(command) for command in stuck.told] == [Blank]


def test_a_beam_that_stands_still_has_no_raster() -> None:
    card = CARD.model_copy(update={"modes": (*CARD.modes, Mode(name="shadow", kind="ronchigram", detectors=()))})
    guarded = Late(card=card).guarded()
    still = named("a").model_copy(update={"mode": "shadow"})
    with pytest.raises(CommandRefused, match=r"the beam stands still.*must be \(1, 1\)"):
        guarded.check(still)
    one = ScanPattern(field_of_view_nm=100.0, shape_px=(1, 1), dwell_time_us=1e6)
    charge = guarded.check(still.model_copy(update={"scan": one}))
    assert charge.electrons == pytest.approx(electrons(CURRENT_PA, 1.0))


def test_five_pixels_of_a_turned_raster_lie_in_one_cell_and_are_counted() -> None:
    """One pixel in the middle of a cell and its four neighbours, 0.6 nm away along the diagonals of the cell."""
    scan = ScanPattern(field_of_view_nm=3.0, shape_px=(5, 5), dwell_time_us=1.0, rotation_deg=45.0)
    shifted = scan.model_copy(update={"beam_shift_x_nm": 0.5, "beam_shift_y_nm": 0.5})
    ledger = DoseLedger()
    ledger.add_frame(named("a").model_copy(update={"scan": shifted}), 25.0)
    inside = [
        (0.5 + 0.6 * (column - row) * math.sqrt(0.5), 0.5 + 0.6 * (column + row) * math.sqrt(0.5))
        for row in range(-2, 3)
        for column in range(-2, 3)
    ]
    count = sum(0 <= x < 1 and 0 <= y < 1 for x, y in inside)
    assert count == 5
    assert ledger.peak_after(spot(0.5, 0.5), 0.0) >= count / 100 * (1 - 1e-9)
