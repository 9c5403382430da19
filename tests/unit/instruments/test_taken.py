"""A frame as it was really taken: a raster that came back another, a current that was measured beside the set one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    Axis,
    CommandRefused,
    Frame,
    GuardedMicroscope,
    LookNeeded,
    MicroscopeState,
    ResultUnknown,
    SafetyEnvelope,
)
from instruments.book_entries import BookEntry
from instruments.footprints import spot
from instruments.state import ColumnState
from instruments.units import electrons
from tests.unit.instruments.envelope_bench import CARD, CURRENT_PA, Bench, frame, setting

ONE_S = electrons(1.0, 1e-4)
"""Electrons of the frame for each pA."""
FLUX = CURRENT_PA * ONE_S / 1e4
"""e/A2 of the frame over its 10 nm x 10 nm."""
SETTABLE = (*CARD.axes, Axis(name="probe_current_pa", minimum=1, maximum=500))


@dataclass
class Other(Bench):
    """Its frames come with `shape_px`, `pixel_nm` and these readings; `measures` times the set current flows."""

    shape_px: tuple[int, int] = (10, 10)
    pixel_nm: float = 1.0
    measures: float | None = None
    in_frames: float | None = None
    column: ColumnState | None = None
    kept: list[BookEntry] = field(default_factory=list[BookEntry])

    def read_state(self) -> MicroscopeState:
        state = super().read_state()
        measured_pa = None if self.measures is None else self.measures * state.optics.probe_current_pa
        return state.model_copy(update={"measured_current_pa": measured_pa, "column": self.column})

    def acquire(self, command: AcquireFrame) -> Frame:
        taken = super().acquire(command)
        if self.in_frames is not None:
            measured_pa = self.in_frames * command.optics.probe_current_pa
            taken = replace(taken, state=taken.state.model_copy(update={"measured_current_pa": measured_pa}))
        return replace(
            taken, counts={"haadf": np.zeros((1, *self.shape_px), np.uint16)}, pixel_size_nm=self.pixel_nm
        )  # fmt: skip

    def guarded(self, **limits: Any) -> GuardedMicroscope:
        return GuardedMicroscope(self, SafetyEnvelope(**limits), keep=self.kept.append)


def settable(**fields: Any) -> Other:
    return Other(card=CARD.model_copy(update={"axes": SETTABLE}), **fields)


def at(current_pa: float, action_id: str = "f") -> AcquireFrame:
    command = frame()
    optics = command.optics.model_copy(update={"probe_current_pa": current_pa})
    return command.model_copy(update={"optics": optics, "action_id": action_id})


# --- the raster


@pytest.mark.parametrize(
    ("shape_px", "pixel_nm", "denser", "said"),
    [
        ((5, 5), 1.0, 4.0, "5 nm x 5 nm in 5 x 5 px came instead of 10 nm x 10 nm in 10 x 10 px"),
        ((10, 10), 0.9, 1.0, "9 nm x 9 nm in 10 x 10 px"),
        ((5, 5), 0.9, 4.0, "4.5 nm x 4.5 nm in 5 x 5 px"),
        ((10, 10), 0.4, 9 / 4, "4 nm x 4 nm in 10 x 10 px"),
        ((5, 5), 2.0, 1.0, "10 nm x 10 nm in 5 x 5 px"),
        ((10, 20), 1.0, 1.5, "20 nm x 10 nm in 10 x 20 px"),
    ],
)
def test_a_raster_that_came_back_another_is_booked_as_it_was_taken(
    shape_px: tuple[int, int], pixel_nm: float, denser: float, said: str
) -> None:
    """By pixels in a cell: four of the commanded, nine of 0.4 nm; a larger one counts besides, with half the flux."""
    bench = Other(shape_px=shape_px, pixel_nm=pixel_nm)
    microscope = bench.guarded()
    with microscope.events.subscribe() as told:
        microscope.acquire(frame())
        [event] = [event for event in told.take() if event.kind == "taken_elsewhere"]
    assert said in event.message
    as_asked = bench_peak(Other())
    peak = microscope.ledger.peak_after(spot(0.0, 0.0), 0.0)
    assert peak == pytest.approx(as_asked * denser)
    beyond = microscope.ledger.peak_after(spot(9.0, 0.0), 0.0)
    assert beyond == pytest.approx(peak - as_asked if shape_px[1] == 20 else 0.0)
    assert microscope.ledger.electrons == pytest.approx(CURRENT_PA * ONE_S), "counted once"
    assert len(bench.kept) == (denser > 1)
    assert all("came instead of" in str(debit) for debit in bench.kept)


def bench_peak(bench: Other) -> float:
    microscope = bench.guarded()
    microscope.acquire(frame())
    assert bench.kept == []
    return microscope.ledger.peak_after(spot(0.0, 0.0), 0.0)


@pytest.mark.parametrize(("pixel_nm", "is_held"), [(0.97, False), (0.94, True), (1.04, False), (1.06, True)])
def test_a_person_has_to_look_at_a_raster_that_is_far_off(pixel_nm: float, is_held: bool) -> None:
    microscope = Other(pixel_nm=pixel_nm).guarded()
    microscope.acquire(frame())
    told = r"frame f came as .* nm in 10 x 10 px, not as 10 nm.*more than 5% off"
    with pytest.raises(LookNeeded, match=told) if is_held else nullcontext():
        microscope.refuse_held()


# --- the current


def test_what_is_measured_beside_a_current_that_can_be_set_is_booked_and_compared_with_its_limit() -> None:
    bench = settable(measures=3.0)
    microscope = bench.guarded(max_current_pa=100.0)
    with pytest.raises(CommandRefused, match="probe current as measured 150 pA is above the limit 100 pA"):
        microscope.acquire(at(CURRENT_PA))
    assert bench.told == []
    taken = microscope.acquire(at(20.0))
    assert microscope.ledger.electrons == pytest.approx(60.0 * ONE_S)
    assert taken.electrons == pytest.approx(60.0 * ONE_S), "so that a restart books the same"
    bench.measures = 0.9
    for action_id in ("g", "h"):  # before the first of them, the last frame's reading still counts
        microscope.acquire(at(20.0, action_id))
    assert microscope.ledger.electrons == pytest.approx((60.0 + 60.0 + 20.0) * ONE_S)


def test_more_than_was_set_in_one_frame_is_expected_of_the_next() -> None:
    bench = settable(in_frames=3.0)
    microscope = bench.guarded(max_current_pa=100.0)
    microscope.acquire(at(CURRENT_PA))
    assert microscope.ledger.electrons == pytest.approx(150.0 * ONE_S)
    with pytest.raises(CommandRefused, match="probe current as measured 150 pA"):
        microscope.acquire(at(CURRENT_PA, "g"))
    microscope.tell_current(CURRENT_PA, "anna")
    microscope.acquire(at(CURRENT_PA, "g"))
    fixed = Other(in_frames=3.0)
    microscope = fixed.guarded(max_current_pa=100.0)
    microscope.acquire(frame())
    with pytest.raises(CommandRefused, match="probe current as measured 150 pA"):
        microscope.acquire(frame())


@pytest.mark.parametrize("told", ["by a person", "by the instrument"])
def test_after_a_setting_without_an_answer_a_measurement_may_be_of_either(told: str) -> None:
    """Nobody reads what it is set to: 150 pA flow, at 50 pA or at the 400 pA that were asked for."""
    bench = settable(undetermined={"optics.probe_current_pa": "not read"})
    microscope = bench.guarded()
    microscope.execute(setting(probe_current_pa=CURRENT_PA))
    bench.error = ResultUnknown("no answer")
    with pytest.raises(ResultUnknown):
        microscope.execute(setting(probe_current_pa=400.0))
    if told == "by a person":
        microscope.tell_current(3 * CURRENT_PA, "anna")
    else:
        bench.measures = 3.0
    before = microscope.ledger.electrons
    microscope.acquire(at(CURRENT_PA))
    assert microscope.ledger.electrons - before == pytest.approx(150.0 * ONE_S)


def test_a_person_tells_how_much_more_flows_than_is_set() -> None:
    microscope = settable().guarded()
    microscope.tell_current(2 * CURRENT_PA, "anna")
    microscope.acquire(at(20.0))
    assert microscope.ledger.electrons == pytest.approx(40.0 * ONE_S)


def test_what_was_measured_before_the_current_was_set_tells_nothing_of_it() -> None:
    old = ColumnState(current_measured_at=datetime.now(UTC) - timedelta(hours=1))
    bench = settable(measures=3.0, column=old)
    microscope = bench.guarded(max_current_pa=100.0)
    with pytest.raises(CommandRefused, match="as measured 150 pA"):
        microscope.acquire(at(CURRENT_PA))
    microscope.execute(setting(probe_current_pa=40.0))
    microscope.acquire(at(40.0))
    assert microscope.ledger.electrons == pytest.approx(40.0 * ONE_S)


def test_a_measurement_at_a_setting_that_nobody_knows_may_be_of_what_flows() -> None:
    bench = settable(measures=3.0, undetermined={"optics.probe_current_pa": "not read"})
    with pytest.raises(CommandRefused, match="probe current as measured 150 pA"):
        bench.guarded(max_current_pa=100.0).acquire(at(CURRENT_PA))


@pytest.mark.parametrize("reports_dose", [True, False])
def test_a_restart_books_what_flowed_and_not_what_was_commanded(reports_dose: bool) -> None:
    card = CARD.model_copy(update={"reports_dose": reports_dose})
    live = Other(card=card, in_frames=4.0).guarded()
    taken = live.acquire(frame())
    again = Other(card=card).guarded()
    again.recharge(frame(), taken.electrons)
    assert again.ledger.electrons == pytest.approx(live.ledger.electrons) == pytest.approx(4 * CURRENT_PA * ONE_S)
