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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from instruments import CalibrationRegistry, ConfigurationError, DoseLedger, GuardedMicroscope, Microscope
from instruments.dose_file import KeptLedger, SpecimenDose, dose_path
from instruments.remote import Endpoint, InstrumentHost, Listening, open_by_name
from instruments.remote.adapter_thread import Opener
from instruments.remote.encrypted import make_certificate
from instruments.remote.endpoint import write_private
from orchestrator.errors import SpecError
from orchestrator.settings import InstrumentSettings, Settings
from workflows.instrument_host import one_thread
from workflows.roles import RoleLock, run_folder

_FAULT: Final = 4
_LOOK_S: Final = 0.5
ADAPTER: Final = "gateway"
DOSE_FOLDER: Final = "dose"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """How an instrument is served: where, what the ticket calls this machine, which specimen is in.

    Without a certificate one is made where other machines can reach it, unless `is_plain`.
    """

    listening: Listening
    address: str
    specimen: str
    ticket: Path | None = None
    is_plain: bool = False


def run_gateway(settings: Settings, name: str, wanted: Gateway) -> NoReturn:
    """Serve the instrument to holders of the ticket until SIGTERM (or SIGINT, SIGHUP), then blank; never returns.

    Raises NotFound, DataFolderBusy, SpecError for a ticket file that is none, InstrumentFault for a dose file that
    cannot be read.
    """
    entry = settings.instrument(name)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with RoleLock(settings.data_folder, f"instrument-{name}") as lock:
        folder = run_folder(settings.data_folder)
        path = wanted.ticket or folder / f"gateway-{name}.ticket"
        known = encrypted(wanted, folder, name).model_copy(update={"secret": secret_of(path)})
        specimen = Specimen.opened(settings.data_folder, name, wanted.specimen)
        opener = within_limits(entry, specimen.ledger)
        host = InstrumentHost(name, folder, opener, listening=known, dose=specimen, lease_s=settings.lease_s)
        endpoint = host.start()
        write_private(path, endpoint.model_copy(update={"host": wanted.address}).model_dump_json())
        lock.tell({"port": endpoint.port, "stop_port": endpoint.stop_port})
        log.info(
            "gateway of %s: ports %d and %d at %s, %s; copy %s to the other machine, by hand or by ssh",
            name, endpoint.port, endpoint.stop_port, wanted.address,
            "encrypted" if endpoint.certificate else "NOT encrypted", path,
        )  # fmt: skip
        dose = specimen.specimen_dose()
        log.info("specimen %r: %.3g electrons so far", dose.specimen, dose.electrons)
        while not ended.wait(_LOOK_S):  # a signal may have reached another thread: this one acts on it when it wakes
            pass
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
    except (OSError, ValueError) as error:  # no text, or not ours
        raise SpecError(f"{ticket} is no ticket: {error}; remove it, and copies of it are void") from error


def encrypted(wanted: Gateway, folder: Path, name: str) -> Listening:
    """Where it listens, with the facility's certificate, or one made here where others can reach it."""
    if wanted.listening.certificate is not None or wanted.listening.is_local or wanted.is_plain:
        return wanted.listening
    certificate, key = folder / f"gateway-{name}.pem", folder / f"gateway-{name}.key.pem"
    make_certificate(certificate, key, wanted.address)
    return wanted.listening.model_copy(update={"certificate": certificate, "certificate_key": key})


@dataclass(frozen=True, slots=True)
class Specimen:
    """The specimen in the instrument, and the dose it got here from anybody, kept on disk."""

    name: str
    ledger: DoseLedger

    @classmethod
    def opened(cls, data_folder: Path, instrument: str, name: str) -> Specimen:
        """With what it got before. Raises InstrumentFault."""
        return cls(name, KeptLedger(dose_path(data_folder / DOSE_FOLDER, instrument, name)))

    def specimen_dose(self) -> SpecimenDose:
        """So far."""
        return SpecimenDose(
            specimen=self.name, electrons=self.ledger.electrons, dose_max_e_per_a2=self.ledger.max_e_per_a2
        )


def within_limits(entry: InstrumentSettings, ledger: DoseLedger) -> Opener:
    """Opens the configured adapter behind the facility's guard and books of the specimen, whatever the client says."""

    def open_adapter(asked: str, config: Mapping[str, Any]) -> Microscope:
        if asked != ADAPTER or config:
            raise ConfigurationError("a gateway's adapter and configuration are those of its own machine; send neither")
        one_thread(entry.adapter)
        return GuardedMicroscope(
            open_by_name(entry.adapter, entry.config),
            entry.safety,
            ledger,
            calibrations=CalibrationRegistry(entry.calibrations),
        )

    return open_adapter
