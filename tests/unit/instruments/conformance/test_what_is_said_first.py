"""What the kit says before it tries anything, and what it takes for left behind."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import shared_memory

import pytest

from instruments import Capabilities, ConfigurationError, InstrumentFault, Microscope
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import Bench, Conditions, OpenedTarget
from instruments.conformance.broken.altered import Altered, Ways
from instruments.conformance.frames import Shots
from instruments.conformance.holdings import Holdings
from tests.unit.instruments.test_driven import CARD, StubbornDriver


def stubborn() -> Microscope:
    return DrivenMicroscope(StubbornDriver())


def no_licence() -> Microscope:
    raise RuntimeError("no licence")


def without_card() -> Microscope:
    def card(microscope: Microscope) -> Capabilities:
        del microscope
        return {"name": "x"}  # pyright: ignore[reportReturnType]  what an adapter may do

    return Altered(stubborn(), Ways(capabilities=card))


@pytest.mark.parametrize(
    ("opener", "says"), [(no_licence, "opening raised RuntimeError: no licence"), (without_card, "no Capabilities")]
)
def test_what_is_no_instrument_is_said_in_a_line(opener: Callable[[], Microscope], says: str) -> None:
    with (
        Bench(OpenedTarget("odd", opener), Conditions(patience_s=60.0)) as bench,
        pytest.raises(InstrumentFault) as told,
    ):
        _ = bench.capabilities
    assert str(told.value).startswith("odd: ")
    assert says in str(told.value)


def test_conditions_that_it_cannot_meet_are_no_fault_of_the_instrument() -> None:
    axis = next(one for one in CARD.axes if one.name == "dwell_time_us")
    beyond = Conditions(dwell_time_us=2 * axis.maximum, patience_s=60.0)
    with pytest.raises(ConfigurationError, match=r"conditions\.dwell_time_us = .* is outside"):
        beyond.refuse_beyond(CARD)
    with pytest.raises(ConfigurationError, match=r"conditions\.mode = 'eds'"):
        Conditions(mode="eds").refuse_beyond(CARD)
    Conditions().refuse_beyond(CARD)


@pytest.mark.parametrize("field_nm", [20.0, 60.0, 92.0, 100.0])
def test_moves_are_whole_pixels(field_nm: float) -> None:
    conditions = Conditions(field_of_view_nm=field_nm, shape_px=(96, 96))
    shots = Shots(CARD, stubborn().read_state(), conditions, "plan")
    moved_px = shots.move_nm / (field_nm / 96)
    assert moved_px == pytest.approx(round(moved_px))
    assert moved_px >= 1


def test_shared_memory_that_stays_is_seen_and_pythons_own_process_is_not() -> None:
    before = Holdings.now()
    segment = shared_memory.SharedMemory(create=True, size=4096)
    try:
        left = before.still_held(0.0)
    finally:
        segment.close()
        segment.unlink()
    assert left == [f"shared memory /dev/shm/{segment.name}"]
