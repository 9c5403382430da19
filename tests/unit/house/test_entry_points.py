"""What the package metadata promise is there."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLUG_INS = [
    pytest.param(EntryPoint(name, value, group), id=f"{group}-{name}")
    for group, points in PROJECT["entry-points"].items()
    for name, value in points.items()
]


@pytest.mark.parametrize("point", PLUG_INS)
def test_entry_point_loads(point: EntryPoint) -> None:
    assert callable(point.load())


@pytest.mark.parametrize("point", PLUG_INS)
def test_entry_point_is_installed(point: EntryPoint) -> None:
    assert point in entry_points(group=point.group), "the installed metadata are old: pip install -e ."
