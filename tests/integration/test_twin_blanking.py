"""What the beam burns while the blanker settles: the twin counts it where the beam stands, and so does its guard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instruments import Blank, GuardedMicroscope, LinkLost, Park, SafetyEnvelope, Unblank
from instruments.footprints import spot
from instruments.units import electrons
from simulation.microscope import SimulatedMicroscope
from tests.integration.twin_bench import STILL, frame, twin

SETTLE_US = 50.0
CURRENT_PA = 50.0
SETTLING = electrons(CURRENT_PA, SETTLE_US * 1e-6)


def slow_blanker(cache: Path | None = None) -> SimulatedMicroscope:
    """It takes 50 us; the gun is steady."""
    steady = {"emission_decay_min_fraction": 0.0, "emission_decay_max_fraction": 0.0}
    return twin(cache, **STILL, **steady, blanker_settle_us=SETTLE_US, initial_current_pa=CURRENT_PA)


def burnt(microscope: SimulatedMicroscope) -> tuple[float, Any]:
    """Electrons, and their map in e/A2 of 1 nm cells."""
    truth = microscope.truth()
    return truth["electrons"], truth["dose_map_e_per_a2"]


def test_blanking_and_unblanking_burn_where_the_beam_stands() -> None:
    microscope = slow_blanker()
    assert pytest.approx(15_604, rel=1e-4) == SETTLING
    steps: list[tuple[Callable[[], object], float]] = [
        (lambda: microscope.execute(Unblank(action_id="on")), SETTLING),
        (lambda: microscope.execute(Unblank(action_id="on still")), 0.0),
        (
            lambda: microscope.execute(
                Park(action_id="there", beam_shift_x_nm=5.5, beam_shift_y_nm=-2.5, duration_s=2)
            ),
            electrons(CURRENT_PA, 2.0 + microscope.config.beam_shift_settle_s),
        ),
        (lambda: microscope.execute(Blank(action_id="off")), SETTLING),
        (lambda: microscope.execute(Blank(action_id="off still")), 0.0),
        (lambda: microscope.execute(Unblank(action_id="on again")), SETTLING),
        (microscope.stop, SETTLING),
        (microscope.stop, 0.0),
        (lambda: microscope.execute(Blank(action_id="off after the stop")), 0.0),
        (microscope.release, 0.0),
        (lambda: microscope.execute(Unblank(action_id="once more")), SETTLING),
    ]
    before, cells = burnt(microscope)
    for step, expected in steps:
        step()
        after, cells = burnt(microscope)
        assert after - before == pytest.approx(expected, abs=1e-3)
        before = after
    there = cells[30 - 3, 30 + 5] * 100
    assert there == pytest.approx(electrons(CURRENT_PA, 2.0 + microscope.config.beam_shift_settle_s) + 4 * SETTLING)
    microscope.rebuild([frame("dark first")])
    assert burnt(microscope)[0] - before == pytest.approx(
        SETTLING + microscope.truth()["actions"]["dark first"]["electrons"]
    )


def test_a_stop_and_a_blank_after_it_are_rebuilt_as_one_blank() -> None:
    stopped, rebuilt = slow_blanker(), slow_blanker()
    commands = [Unblank(action_id="on"), Park(action_id="there", duration_s=0.1), Blank(action_id="off")]
    for command in commands[:2]:
        stopped.execute(command)
    stopped.stop()
    stopped.execute(commands[2])
    stopped.release()
    rebuilt.rebuild(commands)
    assert stopped.read_state() == rebuilt.read_state()
    assert burnt(stopped)[0] == burnt(rebuilt)[0]


def blank_unseen(guarded: GuardedMicroscope, _: SimulatedMicroscope) -> None:
    """The first command of all."""
    guarded.execute(Blank(action_id="off"))


def blank_seen(guarded: GuardedMicroscope, _: SimulatedMicroscope) -> None:
    """It was read back as on."""
    assert not guarded.read_state().beam_blanked
    guarded.execute(Blank(action_id="off"))


def stop_seen(guarded: GuardedMicroscope, _: SimulatedMicroscope) -> None:
    """The same, stopped."""
    guarded.read_state()
    guarded.stop()


def frames(guarded: GuardedMicroscope, _: SimulatedMicroscope) -> None:
    """The guard blanks a lit beam before the first frame."""
    guarded.acquire(frame("a", scan={"beam_shift_x_nm": 1.3}, subframe_count=1))
    guarded.execute(Blank(action_id="off"))
    guarded.acquire(frame("b", scan={"beam_shift_y_nm": -2.4}, subframe_count=1))


def lit_behind_its_back(guarded: GuardedMicroscope, inner: SimulatedMicroscope) -> None:
    """Somebody else lights a beam that was off."""
    guarded.execute(Blank(action_id="off"))
    inner.execute(Unblank(action_id="by somebody"))
    with pytest.raises(LinkLost, match="last seen off"):
        guarded.acquire(frame("a"))
    guarded.reconnect()


@pytest.mark.parametrize("session", [blank_unseen, blank_seen, stop_seen, frames, lit_behind_its_back])
def test_the_guard_books_no_less_than_burns_in_any_cell(
    session: Callable[[GuardedMicroscope, SimulatedMicroscope], None], image_cache: Path
) -> None:
    inner = slow_blanker(image_cache)
    inner.execute(Park(action_id="there", beam_shift_x_nm=5.5, beam_shift_y_nm=-2.5))
    inner.execute(Unblank(action_id="on"))
    before, cells_before = burnt(inner)
    guarded = GuardedMicroscope(inner, SafetyEnvelope())
    session(guarded, inner)
    after, cells = burnt(inner)
    assert guarded.ledger.electrons >= (after - before) * (1 - 1e-9) > 0
    world = cells - cells_before
    rows, columns = world.nonzero()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        bound = guarded.ledger.peak_after(spot(column - 30, row - 30), 0.0)
        assert bound >= world[row, column] * (1 - 1e-9), (column - 30, row - 30)
