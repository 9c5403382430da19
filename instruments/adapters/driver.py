"""What a driver does for `driven`: converts between house units and those of a library, and drives it. Nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.state import ClockOffset, MicroscopeState


@dataclass(frozen=True, slots=True)
class Exposed:
    """Counts by detector, (sub-frames, rows, columns[, detector rows, detector columns]), and what is known of them."""

    counts: Mapping[str, np.ndarray]
    pixel_size_nm: float
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Owned(Protocol):
    """What a driver speaks through: it can be lost, and taken up again; a `Worker`, or a connection."""

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer."""
        ...

    def start(self) -> None:
        """Take it up again, where it is not there. Raises LinkLost, InstrumentFault."""
        ...

    def clocks(self) -> Mapping[str, ClockOffset]:
        """Of the devices at the other end, by name, read now; none where nobody there tells the time."""
        ...


class InThisProcess:
    """`Owned` for a library that runs here: it is never lost, and has no clock but ours."""

    is_lost: bool = False

    def start(self) -> None:
        """It runs."""

    def clocks(self) -> Mapping[str, ClockOffset]:
        """None."""
        return {}


class Driver(Protocol):
    """One library's instrument. All but `interrupt` are called from one thread; each raises the house's errors."""

    @property
    def capabilities(self) -> Capabilities:
        """What it has, known once it is open."""
        ...

    @property
    def worker(self) -> Owned:
        """The library's process, or the connection to its server."""
        ...

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Read back now; the state carries this time."""
        ...

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Bring checked axes to these values, and wait until they are there. A refusal here is checked by read-back."""
        ...

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """Blank, or let the beam on."""
        ...

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Raise CommandRefused for a frame within all axes that it cannot take; nothing moves."""
        ...

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Take the frame where everything stands, the beam on meanwhile if `is_lit`, and blanked afterwards.

        What can be refused is refused by `check`: whatever is raised here, the dose counts as spent.
        """
        ...

    def interrupt(self) -> None:
        """Blank, end what runs, and expose nothing until it is told to go on; from any thread."""
        ...

    def release(self) -> None:
        """Expose again after `interrupt`."""
        ...

    def close(self) -> None:
        """Give everything back; more than once is harmless."""
        ...
