"""The one straight line: spec -> suggestion -> command -> frame -> features -> score -> record.

Safety wraps the microscope, so there is no safety branch here; the journal has the intent before the microscope
is told, the catalogue has the frame before its features are computed. Neighbour: `restart` rebuilds an interrupted one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Capabilities,
    CommandRefused,
    Frame,
    GuardedMicroscope,
    InstrumentBusy,
    ResultUnknown,
    Unsupported,
    when_free,
)
from orchestrator.errors import FeatureError
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.mapping import command_for
from orchestrator.objectives.objective import FrameFacts, Objective, Score
from orchestrator.spec import ExperimentSpec
from policies import Cost, GaveUp, Observation, Policy, Status, Suggestion

Listener = Callable[[str, Mapping[str, Any]], None]
Adjustment = Callable[[Suggestion, AcquireFrame], AcquireFrame]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _as_it_is(suggestion: Suggestion, command: AcquireFrame) -> AcquireFrame:
    del suggestion
    return command


class Extraction(Protocol):
    """Frames to features; `remember` takes features that were extracted before a restart."""

    def extract(self, frame: Frame) -> FeatureSet:
        """The features of one frame."""
        ...

    def remember(self, features: FeatureSet) -> None:
        """Take in features already known, as if `extract` had just returned them."""
        ...


class Intended(Protocol):
    """An intent in the journal: what will be asked of the microscope, under which id."""

    @property
    def action_id(self) -> str:
        """The id the microscope will know it by."""
        ...


class Record(Protocol):
    """The journal as the loop sees it; every call is on disk when it returns."""

    def intend(self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]) -> tuple[Any, AcquireFrame]:
        """Write down what is about to be asked, under a new action id; the intent and the command."""
        ...

    def keep(self, intent: Any, frame: Frame) -> Frame:
        """Store the frame; it is acknowledged when this returns."""
        ...

    def observe(self, intent: Any, facts: FrameFacts, features: FeatureSet, score: Score) -> None:
        """Write down what was seen and what it is worth."""
        ...

    def mark(self, intent: Any, status: str, reason: str) -> None:
        """Write down that the intent came to nothing: refused, failed or unknown."""
        ...


def _nothing() -> None:
    return None


@dataclass
class Control:
    """What people and signals want, read between frames: flags that other threads set, and `wanted`.

    `wanted` asks elsewhere (a queue); it answers `cancel`, `pause` or None.
    """

    interrupt: threading.Event = field(default_factory=threading.Event)
    cancel: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    wanted: Callable[[], str | None] = _nothing

    def reason(self) -> str | None:
        """The status a person wants the loop to end with, or None."""
        wanted = self.wanted()
        if self.cancel.is_set() or wanted == "cancel":
            return "cancelled"
        if self.pause.is_set() or wanted == "pause":
            return "paused"
        return "interrupted" if self.interrupt.is_set() else None


@dataclass
class Spent:
    """Electrons (as the ledger counts them), microscope seconds and frames so far; exposures nobody has asked about.

    `lost_since_frame` counts exposures after the last stored frame that brought none.
    """

    electrons: float = 0.0
    instrument_time_s: float = 0.0
    frames: int = 0
    consecutive_refusals: int = 0
    unanswered: int = 0
    lost_since_frame: int = 0
    last_refusal: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an experiment ended: its status and why, in words."""

    status: str
    reason: str


@dataclass
class Experiment:
    """Everything one run needs, wired together by `workflows`."""

    spec: ExperimentSpec
    policy: Policy
    microscope: GuardedMicroscope
    record: Record
    extraction: Extraction
    objective: Objective
    listen: Listener
    control: Control = field(default_factory=Control)
    spent: Spent = field(default_factory=Spent)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _utc_now
    adjust: Adjustment = _as_it_is

    def __post_init__(self) -> None:
        self.started_at_s = self.clock()
        self.capabilities: Capabilities = self.microscope.capabilities()

    def command(self, suggestion: Suggestion, action_id: str) -> AcquireFrame:
        """The command of a suggestion, with what a calibration says."""
        command = command_for(suggestion.point, self.spec, self.capabilities, action_id)
        return self.adjust(suggestion, command)


