"""What targets have alike whose server is one process at one port: opened, closed, killed, always ended."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from types import TracebackType
from typing import IO, Any, Protocol, Self

from instruments import Microscope, registry
from instruments.conformance.target import Address, CountsExposures
from instruments.microscope import Closable


class Configurable(Protocol):
    """A `Served` target whose adapter can be configured otherwise at each opening."""

    @property
    def name(self) -> str: ...

    def addresses(self) -> tuple[Address, ...]: ...

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope: ...

    def close(self, microscope: Microscope) -> None: ...

    def kill(self) -> None: ...

    def revive(self) -> None: ...


class Otherwise:
    """The same target, its adapter configured otherwise: with less patience, say."""

    def __init__(self, target: Configurable, **more: Any) -> None:
        self.name = target.name
        self.addresses, self.close, self.kill, self.revive = target.addresses, target.close, target.kill, target.revive
        if isinstance(target, CountsExposures):
            self.exposure_count = target.exposure_count
        self._target, self._more = target, more

    def open(self) -> Microscope:
        return self.open_at(self.addresses())

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        return self._target.open_at(addresses, **self._more)


class ServerProcess(ABC):
    """A `Served` target of the conformance kit; `name` is the adapter's."""

    name: str

    def __init__(self) -> None:
        self._port = 0
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @abstractmethod
    def revive(self) -> None:
        """Start it anew, and know its port."""

    @abstractmethod
    def config(self, **more: Any) -> dict[str, Any]:
        """The adapter's, for the server as it is now."""

    def addresses(self) -> tuple[Address, ...]:
        return (("127.0.0.1", self._port),)

    def open(self, **more: Any) -> Microscope:
        return registry.open(self.name, **self.config(**more))

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope:
        return self.open(port=addresses[0][1], **more)

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, Closable)
        microscope.close()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def said(self) -> IO[Any]:
        """What it prints."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout
