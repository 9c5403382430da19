"""The data folder: who writes there, whether it can be written, how much room it has. Neighbour: `database`."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import weakref
from pathlib import Path
from typing import Final

from orchestrator.errors import DataFolderBusy, DataFolderNotWritable, DiskFull, StorageError

LOCK_NAME: Final = ".lock"
RESERVE_BYTES: Final = 1 << 20  # left for the database when a frame is written
_LOOK_S: Final = 0.2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


class FolderLock:
    """The right to write in a data folder; it ends with `release` or with the process, however that ends.

    `flock` on `.lock`, which names the owners' process ids: one owner alone, or several that share. A forked child
    gives up its copy, so that it cannot keep the folder busy after its parent is gone.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        try:
            self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o644)
        except OSError as error:
            raise storage_error(error, folder) from error
        self._shared = shared
        try:
            _lock(self._descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageError(f"{folder} cannot be locked ({error.strerror}); use a local disk") from error
            raise DataFolderBusy(
                f"{folder} is being written by process {holder(folder) or '(unknown)'}; "
                "wait until it ends, or give another folder with --data"
            ) from error
        if not shared:
            os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        _held.add(self)

    def release(self) -> None:
        """Let others write; more than once is harmless."""
        if self._descriptor >= 0:
            if not self._shared:
                os.ftruncate(self._descriptor, 0)
            self.close()

    def close(self) -> None:
        """Close this process's copy without a word to the others."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


def _lock(descriptor: int, mode: int) -> None:
    """Lock a file; who merely looks (`holder`) holds it for an instant, so a refusal is believed after a while only."""
    deadline_s = time.monotonic() + _LOOK_S
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(_LOOK_S / 10)
        else:
            return


def holder(folder: Path) -> int | None:
    """Process id of the writer of a data folder (of one, where several share it), None when nobody writes there."""
    try:
        with (folder / LOCK_NAME).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return next(filter(_is_alive, (int(word) for word in file.read().split() if word.isdigit())), None)
    except FileNotFoundError:
        return None
    return None


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def make(folder: Path) -> None:
    """Make the folder and what leads to it, durably. Raises DataFolderNotWritable or DiskFull."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync(path.parent)
    except OSError as error:
        raise storage_error(error, folder) from error


def sync(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Room left for this user on the disk of the folder, or of what will hold it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def check_room(folder: Path, needed_bytes: int) -> int:
    """Room left after `needed_bytes` and the reserve. Raises DiskFull naming what is free and what is needed."""
    free = free_bytes(folder)
    if free < needed_bytes + RESERVE_BYTES:
        raise DiskFull(_full(folder, free, needed_bytes))
    return free - needed_bytes - RESERVE_BYTES


def storage_error(error: OSError, folder: Path, needed_bytes: int | None = None) -> StorageError:
    """The storage error that says what to do about an error of the operating system."""
    if error.errno in _FULL:
        return DiskFull(_full(folder, free_bytes(folder), needed_bytes))
    if error.errno in _NOT_WRITABLE:
        return DataFolderNotWritable(
            f"{folder} cannot be written ({error.strerror}); change its rights, or give another folder with --data"
        )
    return StorageError(f"{folder}: {error.strerror or error}; check the disk, then `stempilot resume`")


def _full(folder: Path, free: int, needed_bytes: int | None) -> str:
    needed = "more is needed" if needed_bytes is None else f"{needed_bytes + RESERVE_BYTES} bytes are needed"
    return f"disk full: {free} bytes are free in {folder}, {needed}; make room, then `stempilot resume`"
