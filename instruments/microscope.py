"""The protocols every microscope fulfils, real or simulated; small, so that strangers can write one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.dose_file import SpecimenDose
from instruments.frames import Frame
from instruments.state import MicroscopeState

Outcome = Literal["delivered", "not_started", "unknown"]


@runtime_checkable
class Microscope(Protocol):
    """One instrument. All calls but `stop` come from one owner thread; `stop` from any thread at any time."""

    def capabilities(self) -> Capabilities:
        """What this instrument can do; cheap, does not touch the beam."""
        ...

    def read_state(self) -> MicroscopeState:
        """Read-back values now."""
        ...

    def execute(self, command: Command) -> MicroscopeState:
        """Carry out a command that yields no frame (park, blank, unblank); the state read back after it."""
        ...

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once.

        Raises CommandRefused, InstrumentBusy, AcquisitionFailed, InstrumentFault, ResultUnknown, Unsupported.
        An instrument whose `outcome` is `delivered` for this action id gives the same frame again without exposing.
        """
        ...

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost."""
        ...

    def stop(self) -> None:
        """Blank the beam and interrupt what runs; from any thread, at any time, more than once."""
        ...


@runtime_checkable
class Forecasting(Protocol):
    """An instrument that can say what a frame will cost before it is taken, from its state now."""

    def forecast(self, command: AcquireFrame) -> tuple[float, float]:
        """(electrons, seconds) that `command` would take now, moves and settling included; nothing moves."""
        ...


@runtime_checkable
class Rebuildable(Protocol):
    """A simulated instrument: a pure function of (seed, commands), rebuilt by replaying them without images."""

    def rebuild(self, commands: Sequence[Command]) -> None:
        """Put a freshly opened instrument into the state after `commands`; every action id is then known."""
        ...


@runtime_checkable
class Releasable(Protocol):
    """An instrument that can go on after `stop` without being opened again."""

    def release(self) -> None:
        """Take commands again after `stop`; the beam stays blanked until one asks for it."""
        ...


@runtime_checkable
class Linked(Protocol):
    """An instrument at the other end of a connection that can break."""

    def is_link_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        ...

    def reconnect(self) -> None:
        """Connect anew; nothing else is sent. Raises LinkLost."""
        ...


@runtime_checkable
class CountsDose(Protocol):
    """An instrument that knows what its specimen got, whoever exposed it, and before this program began."""

    def specimen_dose(self) -> SpecimenDose:
        """Electrons and highest dose so far."""
        ...


@runtime_checkable
class HiddenTruth(Protocol):
    """A world that knows the answer; only `workflows.evaluation` may ask."""

    def truth(self) -> dict[str, Any]:
        """Arrays and numbers of the hidden world, as the adapter documents them."""
        ...


@runtime_checkable
class TakesDarkFrames(Protocol):
    """An instrument that can read its detectors while the beam stays blanked."""

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """What `acquire` would give without a beam: a dark reference; nothing falls on the specimen."""
        ...


@runtime_checkable
class Closable(Protocol):
    """An instrument that has something to give back: a connection, threads, a process."""

    def close(self) -> None:
        """Hang up and end all that was started; the beam stays as it is. More than once is harmless."""
        ...
