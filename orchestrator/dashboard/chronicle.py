"""One experiment as its journal tells it so far: every decision and what came of it. Neighbour: `chronicles`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator import events
from orchestrator.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision, what was asked of the microscope for it, and what came of it so far.

    `status` is `intended` while the microscope works, `stored` while the frame is being measured, then `done` or how
    it came to nothing. `dose_e_per_a2`, `electrons`, `started_s`, `ended_s` are of the frame, None until there is one;
    `score` is the objective's (value, std, statement), empty until the frame was measured.
    """

    seq: int
    id: str
    point: Mapping[str, Any]
    reason: Mapping[str, Any]
    prediction: Mapping[str, Any]
    command: Mapping[str, Any]
    frame_id: str
    path: str
    intended_at: datetime
    status: str = "intended"
    status_reason: str | None = None
    dose_e_per_a2: float | None = None
    electrons: float | None = None
    started_s: float | None = None
    ended_s: float | None = None
    size_bytes: int | None = None
    score: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def has_frame(self) -> bool:
        """Whether its frame is stored."""
        return self.electrons is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something else that was written down: an engine that changed, a recovery, a beam that was blanked."""

    kind: str
    recorded_at: datetime
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chronicle:
    """Everything the journal says up to event `last_seq`; `closed` and `evaluated` are empty until they happened."""

    last_seq: int = 0
    last_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    closed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    evaluated: Mapping[str, Any] = field(default_factory=dict[str, Any])
    started_at: datetime | None = None

    @property
    def frames(self) -> tuple[Step, ...]:
        """Steps whose frame is stored."""
        return tuple(step for step in self.steps if step.has_frame)

    @property
    def electrons(self) -> float:
        """Electrons of all stored frames; once the experiment is closed, what its ledger counted."""
        if "electrons" in self.closed:
            return float(self.closed["electrons"])
        return sum((step.electrons or 0.0 for step in self.steps), 0.0)

    @property
    def instrument_time_s(self) -> float:
        """Microscope time that all frames took, moves included."""
        return sum(((step.ended_s or 0.0) - (step.started_s or 0.0) for step in self.steps), 0.0)

    @property
    def unanswered_count(self) -> int:
        """Exposures nobody answered for; their dose counts as spent."""
        return sum(step.status == "unknown" for step in self.steps)

    def frame(self, frame_id: str) -> Step | None:
        """The step whose stored frame has this id."""
        return next((step for step in self.steps if step.frame_id == frame_id and step.has_frame), None)


_NOT_TOLD = (events.CREATED, events.CONTEXT_SET, events.INSTRUMENT_DESCRIBED)  # shown elsewhere


def advance(chronicle: Chronicle, told: Iterable[Event]) -> Chronicle:
    """The chronicle after some more events, in order."""
    steps = {step.id: step for step in chronicle.steps}
    notes, changed = list(chronicle.notes), {"closed": chronicle.closed, "evaluated": chronicle.evaluated}
    last_seq, last_at, started_at = chronicle.last_seq, chronicle.last_at, chronicle.started_at
    for event in told:
        last_seq, last_at = event.seq, event.recorded_at
        if event.kind in _STEP_EVENTS:
            _take(steps, event)
        elif event.kind == events.STATUS_CHANGED:
            is_going = event.payload["status"] == "running"
            started_at = started_at or (event.recorded_at if is_going else None)
            changed = {"closed": {}, "evaluated": {}} if is_going else changed
        elif event.kind in changed:
            changed[event.kind] = event.payload
        elif event.kind not in _NOT_TOLD:
            notes.append(Note(kind=event.kind, recorded_at=event.recorded_at, payload=event.payload))
    return Chronicle(
        last_seq=last_seq, last_at=last_at, started_at=started_at, steps=tuple(steps.values()), notes=tuple(notes),
        closed=changed["closed"], evaluated=changed["evaluated"],
    )  # fmt: skip


_STEP_EVENTS = (events.INTENDED, events.FRAME_STORED, events.OBSERVED, events.MARKED)


def _take(steps: dict[str, Step], event: Event) -> None:
    payload = event.payload
    if event.kind == events.INTENDED:
        decision = payload["decision"]
        steps[decision["id"]] = Step(
            seq=decision["seq"], id=decision["id"], point=decision["point"], reason=decision["reason"],
            prediction=decision["prediction"], command=payload["command"], frame_id=payload["frame_id"],
            path=payload["path"], intended_at=event.recorded_at,
        )  # fmt: skip
        return
    step = steps[payload["decision_id"]]
    if event.kind == events.FRAME_STORED:
        names = ("dose_e_per_a2", "electrons", "started_s", "ended_s", "size_bytes")
        steps[step.id] = replace(step, status="stored", **{name: payload[name] for name in names})
    elif event.kind == events.OBSERVED:
        steps[step.id] = replace(step, status="done", score=payload.get("score", {}))
    else:
        steps[step.id] = replace(step, status=payload["status"], status_reason=payload["reason"])
