"""Files that came with a submission, known by what is in them: `DATA/uploads/<sha256>/<name>`.

A spec names one as `sha256:<64 hexadecimal digits>/<name>` where it would otherwise give a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from orchestrator.catalogue import folder as folders
from orchestrator.catalogue import schema
from orchestrator.catalogue.database import Database
from orchestrator.catalogue.frame_files import put_in_place, write_beside
from orchestrator.errors import SpecError
from orchestrator.plain_json import plain

PLACES: Final = (("specimen", "structure"), ("instrument", "config", "file"), ("instrument", "config", "structure"))
_REFERENCE: Final = re.compile(r"sha256:([0-9a-f]{64})/(.+)", re.DOTALL)
_NAME: Final = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")
_MAX_NAME_BYTES: Final = 160


class Uploads:
    """Uploaded files of one data folder."""

    def __init__(self, data_folder: Path, database: Database, now: Callable[[], datetime]) -> None:
        self._folder = data_folder / "uploads"
        self._database = database
        self._now = now

    def keep(self, name: str, data: bytes) -> str:
        """Keep a file under its content's sha256, which is returned; the same once more changes nothing.

        Raises SpecError for a name that is no plain file name, DiskFull.
        """
        _check_name(name)
        digest = sha256(data).hexdigest()
        path = self._folder / digest / name
        if not path.exists():
            folders.make(path.parent)
            put_in_place(write_beside(path, data), path)
        table = schema.upload
        with self._database.writing() as connection:
            if connection.execute(select(table.c.sha256).where(table.c.sha256 == digest)).first() is None:
                row = {"sha256": digest, "name": name, "size_bytes": len(data), "created_at": self._now()}
                connection.execute(insert(table).values(**row))
        return digest

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
