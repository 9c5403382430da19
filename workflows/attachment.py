"""An instrument in a process of its own, as a worker holds it: opened there, and lost when that process is.

A lost line, or a beam blanked from beside, ends the run with InstrumentLost instead of spoiling its decisions: what was
on its way stays in the journal as an intent, and whoever claims the instrument next goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruments import InstrumentBusy, InstrumentFault, Microscope, ResultUnknown
from instruments.remote import (
    CommandLine,
    Endpoint,
    InstrumentStatus,
    RemoteInstrument,
    StopLine,
    dial_command_line,
    endpoint_path,
    read_endpoint,
)
from orchestrator.errors import InstrumentLost
from orchestrator.queue import Claim
from orchestrator.settings import BUILT_IN
from workflows.roles import holder, run_folder

log = logging.getLogger(__name__)


def absent_because(data_folder: Path, name: str) -> str | None:
    """None where the instrument has a process, else why not and how to start it."""
    try:
        read_endpoint(endpoint_path(run_folder(data_folder), name))
    except InstrumentFault as error:
        return str(error)
    return None


def beam_trouble(data_folder: Path, name: str) -> str | None:
    """Why nothing may start on an instrument whose last owner left it unconfirmed; None: a stop was confirmed."""
    try:
        trouble = StopLine.of(endpoint_path(run_folder(data_folder), name)).status().not_blanked
    except InstrumentFault as error:
        return str(error)
    return None if trouble is None else f"the beam of {name} may be on: {trouble}"


@dataclass
class Attachment:
    """Opens one experiment's microscope in the instrument's process, with the fence of its claim; `close` hangs up."""

    data_folder: Path
    claim: Claim
    microscope: Microscope | None = None
    had_to_blank: bool = False
    _line: LosableLine | None = field(default=None, repr=False)
    _endpoint: Endpoint | None = field(default=None, repr=False)
    _adapter: str = ""

    def open(self, adapter: str, config: Mapping[str, Any]) -> Microscope:
        """The microscope there. Raises InstrumentLost where it is not running, busy or locked."""
        try:
            endpoint = read_endpoint(self._path)
            line = dial_command_line(endpoint)
        except InstrumentFault as error:
            raise InstrumentLost(str(error)) from error
        self._endpoint, self._adapter = endpoint, adapter
        self._line = LosableLine(line, StopLine(endpoint))
        remote = RemoteInstrument(endpoint, self._line)
        try:
            self.microscope = remote.load(self.claim.experiment_id, adapter, config, self.claim.fence)
        except InstrumentBusy as error:  # its last owner's exposure has not ended
            raise InstrumentLost(str(error)) from error
        return self.microscope

    def leave_dark(self, reason: str) -> str | None:
        """Blank the beam unless the instrument says that it is; None once it says so, else why nobody can know.

        An instrument of which nothing was ever asked is left alone, as is one that somebody newer has.
        """
        if self._endpoint is None:
            return None
        try:
            line = StopLine.of(self._path)
            status = line.status()
            if status.fence > self.claim.fence:
                return None
            if status.session_id is None:
                return self._trouble_of_empty(status, self._endpoint)
            if status.beam_blanked is True and status.doing is None:
                return None
            report = line.blank(reason, fence=self.claim.fence)
        except InstrumentFault as error:
            return None if self._is_gone_with_its_beam(self._endpoint) else str(error)
        self.had_to_blank = report.beam_blanked is True
        return None if self.had_to_blank or report.is_ignored else report.message

    def lock(self, reason: str) -> None:
        """Let nobody act until a person has looked and cleared it; one that somebody newer has is left alone."""
        try:
            line = StopLine.of(self._path)
            if line.status().fence <= self.claim.fence:
                line.emergency_stop(reason, by="the guard")
        except InstrumentFault as error:
            log.error("%s could not be locked, look at it before anything else (%s): %s", self._path, reason, error)

    def _trouble_of_empty(self, status: InstrumentStatus, asked: Endpoint) -> str | None:
        """Nothing is loaded: nothing was, in the process that was asked, or it is another one that knows of nothing."""
        if status.pid == asked.pid and self.microscope is None:
            return None
        if self._adapter in BUILT_IN:
            return None
        return f"its process was started anew (process {status.pid}) and does not know of the beam"

    def _is_gone_with_its_beam(self, asked: Endpoint) -> bool:
        """Whether the process that was asked is dead and was all there was of the instrument: a simulation."""
        is_gone = holder(self.data_folder, f"instrument-{self.claim.instrument}") != asked.pid
        return is_gone and self._adapter in BUILT_IN

    @property
    def _path(self) -> Path:
        return endpoint_path(run_folder(self.data_folder), self.claim.instrument)

    def close(self) -> None:
        """Hang up; the instrument stays as it is."""
        if self._line is not None:
            self._line.close()


@dataclass
class LosableLine:
    """A command line whose loss is an InstrumentLost, no answer of the microscope."""

    inner: CommandLine
    stop_line: StopLine

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        """The answer. Raises InstrumentLost when the line breaks or the instrument was stopped from beside."""
        try:
            return self.inner.call(call, fence, arguments, patience_s=patience_s, moves=moves)
        except (ResultUnknown, InstrumentFault) as error:
            if self.inner.is_broken:
                raise InstrumentLost(str(error)) from error
            self._raise_if_stopped(error)
            raise

    def _raise_if_stopped(self, error: ResultUnknown | InstrumentFault) -> None:
        try:
            status = self.stop_line.status()
        except InstrumentFault as silence:
            raise InstrumentLost(str(silence)) from error
        if status.lock is not None or status.stopped is not None:
            raise InstrumentLost(str(error), is_locked=status.lock is not None) from error

    def close(self) -> None:
        """Hang up."""
        self.inner.close()
