"""Fingerprints on disk: one file for each entry, named by everything it depends on, written whole or not at all.

A library is a folder with `library.json` (format, version, settings) and `entry-<sha256>.npz` files. An entry's file
holds its arrays and, as JSON, its description; a hash over the arrays tells damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.errors import UnreadableLibrary
from simulation.fingerprints.settings import LibrarySettings
from simulation.specimens import Specimen

FORMAT = "stempilot fingerprints"
FORMAT_VERSION = 1
ALGORITHM_VERSION = 3
"""Raised whenever the same parameters would give other numbers."""
_HEADER = "library.json"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

Arrays = dict[str, NDArray[np.float64]]
"""By name: `image.<detector>` (rows, columns, ...), `pattern` (rows, columns) or (points, ...), `spectrum`."""


@dataclass(frozen=True, slots=True)
class Label:
    """Where an entry stands on the axes of its library."""

    structure: str
    thickness_nm: float
    tilt_x_mrad: float
    tilt_y_mrad: float
    defocus_nm: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One fingerprint: what the detectors see of one structure, thickness, tilt and defocus, for one electron.

    `structure_key`: of the structure as given, before it is repeated; None where an older program wrote the entry.
    `has_periodic_field` (y, x): whether the image field is a whole number of the structure's periods.
    """

    key: str
    label: Label
    arrays: Arrays
    structure_key: str | None
    algorithm_version: int
    has_periodic_field: tuple[bool, bool]
    notes: Mapping[str, Any]


def structure_key(specimen: Specimen) -> str:
    """SHA-256 of the atoms and their cell."""
    parts = [specimen.numbers.tobytes(), specimen.positions_angstrom.tobytes()]
    return _sha256(*parts, np.asarray(specimen.cell_angstrom).tobytes())


def entry_key(settings: LibrarySettings, specimen_key: str, label: Label) -> str:
    """SHA-256 of all parameters of one entry, those of other entries left out."""
    shared = settings.model_dump(mode="json", exclude={"tilts_mrad", "defoci_nm"})
    content = {"settings": shared, "structure": specimen_key, "label": asdict(label), "algorithm": ALGORITHM_VERSION}
    return _sha256(json.dumps(content, sort_keys=True).encode())


def write_header(folder: Path, settings: LibrarySettings) -> None:
    """The library's own description."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": settings.model_dump(mode="json"),
        "software": _software(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / _HEADER, json.dumps(header, indent=2).encode())


def read_header(folder: Path) -> LibrarySettings | None:
    """The settings of the library in a folder; None where there is none."""
    path = folder / _HEADER
    if not path.exists():
        return None
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        _check_version(header, path)
        return LibrarySettings.model_validate(header["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableLibrary(
            f"{path} cannot be read ({error}); put it back from a copy, or build the library in an empty folder"
        ) from error


def entry_path(folder: Path, key: str) -> Path:
    """The file of an entry."""
    return folder / f"entry-{key}.npz"


def write_entry(folder: Path, entry: Entry) -> None:
    """All or nothing: into a temporary file beside it, flushed to disk, then renamed."""
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "algorithm_version": entry.algorithm_version,
        "key": entry.key,
        "label": asdict(entry.label),
        "structure_as_given": entry.structure_key,
        "has_periodic_field": list(entry.has_periodic_field),
        "arrays_sha256": _arrays_sha256(entry.arrays),
        "software": _software(),
        "notes": dict(entry.notes),
    }
    text = np.frombuffer(json.dumps(description, indent=2).encode(), dtype=np.uint8)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".entry-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, description=text, **entry.arrays)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(entry_path(folder, entry.key))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_entries(folder: Path) -> list[Entry]:
    """All of a folder, in order of their files. Raises `UnreadableLibrary` also where one name is of two structures."""
    entries = [read_entry(path) for path in sorted(folder.glob("entry-*.npz"))]
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.structure_key is None:
            continue
        other = first.setdefault(entry.label.structure, entry)
        if other.structure_key != entry.structure_key:
            files = " and ".join(entry_path(folder, each.key).name for each in (other, entry))
            raise UnreadableLibrary(
                f"{folder} holds two structures named {entry.label.structure!r}: {files} are of different atoms; move"
                " the files of one of them elsewhere, and build it under another name"
            )
    return entries


def read_entry(path: Path) -> Entry:
    """An entry, checked; `UnreadableLibrary` if it is damaged or of a newer format."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            description = json.loads(archive["description"].tobytes())
            _check_version(description, path)
            arrays = {name: archive[name] for name in archive.files if name != "description"}
        if _arrays_sha256(arrays) != description["arrays_sha256"]:
            raise ValueError("its arrays are not those that were written")
        label = Label(**description["label"])
        rows, columns = description["has_periodic_field"]
        return Entry(
            description["key"],
            label,
            arrays,
            description.get("structure_as_given"),
            description["algorithm_version"],
            (bool(rows), bool(columns)),
            description["notes"],
        )
    except (*_UNREADABLE, TypeError, zipfile.error) as error:
        raise UnreadableLibrary(f"{path} is damaged ({error}); delete it, build() makes it again") from error


def _check_version(description: Any, path: Path) -> None:
    said = description.get("format") if isinstance(description, Mapping) else description
    if said != FORMAT:
        raise ValueError(f"it says format {said!r}, not {FORMAT!r}")
    if description["format_version"] > FORMAT_VERSION:
        raise UnreadableLibrary(
            f"{path} has format version {description['format_version']}, newer than {FORMAT_VERSION}, the newest that"
            " this program reads; update stempilot"
        )


def _write_whole(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".library-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    parts: list[bytes] = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts += [name.encode(), str((array.shape, array.dtype.str)).encode(), array.tobytes()]
    return _sha256(*parts)


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _software() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("stempilot", "numpy", "scipy", "torch", "ase"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
