"""Errors of the orchestrator, named by what may happen next; `exit_status` is what the command line ends with.

OrchestratorError             1  the experiment ended without success
  SpecError                   2  the input is wrong; nothing was started
  Refused                     3  the safety envelope or a budget says no; nothing was started
  FeatureError                1  a frame is stored, but nothing could be measured in it
  Conflict                    1  the experiment's state does not allow it; the message says what is possible
  PreconditionFailed          1  it was changed by somebody else meanwhile; look again, then decide
  LeaseLost                   1  another worker has the instrument; end at once and touch nothing
  InstrumentLost              1  its process is gone, or somebody stopped it; the journal stands, claim it again
  Interrupted               130  by a person before the loop began; the beam is blanked, it can be resumed
  NotAllowed                  2  the service does not know the token, or the token may not do that
  Unreachable                 1  the service does not answer; nothing is known of what was asked last
  TooManyRequests             1  the service was asked too often; wait as long as the message says, then go on
  NotFound                    5  no such experiment, frame, instrument or catalogue
  StorageError                6  the catalogue cannot take or give the data; what was acknowledged is safe
    DataFolderBusy            6  another process writes there; wait, or use another folder
    DataFolderNotWritable     6  the folder cannot be made or written; change its rights or use another
    DiskFull                  6  make room, then resume
    CatalogueCorrupt          6  the database is damaged; restore it or move it away, the frame files are intact
    FrameDamaged              6  one frame's file is missing or differs from its checksum
"""

from __future__ import annotations

from typing import ClassVar


class OrchestratorError(Exception):
    """Anything an experiment ends with."""

    exit_status: ClassVar[int] = 1


class SpecError(OrchestratorError):
    """The input is wrong; nothing was started."""

    exit_status: ClassVar[int] = 2


class Refused(OrchestratorError):
    """The safety envelope or a budget says no; nothing was started."""

    exit_status: ClassVar[int] = 3


class FeatureError(OrchestratorError):
    """A frame is stored, but nothing could be measured in it."""


class Conflict(OrchestratorError):
    """The experiment's state does not allow it; `status` is that state, `possible` the actions it allows."""

    def __init__(self, message: str, *, status: str, possible: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.possible = possible


class PreconditionFailed(OrchestratorError):
    """It was changed by somebody else meanwhile; look again, then decide."""


class LeaseLost(OrchestratorError):
    """Another worker has the instrument; end at once and touch nothing."""


class InstrumentLost(OrchestratorError):
    """Its process is gone, or somebody stopped it; the journal stands, claim it again. `is_locked`: a person first."""

    def __init__(self, message: str, *, is_locked: bool = False) -> None:
        super().__init__(message)
        self.is_locked = is_locked


class Interrupted(OrchestratorError):
    """By a person before the loop began; the beam is blanked, it can be resumed."""

    exit_status: ClassVar[int] = 130


class NotAllowed(OrchestratorError):
    """The service does not know the token, or the token may not do that."""

    exit_status: ClassVar[int] = 2


class Unreachable(OrchestratorError):
    """The service does not answer; nothing is known of what was asked last."""


class TooManyRequests(OrchestratorError):
    """The service was asked too often; wait as long as the message says, then go on."""


class NotFound(OrchestratorError):
    """No such experiment, frame, instrument or catalogue."""

    exit_status: ClassVar[int] = 5


class StorageError(OrchestratorError):
    """The catalogue cannot take or give the data; what was acknowledged is safe."""

    exit_status: ClassVar[int] = 6


class DataFolderBusy(StorageError):
    """Another process writes there; wait, or use another folder."""


class DataFolderNotWritable(StorageError):
    """The folder cannot be made or written; change its rights or use another."""


class DiskFull(StorageError):
    """Make room, then resume."""


class CatalogueCorrupt(StorageError):
    """The database is damaged; restore it or move it away, the frame files are intact."""


class FrameDamaged(StorageError):
    """One frame's file is missing or differs from its checksum."""
