"""Values as JSON that every database and every reader takes: no NaN, no arrays, no models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel


def plain(value: Any) -> Any:
    """`value` with numpy, pydantic, dataclass, path and date values as JSON types; not finite becomes None.

    Raises TypeError naming the type of a value that has no JSON form.

    >>> plain({"dose": np.float32(1.5), "map": np.array([1.0, np.nan]), 3: ("a", None)})
    {'dose': 1.5, 'map': [1.0, None], '3': ['a', None]}
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return float(value) if isfinite(value) else None
        case np.generic() | np.ndarray():
            return plain(value.tolist())
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case BaseModel():
            return plain(value.model_dump(mode="json"))
        case Path() | date():
            return value.isoformat() if isinstance(value, date) else str(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
        case Sequence() | set() | frozenset() if not isinstance(value, bytes | bytearray | memoryview):
            return [plain(item) for item in value]
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form; give numbers, strings, lists or mappings")


def to_text(value: Any) -> str:
    """Compact JSON text of a value, as `plain` has it; floats keep every bit. Keys are texts or numbers."""
    try:
        return _ENCODER.encode(value)  # most values are plain already, and this looks at them in C
    except (TypeError, ValueError):  # a number that is not finite, or a key that is no JSON key
        return _ENCODER.encode(plain(value))


_ENCODER: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=plain)
