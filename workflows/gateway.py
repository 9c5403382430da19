"""`stempilot gateway --instrument NAME`: a configured instrument for another machine, within this one's limits.

The microscope's computer needs nothing but this. Whoever has the ticket commands the instrument, through the envelope
of this side: adapter, configuration and limits are not the client's to choose.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from instruments import CalibrationRegistry, ConfigurationError, GuardedMicroscope, Microscope
from instruments.remote import Endpoint, InstrumentHost, Listening, open_by_name
from instruments.remote.adapter_thread import Opener
from instruments.remote.endpoint import write_private
from orchestrator.errors import SpecError
from orchestrator.settings import InstrumentSettings, Settings
from workflows.instrument_host import one_thread
from workflows.roles import RoleLock, run_folder

_FAULT: Final = 4
ADAPTER: Final = "gateway"
log = logging.getLogger(__name__)


def run_gateway(settings: Settings, name: str, listening: Listening, address: str, ticket: Path | None) -> NoReturn:
    """Serve the instrument to holders of the ticket until SIGTERM (or SIGINT, SIGHUP), then blank; never returns.

    `address` is what the ticket says this machine is called. Raises NotFound, DataFolderBusy, SpecError for a ticket
    file that is none.
    """
    entry = settings.instrument(name)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with RoleLock(settings.data_folder, f"instrument-{name}") as lock:
        folder = run_folder(settings.data_folder)
        path = ticket or folder / f"gateway-{name}.ticket"
        known = listening.model_copy(update={"secret": secret_of(path)})
        host = InstrumentHost(name, folder, within_limits(entry), listening=known)
        endpoint = host.start()
        write_private(path, endpoint.model_copy(update={"host": address}).model_dump_json())
        lock.tell({"port": endpoint.port, "stop_port": endpoint.stop_port})
        log.info(
            "gateway of %s: ports %d and %d at %s; copy %s to the other machine, by hand or by ssh",
            name, endpoint.port, endpoint.stop_port, address, path,
        )  # fmt: skip
        ended.wait()
        is_blanked = host.end("its gateway was told to end")
    log.info("gateway of %s: ended, %s", name, "beam blanked" if is_blanked else "THE BEAM MAY BE ON")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0 if is_blanked else _FAULT)  # a vendor's call that hangs must not keep the process


def secret_of(ticket: Path) -> str:
    """The secret of a ticket given out before, so that its copies stay good; else a new one."""
    try:
        return Endpoint.model_validate_json(ticket.read_text(encoding="utf-8")).secret
    except FileNotFoundError:
        return secrets.token_hex(32)
    except (OSError, ValidationError) as error:
        raise SpecError(f"{ticket} is no ticket: {error}; remove it, and copies of it are void") from error


def within_limits(entry: InstrumentSettings) -> Opener:
    """Opens the configured adapter behind the facility's guard, whatever the client says."""

    def open_adapter(asked: str, config: Mapping[str, Any]) -> Microscope:
        if asked != ADAPTER or config:
            raise ConfigurationError("a gateway's adapter and configuration are those of its own machine; send neither")
        one_thread(entry.adapter)
        return GuardedMicroscope(
            open_by_name(entry.adapter, entry.config),
            entry.safety,
            calibrations=CalibrationRegistry(entry.calibrations),
        )

    return open_adapter
