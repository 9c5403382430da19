"""Who may command an instrument: the newest fence it has seen, unless it was blanked or locked by the stop line.

What must outlive the process (the newest fence, a lock nobody has cleared) is kept in a file.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import AwareDatetime, Field

from instruments.errors import CommandRefused, InstrumentFault
from instruments.models import Record
from instruments.remote.endpoint import write_private
from instruments.remote.status import Lock

log = logging.getLogger(__name__)


class OwnershipRecord(Record):
    """What is kept from one process of an instrument to the next. Fences up to `barred_fence` may not act any more."""

    fence: int = Field(default=0, ge=0)
    barred_fence: int = Field(default=-1, ge=-1)
    barred_because: str = ""
    lock: Lock | None = None
    cleared_at: AwareDatetime | None = Field(default=None, description="when a person, having looked, took one off")


class Ownership:
    """Fences are numbers that grow with every claim of the instrument; an older one can do nothing any more."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._guard = threading.Lock()
        self._record = _read(path)

    @property
    def fence(self) -> int:
        """The newest fence seen."""
        return self._record.fence

    @property
    def lock(self) -> Lock | None:
        """The emergency stop that holds."""
        return self._record.lock

    @property
    def cleared_at(self) -> datetime | None:
        """When a person last took a lock off, having looked at the instrument."""
        return self._record.cleared_at

    @property
    def barred_because(self) -> str:
        """Why the last owner was stopped."""
        return self._record.barred_because

    def take(self, fence: int) -> None:
        """Become the owner. Raises CommandRefused for an older fence, InstrumentFault when blanked or locked."""
        with self._guard:
            self._refuse_older(fence)
            self._refuse_stopped(fence)
            if fence > self._record.fence:
                self._record = self._record.model_copy(update={"fence": fence})
                self._save()

    def check(self, fence: int) -> None:
        """Raise CommandRefused unless `fence` is the newest."""
        self._refuse_older(fence)
        if fence > self._record.fence:
            raise CommandRefused(f"fence {fence} has loaded nothing into instrument {self._name!r}; load first")

    def check_may_act(self, fence: int) -> None:
        """As `check`; InstrumentFault when this owner was blanked or the instrument is locked."""
        self.check(fence)
        self._refuse_stopped(fence)

    def bar(self, reason: str, fence: int | None) -> bool:
        """Let no owner up to now (or up to `fence`) act any more; False when a newer one than `fence` has come."""
        with self._guard:
            newest = self._record.fence
            if fence is not None and fence < newest:
                return False
            barred = newest if fence is None else fence
            if barred > self._record.barred_fence:  # the first reason is the one to tell
                self._record = self._record.model_copy(update={"barred_fence": barred, "barred_because": reason})
        return True

    def set_lock(self, lock: Lock) -> None:
        """Let nobody act until `clear`; a lock that is there already stays."""
        with self._guard:
            self._record = self._record.model_copy(update={"lock": self._record.lock or lock})

    def clear(self) -> None:
        """Let the next owner act; whoever owned it when it was locked has to claim it again."""
        with self._guard:
            if (lock := self._record.lock) is not None:
                changes: dict[str, object] = {"lock": None, "cleared_at": datetime.now(UTC)}
                if self._record.fence > self._record.barred_fence:
                    changes |= {"barred_fence": self._record.fence, "barred_because": lock.reason}
                self._record = self._record.model_copy(update=changes)
        self.save()

    def save(self) -> str | None:
        """Keep it for the next process; None, or why that failed."""
        with self._guard:
            return self._save()

    def _save(self) -> str | None:
        try:
            write_private(self._path, self._record.model_dump_json())
        except OSError as error:
            log.error("%s: what an instrument must remember cannot be written: %s", self._path, error)
            return f"it holds only as long as this process: {self._path}: {error.strerror}"
        return None

    def _refuse_older(self, fence: int) -> None:
        if fence < self._record.fence:
            raise CommandRefused(
                f"fence {fence} is older than {self._record.fence}, the newest that instrument {self._name!r} has seen:"
                " it has another owner now; claim it again"
            )

    def _refuse_stopped(self, fence: int) -> None:
        lock = self._record.lock
        if lock is not None:
            raise InstrumentFault(
                f"instrument {self._name!r} is locked by an emergency stop of {lock.by} at {lock.at:%Y-%m-%d %H:%M:%S} "
                f"UTC: {lock.reason}; after a look at it: stempilot estop {self._name} --clear"
            )
        if fence <= self._record.barred_fence:
            raise InstrumentFault(
                f"the beam of instrument {self._name!r} was blanked: {self._record.barred_because}; "
                "claim it again to go on"
            )


def ownership_path(run_folder: Path, name: str) -> Path:
    """The file of the instrument `name`."""
    return run_folder / f"ownership-{quote(name, safe='')}.json"


def _read(path: Path) -> OwnershipRecord:
    try:
        return OwnershipRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return OwnershipRecord()
    except (OSError, ValueError) as error:  # no text, or not ours
        because = error if isinstance(error, OSError) else "it is damaged"
        raise InstrumentFault(
            f"{path} cannot be read, so nobody knows whether an emergency stop is pending: {because}; look at the "
            "instrument, then remove the file"
        ) from error
