"""The leases as the database last told them, read under a deadline. Neighbour: `watchdog`, which acts on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from orchestrator.errors import StorageError
from orchestrator.queue import InstrumentLease

READ_S: Final = 1.0


@dataclass
class LeaseReader:
    """Reads all leases in a thread of its own; what was read last is known while the database is silent.

    One read at a time: while one hangs nobody waits for it longer than `read_s`, counted from its start. `trouble` is
    why the last one told nothing new.
    """

    read: Callable[[], list[InstrumentLease]]
    read_s: float = READ_S
    trouble: str | None = None
    _known: list[InstrumentLease] = field(default_factory=list[InstrumentLease])
    _reading: threading.Thread | None = None
    _began_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def leases(self) -> list[InstrumentLease]:
        """As they are now, or, where the database does not tell in time, as they were when it last did."""
        with self._lock:
            if self._reading is None or not self._reading.is_alive():
                self._reading = threading.Thread(target=self._read, name="leases", daemon=True)
                self._began_s = time.monotonic()
                self._reading.start()
            reading, left_s = self._reading, self._began_s + self.read_s - time.monotonic()
        reading.join(max(0.0, left_s))
        if reading.is_alive():
            self.trouble = f"the database has not told the leases for {time.monotonic() - self._began_s:.0f} s"
        return self._known

    def _read(self) -> None:
        try:
            self._known = self.read()
        except StorageError as error:
            self.trouble = str(error)
        else:
            self.trouble = None
