"""Pythons with libraries of their own, made by the Makefile under `.venv/`: their path, or a skip that says how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def python_of(environment: str) -> Path:
    """The interpreter of `environments/NAME.txt`; where CI=true its absence is a failure."""
    python = ROOT / ".venv" / environment / "bin" / "python"
    if (python.parents[1] / "installed").exists():
        return python
    missing = f"{python} is not set up: make .venv/{environment}/installed"
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing, allow_module_level=True)
