"""Every decision derived again from the catalogue alone, and compared with what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.catalogue import Catalogue
from orchestrator.journal import Journal
from orchestrator.plain_json import plain
from orchestrator.settings import Settings
from workflows.assembly import join, make_policy, prepare, spec_of
from workflows.described import looking_back
from workflows.looking_back import NoRecord
from workflows.restart import taken_again


def replay_decisions(catalogue: Catalogue, settings: Settings, experiment_id: str) -> dict[str, Any]:
    """Feed the policy the recorded observations and ask it again at every step. Nothing is exposed, nothing written.

    On another machine the last digits of a derived point may differ; numbers are compared to 1e-6 relative.
    """
    row = catalogue.experiment(experiment_id)
    spec = spec_of(catalogue, row)
    described, cache = looking_back(catalogue, row.id), catalogue.data_folder / "cache"
    parts = prepare(spec, row.seed, settings.instrument(spec.instrument.name), cache, described)
    policy = make_policy(parts, spec.policy.name, spec.policy.options)
    experiment = join(parts, policy, NoRecord(), lambda kind, payload: None)
    differences: list[dict[str, Any]] = []
    count = 0
    for step in Journal(catalogue, row.id).past():
        suggested = experiment.policy.suggest()
        derived = plain(dict(suggested[0].point)) if suggested else None
        recorded = step.intent.decision.point
        if derived is None or not same_point(recorded, derived):
            differences.append({"seq": step.intent.decision.seq, "recorded": recorded, "derived": derived})
        observation = taken_again(experiment, step)
        if observation is None:
            break
        experiment.policy.ingest([observation])
        count += 1
    return {"id": row.id, "decisions": count, "differences": differences}


def same_point(recorded: Mapping[str, Any], derived: Mapping[str, Any]) -> bool:
    """Equal keys, equal choices, numbers equal to 1e-6."""
    if set(recorded) != set(derived):
        return False
    return all(_same(recorded[key], derived[key]) for key in recorded)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-6 * max(1.0, abs(one))
    return bool(one == other)
