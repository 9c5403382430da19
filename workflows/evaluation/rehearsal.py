"""One policy on one fresh simulated world, in memory: how baselines are run, and `make bench`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instruments import GuardedMicroscope, HiddenTruth, Microscope
from orchestrator import loop
from orchestrator.memory_record import MemoryRecord
from orchestrator.objectives.objective import Objective
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import Parts, join, make_policy, prepare
from workflows.questions.census_truth import compare_ledger

CURVE_POINTS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What to run: a policy by name with options, on the world of this seed."""

    spec: ExperimentSpec
    seed: int
    settings: InstrumentSettings
    cache_folder: Path | None
    policy: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Curve:
    """Recall and false discovery rate against electrons, judged now and then while the run goes on."""

    parts: Parts
    truth: HiddenTruth
    every_electrons: float
    points: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    next_electrons: float = 0.0

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A loop listener."""
        if kind != "scored" or payload["spent"].electrons < self.next_electrons:
            return
        self.add(payload["spent"].electrons, payload["spent"].instrument_time_s)
        self.next_electrons = payload["spent"].electrons + self.every_electrons

    def add(self, electrons: float, instrument_time_s: float) -> None:
        """Judge now."""
        verdict = self.parts.question.judge(self.parts.question.objective, self.truth.truth())
        self.points.append({"electrons": electrons, "instrument_time_s": instrument_time_s, **scalars(verdict)})


def scalars(verdict: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a verdict."""
    return {
        key: float(value)
        for key, value in verdict.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    }


def truth_of(microscope: Microscope) -> HiddenTruth | None:
    """The world behind a microscope, if it is one that knows its truth."""
    return microscope if isinstance(microscope, HiddenTruth) else None


def verdict_on(parts: Parts, objective: Objective, guarded: GuardedMicroscope, world: HiddenTruth) -> dict[str, Any]:
    """Objective against truth, ledger against world."""
    truth = world.truth()
    verdict = parts.question.judge(objective, truth)
    return {**verdict, **(compare_ledger(guarded.ledger, truth) if "dose_map_e_per_a2" in truth else {})}


def rehearse(plan: Rehearsal) -> dict[str, Any]:
    """Run it; the verdict with electrons, microscope time, frames, and the curve. Deterministic."""
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    parts = prepare(plan.spec, plan.seed, plan.settings, plan.cache_folder)
    world = truth_of(parts.microscope)
    policy = make_policy(
        with_oracle(parts, world) if plan.policy == "oracle" and world else parts, plan.policy, plan.options
    )
    record = MemoryRecord(plan.policy)
    curve = Curve(parts, world, (plan.spec.budget.electrons or 0.0) / CURVE_POINTS) if world else None
    experiment = join(parts, policy, record, curve or _ignore)
    ending = loop.run(experiment)
    spent = experiment.spent
    result: dict[str, Any] = {
        "policy": plan.policy,
        "seed": plan.seed,
        "electrons": experiment.microscope.ledger.electrons,
        "dose_max_e_per_a2": experiment.microscope.ledger.max_e_per_a2,
        "instrument_time_s": spent.instrument_time_s,
        "frames": spent.frames,
        "reason": ending.reason,
        "cpu_s": time.process_time() - started,
        "summary": parts.question.objective.summary(),
        "decisions": [{"seq": d.seq, "point": d.point, "status": d.status, "score": d.score} for d in record.decisions],
    }
    if world is not None and curve is not None:
        curve.add(spent.electrons, spent.instrument_time_s)
        result |= verdict_on(parts, parts.question.objective, experiment.microscope, world)
        result["curve"] = curve.points
    return result


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload


def with_oracle(parts: Parts, world: HiddenTruth) -> Parts:
    """The same parts with the truth in the policy's context: number of determinable natives per full field."""
    from dataclasses import replace

    known = parts.question.objective
    truth = world.truth()
    if "native" not in truth:
        return parts
    counted = np.asarray(truth["native"]["clean"], dtype=bool)
    counted &= np.isin(np.asarray(truth["native"]["species"], dtype=str), getattr(known, "options").determinable)  # noqa: B009
    x, y = truth["native"]["x_nm"][counted], truth["native"]["y_nm"][counted]
    half_nm = 10.0

    def natives_within(x_nm: float, y_nm: float) -> float:
        return float(((np.abs(x - x_nm) <= half_nm) & (np.abs(y - y_nm) <= half_nm)).sum())

    context = replace(parts.question.context, known_value=natives_within)
    return replace(parts, question=replace(parts.question, context=context))
