"""Prefect as the engine of one embedded experiment: a server beside it on loopback, one asynchronous flow, no noise.

Neighbours: `session`, which hands in the loop to run; `prefect_server`; `flows.experiment` for a served installation.
The flow calls the loop; it never re-implements it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from workflows.flows.names import EXPERIMENT
from workflows.prefect_server import api_url, free_port, quiet_environment, start_beside, wait_until_healthy

T = TypeVar("T")
READY_TIMEOUT_S = 60.0
_START_TIMEOUT_S, _END_TIMEOUT_S, _TRIES = 120.0, 5.0, 3


@dataclass
class PrefectEngine:
    """Starts a Prefect server in the background at once; `run` waits for it, or says it is not ready.

    The server ends with `stop`, or with this process, however that ends.
    """

    home: Path
    _ready: threading.Event = field(default_factory=threading.Event)
    _server: subprocess.Popen[bytes] | None = None
    _url: str = ""
    _error: str | None = None

    def start(self) -> None:
        """Begin to start the server; returns at once. Only loopback is used and nothing is reported to anybody."""
        os.environ.update(quiet_environment(self.home))
        threading.Thread(target=self._start_server, name="prefect-start", daemon=True).start()

    def _start_server(self) -> None:
        try:
            for _ in range(_TRIES):
                port = free_port()
                self._url = api_url(port)
                server = self._server = start_beside(self.home, port)
                importlib.import_module("prefect")  # seconds, while the server needs its own
                self._error = wait_until_healthy(self._url, _START_TIMEOUT_S, lambda: server.poll() is None)  # noqa: B023
                if self._error is None or server.poll() is None:
                    return  # another try only where the process ended: somebody took the port
        except (ImportError, OSError) as error:
            self._error = str(error)
        finally:
            self._ready.set()

    def not_ready_because(self, timeout_s: float = READY_TIMEOUT_S) -> str | None:
        """Wait for the server; None when it is there, else why it is not."""
        if not self._ready.wait(timeout_s):
            return f"Prefect's server was not ready within {timeout_s:.0f} s"
        return None if self._error is None else f"Prefect's server did not start: {self._error}"

    def run(self, experiment_id: str, work: Callable[[], T], flow_name: str = EXPERIMENT) -> T:
        """Run the loop inside one asynchronous flow run named after the experiment."""
        from prefect import flow
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        @flow(name=flow_name, flow_run_name=f"{flow_name}-{experiment_id}", validate_parameters=False, log_prints=False)
        async def experiment_flow() -> Any:
            return Held(await asyncio.to_thread(work))

        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_API_URL: self._url}):
            held: Held[T] = asyncio.run(experiment_flow())
        return held.value

    def stop(self) -> None:
        """Stop the server if it was started."""
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        if self._server.stdin is not None:
            self._server.stdin.close()


@dataclass(frozen=True)
class Held(Generic[T]):
    """Keeps Prefect from reading states or futures into what the loop returns."""

    value: T
