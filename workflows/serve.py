"""`stempilot serve`: the REST API with its page, and the processes of an installation, until Ctrl-C.

The API runs in a thread; the main thread watches over the processes (`supervisor`) and tells the terminal what happens.
Neighbours: `services` (what the API is handed), `narration` (what is told).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from instruments.remote.endpoint import write_private
from orchestrator.api import Tokens, check_binding, create_app
from orchestrator.catalogue import Catalogue
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.settings import Settings
from workflows.narration import Narration
from workflows.roles import RoleLock, run_folder
from workflows.services import build_services
from workflows.supervisor import Supervisor, roles_of

FACTS_FILE: Final = "serve.json"
_LOOK_S: Final = 0.25
_PATIENCE_S: Final = 300.0
_API_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the command line says of one serve, besides the settings."""

    host: str
    port: int
    with_workers: bool = True
    is_alone: bool = False  # systemd or a container engine starts the other processes
    settings_file: Path | None = None


def run_serve(settings: Settings, options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, then end every process of the installation, in turn.

    Raises SpecError for a port in use or an address that needs tokens, DataFolderBusy for a second serve of the folder
    or beside an embedded run, StorageError; OrchestratorError when the API cannot start.
    """
    wishes = _Wishes()
    instruments = settings.served
    with (
        RoleLock(settings.data_folder, "serve"),
        Catalogue.open(settings.data_folder, url=settings.database_url, shared=True, group_commit=True) as catalogue,
        listening(options.host, options.port) as sock,
    ):
        tokens = Tokens.open(catalogue) if settings.serve.tokens else None
        check_binding(options.host, tokens)
        services = build_services(settings, catalogue, tokens)
        with_prefect = settings.serve.prefect and settings.serve.prefect_url is None
        roles = (
            []
            if options.is_alone
            else roles_of(settings, instruments, with_prefect=with_prefect, with_workers=options.with_workers)
        )
        supervisor = Supervisor(settings, roles, say, options.settings_file)
        url = f"http://{_reachable(options.host)}:{sock.getsockname()[1]}"
        api = _Api(uvicorn.Config(create_app(services), log_config=None, lifespan="on", server_header=False,
                                  timeout_graceful_shutdown=2), sock)  # fmt: skip
        api.start()
        facts = {"url": url, "host": options.host, "port": sock.getsockname()[1], "pid": os.getpid()}
        write_private(run_folder(settings.data_folder) / FACTS_FILE, json.dumps(facts))
        narration = Narration(settings, services.queue, say)
        first = tokens.first() if tokens is not None else None
        narration.welcome(url, first.secret if first is not None else None, roles, asks=tokens is not None)
        try:
            while not wishes.count and api.is_alive():
                supervisor.look()
                narration.look()
                time.sleep(_LOOK_S)
        finally:
            if roles:
                say("stopping: workers finish their frame, beams are blanked (Ctrl-C again does not wait)")
            supervisor.stop(lambda: wishes.count > 1, _PATIENCE_S)
            api.stop()
            (run_folder(settings.data_folder) / FACTS_FILE).unlink(missing_ok=True)
        if not wishes.count:
            raise OrchestratorError("the API ended by itself; the messages above say why")
    say("stopped" if options.is_alone else "stopped; every process has ended")


def stop_everything(settings: Settings, say: Callable[[str], None]) -> None:
    """End what a killed serve left behind. Raises DataFolderBusy while one serves: Ctrl-C there ends everything."""
    with RoleLock(settings.data_folder, "serve"):
        roles = roles_of(settings, sorted(settings.instruments), with_prefect=True, with_workers=True)
        Supervisor(settings, roles, say).stop(lambda: False, _PATIENCE_S)
    say("stopped; every process has ended")


class _Wishes:
    """How often somebody asked to end: once for an orderly end, twice for one that does not wait."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._wish)

    def _wish(self, number: int, frame: object) -> None:
        del number, frame
        self.count += 1


class _Api:
    """The API in a thread of its own; uvicorn leaves signals alone there."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket) -> None:
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="api", daemon=True)

    def start(self) -> None:
        """Returns once it answers. Raises OrchestratorError when it does not start."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise OrchestratorError("the API did not start; the messages above say why")
            time.sleep(0.01)

    def is_alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it; streams that are open are cut after a moment."""
        self._server.should_exit = True
        self._thread.join(_API_PATIENCE_S)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that nobody else has. Raises SpecError saying what to do."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family)
    except OSError as error:
        because = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SpecError(f"port {port} of {host} cannot be listened on: {because}; --port gives another") from error
    with sock:
        yield sock


def _reachable(host: str) -> str:
    """The host as a browser on this machine writes it."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
