"""The journal as the loop sees it: intend, keep, observe or mark, close; every call is on disk when it returns.

Its neighbour `catalogue` stores; `decisions` and `events` are what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instruments import AcquireFrame, Frame
from orchestrator import events
from orchestrator.catalogue import Catalogue, Intent, StoredFrame
from orchestrator.decisions import Decision
from orchestrator.events import Event
from orchestrator.plain_json import plain
from policies import Suggestion

if TYPE_CHECKING:
    from orchestrator.features.feature_set import FeatureSet
    from orchestrator.objectives.objective import FrameFacts, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One step that was taken: the suggestion, the intent, its frame and what was seen, as far as it got.

    `intent.stage` says how far; `observation` carries the features' bytes in `arrays`; `reason` is why there is none.
    """

    suggestion: Suggestion
    intent: Intent
    frame: StoredFrame | None
    observation: Event | None
    reason: str | None = None


class Journal:
    """One experiment's record. `electrons` and `instrument_time_s` are sums over its stored frames."""

    def __init__(self, catalogue: Catalogue, experiment_id: str) -> None:
        self.catalogue = catalogue
        self.experiment_id = catalogue.experiment(experiment_id).id
        stored = catalogue.frames(self.experiment_id)
        self.electrons = sum((frame.electrons for frame in stored), 0.0)
        self.instrument_time_s = sum((frame.ended_s - frame.started_s for frame in stored), 0.0)
        self._frame_ids = {frame.id for frame in stored}
        self._decision_count = len(catalogue.decisions(self.experiment_id))

    @property
    def frame_count(self) -> int:
        """Stored frames so far."""
        return len(self._frame_ids)

    def intend(self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]) -> tuple[Intent, AcquireFrame]:
        """Write down what is about to be asked, under a new action id; the intent and its command.

        The id is `<experiment>-a<number of the decision>`: no other experiment on the same instrument has it.
        """
        seq = self._decision_count + 1
        command = command_of(f"{self.experiment_id}-a{seq:06d}")
        intent = self.catalogue.intend(self.experiment_id, Decision.of(suggestion, self.experiment_id, seq), command)
        self._decision_count = seq
        return intent, command

    def keep(self, intent: Intent, frame: Frame) -> Frame:
        """Store the frame; it is acknowledged when this returns."""
        stored = self.catalogue.keep(intent, frame)
        if stored.id not in self._frame_ids:
            self._frame_ids.add(stored.id)
            self.electrons += stored.electrons
            self.instrument_time_s += stored.ended_s - stored.started_s
        return frame

    def observe(self, intent: Intent, facts: FrameFacts, features: FeatureSet, score: Score) -> None:
        """Write down what was seen and what it is worth; the arrays of the score follow from the features."""
        payload = {
            "facts": plain(facts),
            "extractor": features.extractor,
            "features": plain(features.values),
            "score": {
                "value": score.value,
                "std": score.std,
                "statement": score.statement,
                "outcomes": score.outcomes,
            },
        }
        self.catalogue.observe(intent, payload, features.to_bytes())

    def mark(self, intent: Intent, status: str, reason: str) -> None:
        """Write down that the intent came to nothing. Raises ValueError for a status that is no such ending."""
        if status not in ("unknown", "refused", "failed"):
            raise ValueError(f"status {status!r} is none of unknown, refused, failed")
        self.catalogue.mark(intent, status, reason)

    def note(self, kind: str, payload: Mapping[str, Any]) -> Event:
        """Write down anything else that a later reader may ask for."""
        return self.catalogue.append(self.experiment_id, kind, payload)

    def close(self, status: str, reason: str) -> None:
        """Write down how the experiment ended."""
        payload = {
            "status": status,
            "reason": reason,
            "electrons": self.electrons,
            "instrument_time_s": self.instrument_time_s,
            "frames": self.frame_count,
            "decisions": self._decision_count,
        }
        self.catalogue.append(self.experiment_id, events.CLOSED, payload)
        self.catalogue.set_status(self.experiment_id, status, reason)

    def past(self, *, with_arrays: bool = True) -> Iterator[Past]:
        """Every step in order; the last may be unfinished. Arrays are read one observation at a time."""
        catalogue, own = self.catalogue, self.experiment_id
        frames = {frame.id: frame for frame in catalogue.frames(own)}
        reasons = {row.id: row.status_reason for row in catalogue.decisions(own)}
        seen = _Observations(catalogue.events(own, kinds=[events.OBSERVED], with_arrays=with_arrays))
        for intent in catalogue.intents(own):
            observation = seen.of(intent.decision.id) if intent.stage == "done" else None
            yield Past(
                suggestion=intent.decision.suggestion(),
                intent=intent,
                frame=frames.get(intent.frame_id),
                observation=observation,
                reason=reasons[intent.decision.id],
            )


class _Observations:
    """Observations by decision, read forward; what was passed on the way is kept until it is asked for."""

    def __init__(self, observed: Iterator[Event]) -> None:
        self._observed = observed
        self._passed: dict[str, Event] = {}

    def of(self, decision_id: str) -> Event:
        while decision_id not in self._passed:
            event = next(self._observed)
            self._passed[event.payload["decision_id"]] = event
        return self._passed.pop(decision_id)
