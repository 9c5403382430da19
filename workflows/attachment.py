"""An instrument in a process of its own, as a worker holds it: opened there, and lost when that process is.

A lost line, or a beam blanked from beside, ends the run with InstrumentLost instead of spoiling its decisions: what was
on its way stays in the journal as an intent, and whoever claims the instrument next goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruments import InstrumentBusy, InstrumentFault, Microscope, ResultUnknown
from instruments.remote import CommandLine, RemoteInstrument, StopLine, dial_command_line, endpoint_path, read_endpoint
from orchestrator.errors import InstrumentLost
from orchestrator.queue import Claim
from workflows.roles import run_folder


def absent_because(data_folder: Path, name: str) -> str | None:
    """None where the instrument has a process, else why not and how to start it."""
    try:
        read_endpoint(endpoint_path(run_folder(data_folder), name))
    except InstrumentFault as error:
        return str(error)
    return None


@dataclass
class Attachment:
    """Opens one experiment's microscope in the instrument's process, with the fence of its claim; `close` hangs up."""

    data_folder: Path
    claim: Claim
    microscope: Microscope | None = None
    _line: LosableLine | None = field(default=None, repr=False)

    def open(self, adapter: str, config: Mapping[str, Any]) -> Microscope:
        """The microscope there. Raises InstrumentLost where it is not running, busy or locked."""
        path = endpoint_path(run_folder(self.data_folder), self.claim.instrument)
        try:
            endpoint = read_endpoint(path)
            line = dial_command_line(endpoint)
        except InstrumentFault as error:
            raise InstrumentLost(str(error)) from error
        self._line = LosableLine(line, StopLine(endpoint))
        remote = RemoteInstrument(endpoint, self._line)
        try:
            self.microscope = remote.load(self.claim.experiment_id, adapter, config, self.claim.fence)
        except InstrumentBusy as error:  # its last owner's exposure has not ended
            raise InstrumentLost(str(error)) from error
        return self.microscope

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