def run(experiment: Experiment) -> Ending:
    """Drive one experiment until its stopping rule, its budget or a person ends it."""
    while (ending := ending_of(experiment)) is None:
        suggestions = experiment.policy.suggest()
        if not suggestions:
            return Ending("completed", "the policy has nothing left to suggest")
        suggestion = suggestions[0]
        experiment.listen("suggested", {"point": suggestion.point, "reason": suggestion.reason})
        intent, command = experiment.record.intend(suggestion, lambda action: experiment.command(suggestion, action))  # noqa: B023
        observation = attempt(experiment, suggestion, intent, command)
        experiment.policy.ingest([observation])
    return ending


def attempt(
    experiment: Experiment,
    suggestion: Suggestion,
    intent: Any,
    command: AcquireFrame,
    expose: Callable[[AcquireFrame], Frame] | None = None,
) -> Observation:
    """Expose once and see what came of it; a refusal, a loss or a silence is an observation too.

    `expose` is how the frame is had; the microscope's `acquire` if it is not given. While the instrument is busy, with
    which nothing moved, it is asked again until the command's deadline or a person's wish.
    """
    try:
        exposed = _when_free(experiment, command, expose or experiment.microscope.acquire)
        frame = experiment.record.keep(intent, exposed)
    except (CommandRefused, InstrumentBusy, Unsupported, AcquisitionFailed, ResultUnknown) as error:
        return without_frame(experiment, suggestion, intent, error)
    return look(experiment, suggestion, intent, frame)


def _when_free(experiment: Experiment, command: AcquireFrame, expose: Callable[[AcquireFrame], Frame]) -> Frame:
    control = experiment.control
    return when_free(
        lambda: expose(command),
        command.deadline_s,
        clock=experiment.clock,
        wait=control.interrupt.wait,
        is_wanted=lambda: control.reason() is None,
    )


def look(experiment: Experiment, suggestion: Suggestion, intent: Any, frame: Frame) -> Observation:
    """frame -> features -> score -> record."""
    features = extract(experiment, frame)
    facts = FrameFacts.of(frame)
    score = experiment.objective.update(suggestion.point, facts, features)
    experiment.record.observe(intent, facts, features, score)
    return account(experiment, suggestion, facts, score)


def extract(experiment: Experiment, frame: Frame) -> FeatureSet:
    """The features of a frame; one in which nothing can be measured says why and has none."""
    try:
        return experiment.extraction.extract(frame)
    except FeatureError as error:
        reason = Feature(value=0.0, reason=str(error))
        return FeatureSet(extractor="none", action_id=frame.action_id, values={"measured": reason}, arrays={})


def account(experiment: Experiment, suggestion: Suggestion, facts: FrameFacts, score: Score) -> Observation:
    """Add up what the frame cost and tell whoever listens; the observation for the policy."""
    experiment.spent.consecutive_refusals = experiment.spent.lost_since_frame = 0
    experiment.spent.frames += 1
    experiment.spent.electrons += facts.electrons
    experiment.spent.instrument_time_s += facts.ended_s - facts.started_s
    experiment.listen("scored", {"facts": facts, "score": score, "spent": experiment.spent})
    cost = Cost(electrons=facts.electrons, seconds=facts.ended_s - facts.started_s)
    return Observation(
        suggestion_id=suggestion.id, point=suggestion.point, outcomes=score.outcomes, arrays=score.arrays, cost=cost
    )


def without_frame(experiment: Experiment, suggestion: Suggestion, intent: Any, error: Exception) -> Observation:
    """Record an exposure that brought no frame; what may have been spent stays in the ledger."""
    refused = isinstance(error, CommandRefused | InstrumentBusy | Unsupported)
    status: Status = "refused" if refused else ("unknown" if isinstance(error, ResultUnknown) else "failed")
    experiment.record.mark(intent, status, str(error))
    experiment.spent.unanswered += status == "unknown"
    return missed(experiment, suggestion, status, str(error))


