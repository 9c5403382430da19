"""Blanks an instrument whose owner was not heard of for the length of its lease: the watchdog of a gateway.

An owner on another machine is in nobody's database. It is heard of by what it asks, and by a line that does nothing
else (`remote.lifeline`); whether its program died, its machine, or the cable between is all the same. Neighbour:
`host` blanks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

AGAIN_S: Final = 5.0  # between attempts on a beam that could not be blanked
_LOOKS_PER_LEASE: Final = 10
_LOOK_S: Final = 0.5
log = logging.getLogger(__name__)


class OwnerWatch:
    """Looks at when the owner was last heard of. `blank(fence, reason)` says whether there is no more to do.

    `is_lit` says whether the beam is not known to be off; the beam is off one lease, plus a tenth of it (at most half a
    second), plus the instrument's stop latency after the last sign of life.
    """

    def __init__(self, lease_s: float, is_lit: Callable[[], bool], blank: Callable[[int, str], bool]) -> None:
        self.lease_s = lease_s
        self._is_lit = is_lit
        self._blank = blank
        self._guard = threading.Lock()
        self._fence: int | None = None
        self._heard_s = 0.0
        self._tried_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="owner watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more; harmless where it was never begun, and more than once."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def heard(self, fence: int) -> None:
        """The owner with this fence is there; an older one counts for nothing."""
        with self._guard:
            if self._fence is None or fence >= self._fence:
                self._fence, self._heard_s, self._tried_s = fence, time.monotonic(), None

    def look(self) -> None:
        """Once: blank if the owner has been silent for too long and the beam may be on."""
        with self._guard:
            fence, now_s = self._fence, time.monotonic()
            silent_s = now_s - self._heard_s
            waits = self._tried_s is not None and now_s < self._tried_s + AGAIN_S
            if fence is None or silent_s < self.lease_s or waits:
                return
            self._tried_s = now_s
        if not self._is_lit():
            return
        reason = f"its owner was not heard of for {silent_s:.1f} s, the lease is {self.lease_s:g} s"
        if self._blank(fence, reason):
            with self._guard:
                self._fence = None if self._fence == fence else self._fence

    def _work(self) -> None:
        while not self._ended.wait(min(_LOOK_S, self.lease_s / _LOOKS_PER_LEASE)):
            self.look()
