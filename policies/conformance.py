"""The laws of a policy, as a function that plug-in authors and our own tests both call."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from policies.cost import Cost
from policies.observation import Observation
from policies.policy import Policy
from policies.space import SearchSpace
from policies.suggestion import Suggestion

PolicyFactory = Callable[[], Policy]
Measurement = Callable[[Suggestion, int], Observation]


class LawBroken(AssertionError):
    """A policy broke one of the laws; the message says which, where and how."""


def check(
    policy_factory: PolicyFactory, space: SearchSpace, *, measure: Measurement | None = None, step_count: int = 12
) -> list[Suggestion]:
    """Run the laws on fresh policies (every call of `policy_factory` must build the same one); the suggestions made.

    Laws: asking changes nothing; suggestions lie in the space, have unique ids, and survive JSON with their reason;
    the same observations give the same suggestions when ingested one by one, all at once, or after a restore from a
    snapshot taken at any step, through JSON; failed, refused and unknown observations do not stop a policy.
    `measure(suggestion, step)` answers a suggestion; by default a smooth score, with each sort of failure in between.
    Raises LawBroken.
    """
    measure = measure or (lambda suggestion, step: _smooth(space, suggestion, step))
    policy = policy_factory()
    made: list[Suggestion] = []
    seen: list[Observation] = []
    snapshots = [_through_json(policy.snapshot())]
    for step in range(step_count):
        batch = policy.suggest()
        if not batch:
            _require(policy.should_stop() is not None, f"step {step}: nothing suggested, but should_stop says go on")
            break
        suggestion = batch[0]
        _check_suggestion(suggestion, space, {s.id for s in made})
        _require(_same(policy.suggest(), batch), f"step {step}: asked twice, two answers")
        made.append(suggestion)
        seen.append(measure(suggestion, step))
        policy.ingest([seen[-1]])
        _require(policy.should_stop() is None or isinstance(policy.should_stop(), str), "should_stop: str or None")
        snapshots.append(_through_json(policy.snapshot()))
    _require(bool(made), "a fresh policy suggested nothing")
    _check_replay(policy_factory, snapshots, seen, made, policy.suggest())
    _check_batch(policy_factory(), space)
    return made


def _check_suggestion(suggestion: Suggestion, space: SearchSpace, used: set[str]) -> None:
    name = suggestion.id
    _require(name not in used, f"{name}: id given twice")
    wrong = space.violation(space.project(suggestion.point))
    _require(wrong is None, f"{name}: outside the space: {wrong}")
    why = suggestion.reason.get("why")
    _require(isinstance(why, str) and bool(why), f"{name}: reason has no sentence under 'why'")
    try:
        again = Suggestion.from_dict(json.loads(json.dumps(suggestion.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise LawBroken(f"{name}: not JSON: {error}") from error
    _require(_same([again], [suggestion]), f"{name}: changed by JSON")


def _check_replay(
    factory: PolicyFactory,
    snapshots: list[dict[str, object]],
    seen: list[Observation],
    made: list[Suggestion],
    last: list[Suggestion],
) -> None:
    whole = factory()
    whole.ingest(seen)
    _require(_same(whole.suggest(), last), "observations ingested at once give another suggestion than one by one")
    for step, state in enumerate(snapshots):
        restored = factory()
        restored.restore(state)
        expected = [made[step]] if step < len(made) else last
        _require(_same(restored.suggest(), expected), f"restored at step {step}: another suggestion")
        restored.ingest(seen[step:])
        _require(_same(restored.suggest(), last), f"restored at step {step} and continued: another suggestion")


def _check_batch(policy: Policy, space: SearchSpace) -> None:
    batch = policy.suggest(3)
    _require(len({s.id for s in batch}) == len(batch), "ids repeat within a batch")
    _require(batch[:1] == policy.suggest(1), "the first of a batch differs from a single suggestion")
    _require(all(space.contains(space.project(s.point)) for s in batch), "a batch leaves the space")


def _smooth(space: SearchSpace, suggestion: Suggestion, step: int) -> Observation:
    """A bump in the middle of the encoded space; every fourth observation fails in one of the three ways."""
    point = suggestion.point
    status = {3: "failed", 7: "refused", 11: "unknown"}.get(step % 12)
    if status is not None:
        return Observation(suggestion_id=suggestion.id, point=point, status=status)  # pyright: ignore[reportArgumentType]
    code = space.encode([space.project(point)])[0]
    score = float(np.exp(-np.sum((code - 0.4) ** 2)))
    return Observation(
        suggestion_id=suggestion.id, point=point, outcomes={"score": (score, 0.01)}, cost=Cost(1000.0, 0.1)
    )


def _same(ours: list[Suggestion], theirs: list[Suggestion]) -> bool:
    return [s.to_dict() for s in ours] == [s.to_dict() for s in theirs]


def _through_json(state: dict[str, object]) -> dict[str, object]:
    try:
        return json.loads(json.dumps(state, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise LawBroken(f"the snapshot is not JSON: {error}") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise LawBroken(message)
