"""Prefect's server as a process of ours: on loopback, quiet, its database in the data folder, ending when it should.

`start_beside` is for one run, `stempilot prefect-server` for a served installation. Neighbour: `flows`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx

from instruments.remote.endpoint import write_private
from orchestrator.settings import Settings
from workflows.roles import RoleLock, run_folder

LOOPBACK: Final = "127.0.0.1"
FACTS_FILE: Final = "prefect.json"  # in the run folder: where the server of a served installation is
QUIET: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}
_ASK_AGAIN_S, _ASK_TIMEOUT_S = 0.1, 2.0


def quiet_environment(home: Path) -> dict[str, str]:
    """What Prefect, client or server, is told by its environment: its folder, and to report nothing to anybody."""
    return {**QUIET, "PREFECT_HOME": str(home)}


def api_url(port: int) -> str:
    """The address of the API of a server on this machine."""
    return f"http://{LOOPBACK}:{port}/api"


def free_port(wished: int | None = None) -> int:
    """A free port on loopback: the one wished for, if nobody listens there, else any."""
    for port in (wished or 0, 0):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on loopback")


def is_encrypted(url: str) -> bool:
    """Whether certificates are to be verified; to load them takes 20 ms, for nothing where there are none."""
    return url.startswith("https:")


def unreachable_because(url: str, timeout_s: float = _ASK_TIMEOUT_S) -> str | None:
    """None if the server at `url` says it is healthy, else why not, in words."""
    try:
        answer = httpx.get(f"{url}/health", timeout=timeout_s, trust_env=False, verify=is_encrypted(url))
    except httpx.HTTPError as error:
        return f"Prefect's server at {url} does not answer ({type(error).__name__})"
    return None if answer.is_success else f"Prefect's server at {url} answers with status {answer.status_code}"


def start_beside(home: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that ends with this process, however this ends: it reads a pipe that only this process can close."""
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.prefect_server", str(home), str(port)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def wait_until_healthy(url: str, timeout_s: float, is_alive: Callable[[], bool]) -> str | None:
    """None as soon as the server at `url` is healthy; else why it is not, at the latest after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while (because := unreachable_because(url)) is not None:
        if not is_alive():
            return "Prefect's server ended while it started"
        if time.monotonic() >= until:
            return f"{because} within {timeout_s:.0f} s"
        time.sleep(_ASK_AGAIN_S)
    return None


def serve(home: Path, port: int, *, is_ephemeral: bool, with_pages: bool = False) -> None:
    """Be the server until SIGTERM. `is_ephemeral`: without Prefect's services (scheduler, late runs)."""
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
    os.environ.update(quiet_environment(home), PREFECT__SERVER_FINAL="1")
    if is_ephemeral:
        os.environ["PREFECT__SERVER_EPHEMERAL"] = "1"
    os.environ["PREFECT_SERVER_UI_ENABLED"] = "true" if with_pages else "false"
    os.environ["PREFECT_UI_API_URL"] = api_url(port)
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app", factory=True, host=LOOPBACK, port=port, log_level="error",
        lifespan="on", timeout_graceful_shutdown=2,
    )  # fmt: skip


def run_prefect_server(settings: Settings) -> None:
    """Be the server of a data folder until SIGTERM; `prefect.json` in its run folder says where it is.

    It keeps its port from start to start as long as nobody else has it. Raises DataFolderBusy for a second one.
    """
    folder = run_folder(settings.data_folder)
    with RoleLock(settings.data_folder, "prefect") as lock:
        port = free_port(known_port(folder))
        facts = {"url": api_url(port), "port": port, "pid": os.getpid()}
        lock.tell(facts)
        write_private(folder / FACTS_FILE, json.dumps(facts))
        serve(settings.data_folder / "prefect", port, is_ephemeral=False, with_pages=settings.serve.prefect_ui)


def known_port(folder: Path) -> int | None:
    """The port the server of this run folder had last, if it is known."""
    try:
        return int(json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))["port"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _end_with_parent() -> None:
    """The pipe ends when the process that holds its other end does; nothing is ever written to it."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """`python -m workflows.prefect_server HOME PORT`: what `start_beside` starts."""
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    serve(Path(sys.argv[1]), int(sys.argv[2]), is_ephemeral=True)


if __name__ == "__main__":
    main()
