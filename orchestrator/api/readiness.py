"""Whether experiments can be taken: a short answer for anybody, kept for a moment, and a long one for token holders.

Neighbour: `service_routes` asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from orchestrator.api.answers import outward
from orchestrator.api.services import Services
from orchestrator.catalogue import folder
from orchestrator.errors import DiskFull, StorageError

ENOUGH_BYTES: Final = 64 << 20
FRESH_S: Final = 2.0
States = Callable[[], Mapping[str, Mapping[str, Any] | str]]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: whether experiments can be taken, each check in a word, and each check in full."""

    is_ready: bool
    words: Mapping[str, str]
    details: Mapping[str, str]


class ReadinessDesk:
    """Looks at storage and instruments, at most once every two seconds however many ask."""

    def __init__(self, services: Services, states: States) -> None:
        self._services = services
        self._states = states
        self._lock = threading.Lock()
        self._known: tuple[float, Found] | None = None

    def recent(self) -> Found:
        """What was found a moment ago, or is found now."""
        with self._lock:
            now_s = self._services.catalogue.elapsed_s()
            if self._known is None or now_s - self._known[0] >= FRESH_S:
                self._known = (now_s, self.look())
            return self._known[1]

    def look(self) -> Found:
        """What is found now."""
        word, in_full = self._storage()
        states = self._states()
        said = [state for state in states.values() if not isinstance(state, str)]
        details = {f"instrument {name}": self._instrument(state) for name, state in states.items()}
        return Found(
            word == "ok",
            {"storage": word, "instruments": f"{len(said)} of {len(states)} answer"},
            {"storage": in_full, **details},
        )

    def _storage(self) -> tuple[str, str]:
        catalogue = self._services.catalogue
        try:
            with catalogue.database.writing() as connection:
                connection.execute(select(1))
            free_bytes = folder.check_room(catalogue.data_folder, ENOUGH_BYTES) + ENOUGH_BYTES
        except StorageError as error:
            word = "the disk is full" if isinstance(error, DiskFull) else "nothing can be stored"
            return word, f"failed: {outward(str(error), self._services)}"
        return "ok", f"ok: {free_bytes} bytes free"

    def _instrument(self, state: Mapping[str, Any] | str) -> str:
        if isinstance(state, str):
            return f"failed: {outward(state, self._services)}"
        return f"locked: {state['locked']}" if state.get("locked") else "ok"
