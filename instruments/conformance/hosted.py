"""An adapter in a process of its own as a target: its server can be silenced, cut off, killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from instruments.conformance.target import Address
from instruments.errors import InstrumentFault
from instruments.microscope import Closable, Microscope
from instruments.remote import (
    Endpoint,
    Line,
    RemoteInstrument,
    StopLine,
    dial_command_line,
    endpoint_path,
    read_endpoint,
)

_SERVER: Final = (
    "import sys; from pathlib import Path; from instruments.remote import InstrumentHost\n"
    "host = InstrumentHost(sys.argv[1], Path(sys.argv[2])); host.start(); sys.stdin.read(); host.end('closed')\n"
)
_START_S: Final = 120.0
_LOOK_S: Final = 0.02
LineOpener = Callable[[Endpoint], Line]


@dataclass
class HastyLine:
    """A command line that waits less long than a run would: the kit makes it wait for nothing."""

    inner: Any
    wait_s: float
    patience_s: float

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        """As the command line's, with the shorter patience for what is no exposure."""
        patience_s = patience_s if moves or call == "load" else self.patience_s
        return self.inner.call(call, fence, arguments, patience_s=patience_s, wait_s=self.wait_s, moves=moves)

    def close(self) -> None:
        """Hang up."""
        self.inner.close()


@dataclass
class HostedTarget:
    """The adapter served by `instruments.remote` from a process of its own; a context manager around that process.

    `patience_s` is how long its client waits for an answer to what does not move; `line` dials (for tests of what
    breaks lines).
    """

    name: str
    config: Mapping[str, Any]
    adapter: str | None = None
    patience_s: float = 30.0
    line: LineOpener | None = None
    _folder: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _fence: int = field(init=False, default=0)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="conform-"))
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.kill()
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    def open(self) -> Microscope:
        """A new owner of the instrument; the one before is refused from now on."""
        return self._loaded(self._endpoint())

    def close(self, microscope: Microscope) -> None:
        """Hang up; the process stays."""
        if isinstance(microscope, Closable):
            microscope.close()

    def addresses(self) -> tuple[Address, ...]:
        """Command line and stop line."""
        endpoint = self._endpoint()
        return (endpoint.host, endpoint.port), (endpoint.host, endpoint.stop_port)

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        """The same through other ports."""
        (host, port), (_, stop_port) = addresses
        changes = {"host": host, "port": port, "stop_port": stop_port}
        return self._loaded(self._endpoint().model_copy(update=changes))

    def kill(self) -> None:
        """kill -9 of the instrument's process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def revive(self) -> None:
        """A new process, empty; the next opening loads the adapter into it."""
        path = endpoint_path(self._folder, self.name)
        path.unlink(missing_ok=True)
        command = [sys.executable, "-c", _SERVER, self.name, str(self._folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        until_s = time.monotonic() + _START_S
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise InstrumentFault(f"the process of {self.name!r} did not start within {_START_S:g} s")
            time.sleep(_LOOK_S)

    def _endpoint(self) -> Endpoint:
        return read_endpoint(endpoint_path(self._folder, self.name))

    def _loaded(self, endpoint: Endpoint) -> Microscope:
        self._fence += 1
        dialled: Line = dial_command_line(endpoint) if self.line is None else self.line(endpoint)
        line = HastyLine(dialled, self.patience_s / 2, self.patience_s / 2) if self.line is None else dialled
        instrument = RemoteInstrument(endpoint, line)
        instrument.stop_line = StopLine(endpoint, self.patience_s / 2)
        session = json.dumps(["conformance", self.name])
        return instrument.load(session, self.adapter or self.name, self.config, self._fence)
