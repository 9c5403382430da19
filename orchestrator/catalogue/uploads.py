"""Files that came with a submission, known by what is in them: `DATA/uploads/<sha256>/<name>`.

A spec names one as `sha256:<64 hexadecimal digits>/<name>` where it would otherwise give a path.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from orchestrator.catalogue import folder as folders
from orchestrator.catalogue import schema
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.frame_files import PART, put_in_place, temporary_files
from orchestrator.errors import SpecError
from orchestrator.plain_json import plain

PLACES: Final = (("specimen", "structure"), ("instrument", "config", "file"), ("instrument", "config", "structure"))
_REFERENCE: Final = re.compile(r"sha256:([0-9a-f]{64})/(.+)", re.DOTALL)
_NAME: Final = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")
_MAX_NAME_BYTES: Final = 160
_STALE_S: Final = 3600.0  # the longest that one file may be on its way


class PartialUpload:
    """A file on its way in, beside those that are whole; it grows, and `sha256` and `size_bytes` with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._hash = sha256()
        self._file = path.open("xb")

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Add to it. Raises DiskFull."""
        try:
            self._file.write(data)
        except OSError as error:
            raise folders.storage_error(error, self.path.parent, len(data)) from error
        self._hash.update(data)
        self.size_bytes += len(data)

    def settle(self) -> None:
        """Have all of it on the disk. Raises DiskFull."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise folders.storage_error(error, self.path.parent, self.size_bytes) from error

    def discard(self) -> None:
        """Leave nothing of it, unless it was kept."""
        with suppress(OSError):  # a full disk: what could not be written is about to go
            self._file.close()
        self.path.unlink(missing_ok=True)


class Uploads:
    """Uploaded files of one data folder."""

    def __init__(self, data_folder: Path, database: Database, now: Callable[[], datetime]) -> None:
        self._folder = data_folder / "uploads"
        self._database = database
        self._now = now

    def begin(self, size_bytes: int = 0) -> PartialUpload:
        """A file to write to, which `take` keeps; `discard` it in any case. Raises DiskFull for more than there is."""
        folders.make(self._folder)
        folders.check_room(self._folder, size_bytes)
        try:
            return PartialUpload(self._folder / f".{secrets.token_hex(8)}{PART}")
        except OSError as error:
            raise folders.storage_error(error, self._folder) from error

    def take(self, part: PartialUpload, name: str) -> bool:
        """Keep it under its content's sha256; whether it is new. Raises SpecError for a name that is none, DiskFull."""
        _check_name(name)
        path = self._folder / part.sha256 / name
        is_new = not path.exists()
        if is_new:
            part.settle()
            folders.make(path.parent)
            put_in_place(part.path, path)
        table = schema.upload
        with self._database.writing() as connection:
            if connection.execute(select(table.c.sha256).where(table.c.sha256 == part.sha256)).first() is None:
                row = {"sha256": part.sha256, "name": name, "size_bytes": part.size_bytes, "created_at": self._now()}
                connection.execute(insert(table).values(**row))
        return is_new

    def keep(self, name: str, data: bytes) -> str:
        """Keep a file under its content's sha256, which is returned; the same once more changes nothing.

        Raises SpecError for a name that is no plain file name, DiskFull.
        """
        _check_name(name)
        part = self.begin(len(data))
        try:
            part.write(data)
            self.take(part, name)
        finally:
            part.discard()
        return part.sha256

    def forget_partial(self) -> int:
        """Remove what was cut off on its way in long ago; how many."""
        stale = [path for path in temporary_files(self._folder) if time.time() - path.stat().st_mtime > _STALE_S]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def path(self, digest: str, name: str) -> Path:
        """Where the file lies. Raises SpecError naming a hash or a name that was not uploaded."""
        _check_name(name)
        path = self._folder / digest / name
        if path.is_file():
            return path
        others = sorted(found.name for found in path.parent.glob("[!.]*"))
        if others:
            raise SpecError(f"sha256:{digest} was uploaded as {', '.join(others)}, not as {name!r}; name it so")
        raise SpecError(f"no file with sha256 {digest} ({name!r}) was uploaded; upload it, then submit")

    def resolve(self, spec_document: Mapping[str, Any]) -> dict[str, Any]:
        """The spec with absolute paths in the place of uploaded files. Raises SpecError naming one that is missing."""
        document = plain(spec_document)
        for place in PLACES:
            section = document
            for key in place[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            value = section.get(place[-1]) if isinstance(section, dict) else None
            found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found and isinstance(section, dict):
                section[place[-1]] = str(self.path(*found.groups()))
        return document


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES:
        raise SpecError(
            f"{name!r} is no name for a file: 1 to {_MAX_NAME_BYTES} bytes without '/', not beginning with '.'"
        )
