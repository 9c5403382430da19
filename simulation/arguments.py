"""Arguments of the wrong kind are refused by name, before numpy stumbles over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulation.errors import InvalidParameter


def whole_pair(name: str, value: Any) -> tuple[int, int]:
    """(rows, columns) as ints; an error for one number, three, parts of pixels or words."""
    is_pair = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and len(value) == 2
    if not (is_pair and all(_is_whole(count) for count in value)):
        raise InvalidParameter(f"{name} = {value!r} must be two whole numbers (rows, columns), such as (512, 512)")
    return int(value[0]), int(value[1])


def checked_seed(seed: Any) -> int:
    """The seed; an error for what numpy draws nothing from."""
    if not _is_whole(seed) or seed < 0:
        raise InvalidParameter(f"seed = {seed!r} must be a whole number, at least 0")
    return int(seed)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and float(value).is_integer()
