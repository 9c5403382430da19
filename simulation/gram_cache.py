"""Gram matrices kept on disk: one file per content of a column, named by everything it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.gram import ALGORITHM_VERSION, GramSettings
from simulation.structure_columns import Supercell

logger = logging.getLogger(__name__)

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class GramCache:
    """A folder of `gram-<sha256>.npz` files; the unreadable is computed again, the unwritable is not kept."""

    folder: Path

    def load_or_compute(
        self, key: str, shape: tuple[int, ...], compute: Callable[[], NDArray[np.complex64]]
    ) -> NDArray[np.complex64]:
        """The matrices of that key; the same bits whether read or computed."""
        path = self.folder / f"gram-{key}.npz"
        stored = _read(path, shape)
        if stored is not None:
            return stored
        matrices = compute()
        try:
            _write(path, matrices)
        except OSError as error:
            logger.warning("image cache %s cannot be written (%s); going on without it", path, error)
        return matrices


def gram_key(supercell: Supercell, settings: GramSettings, column: str | None, content: tuple[str, ...]) -> str:
    """SHA-256 of all parameters, the atoms and the version of the algorithm."""
    atoms = supercell.atoms(column, content)
    parameters: dict[str, Any] = {
        "version": ALGORITHM_VERSION,
        "settings": asdict(settings),
        "extent_angstrom": supercell.extent_angstrom,
        "numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions_angstrom.tolist(),
    }
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.complex64] | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            matrices = archive["matrices"]
    except _UNREADABLE as error:
        logger.warning("image cache %s cannot be read (%s); computing it again", path, error)
        return None
    if matrices.shape != shape or matrices.dtype != np.complex64 or not np.isfinite(matrices).all():
        logger.warning("image cache %s holds something else; computing it again", path)
        return None
    return matrices


def _write(path: Path, matrices: NDArray[np.complex64]) -> None:
    """All or nothing: into a temporary file beside it, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".gram-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, matrices=matrices)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
