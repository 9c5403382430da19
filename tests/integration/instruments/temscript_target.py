"""temscript servers for tests: started on a free port, killed and started again as a test wants, always ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instruments import Microscope, registry
from instruments.conformance.target import Address
from instruments.microscope import Closable

SERVER = Path(__file__).with_name("temscript_server.py")
CURRENT_PA = 1000.0


class TemscriptTarget:
    """A `Served` target of the conformance kit: one server process, any number of adapters on it."""

    name = "temscript"

    def __init__(self, kind: str, config: dict[str, Any]) -> None:
        self._kind = kind
        self._config = {"probe_current_pa": CURRENT_PA, **config}
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def addresses(self) -> tuple[Address, ...]:
        return (("127.0.0.1", self._port),)

    def open(self, **more: Any) -> Microscope:
        return registry.open("temscript", **{**self._config, "port": self._port, **more})

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        return self.open(port=addresses[0][1])

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, Closable)
        microscope.close()

    def wait_for_exposure(self) -> None:
        """Until the first exposure of this process begins."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "exposing\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def revive(self) -> None:
        self.kill()
        self._process = subprocess.Popen([sys.executable, SERVER, self._kind], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
