"""Instruments as the page shows them: is the beam on, who has it, is it locked. Unknown is said to be unknown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol

from instruments import InstrumentError
from orchestrator.errors import OrchestratorError
from orchestrator.plain_json import plain
from orchestrator.queue import InstrumentLease

State = Mapping[str, Any] | str
MUTE: Final = "it was asked and has not answered yet; if its beam may be on, go and look"
_FRESH_S: Final = 1.0
_MOST_AT_ONCE: Final = 32


class StatusDesk(Protocol):
    """The instruments as far as the page reads them."""

    def names(self) -> list[str]:
        """Names of the configured instruments, sorted."""
        ...

    def status(self, name: str) -> Mapping[str, Any]:
        """What the instrument's stop line says now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentView:
    """One instrument; `beam` is `on`, `off` or `unknown`; `locked` is why it is locked, None where it is not."""

    name: str
    beam: str
    beam_words: str
    locked: str | None
    owner: str | None
    owner_id: str | None
    trouble: str | None


class InstrumentBoard:
    """States of the instruments, asked for at most once a second however many look; a mute one keeps nobody waiting."""

    def __init__(
        self, desk: StatusDesk, *, patience_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._desk = desk
        self._patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._asking = ThreadPoolExecutor(_MOST_AT_ONCE, "instrument-state")
        self._asked: dict[str, tuple[float, Future[State]]] = {}

    def states(self) -> dict[str, State]:
        """What each configured instrument says, or in words why it says nothing."""
        with self._lock:
            asked = {name: self._ask(name) for name in self._desk.names()}
        now_s = self._clock()
        wait([future for at_s, future in asked.values() if now_s - at_s < self._patience_s], self._patience_s)
        return {name: future.result() if future.done() else MUTE for name, (_, future) in asked.items()}

    def forget(self) -> None:
        """Ask again next time: somebody has just stopped or cleared something."""
        with self._lock:
            self._asked.clear()

    def _ask(self, name: str) -> tuple[float, Future[State]]:
        """The question that is open, or was answered a moment ago, or a new one."""
        known = self._asked.get(name)
        if known is None or (known[1].done() and self._clock() - known[0] >= _FRESH_S):
            known = self._asked[name] = (self._clock(), self._asking.submit(self._said, name))
        return known

    def _said(self, name: str) -> State:
        try:
            said: Mapping[str, Any] = plain(self._desk.status(name))
        except (InstrumentError, OrchestratorError) as error:
            return str(error)
        return said


def instrument_view(
    name: str, said: Mapping[str, Any] | str, lease: InstrumentLease | None, owners: Mapping[str, str]
) -> InstrumentView:
    """One instrument from what it says itself and from its lease; `owners` are names of running experiments by id."""
    owner_id = lease.experiment_id if lease is not None else None
    locked = _lock_in_words(lease)
    if isinstance(said, str):
        return InstrumentView(
            name=name, beam="unknown", beam_words="state not known", locked=locked, owner=owners.get(owner_id or ""),
            owner_id=owner_id, trouble=said,
        )  # fmt: skip
    exposing, blanked = said.get("exposing"), said.get("beam_blanked")
    if exposing or blanked is False:
        beam, words = "on", "beam on, exposing" if exposing else "beam on"
    elif blanked is None:
        beam, words = "unknown", "beam not known"
    else:
        beam, words = "off", "beam blanked"
    if locked is None and said.get("locked"):
        locked = str(said["locked"])
    return InstrumentView(
        name=name, beam=beam, beam_words=words, locked=locked, owner=owners.get(owner_id or ""), owner_id=owner_id,
        trouble=None,
    )  # fmt: skip


def _lock_in_words(lease: InstrumentLease | None) -> str | None:
    if lease is None or not lease.is_locked:
        return None
    by = f"by {lease.locked_by}: " if lease.locked_by else ""
    return f"{by}{lease.locked_reason or 'no reason given'}"
