"""Files that are either whole or not there: write beside, make durable, rename, make the rename durable."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from io import SEEK_END, BufferedReader, BytesIO
from pathlib import Path
from typing import Final, Self

from orchestrator.catalogue.folder import check_room, storage_error, sync

PART: Final = ".part"


def write_beside(path: Path, data: bytes) -> Path:
    """Write `data` durably beside `path`; `put_in_place` makes it the file. Raises DiskFull and leaves nothing."""
    check_room(path.parent, len(data))
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path.parent, len(data)) from error
    return temporary


def make_beside(path: Path, most_bytes: int, make: Callable[[Path], None]) -> Path:
    """As `write_beside`, of a file that `make` writes itself, of `most_bytes` at most. Raises DiskFull likewise."""
    check_room(path.parent, most_bytes)
    temporary = _temporary(path)
    try:
        make(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(error, path.parent, most_bytes) from error
        raise
    return temporary


@dataclass(frozen=True, slots=True)
class Checksum:
    """What tells whether a file is still the one that was stored."""

    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, file: BufferedReader | BytesIO) -> Self:
        """Read in pieces, from its beginning; left at its beginning."""
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.seek(0, SEEK_END)
        file.seek(0)
        return cls(digest, size_bytes)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


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
