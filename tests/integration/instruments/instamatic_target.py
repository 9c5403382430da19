"""instamatic's server with its simulated microscope, in the environment of its own, for as long as a test wants it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.instruments.server_process import ServerProcess
from tests.ports import unused_port

ENVIRONMENT = Path(__file__).parents[3] / ".venv" / "instamatic"
_START_S = 300.0


def installed() -> Path:
    """The folder of instamatic's package; the test is skipped without it, and fails in CI."""
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/instamatic"))
    if not found:
        words = "instamatic's server is not there: make .venv/instamatic/installed"
        if os.environ.get("CI") == "true":
            pytest.fail(words, pytrace=False)
        pytest.skip(words)
    return found[0]


class InstamaticTarget(ServerProcess):
    """One server process, one adapter at a time on it."""

    name = "instamatic"

    def __init__(self, folder: Path, config: dict[str, Any], protocol: str = "json") -> None:
        super().__init__()
        self._package = installed()
        self._folder = folder
        self._config = {"simulated": True, **config}
        self._protocol = protocol
        self._set_up()

    def config(self, **more: Any) -> dict[str, Any]:
        return {**self._config, "port": self._port, **more}

    def revive(self) -> None:
        self.kill()
        self._port = unused_port()
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
