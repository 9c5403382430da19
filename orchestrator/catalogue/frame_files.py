"""Files that are either whole or not there: write beside, make durable, rename, make the rename durable."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from orchestrator.catalogue.folder import check_room, storage_error, sync

PART: Final = ".part"


def write_beside(path: Path, data: bytes) -> Path:
    """Write `data` durably beside `path`; `put_in_place` makes it the file. Raises DiskFull and leaves nothing."""
    check_room(path.parent, len(data))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path.parent, len(data)) from error
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename, durably. Raises StorageError."""
    try:
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path.parent) from error


def temporary_files(folder: Path) -> list[Path]:
    """What an interrupted `write_beside` left behind; stale by definition for whoever holds the folder's lock."""
    return sorted(folder.glob(f".*{PART}"))
