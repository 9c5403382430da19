"""What the kit is pointed at: an instrument it may open and close, and where possible the server behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from instruments import registry
from instruments.microscope import Closable, Microscope

Address = tuple[str, int]


class Target(Protocol):
    """An instrument that can be opened, used by one owner, closed, and opened again."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    def open(self) -> Microscope:
        """Connected and ready; several may be open together as far as the instrument allows."""
        ...

    def close(self, microscope: Microscope) -> None:
        """Give back all that `open` took: threads, processes, sockets."""
        ...


@runtime_checkable
class Served(Protocol):
    """A target whose adapter speaks to a server over TCP, which the kit may interfere with.

    Without it the checks of a mute, a killed and a slow server are skipped.
    """

    def addresses(self) -> tuple[Address, ...]:
        """Where the living server listens: (host, port) of each line that the adapter uses."""
        ...

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        """As `open`, but each line dials the address at its place in `addresses`."""
        ...

    def kill(self) -> None:
        """End the server at once, as `kill -9` does."""
        ...

    def revive(self) -> None:
        """Start the server again after `kill`; it may listen elsewhere."""
        ...


@runtime_checkable
class CountsExposures(Protocol):
    """A `Served` target that knows what happened at its far side.

    With it a line is broken when the exposure has begun, and an exposure that is made twice is seen. Without it, the
    line is broken when a request has had no answer for a while, which an exposure of some seconds has not.
    """

    def exposure_count(self) -> int:
        """How many exposures the server has begun until now, with the beam on."""
        ...


@dataclass(frozen=True)
class OpenedTarget:
    """A target made of a function that opens; what it opens is closed by its own `close`, if it has one."""

    name: str
    opener: Callable[[], Microscope]

    def open(self) -> Microscope:
        """What the function gives."""
        return self.opener()

    def close(self, microscope: Microscope) -> None:
        """By the microscope's own `close`."""
        if isinstance(microscope, Closable):
            microscope.close()


@dataclass(frozen=True)
class AdapterTarget:
    """An adapter by its registered name, with the configuration it is opened with."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    adapter: str | None = None

    def open(self) -> Microscope:
        """Raises ConfigurationError."""
        return registry.open(self.adapter or self.name, **self.config)

    def close(self, microscope: Microscope) -> None:
        """By the microscope's own `close`, if it has one."""
        if isinstance(microscope, Closable):
            microscope.close()
