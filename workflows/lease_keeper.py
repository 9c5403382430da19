"""Keeps a worker's lease alive while it works; tells its loop when the lease is lost or a person wants something."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from orchestrator.errors import LeaseLost, StorageError
from orchestrator.queue import Claim, ExperimentQueue

RENEWALS_PER_LEASE: Final = 4
log = logging.getLogger(__name__)


@dataclass
class LeaseKeeper:
    """Renews a claim from a thread of its own, four times a lease; a context manager around the work."""

    queue: ExperimentQueue
    claim: Claim
    lease_s: float
    lost: threading.Event = field(default_factory=threading.Event)
    _done: threading.Event = field(default_factory=threading.Event)

    def wanted(self) -> str | None:
        """What a person wants of the experiment: `cancel`, `pause` or None. Raises LeaseLost."""
        if self.lost.is_set():
            raise LeaseLost(f"the lease of {self.claim.instrument} is lost; end at once, leave the instrument alone")
        try:
            return self.queue.wanted(self.claim)
        except StorageError as error:  # the next write of the journal says whether it is serious
            log.warning("what people want could not be read: %s", error)
            return None

    def _renew(self) -> None:
        every_s = self.lease_s / RENEWALS_PER_LEASE
        wait_s = every_s
        while not self._done.wait(wait_s):
            wait_s = every_s
            try:
                self.queue.renew(self.claim, self.lease_s)
            except LeaseLost as error:
                log.warning("%s", error)
                self.lost.set()
                return
            except StorageError as error:
                log.warning("the lease could not be renewed, trying again: %s", error)
                wait_s = every_s / RENEWALS_PER_LEASE

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
