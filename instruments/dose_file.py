"""A dose ledger that outlives its process: every entry is on disk before it counts, and so before the beam is on.

One file for each specimen of an instrument, entries one after another, never rewritten. What `kill -9` or a power cut
left half written (or as zeros) at its end was a debit whose exposure had not begun, and is dropped. Neighbour:
`dose_ledger`.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from struct import Struct
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from pydantic import Field

from instruments.dose_ledger import DoseLedger
from instruments.errors import InstrumentFault
from instruments.footprints import CELL_NM, Footprint
from instruments.models import Record
from instruments.regions import Box

_HEAD: Final = Struct("<II")  # bytes of what follows, and their CRC-32
_BEGINNING: Final = b'["add'
log = logging.getLogger(__name__)


class SpecimenDose(Record):
    """What a specimen got at an instrument so far, whoever exposed it."""

    specimen: str
    electrons: float
    dose_max_e_per_a2: float = Field(description="bound of the dose at its most exposed point")


def dose_path(folder: Path, instrument: str, specimen: str) -> Path:
    """The file of a specimen at an instrument."""
    return folder / f"{quote(instrument, safe='')}-{quote(specimen, safe='')}.dose"


class KeptLedger(DoseLedger):
    """A `DoseLedger` whose entries are kept in a file; opened again, it has them all.

    A subclass, for there are two ways of adding to a ledger, on which its other methods rest, and both write first.
    Raises InstrumentFault for a file that is damaged anywhere but at its end, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._torn_at: int | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole_bytes = self._restore(content)
            if whole_bytes < len(content):
                os.truncate(path, whole_bytes)
        except OSError as error:
            raise InstrumentFault(f"{path}: the dose of the specimen cannot be read: {error}; restore it") from error

    def add(self, marks: Footprint, electrons: float, bound_factor: float = 1.0) -> None:
        """Spread `electrons` over the footprint, as `DoseLedger.add`; written first."""
        place = [marks.first_column, marks.first_row, marks.cell_nm, *marks.overlap_nm2.shape]
        cells = zlib.compress(np.ascontiguousarray(marks.overlap_nm2, np.float64).tobytes(), 1)
        least = [] if marks.least_nm2 is None else [marks.least_nm2]
        self._keep(electrons, ["add", electrons, bound_factor, place, *least], cells)
        super().add(marks, electrons, bound_factor)

    def add_within(self, box: Box, electrons: float, least_nm2: float = CELL_NM**2, *, is_counted: bool = True) -> None:
        """Electrons that may all have gone to one place of the box, as `DoseLedger.add_within`; written first."""
        self._keep(electrons, ["add_within", electrons, least_nm2, asdict(box), is_counted])
        super().add_within(box, electrons, least_nm2, is_counted=is_counted)

    def _keep(self, electrons: float, entry: list[Any], cells: bytes = b"") -> None:
        """A debit that cannot be kept is not made; for a correction that cannot, the file counts too much."""
        body = json.dumps(entry).encode() + b"\n" + cells
        try:
            self._append(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        except OSError as error:
            if electrons > 0:
                raise InstrumentFault(
                    f"{self._path}: the dose cannot be kept, so nothing is exposed: {error}; see to the disk"
                ) from error
            log.warning("%s: a correction cannot be kept, the file counts more than was exposed: %s", self._path, error)

    def _append(self, entry: bytes) -> None:
        """All of it or nothing: a disk that fills up takes a part, and what is written after that could not be read."""
        with self._path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if self._torn_at is not None and self._torn_at < end:
                end = file.truncate(self._torn_at)
            self._torn_at = end
            try:
                left = memoryview(entry)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
            self._torn_at = None

    def _restore(self, content: bytes) -> int:
        """Make every entry of a file again, writing nothing; how many bytes of it are whole."""
        whole_bytes = 0
        for body, end in self._entries(content):
            whole_bytes = end
            head, _, cells = body.partition(b"\n")
            match json.loads(head):
                case ["add", electrons, bound_factor, [column, row, cell_nm, *shape], *least]:
                    overlap_nm2 = np.frombuffer(zlib.decompress(cells), np.float64).reshape(shape)
                    super().add(Footprint(column, row, overlap_nm2, cell_nm, *least), electrons, bound_factor)
                case ["add_within", electrons, least_nm2, box, is_counted]:
                    super().add_within(Box(**box), electrons, least_nm2, is_counted=is_counted)
                case other:
                    raise InstrumentFault(f"{self._path}: {other!r:.80} is no entry of a ledger; {_CURE}")
        return whole_bytes

    def _entries(self, content: bytes) -> Iterator[tuple[bytes, int]]:
        """Each whole entry, and where it ends. Raises InstrumentFault for one that is damaged before the last."""
        start = 0
        while start + _HEAD.size <= len(content):
            size_bytes, expected = _HEAD.unpack_from(content, start)
            body = content[start + _HEAD.size : start + _HEAD.size + size_bytes]
            end = start + _HEAD.size + size_bytes
            if size_bytes == 0 or end > len(content) or zlib.crc32(body) != expected:
                if (end >= len(content) and _is_torn(content[start:])) or not any(content[start:]):
                    return
                raise InstrumentFault(f"{self._path}: damaged at byte {start}; {_CURE}")
            yield body, end
            start = end


def _is_torn(rest: bytes) -> bool:
    """Whether this is the beginning of one entry and no more; a wrong length would have it swallow whole ones."""
    _, expected = _HEAD.unpack_from(rest)
    if zlib.crc32(rest[_HEAD.size :]) == expected:
        return False  # all of it is there, but for its length
    at = rest.find(_BEGINNING, _HEAD.size + 1)
    while at >= 0:
        size_bytes, expected = _HEAD.unpack_from(rest, at - _HEAD.size)
        if at + size_bytes <= len(rest) and zlib.crc32(rest[at : at + size_bytes]) == expected:
            return False
        at = rest.find(_BEGINNING, at + 1)
    return True


_CURE: Final = "nobody knows the dose of the specimen; restore the file, or name the specimen anew"
