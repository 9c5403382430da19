"""The simulated Merlin in a process of its own, for as long as a test wants it: a `Served` target of the kit."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from instruments import Microscope, registry
from instruments.conformance.target import Address
from instruments.microscope import Closable
from tests.integration.instruments.merlin_files import write_files

SERVER = Path(__file__).with_name("merlin_server.py")


class MerlinTarget:
    """Sends these counts, whatever it is asked for, until it obeys; a soft trigger, if configured, begins a scan."""

    name = "merlin"

    def __init__(
        self, python: Path, folder: Path, counts: np.ndarray, config: dict[str, Any], *, is_fast: bool = False
    ) -> None:
        """`is_fast`: frames come from memory as fast as they are taken; it is longer in starting then."""
        self._python, self._is_fast = python, is_fast
        self._path = write_files(folder, counts)
        self._navigation = counts.shape[:2]
        self.config: dict[str, Any] = {"simulated": True, "shape_px": counts.shape[2:], "trigger": "software", **config}
        self._ports = (0, 0)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def addresses(self) -> tuple[Address, ...]:
        control, data = self._ports
        return (("127.0.0.1", control), ("127.0.0.1", data))

    def open(self, **more: Any) -> Microscope:
        return self.open_at(self.addresses(), **more)

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope:
        return registry.open("merlin", **{**self.config_at(addresses), **more})

    def config_at(self, addresses: tuple[Address, ...]) -> dict[str, Any]:
        return {**self.config, "control_port": addresses[0][1], "data_port": addresses[1][1]}

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, Closable)
        microscope.close()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def say(self, word: str) -> str:
        """`obeys` or `recites`: what the server does from now on; `counts`: its acquisitions. What it answers."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def revive(self) -> None:
        self.kill()
        asked = [
            str(self._python),
            str(SERVER),
            str(self._path),
            *map(str, (*self._navigation, "MEM" if self._is_fast else "NONE")),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        if not self._is_fast:
            environment["NUMBA_DISABLE_JIT"] = "1"  # compiling takes longer than all that is sent
        self._process = subprocess.Popen(
            asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the simulated Merlin ended at its start"
        control, data = json.loads(line)
        self._ports = (control, data)
