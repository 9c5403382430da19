"""An instrument that is opened: dark before anything else, and waited for while somebody else's exposure ends."""

from __future__ import annotations

from dataclasses import dataclass

from instruments import Blank, Command, InstrumentBusy, MicroscopeState
from tests.unit.instruments.envelope_bench import Bench
from workflows.beam import DarkOpening


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