def missed(experiment: Experiment, suggestion: Suggestion, status: Status, reason: str) -> Observation:
    """The observation of a suggestion that brought no frame."""
    experiment.spent.consecutive_refusals = experiment.spent.consecutive_refusals + 1 if status == "refused" else 0
    experiment.spent.lost_since_frame += status != "refused"
    if status == "refused":
        experiment.spent.last_refusal = reason
    experiment.listen(status, {"point": suggestion.point, "reason": reason})
    return Observation(
        suggestion_id=suggestion.id,
        point=suggestion.point,
        outcomes={},
        arrays={},
        cost=Cost(electrons=0.0, seconds=0.0),
        status=status,
    )


def ending_of(experiment: Experiment) -> Ending | None:
    """Why the experiment is over, or None: a person is needed, or wants it; the question, the budget, the policy."""
    person = experiment.control.reason()
    if experiment.spent.unanswered and experiment.spec.stop.on_unknown == "ask":
        return Ending(
            "interrupted", "an exposure had no answer, its dose counts as spent; see to the instrument, then resume"
        )
    if person is not None:
        return Ending(person, f"{person} by a person; {standing(experiment.spent)}")
    if (answered := experiment.objective.stop_reason()) is not None:
        return Ending("completed", answered)
    limit_s = experiment.spec.stop.max_wall_time_s
    if limit_s is not None and experiment.clock() - experiment.started_at_s >= limit_s:
        return Ending("completed", f"stop.max_wall_time_s: {limit_s:g} s of wall time are over")
    if (over := over_reason(experiment)) is not None:
        return Ending("completed" if experiment.spent.frames else "cancelled", over)
    if (spent := budget_reason(experiment)) is not None:
        return Ending("completed", spent)
    if experiment.spent.consecutive_refusals >= experiment.spec.stop.max_consecutive_refusals:
        return Ending(
            "completed" if experiment.spent.frames else "failed",
            f"{experiment.spent.consecutive_refusals} suggestions in a row were refused, "
            f"the last because: {experiment.spent.last_refusal}",
        )
    if stop := experiment.policy.should_stop():
        return Ending("failed" if isinstance(stop, GaveUp) else "completed", str(stop))
    return None


def over_reason(experiment: Experiment) -> str | None:
    """That the moment set for its end has come, or None."""
    until = experiment.spec.stop.until
    if until is None or experiment.now() < until:
        return None
    nothing = "" if experiment.spent.frames else " before the first frame"
    return f"stop.until: {until.isoformat(timespec='seconds')} has come{nothing}"


def standing(spent: Spent) -> str:
    """What can be said of the last frame when a person ends the run.

    >>> standing(Spent(frames=3)), standing(Spent(frames=3, lost_since_frame=1))
    ('the last frame is complete and stored', 'the last exposure brought no frame; 3 frames are stored')
    """
    if spent.lost_since_frame:
        stored = "1 frame is stored" if spent.frames == 1 else f"{spent.frames} frames are stored"
        return f"the last exposure brought no frame; {stored}"
    return "the last frame is complete and stored" if spent.frames else "no frame was taken yet"


def budget_reason(experiment: Experiment) -> str | None:
    """Which budget is spent, or None."""
    budget, spent = experiment.spec.budget, experiment.spent
    if budget.frames is not None and spent.frames >= budget.frames:
        return f"budget spent: {spent.frames} of {budget.frames} frames"
    if budget.electrons is not None and experiment.microscope.ledger.electrons >= budget.electrons:
        return f"budget spent: {experiment.microscope.ledger.electrons:.3g} of {budget.electrons:.3g} electrons"
    if budget.instrument_time_s is not None and spent.instrument_time_s >= budget.instrument_time_s:
        return f"budget spent: {spent.instrument_time_s:.0f} of {budget.instrument_time_s:.0f} s of microscope time"
    return None
