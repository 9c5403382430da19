"""An instrument opened in the process of a run: nobody else opens it meanwhile, and it can be stopped from outside.

Neighbours: `session` runs on it, `instrument_host` is the same in a process of its own, `emergency_stop` reaches both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from instruments import InstrumentError, InstrumentFault, LinkLost, LookNeeded, Microscope
from instruments.microscope import Closable
from instruments.remote import InstrumentHost
from orchestrator.catalogue import Catalogue
from orchestrator.queue import ExperimentQueue
from workflows.assembly import open_here
from workflows.roles import RoleLock, run_folder

log = logging.getLogger(__name__)


class InstrumentLocked(InstrumentFault):
    """An emergency stop holds: nothing was asked of the instrument, and nothing will be until it is cleared."""


@dataclass
class EmbeddedInstrument:
    """The role of an instrument's process, for as long as a run has it; a context manager around the run.

    Raises DataFolderBusy where another process has it, InstrumentLocked where an emergency stop holds. `on_stop` is
    called when one comes during the run.
    """

    catalogue: Catalogue
    name: str
    on_stop: Callable[[], None]
    _host: InstrumentHost = field(init=False, repr=False)
    _microscope: Microscope | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        data_folder = self.catalogue.data_folder
        self._lock = RoleLock(data_folder, f"instrument-{self.name}")
        try:
            self._host = InstrumentHost(self.name, run_folder(data_folder), on_stop=self.on_stop)
            self._refuse_locked()
        except BaseException:
            self._lock.release()
            raise
        return self

    def open(self, adapter: str, config: Mapping[str, Any]) -> Microscope:
        """The microscope in this process; from now on its stop line answers. Raises InstrumentLocked as at the start.

        A stop that came while it was opened found no stop line, and is in the queue alone.
        """
        microscope = self._microscope = open_here(adapter, config)
        self._host.adopt(adapter, config, microscope)
        self._refuse_locked()
        return microscope

    @property
    def stopped_because(self) -> str | None:
        """Who stopped it by the stop line, and what to do; None where nobody did."""
        lock = self._host.status().lock
        if lock is None:
            return None
        return (
            f"emergency stop of {lock.by} at {lock.at:%Y-%m-%d %H:%M:%S} UTC: {lock.reason}; after a look at the "
            f"instrument: stempilot estop {self.name} --clear, then resume"
        )

    def _refuse_locked(self) -> None:
        because = self.stopped_because
        lease = ExperimentQueue(self.catalogue).lease(self.name)
        if because is None and lease is not None and lease.is_locked:
            by = f" by {lease.locked_by}" if lease.locked_by else ""
            because = f"{lease.locked_reason}{by}; after a look at the instrument: stempilot estop {self.name} --clear"
        if because is not None:
            raise InstrumentLocked(f"instrument {self.name!r} is locked, nothing was started: {because}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, LinkLost | LookNeeded):  # a person looks before the next run
                self._host.lock(str(error), "the lost link" if isinstance(error, LinkLost) else "the guard")
            self._host.leave()
            self._let_go()
        finally:
            self._lock.release()

    def _let_go(self) -> None:
        """Give back what the adapter holds: its connection, its worker."""
        microscope, self._microscope = self._microscope, None
        if not isinstance(microscope, Closable):
            return
        try:
            microscope.close()
        except InstrumentError as error:  # the run is over, and how it ended matters more
            log.warning("%s could not be closed: %s", self.name, error)
