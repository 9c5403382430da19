"""An instrument behind a gateway on another machine: the client end, a `Microscope` as any other.

The gateway's facility chooses adapter, configuration and limits; this end brings a ticket and nothing else. Neighbour:
`instruments.remote` speaks the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from instruments.adapters.clocks import offset_of, seen_through, with_clocks
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.dose_file import SpecimenDose
from instruments.errors import ConfigurationError, InstrumentBusy, InstrumentFault, LinkLost, ResultUnknown
from instruments.events import Events
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.remote.client import (
    CONNECT_S,
    PATIENCE_S,
    READ_PATIENCE_S,
    STOP_ANSWER_S,
    WAIT_S,
    CommandLine,
    RemoteInstrument,
    RemoteMicroscope,
    StopLine,
    dial_command_line,
)
from instruments.remote.endpoint import Endpoint
from instruments.remote.lifeline import Lifeline
from instruments.remote.status import InstrumentStatus
from instruments.retries import is_idempotent
from instruments.state import MicroscopeState

ADAPTER: Final = "gateway"
CLOCK_AGE_S: Final = 60.0  # after which the clock there is read again, before an exposure
T = TypeVar("T")


def open_gateway(
    *, ticket: str | Path, session: str | None = None, patience_s: float | None = None
) -> GatewayMicroscope:
    """The instrument of a ticket that `stempilot gateway` wrote, copied to this machine.

    With the `session` of an earlier opening the instrument still knows its action ids. `patience_s` is how long to wait
    for what exposes and moves nothing, and for a busy instrument; None: as long as within one machine. Raises
    ConfigurationError for a ticket that is none, InstrumentBusy while somebody else has the instrument, LinkLost where
    nobody answers.
    """
    path = Path(ticket).expanduser()
    try:
        endpoint = Endpoint.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no text, or not ours
        raise ConfigurationError(f"ticket {path} cannot be used: {error}; copy it from the gateway again") from error
    return GatewayMicroscope(endpoint, session or uuid4().hex, patience_s)


@dataclass(frozen=True, slots=True)
class Patience:
    """A command line on which nothing but a load or a move is waited for longer than this."""

    inner: CommandLine
    longest_s: float

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        """As the command line's."""
        patience_s = patience_s if moves or call == "load" else min(patience_s, self.longest_s)
        wait_s = min(WAIT_S, self.longest_s)
        return self.inner.call(call, fence, arguments, patience_s=patience_s, wait_s=wait_s, moves=moves)

    def close(self) -> None:
        """Hang up."""
        self.inner.close()


