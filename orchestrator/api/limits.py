"""How much one client may do at once and in the long run; what is too much is told when to come again.

Writes count for a token (for an address where there are no tokens), refused tokens for an address. A good token is
never refused for what others did at its address, and an emergency stop is not counted. Neighbour: `access` asks here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Final

from orchestrator.api.problems import Problem

WRITES_AT_ONCE: Final = 400
REFUSALS_AT_ONCE: Final = 10
REFUSALS_PER_S: Final = 10 / 60
_REMEMBERED: Final = 4096


class Allowance:
    """`at_once` of something for each client, growing again by `per_s`; without end where `per_s` is 0."""

    def __init__(self, at_once: int, per_s: float, elapsed_s: Callable[[], float]) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._elapsed_s = elapsed_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, when that was so
        self._lock = threading.Lock()

    def take(self, who: str) -> float:
        """0 where there was one left, which is taken; else in how many seconds there will be one."""
        if self._per_s == 0:
            return 0.0
        with self._lock:
            now = self._elapsed_s()
            left, since = self._left.pop(who, (float(self._at_once), now))
            left = min(float(self._at_once), left + (now - since) * self._per_s)
            wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
            self._left[who] = (left - 1 if left >= 1 else left, now)
            if len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)
        return wait_s


class Limits:
    """What one service counts."""

    def __init__(
        self, writes_per_s: float, elapsed_s: Callable[[], float], refusals_per_s: float = REFUSALS_PER_S
    ) -> None:
        self._writes_per_s = writes_per_s
        self._writes = Allowance(WRITES_AT_ONCE, writes_per_s, elapsed_s)
        self._refusals = Allowance(REFUSALS_AT_ONCE, refusals_per_s, elapsed_s)

    def count_write(self, who: str) -> None:
        """One more write. Raises Problem `too-many`."""
        if wait_s := self._writes.take(who):
            raise too_many(f"more than {WRITES_AT_ONCE} writes at once and {self._writes_per_s:g} a second", wait_s)

    def count_refusal(self, address: str) -> None:
        """One more token that opened nothing. Raises Problem `too-many`."""
        if wait_s := self._refusals.take(address):
            allowed = f"{REFUSALS_AT_ONCE} at once and {REFUSALS_PER_S * 60:g} a minute"
            raise too_many(f"the token is not good, and from this address more than {allowed} were not", wait_s)


def too_many(why: str, wait_s: float) -> Problem:
    """The problem that says when to come again."""
    seconds = ceil(wait_s)
    return Problem("too-many", f"{why}; come again in {seconds} s", headers={"Retry-After": str(seconds)})
