"""Dark frames through the guard: limited as exposures are, and free only where the beam was off."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from instruments import AcquireFrame, CommandRefused, Frame, GuardedMicroscope, InstrumentFault, LinkLost, Unsupported
from tests.unit.instruments.test_guards import ENVELOPE, Recorder, command


@dataclass
class Darkroom(Recorder):
    """Reads its detectors without a beam, unless its blanker sticks."""

    sticks: bool = False
    mixes_up: bool = False
    dark: list[AcquireFrame] = field(default_factory=list)

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        self.dark.append(command)
        self.blanked = not self.sticks
        frame = replace(self.acquire(command), electrons=0.0, dose_e_per_a2=0.0)
        return replace(frame, action_id="another") if self.mixes_up else frame


def test_a_dark_frame_costs_no_dose() -> None:
    darkroom = Darkroom()
    guarded = GuardedMicroscope(darkroom, ENVELOPE)
    assert guarded.acquire_dark(command("d")).action_id == "d"
    assert len(darkroom.dark) == 1
    assert guarded.ledger.electrons == pytest.approx(0.0, abs=1.0)
    assert guarded.ledger.max_e_per_a2 == pytest.approx(0.0, abs=1e-6)


def test_what_was_lit_after_it_is_debited() -> None:
    guarded = GuardedMicroscope(Darkroom(sticks=True), ENVELOPE)
    guarded.acquire_dark(command("d"))
    assert guarded.ledger.electrons >= guarded.check(command("e")).electrons
    with pytest.raises(LinkLost, match="the beam counts as on"):
        guarded.acquire(command("f"))


def test_the_dark_frame_of_another_command_is_none() -> None:
    guarded = GuardedMicroscope(Darkroom(mixes_up=True), ENVELOPE)
    with pytest.raises(InstrumentFault, match="mixed up"):
        guarded.acquire_dark(command("d"))
    assert guarded.ledger.electrons > 0


def test_a_dark_frame_goes_nowhere_that_a_frame_may_not() -> None:
    darkroom = Darkroom()
    with pytest.raises(CommandRefused, match="stage x"):
        GuardedMicroscope(darkroom, ENVELOPE).acquire_dark(command("d", stage={"x_nm": 60.0}))
    assert not darkroom.dark


def test_who_takes_none_is_said() -> None:
    with pytest.raises(Unsupported, match="takes no dark frames"):
        GuardedMicroscope(Recorder(), ENVELOPE).acquire_dark(command("d"))


def test_a_dark_frame_that_is_never_answered_costs_what_an_exposure_does() -> None:
    """Nobody knows whether the beam was off: until the answer was given up it may have burnt."""
    clock_s = 0.0

    class Hanging(Darkroom):
        def acquire(self, command: AcquireFrame) -> Frame:
            nonlocal clock_s
            clock_s += 1000.0
            raise InstrumentFault(f"{command.action_id}: the detector said nothing")

    booked = []
    for way in ("acquire", "acquire_dark"):
        guarded = GuardedMicroscope(Hanging(), ENVELOPE, clock=lambda: clock_s)
        with pytest.raises(InstrumentFault, match="said nothing"):
            getattr(guarded, way)(command("d"))
        booked.append(guarded.ledger.electrons)
    assert booked[1] == pytest.approx(booked[0])
    assert booked[1] > 10 * GuardedMicroscope(Darkroom(), ENVELOPE).check(command("e")).electrons
