"""`anywhere.yaml` on an instrument: the whole loop, guarded, in this process; nothing of the file is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruments import SafetyEnvelope
from instruments.microscope import Closable
from orchestrator import loop
from orchestrator.memory_record import MemoryRecord, RehearsedDecision
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import join, make_policy, prepare

SPEC = Path(__file__).with_name("anywhere.yaml")
ENVELOPE = SafetyEnvelope(min_stage_x_nm=-100, max_stage_x_nm=100, min_stage_y_nm=-100, max_stage_y_nm=100)


@dataclass(frozen=True)
class Answer:
    """What the experiment said, and how it went."""

    brightness: dict[str, Any]
    decisions: list[RehearsedDecision]
    electrons: float  # by the ledger
    reason: str


def run_anywhere(adapter: str, config: dict[str, Any], cache_folder: Path | None = None) -> Answer:
    """Run it on the adapter as this facility configured it; the instrument is blanked and closed at the end."""
    spec = ExperimentSpec.from_yaml(SPEC)
    parts = prepare(spec, 3, InstrumentSettings(adapter=adapter, config=config, safety=ENVELOPE), cache_folder)
    try:
        policy = make_policy(parts, spec.policy.name, spec.policy.options)
        record = MemoryRecord("anywhere")
        experiment = join(parts, policy, record, lambda kind, payload: None)
        ending = loop.run(experiment)
        summary = experiment.objective.summary()
        return Answer(
            summary["brightness"], record.decisions, experiment.microscope.ledger.electrons, ending.reason or ""
        )
    finally:
        parts.microscope.stop()
        if isinstance(parts.microscope, Closable):
            parts.microscope.close()


def check(answer: Answer) -> None:
    """What holds on every instrument."""
    assert [decision.status for decision in answer.decisions] == ["done"] * 4, answer.decisions
    assert answer.reason == "budget spent: 4 of 4 frames"
    scores = [decision.score for decision in answer.decisions]
    assert scores == sorted(scores), "the brightest so far never gets darker"
    best = next(one for one in answer.decisions if one.action_id == answer.brightness["action_id"])
    place = (answer.brightness["x_nm"], answer.brightness["y_nm"])
    assert place == (best.point["x_nm"], best.point["y_nm"])
    assert answer.brightness["counts_per_px"] == answer.decisions[-1].score
