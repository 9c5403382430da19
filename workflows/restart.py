"""An interrupted experiment put back where it stood: policy, objective, ledger and microscope from the journal alone.

Recorded decisions are taken as they are, never computed again. Neighbour: `session.resume`.
"""

from __future__ import annotations

from instruments import AcquireFrame, Rebuildable
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal, PastStep
from orchestrator.loop import Experiment, account, attempt, look, missed
from orchestrator.objectives.objective import FrameFacts
from policies import Observation


def restore(experiment: Experiment, journal: Journal) -> int:
    """Take every journalled decision in; finish the one in flight. Returns how many decisions there were.

    A simulated microscope is rebuilt from its commands and delivers an exposed but not stored frame again. A real one
    is asked for the outcome; where it cannot tell, the frame is `unknown` and its dose counts as spent.
    """
    steps = list(journal.past())
    rebuild_microscope(experiment, steps)
    for step in steps:
        experiment.policy.ingest([_taken_again(experiment, step)])
    return len(steps)


def rebuild_microscope(experiment: Experiment, steps: list[PastStep]) -> None:
    """Bring a simulated microscope to where the journal left it, and the ledger of any."""
    exposed: list[AcquireFrame] = [step.intent.command for step in steps if step.status in ("stored", "done")]
    for step in steps:
        if step.status in ("stored", "done") and step.frame is not None:
            experiment.microscope.recharge(step.intent.command, step.frame.electrons)
        elif step.status in ("unknown", "failed"):
            experiment.microscope.recharge(step.intent.command, None)
    inner = experiment.microscope.inner
    if isinstance(inner, Rebuildable):
        inner.rebuild(exposed)
    elif steps:
        last = next((step.frame.ended_s for step in reversed(steps) if step.frame is not None), 0.0)
        experiment.microscope.time_before_s = last


def _taken_again(experiment: Experiment, step: PastStep) -> Observation:
    """The observation of one journalled step, finishing it where it was not finished."""
    intent = step.intent
    suggestion = step.suggestion
    if step.status in ("refused", "failed", "unknown"):
        return missed(experiment, suggestion, step.status, step.status_reason or "")
    if step.status == "done" and step.arrays is not None:
        features = FeatureSet.from_bytes(step.arrays)
        experiment.extraction.remember(features)
        facts = FrameFacts(**step.payload["facts"])
        score = experiment.objective.update(suggestion.point, facts, features)
        return account(experiment, suggestion, facts, score)
    if step.status == "stored":
        return look(experiment, suggestion, intent, step.load_frame())
    return _finish_in_flight(experiment, step)


def _finish_in_flight(experiment: Experiment, step: PastStep) -> Observation:
    """The intent that was on its way when the process died."""
    outcome = experiment.microscope.outcome(step.intent.action_id)
    if outcome == "unknown":
        experiment.microscope.recharge(step.intent.command, None)
        reason = "the process died during the exposure and the instrument cannot tell; its dose counts as spent"
        experiment.record.mark(step.intent, "unknown", reason)
        return missed(experiment, step.suggestion, "unknown", reason)
    return attempt(experiment, step.suggestion, step.intent, step.intent.command)
