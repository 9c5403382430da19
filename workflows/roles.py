"""One process for each role in a data folder: who it is, and a lock that dies with it. `supervisor` adopts by it.

A role is `serve`, `prefect`, `watchdog`, `instrument-NAME` or `worker-NAME`; its lock is `DATA/run/ROLE.lock`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from orchestrator.errors import DataFolderBusy

RUN_FOLDER: Final = "run"
_TRIES, _TRY_AGAIN_S = 10, 0.05


def run_folder(data_folder: Path) -> Path:
    """Where the processes of a served installation say who and where they are; made if need be, for its owner only."""
    folder = data_folder / RUN_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@dataclass
class RoleLock:
    """The right to be the process of a role; it ends with `release` or with the process, however that ends.

    Raises DataFolderBusy naming the process that has it.
    """

    data_folder: Path
    role: str

    def __post_init__(self) -> None:
        path = _path(run_folder(self.data_folder), self.role)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not self._taken():
            os.close(self._descriptor)
            raise DataFolderBusy(
                f"process {holder(self.data_folder, self.role) or '(unknown)'} is the {self.role} of "
                f"{self.data_folder} already; stop it first, or give another folder with --data"
            )
        self.tell({})

    def _taken(self) -> bool:
        """Several tries: whoever asks `holder` has the lock for a moment."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_TRY_AGAIN_S)
            else:
                return True
        return False

    def tell(self, facts: dict[str, Any]) -> None:
        """Write beside the process id what others may want to know."""
        text = json.dumps({"pid": os.getpid(), **facts}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Let another process take the role; more than once is harmless."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # closing is not enough while a child is about to begin
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(data_folder: Path, role: str) -> int | None:
    """Process id of the living process of a role, None when there is none."""
    path = _path(data_folder / RUN_FOLDER, role)
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid(file.read())
    except FileNotFoundError:
        return None
    return None


def _pid(text: bytes) -> int | None:
    """None while the holder has not written yet."""
    try:
        return int(json.loads(text)["pid"])
    except (ValueError, KeyError):
        return None


def _path(folder: Path, role: str) -> Path:
    return folder / f"{role}.lock"
