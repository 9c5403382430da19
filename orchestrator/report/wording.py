"""Named numbers as text: `x_nm` 12.5 becomes "x 12.5 nm"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UNITS = (
    "per_nm2", "e_per_a2", "nm2", "nm", "mrad", "deg", "ev", "pa", "mm", "us", "s", "px",
)  # fmt: skip
_WORDS = {"per_nm2": "/nm²", "e_per_a2": "e/Å²", "nm2": "nm²", "us": "µs", "pa": "pA", "ev": "eV"}
_LONGEST = 300


def words_of(point: Mapping[str, Any]) -> str:
    """Every entry with its unit.

    >>> words_of({"purpose": "field", "x_nm": 12.5, "probe_current_pa": 30.0})
    'purpose field, x 12.5 nm, probe current 30 pA'
    """
    return ", ".join(f"{label(key)} {plain_number(value)}{unit_after(key)}" for key, value in point.items())


def numbers(values: Mapping[str, Any]) -> str:
    """Every entry under its own name, long ones cut."""
    parts: list[str] = []
    for key, value in values.items():
        text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else plain_number(value)
        parts.append(f"{key} {text if len(text) <= _LONGEST else text[:_LONGEST] + ' …'}")
    return "; ".join(parts)


def with_std(mean: float | None, std: float | None) -> str:
    """Mean and standard deviation."""
    return f"{plain_number(mean)} ± {plain_number(std)}"


def plain_number(value: Any) -> str:
    """Four digits of a float, anything else as it is.

    >>> plain_number(0.123456), plain_number(None), plain_number("field")
    ('0.1235', 'unknown', 'field')
    """
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def label(name: str) -> str:
    """The name without its unit, in words.

    >>> label("field_of_view_nm")
    'field of view'
    """
    unit = _ending(name)
    return (name.removesuffix("_" + unit) if unit else name).replace("_", " ")


def unit_after(name: str) -> str:
    """The unit a name ends in, with a space before it; nothing where there is none.

    >>> unit_after("dwell_time_us"), unit_after("purpose")
    (' µs', '')
    """
    unit = _ending(name)
    return "" if unit is None else " " + _WORDS.get(unit, unit)


def _ending(name: str) -> str | None:
    return next((unit for unit in _UNITS if name.endswith("_" + unit)), None)


def without_folders(value: Any) -> Any:
    """A spec without the folders of the machine it was written on: absolute paths become file names.

    >>> without_folders({"structure": "/elsewhere/WSe2.extxyz", "modes": ["haadf"]})
    {'structure': 'WSe2.extxyz', 'modes': ['haadf']}
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
