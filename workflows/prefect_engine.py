"""Prefect as the engine of one experiment: its ephemeral API on loopback, one asynchronous flow, no noise.

Neighbour: `session`, which hands in the loop to run. The flow calls the loop; it never re-implements it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

T = TypeVar("T")
READY_TIMEOUT_S = 60.0
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


@dataclass
class PrefectEngine:
    """Starts Prefect's ephemeral API in the background at once; `run` waits for it, or says it is not ready."""

    home: Path
    _ready: threading.Event = field(default_factory=threading.Event)
    _server: SubprocessASGIServer | None = None
    _error: str | None = None

    def start(self) -> None:
        """Begin to start the server; returns at once. Only loopback is used and nothing is reported to anybody."""
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.update(_QUIET, PREFECT_HOME=str(self.home))
        threading.Thread(target=self._start_server, name="prefect-start", daemon=True).start()

    def _start_server(self) -> None:
        import httpx

        try:
            from prefect.server.api.server import SubprocessASGIServer

            server = SubprocessASGIServer()
            server.start(timeout=120)
            self._server = server
        except (ImportError, OSError, RuntimeError, httpx.HTTPError) as error:
            self._error = str(error)
        finally:
            self._ready.set()

    def not_ready_because(self, timeout_s: float = READY_TIMEOUT_S) -> str | None:
        """Wait for the server; None when it is there, else why it is not."""
        if not self._ready.wait(timeout_s):
            return f"Prefect's server was not ready within {timeout_s:.0f} s"
        return None if self._server is not None else f"Prefect's server did not start: {self._error}"

    def run(self, experiment_id: str, work: Callable[[], T]) -> T:
        """Run the loop inside one asynchronous flow run named after the experiment."""
        from prefect import flow
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        @flow(
            name="experiment", flow_run_name=f"experiment-{experiment_id}", validate_parameters=False, log_prints=False
        )
        async def experiment_flow() -> Any:
            return Held(await asyncio.to_thread(work))

        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            held: Held[T] = asyncio.run(experiment_flow())
        return held.value

    def stop(self) -> None:
        """Stop the server if it was started."""
        if self._server is not None:
            self._server.stop()


@dataclass(frozen=True)
class Held(Generic[T]):
    """Keeps Prefect from reading states or futures into what the loop returns."""

    value: T
