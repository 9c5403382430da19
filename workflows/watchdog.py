"""`stempilot watchdog`: blanks the beam of an instrument whose worker was not heard of for the length of its lease.

It does not depend on the worker: it reads the leases in the database and speaks to the instrument by its stop line.
The beam is off one lease, plus 1 s, plus the instrument's own stop latency after the worker's last sign of life. While
the database is silent the leases it told last are watched: nobody can be seen to renew one then, so they lapse.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

from instruments import InstrumentError
from instruments.remote import StopLine, StopReport, endpoint_path
from orchestrator import events
from orchestrator.catalogue import Catalogue
from orchestrator.errors import DataFolderBusy, NotFound, StorageError
from orchestrator.queue import ExperimentQueue, InstrumentLease
from orchestrator.settings import Settings
from workflows.lease_reader import LeaseReader
from workflows.roles import RoleLock, run_folder

LOOK_EVERY_S: Final = 0.5
AGAIN_S: Final = 5.0  # between attempts on an instrument that could not be blanked
STOP_ANSWER_S: Final = 8.0
_AT_ONCE: Final = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was done about one lapsed lease, to be written down; `is_blanked` False: it could not be done."""

    lease: InstrumentLease
    is_blanked: bool
    reason: str


@dataclass
class Watchdog:
    """Looks at all leases. Instruments are asked side by side, and what was done is written down beside that.

    So neither an instrument that does not answer nor a database that is busy or silent holds up the next look.
    `trouble` is what it has with the database.
    """

    catalogue: Catalogue
    run_folder: Path
    queue: ExperimentQueue | None = None
    trouble: str | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_AT_ONCE, "stop"))
    _pen: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))
    _writing: Future[None] | None = None
    _asked: dict[str, Future[Finding | None]] = field(default_factory=dict[str, "Future[Finding | None]"])
    _unwritten: list[Finding] = field(default_factory=list[Finding])
    _failed_s: dict[tuple[str, int], float] = field(default_factory=dict[tuple[str, int], float])

    def __post_init__(self) -> None:
        self._queue = self.queue or ExperimentQueue(self.catalogue)
        self._reader = LeaseReader(self._queue.leases)

    def look(self) -> None:
        """Once: ask every instrument whose lease has lapsed, blank where its beam may be on, write down what was done.

        A database that cannot be read or written now is tried again the next time; what was read is known meanwhile,
        and what was done is not forgotten.
        """
        for lease in self._lapsed():
            self._see_to(lease)
        self._collect()
        unread = self._reader.trouble
        if unread is not None:
            unread = f"the database cannot be read, going by the leases it told last: {unread}"
        self._say(unread or self._write_down())

    def _lapsed(self) -> list[InstrumentLease]:
        return self._queue.lapsed(among=self._reader.leases())

    def close(self) -> None:
        """Wait for no answer."""
        for pool in (self._pool, self._pen):
            pool.shutdown(wait=False, cancel_futures=True)

    def _see_to(self, lease: InstrumentLease) -> None:
        failed_s = self._failed_s.get((lease.instrument, lease.fence), -inf)
        if lease.instrument not in self._asked and time.monotonic() >= failed_s + AGAIN_S:
            self._asked[lease.instrument] = self._pool.submit(self._blank_if_on, lease)

    def _blank_if_on(self, lease: InstrumentLease) -> Finding | None:
        """None: the beam is off, or somebody newer has the instrument, or the lease was renewed meanwhile."""
        try:
            line = StopLine.of(endpoint_path(self.run_folder, lease.instrument), timeout_s=STOP_ANSWER_S)
            status = line.status()
            if status.beam_blanked is True or status.fence > lease.fence or not self._still_lapsed(lease):
                return None
            report = line.blank(because(lease), fence=lease.fence)
        except InstrumentError as error:
            return Finding(lease, False, f"{because(lease)}, but {error}")
        return None if report.is_ignored else _finding(lease, report)

    def _still_lapsed(self, lease: InstrumentLease) -> bool:
        """Asked just before the stop; an unreadable database does not save a lease that was seen to lapse."""
        return any((other.instrument, other.fence) == (lease.instrument, lease.fence) for other in self._lapsed())

    def _collect(self) -> None:
        for name, future in list(self._asked.items()):
            if future.done():
                del self._asked[name]
                finding = future.result()
                if finding is not None and (finding.is_blanked or self._is_new(finding)):
                    log.warning("%s: %s", name, finding.reason)
                    self._unwritten.append(finding)

    def _is_new(self, finding: Finding) -> bool:
        """What could not be done is tried again and again, but told once for each lease."""
        key = (finding.lease.instrument, finding.lease.fence)
        is_new = key not in self._failed_s
        self._failed_s[key] = time.monotonic()
        return is_new

    def _write_down(self) -> str | None:
        """Begin to write what is unwritten, unless that is going on; why the last attempt failed."""
        done, trouble = self._writing is None or self._writing.done(), None
        if done and self._writing is not None:
            error, self._writing = self._writing.exception(), None
            if error is not None and not isinstance(error, StorageError):
                raise error
            trouble = f"the database cannot be written, trying again: {error}" if error is not None else None
        if done and self._unwritten:
            self._writing = self._pen.submit(self._write_all)
        return trouble

    def _write_all(self) -> None:
        while self._unwritten:
            try:
                self._write_one(self._unwritten[0])
            except NotFound as error:
                log.warning("nothing is written down of a beam that was blanked: %s", error)
            self._unwritten.pop(0)

    def _write_one(self, finding: Finding) -> None:
        lease = finding.lease
        if finding.is_blanked and self._queue.note_blanked(lease, finding.reason):
            return
        if lease.experiment_id is not None:
            kind = events.BEAM_BLANKED if finding.is_blanked else events.BEAM_NOT_BLANKED
            told = {"instrument": lease.instrument, "fence": lease.fence, "holder": lease.holder}
            self.catalogue.append(lease.experiment_id, kind, {**told, "reason": finding.reason})

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self.trouble:
            log.warning("%s", trouble)
        self.trouble = trouble


