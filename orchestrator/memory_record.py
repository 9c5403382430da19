"""A record that keeps decisions in memory and drops the frames: for rehearsals and baselines on simulated worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from instruments import AcquireFrame, Frame
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.objective import FrameFacts, Score
from policies import Suggestion


@dataclass(slots=True)
class RehearsedDecision:
    """One decision of a rehearsal and what came of it."""

    seq: int
    action_id: str
    point: dict[str, Any]
    why: str
    status: str = "intended"
    score: float | None = None
    electrons: float = 0.0
    ended_s: float | None = None


@dataclass
class MemoryRecord:
    """Fulfils `loop.Record`; nothing reaches the disk."""

    prefix: str
    decisions: list[RehearsedDecision] = field(default_factory=list[RehearsedDecision])

    def intend(
        self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]
    ) -> tuple[RehearsedDecision, AcquireFrame]:
        """Note the decision under the next action id."""
        action_id = f"{self.prefix}-{len(self.decisions):05d}"
        why = str(suggestion.reason.get("why", ""))
        decision = RehearsedDecision(len(self.decisions), action_id, dict(suggestion.point), why)
        self.decisions.append(decision)
        return decision, command_of(action_id)

    def keep(self, intent: RehearsedDecision, frame: Frame) -> Frame:
        """The frame itself; it is not stored."""
        intent.electrons, intent.ended_s = frame.electrons, frame.ended_s
        return frame

    def observe(self, intent: RehearsedDecision, facts: FrameFacts, features: FeatureSet, score: Score) -> None:
        """Note the score."""
        del facts, features
        intent.status, intent.score = "done", score.value

    def mark(self, intent: RehearsedDecision, status: str, reason: str) -> None:
        """Note that nothing came of it."""
        intent.status, intent.why = status, f"{intent.why}; {reason}"
