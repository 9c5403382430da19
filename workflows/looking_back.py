"""Stand-ins for an experiment that must expose nothing: a check before the start, a report, a replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from instruments import AcquireFrame, Frame, InstrumentFault
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.objective import FrameFacts, Score
from policies import Observation, Suggestion


class NoRecord:
    """The record of an experiment that must expose nothing (a check before the start, a look back); it never writes."""

    def intend(self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"suggestion {suggestion.id} may not be exposed: there is no journal to write it to")

    def keep(self, intent: Any, frame: Frame) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"frame {frame.action_id} was exposed without a journal to keep it in")

    def observe(self, intent: Any, facts: FrameFacts, features: FeatureSet, score: Score) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"frame {facts.action_id} was seen without a journal to write it to")

    def mark(self, intent: Any, status: str, reason: str) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"there is no journal to write {status} ({reason}) to")


class NoPolicy:
    """The policy of an experiment that is only looked back at: nobody asks it, so it may be gone by now."""

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Nothing."""
        del count
        return []

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Nothing is learned."""

    def should_stop(self) -> str:
        """It never goes on."""
        return "this experiment is only looked at"

    def snapshot(self) -> dict[str, Any]:
        """No state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """No state."""
