"""Files that are either whole or not there: write beside, make durable, rename, make the rename durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from orchestrator.catalogue.folder import check_room, storage_error, sync

PART: Final = ".part"


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, durably. Raises DiskFull (nothing is left behind) or another StorageError."""
    check_room(path.parent, len(data))
    temporary = path.with_name(f".{path.name}{PART}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path.parent, len(data)) from error


def temporary_files(folder: Path) -> list[Path]:
    """What an interrupted `write_whole` left behind; stale by definition for whoever holds the folder's lock."""
    return sorted(folder.glob(f".*{PART}"))
