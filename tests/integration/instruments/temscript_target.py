"""temscript servers for tests: started on a free port, killed and started again as a test wants, always ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.instruments.server_process import ServerProcess

SERVER = Path(__file__).with_name("temscript_server.py")
CURRENT_PA = 1000.0


class TemscriptTarget(ServerProcess):
    """One server process, any number of adapters on it."""

    name = "temscript"

    def __init__(self, kind: str, config: dict[str, Any]) -> None:
        super().__init__()
        self._kind = kind
        self._config = {"probe_current_pa": CURRENT_PA, **config}

    def config(self, **more: Any) -> dict[str, Any]:
        return {**self._config, "port": self._port, **more}

    def wait_for_exposure(self) -> None:
        """Until the first exposure of this process begins."""
        assert self.said.readline() == "exposing\n"

    def revive(self) -> None:
        self.kill()
        self._process = subprocess.Popen([sys.executable, SERVER, self._kind], stdout=subprocess.PIPE, text=True)
        self._port = int(self.said.readline())
