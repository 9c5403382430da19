"""The beam of an instrument that is opened, and what a person says of one that nobody watched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from instruments import Blank, Command, InstrumentBusy, MicroscopeState
from orchestrator.errors import SpecError
from tests.unit.instruments.envelope_bench import Bench
from workflows.beam import DarkOpening
from workflows.beam_debts import SeenOff


@dataclass
class Shared(Bench):
    """It is busy with somebody else's exposure when it is first asked to."""

    busy_count: int = 0

    def read_state(self) -> MicroscopeState:
        if self.busy_count:
            self.busy_count -= 1
            raise InstrumentBusy("another client exposes")
        return super().read_state()

    def execute(self, command: Command) -> MicroscopeState:
        self.blanked |= isinstance(command, Blank)
        return super().execute(command)


def test_a_busy_instrument_is_waited_for_and_then_made_dark() -> None:
    said, shared = list[str](), Shared(blanked=False, busy_count=1)
    opening = DarkOpening(lambda adapter, config: shared, said.append)
    assert opening("shared", {}) is shared
    assert shared.busy_count == 0
    assert shared.blanked
    assert opening.was_on
    assert said == ["the beam was on when the instrument was loaded; it is blanked first"]


def test_what_a_person_saw_is_a_time_and_a_name() -> None:
    assert SeenOff.told(None, None) is None
    assert SeenOff.told("2026-01-31T18:30:00+01:00", "A. Smith") == SeenOff(
        datetime(2026, 1, 31, 17, 30, tzinfo=UTC), "A. Smith"
    )
    for off_since, by in ((None, "A. Smith"), ("2026-01-31 18:30", None), ("yesterday", "A. Smith")):
        with pytest.raises(SpecError, match="--off-since"):
            SeenOff.told(off_since, by)
