"""instamatic's server with its simulated microscope, in the environment of its own, for as long as a test wants it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from instruments import Microscope, registry
from instruments.conformance.target import Address
from instruments.microscope import Closable

ENVIRONMENT = Path(__file__).parents[3] / ".venv" / "instamatic"
_START_S = 60.0


def installed() -> Path:
    """The folder of instamatic's package; the test is skipped without it, and fails in CI."""
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/instamatic"))
    if not found:
        words = "instamatic's server is not there: make .venv/instamatic/installed"
        if os.environ.get("CI") == "true":
            pytest.fail(words, pytrace=False)
        pytest.skip(words)
    return found[0]


class InstamaticTarget:
    """A `Served` target of the conformance kit: one server process, one adapter at a time on it."""

    name = "instamatic"

    def __init__(self, folder: Path, config: dict[str, Any], protocol: str = "json") -> None:
        self._package = installed()
        self._folder = folder
        self._config = {"simulated": True, **config}
        self._protocol = protocol
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._set_up()
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def addresses(self) -> tuple[Address, ...]:
        return (("127.0.0.1", self._port),)

    def open(self, **more: Any) -> Microscope:
        return registry.open("instamatic", **{**self._config, "port": self._port, **more})

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        return self.open(port=addresses[0][1])

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, Closable)
        microscope.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def revive(self) -> None:
        self.kill()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        settings = self._folder / "config" / "settings.yaml"
        settings.write_text(
            f"microscope: simulate\ncamera: simulate\ncalibration: simulate\ntem_server_host: 127.0.0.1\n"
            f"tem_server_port: {self._port}\ntem_communication_protocol: {self._protocol}\n"
            f"data_directory: {self._folder / 'data'}\n"
        )
        self._process = subprocess.Popen(
            [ENVIRONMENT / "bin" / "python", "-c", "from instamatic.server.tem_server import main; main()"],
            env={**os.environ, "instamatic": str(self._folder), "AppData": str(self._folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_it_listens(time.monotonic() + _START_S)

    def _wait_until_it_listens(self, until_s: float) -> None:
        while True:
            try:
                socket.create_connection(self.addresses()[0], 1.0).close()
                return
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, "instamatic's server ended at its start"
                assert time.monotonic() < until_s, "instamatic's server does not listen"
                time.sleep(0.02)

    def _set_up(self) -> None:
        """The folders that instamatic would make on Windows at its first start."""
        source = self._package / "config"
        for name in ("microscope", "camera", "calibration"):
            shutil.copytree(source / name, self._folder / "config" / name)
        shutil.copy(source / "defaults.yaml", self._folder / "config" / "defaults.yaml")
        for name in ("scripts", "alignments"):
            shutil.copytree(source / name, self._folder / name)
        (self._folder / "logs").mkdir()
