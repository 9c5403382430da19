"""`stempilot instrument-host NAME`: one configured instrument in a process of its own, until it is told to end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from threadpoolctl import threadpool_limits

from instruments import ConfigurationError, Microscope
from instruments.remote import InstrumentHost, open_by_name
from instruments.remote.adapter_thread import Opener
from orchestrator.settings import Settings
from workflows.one_thread import one_thread_of_torch
from workflows.roles import RoleLock, run_folder

_FAULT: Final = 4
_LOOK_S: Final = 0.5
log = logging.getLogger(__name__)


def run_instrument_host(settings: Settings, name: str) -> NoReturn:
    """Serve the instrument until SIGTERM (or SIGINT, SIGHUP), then blank and leave; never returns.

    Leaves with 0, or with 4 when the beam could not be blanked. It does not end with whoever started it. Raises
    NotFound, DataFolderBusy when this instrument has its process already, InstrumentFault.
    """
    adapter = settings.instrument(name).adapter
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with RoleLock(settings.data_folder, f"instrument-{name}") as lock:
        host = InstrumentHost(name, run_folder(settings.data_folder), only(adapter))
        endpoint = host.start()
        lock.tell({"port": endpoint.port, "stop_port": endpoint.stop_port})
        log.info("instrument %s: process %d, ports %d and %d", name, endpoint.pid, endpoint.port, endpoint.stop_port)
        while not ended.wait(_LOOK_S):  # a signal may have reached another thread: this one acts on it when it wakes
            pass
        is_blanked = host.end("its process was told to end")
    log.info("instrument %s: ended, %s", name, "beam blanked" if is_blanked else "THE BEAM MAY BE ON")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0 if is_blanked else _FAULT)  # a vendor's call that hangs must not keep the process


def only(adapter: str) -> Opener:
    """Opens the configured adapter and no other, computing as `stempilot run` does."""

    def open_adapter(asked: str, config: Mapping[str, Any]) -> Microscope:
        if asked != adapter:
            raise ConfigurationError(
                f"this process is for adapter {adapter!r}, not {asked!r}; restart it after a change"
            )
        one_thread(adapter)
        return open_by_name(asked, config)

    return open_adapter


def one_thread(adapter: str) -> None:
    """Sums spread over threads differ from run to run: the twin computes in one, as an experiment run embedded does."""
    threadpool_limits(1)
    if adapter == "simulated":
        one_thread_of_torch()
