"""What an adapter itself gave when it was asked for a frame, whatever the guard around it makes of that."""

from __future__ import annotations

from typing import Any, Final

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.events import Eventful
from instruments.frames import Frame
from instruments.microscope import Closable, Forecasting, Linked, Microscope, Outcome, Rebuildable
from instruments.state import MicroscopeState

_ASKED_FOR: Final[tuple[tuple[Any, tuple[str, ...]], ...]] = (
    (Eventful, ("events",)),
    (Linked, ("is_link_lost", "reconnect")),
    (Forecasting, ("forecast",)),
    (Rebuildable, ("rebuild",)),
    (Closable, ("close",)),
)  # what a guard looks for in the instrument that it guards


class Given:
    """A microscope as it is, of whom is kept what its last `acquire` gave."""

    def __init__(self, inner: Microscope) -> None:
        self._inner = inner
        self.last: object = None
        self.has_answered = False
        for protocol, names in _ASKED_FOR:
            if isinstance(inner, protocol):
                for name in names:
                    setattr(self, name, getattr(inner, name))

    def capabilities(self) -> Capabilities:
        """As the instrument says."""
        return self._inner.capabilities()

    def read_state(self) -> MicroscopeState:
        """As the instrument says."""
        return self._inner.read_state()

    def execute(self, command: Command) -> MicroscopeState:
        """By the instrument."""
        return self._inner.execute(command)

    def acquire(self, command: AcquireFrame) -> Frame:
        """By the instrument; what it gives is kept."""
        self.forget()
        self.last = frame = self._inner.acquire(command)
        self.has_answered = True
        return frame

    def forget(self) -> None:
        """Nothing was given."""
        self.last, self.has_answered = None, False

    def outcome(self, action_id: str) -> Outcome:
        """As the instrument says."""
        return self._inner.outcome(action_id)

    def stop(self) -> None:
        """By the instrument."""
        self._inner.stop()
