"""Waiting for what other processes and threads do: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 600.0  # for machines that do something else meanwhile; nothing is measured against it
T = TypeVar("T")


def until(
    condition: Callable[[], T | None],
    what: str,
    *,
    every_s: float = 0.05,
    waits_out: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """What `condition` gives once it is neither None nor False; errors of the kind `waits_out` mean not yet."""
    end_s, last = time.monotonic() + DEADLINE_S, None
    while time.monotonic() < end_s:
        try:
            if found := condition():
                return found
        except waits_out as error:
            last = error
        time.sleep(every_s)
    raise AssertionError(f"waited {DEADLINE_S:.0f} s in vain for {what}" + (f"; {last}" if last else ""))
