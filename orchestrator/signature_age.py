"""Whether a good signature is the newest and still valid: an older file of the facility's must not come back.

A serial below the highest that was seen is refused. What was seen is kept in the data folder, for each key; whoever may
write there can also take it away, so the facility may write a lowest serial beside its public key. Neighbour:
`signature` says whose it is.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from orchestrator.errors import Refused, SpecError
from orchestrator.signature import Signature

SEEN_NAME: Final = "facility-serials.txt"
LOWEST_NAME: Final = "facility.serial"
WARN_BEFORE: Final = timedelta(days=7)
_CLOCKS_APART: Final = timedelta(days=1)
log = logging.getLogger(__name__)


def check_age(signature: Signature, key_path: Path, data_folder: Path, now: datetime | None = None) -> None:
    """Take note of the serial; raise Refused for one below the highest seen, and for what has expired.

    A data folder that is not there has seen none. Raises SpecError for a record that cannot be read.
    """
    lowest = max(highest_seen(data_folder, key_path), lowest_allowed(key_path))
    _refuse_older(signature, lowest)
    _check_validity(signature, now or datetime.now(UTC))
    if signature.serial is not None and signature.serial > lowest and data_folder.is_dir():
        _note(signature, signature.serial, key_path, data_folder)


def highest_seen(data_folder: Path, key_path: Path) -> int:
    """The highest serial signed with this key that this data folder has seen; 0: none."""
    own = fingerprint(key_path)
    lines = _read(data_folder / SEEN_NAME).splitlines(keepends=True)
    words = [line.split() for line in lines if line.endswith("\n")]  # a line that was cut off counts for nothing
    return max((int(serial) for key, serial, *_ in words if key == own and serial.isdecimal()), default=0)


def lowest_allowed(key_path: Path) -> int:
    """What the facility wrote into `facility.serial` beside its public key; 0: nothing."""
    path = key_path.with_name(LOWEST_NAME)
    text = _read(path).strip()
    if text and not text.isdecimal():
        raise SpecError(f"{path}: {text!r:.40} is no serial; write the lowest serial that may be used, such as 12")
    return int(text or 0)


def next_serial(key_path: Path, beside: Signature | None) -> int:
    """One more than this private key has given, by the count beside it and by the signature that is replaced."""
    return 1 + max(lowest_allowed(key_path), (beside.serial or 0) if beside else 0)


def count_serial(key_path: Path, serial: int) -> None:
    """Keep the serial that was given, beside the private key. Raises SpecError where that cannot be written."""
    path = key_path.with_name(LOWEST_NAME)
    try:
        path.write_text(f"{max(serial, lowest_allowed(key_path))}\n", "utf-8")
    except OSError as error:
        raise SpecError(f"{path}: the serial cannot be counted: {error}; give it with --serial") from error


def fingerprint(key_path: Path) -> str:
    """Names a public key: serials of another key are counted apart."""
    return sha256(key_path.read_bytes()).hexdigest()[:16]


def _refuse_older(signature: Signature, lowest: int) -> None:
    if lowest and (signature.serial or 0) < lowest:
        what = f"serial {signature.serial}" if signature.serial is not None else "no serial"
        raise Refused(
            f"the settings signed by {signature.signed_by} at {signature.signed_at:%Y-%m-%d %H:%M} UTC have {what}, "
            f"and serial {lowest} was in use here: they are older; put the newest signed file back, or have this "
            "one signed again"
        )


def _check_validity(signature: Signature, now: datetime) -> None:
    until = signature.valid_until
    if until is None:
        return
    if now < signature.signed_at - _CLOCKS_APART:
        raise Refused(
            f"this computer's clock says {now:%Y-%m-%d %H:%M} UTC, before the settings were signed "
            f"({signature.signed_at:%Y-%m-%d %H:%M} UTC), so nobody knows whether they are still valid; set the clock"
        )
    if now >= until and signature.when_expired == "refuse":
        raise Refused(
            f"the settings signed by {signature.signed_by} were valid until {until:%Y-%m-%d %H:%M} UTC; have them "
            "looked at and signed again"
        )
    if now >= until - WARN_BEFORE:
        log.warning(
            "the facility's signature of the settings %s valid until %s UTC; have them looked at and signed again",
            "was" if now >= until else "is", f"{until:%Y-%m-%d %H:%M}",
        )  # fmt: skip


def _note(signature: Signature, serial: int, key_path: Path, data_folder: Path) -> None:
    """Add one line: lines of several processes do not hurt each other, and none is ever taken back."""
    line = f"{fingerprint(key_path)} {serial} signed {signature.signed_at.isoformat()} by {signature.signed_by!r}\n"
    path = data_folder / SEEN_NAME
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
    except OSError as error:
        log.warning("%s: serial %d cannot be kept, so an older file would be taken: %s", path, serial, error)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path} cannot be read, so nobody knows which settings are the newest: {error}; look why, and restore it"
        ) from error