class GatewayMicroscope:
    """Microscope, Linked, CountsDose, Eventful and Closable; its link is lost when the line to the gateway breaks.

    A gateway that hears nothing of this program for its lease takes the beam off by itself; until then it may be on, so
    `reconnect` first and blank next, as the guard does.
    """

    def __init__(self, endpoint: Endpoint, session_id: str, patience_s: float | None = None) -> None:
        self._endpoint = endpoint
        self._session_id = session_id
        self._patience_s = patience_s
        self._sent: set[str] = set()
        self._forgotten: set[str] = set()  # what was sent to a gateway that has ended since
        self.events = Events()
        self._lifeline: Lifeline | None = None
        self._line, self._microscope = self._connected()

    def capabilities(self) -> Capabilities:
        """Those of the instrument behind the gateway."""
        return self._microscope.capabilities()

    def read_state(self) -> MicroscopeState:
        """Read-back values now."""
        return self._asked(lambda microscope: microscope.read_state(), repeatable=True)

    def execute(self, command: Command) -> MicroscopeState:
        """Carry out a command that yields no frame; sent again on a new line only where that is harmless."""
        self._sent.add(command.action_id)
        return self._asked(lambda microscope: microscope.execute(command), repeatable=is_idempotent(command))

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once, or be given a frame again that was exposed; clocks are against this computer's."""
        if time.monotonic() - self._clock_read_s >= CLOCK_AGE_S:
            self._read_clock()  # before the beam: a frame is not lost for it
        self._sent.add(command.action_id)
        frame = self._asked(lambda microscope: microscope.acquire(command), repeatable=False)
        return replace(frame, state=self._with_clocks(frame.state))

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """What the detectors there give without a beam. Raises Unsupported where it takes no dark frames."""
        self._sent.add(command.action_id)
        arguments, more_s = {"command": command}, PATIENCE_S + command.deadline_s
        return self._asked(
            lambda microscope: microscope.ask("acquire_dark", arguments, patience_s=more_s, moves=True),
            repeatable=False,
        )

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost; a gateway that was started anew cannot tell."""
        outcome: Outcome = self._asked(lambda microscope: microscope.outcome(action_id), repeatable=True)
        return "unknown" if outcome == "not_started" and action_id in self._forgotten else outcome

    def specimen_dose(self) -> SpecimenDose:
        """What the specimen got there so far, from whoever exposed it."""
        return self._asked(
            lambda microscope: microscope.ask("specimen_dose", {}, patience_s=READ_PATIENCE_S), repeatable=True
        )

    def stop(self) -> None:
        """Blank and interrupt by the gateway's stop line, which answers while an exposure runs."""
        report = StopLine(self._endpoint).blank("stopped by its owner at the other end of the gateway")
        if report.beam_blanked is not True:
            raise InstrumentFault(f"instrument {report.name!r}: {report.message}")

    def is_link_lost(self) -> bool:
        """Whether the line to the gateway broke."""
        return self._line.is_broken

    def reconnect(self) -> None:
        """Connect anew, in the same session: the instrument still knows its action ids."""
        self.close()
        self._line, self._microscope = self._connected()
        if not self._microscope.is_living:
            self._forgotten |= self._sent

    def close(self) -> None:
        """Hang up; the instrument stays as it is."""
        if self._lifeline is not None:
            self._lifeline.close()
        self._line.close()

    def _with_clocks(self, state: MicroscopeState) -> MicroscopeState:
        """Offsets that were measured at the gateway, and its own beside them, no older than `CLOCK_AGE_S`."""
        column = state.column
        there = {} if column is None else seen_through(column.clocks, self._clock)
        return with_clocks(state, {**there, f"gateway of {self._endpoint.name}": self._clock})

    def _asked(self, call: Callable[[RemoteMicroscope], T], *, repeatable: bool) -> T:
        try:
            return self._once(call)
        except (LinkLost, ResultUnknown):
            if not (repeatable and self._line.is_broken):
                raise
        self.reconnect()
        if self._sent and not self._microscope.is_living:
            raise LinkLost(
                f"the gateway of {self._endpoint.name!r} was started anew and does not know of the beam; "
                "assume that it is on"
            )
        return self._once(call)

    def _once(self, call: Callable[[RemoteMicroscope], T]) -> T:
        try:
            return call(self._microscope)
        except LinkLost:
            raise
        except InstrumentFault as error:
            if self._line.is_broken:
                raise LinkLost(f"{error}; assume that the beam is on") from error
            raise

    def _status(self) -> InstrumentStatus:
        """What the gateway says of itself on its stop line, its clock included. Raises InstrumentFault."""
        asked_s = time.time()
        status = StopLine(self._endpoint, min(STOP_ANSWER_S, self._patience_s or STOP_ANSWER_S)).status()
        self._clock, self._clock_read_s = offset_of(status.at.timestamp(), asked_s, time.time()), time.monotonic()
        return status

    def _read_clock(self) -> None:
        try:
            self._status()
        except InstrumentFault as error:
            raise LinkLost(f"nothing was exposed, for the gateway's stop line does not answer: {error}") from error

    def _connected(self) -> tuple[CommandLine, RemoteMicroscope]:
        endpoint = self._endpoint
        try:
            status = self._status()
            if status.has_owner and status.session_id != self._session_id:
                raise InstrumentBusy(f"instrument {endpoint.name!r} has another owner; wait until it is given back")
            line = dial_command_line(endpoint, timeout_s=min(CONNECT_S, self._patience_s or CONNECT_S))
        except InstrumentFault as error:
            raise LinkLost(f"the gateway of {endpoint.name!r} at {endpoint.host} cannot be reached: {error}") from error
        fence = max(status.fence + 1, int(time.time() * 1000))
        config: dict[str, Any] = {}
        lifeline = Lifeline(endpoint, fence, self.events)
        lifeline.start()
        try:
            patient = line if self._patience_s is None else Patience(line, self._patience_s)
            microscope = RemoteInstrument(endpoint, patient).load(self._session_id, ADAPTER, config, fence)
        except BaseException:
            lifeline.close()
            line.close()
            raise
        self._lifeline = lifeline
        return line, microscope
