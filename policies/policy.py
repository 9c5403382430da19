"""The protocol every policy follows; `conformance` holds its laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from policies.observation import Observation
from policies.suggestion import Suggestion


class GaveUp(str):
    """Why a policy stops without what it was asked for; the experiment has failed, not ended well."""

    __slots__ = ()


class Policy(Protocol):
    """History to suggestions: a pure function of (seed, options, context, observations ingested)."""

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Proposals; nothing changes, asked twice the answer is the same. Empty: nothing is left to propose."""
        ...

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Append observations, whoever proposed them."""
        ...

    def should_stop(self) -> str | None:
        """Why to stop, in words (a `GaveUp` where the aim was missed); None to go on."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where the snapshot of a policy created alike was taken. Raises StateMismatch."""
        ...
