"""What targets have alike whose server is one process at one port: opened, closed, killed, always ended."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from types import TracebackType
from typing import IO, Any, Self

from instruments import Microscope, registry
from instruments.conformance.target import Address
from instruments.microscope import Closable


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

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        return self.open(port=addresses[0][1])

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
