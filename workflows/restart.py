"""An interrupted experiment put back where it stood: policy, objective, ledger and microscope from the journal alone.

Recorded decisions are taken as they are, never computed again. Neighbour: `session.resume`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from instruments import AcquireFrame, Frame, Microscope, Outcome, Rebuildable, when_free
from instruments.remote import RemoteMicroscope
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal, Past
from orchestrator.loop import Experiment, account, attempt, look, missed
from orchestrator.objectives.objective import FrameFacts
from policies import Observation
from workflows.beam_debts import UnderWay, book_debts

_ENDED: Final = ("refused", "failed", "unknown")


def restore(experiment: Experiment, journal: Journal, *, asks_about_beam: bool = False) -> int:
    """Take every journalled decision in; finish the one in flight. Returns how many decisions there were.

    A simulated microscope is rebuilt from its commands and delivers an exposed but not stored frame again. A real one
    is asked for the outcome; where it cannot tell, as one that was opened anew cannot, the frame is `unknown` and its
    dose counts as spent. Raises BeamUnwatched where nobody watched its beam for long and a person can be asked.
    """
    steps = list(journal.past())
    rebuild_microscope(experiment, steps)
    book_debts(experiment, journal, under_way=_under_way(experiment, steps), asks_about_beam=asks_about_beam)
    for step in steps:
        experiment.policy.ingest([_taken_again(experiment, journal, step)])
    return len(steps)


def _under_way(experiment: Experiment, steps: list[Past]) -> UnderWay | None:
    """The exposure that was on its way when the process died; nothing burns in a world rebuilt from its commands."""
    step = next((step for step in steps if step.frame is None and step.intent.stage not in _ENDED), None)
    if step is None:
        return None
    inner = experiment.microscope.inner
    is_told = isinstance(inner, Rebuildable) or not _is_lost(experiment, step)
    is_living = isinstance(inner, RemoteMicroscope) and inner.is_living
    return UnderWay(step.intent.command, is_told=is_told, is_living=is_living)


def rebuild_microscope(experiment: Experiment, steps: list[Past]) -> None:
    """Bring a simulated microscope to where the journal left it, and the ledger of any."""
    exposed = [step for step in steps if step.frame is not None]
    for step in steps:
        if step.frame is not None:
            experiment.microscope.recharge(step.intent.command, step.frame.electrons)
        elif step.intent.stage in ("unknown", "failed"):
            experiment.microscope.recharge(step.intent.command, None)
    inner = experiment.microscope.inner
    if isinstance(inner, Rebuildable):
        inner.rebuild([step.intent.command for step in exposed])
        experiment.microscope.read_state()  # as the guard of the run had seen it: dark between frames
    else:  # its clock counts from when it was opened, which may have been before or after these frames
        taken = [step.frame for step in exposed if step.frame is not None]
        experiment.microscope.count_time_from(sum(frame.ended_s - frame.started_s for frame in taken))


def taken_again(experiment: Experiment, step: Past) -> Observation | None:
    """The observation of a step that was finished; None for one that was not. Nothing is exposed or written."""
    if step.intent.stage in _ENDED:
        return missed(experiment, step.suggestion, step.intent.stage, step.reason or "")
    if step.observation is None or step.observation.arrays is None:
        return None
    features = FeatureSet.from_bytes(step.observation.arrays)
    experiment.extraction.remember(features)
    facts = FrameFacts(**step.observation.payload["facts"])
    score = experiment.objective.update(step.suggestion.point, facts, features)
    return account(experiment, step.suggestion, facts, score)


def _taken_again(experiment: Experiment, journal: Journal, step: Past) -> Observation:
    observation = taken_again(experiment, step)
    if observation is not None:
        return observation
    if step.frame is not None:
        return look(experiment, step.suggestion, step.intent, journal.catalogue.load_frame(step.frame.id))
    return _finish_in_flight(experiment, step)


def _finish_in_flight(experiment: Experiment, step: Past) -> Observation:
    """The intent that was on its way when the process died."""
    if _is_lost(experiment, step):
        experiment.microscope.recharge(step.intent.command, None)
        reason = "the process died during the exposure and the instrument cannot tell; its dose counts as spent"
        experiment.record.mark(step.intent, "unknown", reason)
        experiment.spent.unanswered += 1
        return missed(experiment, step.suggestion, "unknown", reason)
    is_delivered = _outcome(experiment, step) == "delivered"
    expose = _handed_over(experiment) if is_delivered else experiment.microscope.acquire
    return attempt(experiment, step.suggestion, step.intent, step.intent.command, expose)


def _is_lost(experiment: Experiment, step: Past) -> bool:
    """Whether the instrument cannot tell what became of this intent."""
    outcome = _outcome(experiment, step)
    return outcome == "unknown" or (outcome == "not_started" and not _remembers(experiment.microscope.inner))


def _outcome(experiment: Experiment, step: Past) -> Outcome:
    """What became of it; an instrument that is busy is waited for as long as the exposure might take."""
    return when_free(lambda: experiment.microscope.outcome(step.intent.action_id), step.intent.command.deadline_s)


def _remembers(microscope: Microscope) -> bool:
    """Whether it would know what it did before this process: one that was opened anew has heard of no action."""
    if isinstance(microscope, RemoteMicroscope):
        return microscope.is_living or isinstance(microscope, Rebuildable)
    return isinstance(microscope, Rebuildable)


def _handed_over(experiment: Experiment) -> Callable[[AcquireFrame], Frame]:
    """Fetches a frame that was exposed before the restart; its time was spent then too."""
    microscope = experiment.microscope

    def fetch(command: AcquireFrame) -> Frame:
        frame = microscope.fetch(command)
        if not isinstance(microscope.inner, Rebuildable):
            microscope.time_before_s += frame.ended_s - frame.started_s
        return frame

    return fetch
