"""Versions of what made a result: ours and the libraries a number can depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "stempilot",
    "numpy",
    "scipy",
    "torch",
    "botorch",
    "gpytorch",
    "h5py",
    "prefect",
    "fastapi",
    "sqlalchemy",
    "ase",
)


@cache
def versions() -> dict[str, str]:
    """Library -> version; a library that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
