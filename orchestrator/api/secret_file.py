"""Secrets of this installation: random bytes made once and kept in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from orchestrator.catalogue.folder import storage_error, sync
from orchestrator.errors import StorageError

SECRET_BYTES: Final = 32


def kept_secret(path: Path) -> bytes:
    """The secret in the file, made with mode 0600 where there is none. Raises StorageError."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            kept = path.read_bytes()
            if len(kept) < SECRET_BYTES:
                raise StorageError(
                    f"{path} holds {len(kept)} bytes instead of {SECRET_BYTES}; restore it, or remove it and "
                    "what was made with it"
                ) from None
            return kept
        with os.fdopen(descriptor, "wb") as file:
            made = secrets.token_bytes(SECRET_BYTES)
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError as error:
        raise storage_error(error, path.parent) from error
    return made