def because(lease: InstrumentLease) -> str:
    """Why the beam is to be blanked, in words."""
    until = f"{lease.expires_at:%Y-%m-%d %H:%M:%S} UTC" if lease.expires_at else "an unknown time"
    return f"{lease.holder} was not heard of: its lease of {lease.instrument} ended at {until} and was not renewed"


def _finding(lease: InstrumentLease, report: StopReport) -> Finding:
    exposing = f" during exposure {report.was_exposing}" if report.was_exposing else ""
    took = f"the instrument took {report.took_s:.3f} s{exposing}: {report.message}"
    return Finding(lease, report.beam_blanked is True, f"{because(lease)}; {took}")


def run_watchdog(settings: Settings) -> None:
    """Look every half second until SIGTERM, SIGINT or SIGHUP. Raises DataFolderBusy for a second one."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with RoleLock(settings.data_folder, "watchdog"):
        catalogue = _opened(settings, ended)
        if catalogue is None:
            return
        with catalogue:
            watchdog = Watchdog(catalogue, run_folder(settings.data_folder))
            log.info("watchdog: process watches the leases in %s", settings.data_folder)
            while not ended.wait(LOOK_EVERY_S):
                watchdog.look()
            watchdog.close()


def _opened(settings: Settings, ended: threading.Event) -> Catalogue | None:
    """The catalogue, waited for while its database does not answer; None when told to end meanwhile."""
    trouble = ""
    while True:
        try:
            return Catalogue.open(settings.data_folder, url=settings.database_url, shared=True)
        except DataFolderBusy:
            raise
        except StorageError as error:
            if str(error) != trouble:
                log.warning("the database cannot be opened, trying again: %s", error)
            trouble = str(error)
        if ended.wait(LOOK_EVERY_S):
            return None
