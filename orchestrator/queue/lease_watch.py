"""Whether a lease has lapsed, said by someone who watches it, also while somebody sets the clock. No database here."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Final

from orchestrator.queue.entries import InstrumentLease

CLOCK_STEP_S: Final = 1.0


class LeaseWatch:
    """Remembers when it first saw each renewal, on a clock that nobody sets.

    A lease has lapsed once it was watched unrenewed for its whole length. What was not watched so long is judged by
    its time of expiry, but only while the clock runs evenly: after a step of it (more than 1 s), nothing is judged
    by the clock for the length of the lease. So a clock set forward ends no living lease, and one set back does not
    keep a dead one alive. A process that has just begun to look knows of no step before; there the fence decides.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._offset_s: float | None = None
        self._stepped_s: float | None = None

    def has_lapsed(self, lease: InstrumentLease, now: datetime, elapsed_s: float) -> bool:
        """Whether its holder has let it lapse; False for a lease nobody holds."""
        with self._lock:
            self._look_at_clock(now, elapsed_s)
            if lease.holder is None or lease.expires_at is None:
                self._seen.pop(lease.instrument, None)
                return False
            renewal = (lease.fence, lease.renewal_count)
            seen, since_s = self._seen.get(lease.instrument, (None, 0.0))
            if seen != renewal:
                since_s = elapsed_s
                self._seen[lease.instrument] = (renewal, since_s)
            if elapsed_s - since_s >= lease.length_s:
                return True
            stepped = self._stepped_s is not None and elapsed_s - self._stepped_s < lease.length_s
            return not stepped and lease.expires_at <= now

    def _look_at_clock(self, now: datetime, elapsed_s: float) -> None:
        offset_s = now.timestamp() - elapsed_s
        if self._offset_s is not None and abs(offset_s - self._offset_s) > CLOCK_STEP_S:
            self._stepped_s = elapsed_s
        self._offset_s = offset_s
