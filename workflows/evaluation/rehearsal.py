"""One policy on one fresh simulated world, in memory: how baselines are run, and `make bench`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from instruments import GuardedMicroscope, HiddenTruth, Microscope
from orchestrator import loop
from orchestrator.loop import Ending, Experiment, Listener, Record
from orchestrator.memory_record import MemoryRecord
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import Budget, ExperimentSpec
from policies import Policy
from workflows.assembly import Parts, join, make_policy, open_here, prepare
from workflows.one_thread import one_thread
from workflows.questions.census_truth import compare_ledger
from workflows.questions.question import Question

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
    """Answers taken now and then while a run goes on, against electrons; judged together at the end."""

    question: Question
    every_electrons: float
    every_frames: int = 1
    answers: list[tuple[float, float, Any]] = field(default_factory=list[tuple[float, float, Any]])

    @classmethod
    def over(cls, question: Question, budget: Budget, answer_count: int = CURVE_POINTS) -> Self:
        """About as many answers over the budget, by its electrons where it has some, otherwise by its frames."""
        if budget.electrons is not None or budget.frames is None:
            return cls(question, (budget.electrons or 0.0) / answer_count)
        return cls(question, 0.0, max(1, budget.frames // answer_count))

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A loop listener."""
        if kind == "scored":
            spent = payload["spent"]
            is_due = not self.answers or spent.electrons >= self.answers[-1][0] + self.every_electrons
            if is_due and spent.frames % self.every_frames == 0:
                self.take(spent.electrons, spent.instrument_time_s)

    def take(self, electrons: float, instrument_time_s: float) -> None:
        """Take the answer now."""
        self.answers.append((electrons, instrument_time_s, self.question.answer(self.question.objective)))

    def judged(self, truth: Mapping[str, Any]) -> list[dict[str, float]]:
        """One point an answer: electrons, instrument_time_s and the verdict's plain numbers."""
        return [
            {"electrons": electrons, "instrument_time_s": seconds, **scalars(self.question.judge(answer, truth))}
            for electrons, seconds, answer in self.answers
        ]


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


def verdict_on(parts: Parts, guarded: GuardedMicroscope, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Objective against truth, ledger against world."""
    question = parts.question
    verdict = question.judge(question.answer(question.objective), truth)
    return {**verdict, **(compare_ledger(guarded.ledger, truth) if "dose_map_e_per_a2" in truth else {})}


@dataclass(frozen=True, slots=True)
class Performance:
    """A run that came to its end: with its verdict and curve where the world knows the truth, empty otherwise."""

    experiment: Experiment
    ending: Ending
    verdict: dict[str, Any]
    curve: list[dict[str, float]]


def perform(
    parts: Parts, policy: Policy, record: Record, listen: Listener | None = None, *, answer_count: int = CURVE_POINTS
) -> Performance:
    """Run a policy on parts nobody has used, to its end, and hold it against the truth where there is one."""
    world = truth_of(parts.microscope)
    curve = Curve.over(parts.question, parts.spec.budget, answer_count)

    def told(kind: str, payload: Mapping[str, Any]) -> None:
        if listen is not None:
            listen(kind, payload)
        if world is not None:
            curve(kind, payload)

    experiment = join(parts, policy, record, told)
    ending = loop.run(experiment)
    if world is None:
        return Performance(experiment, ending, {}, [])
    truth, spent = world.truth(), experiment.spent
    curve.take(spent.electrons, spent.instrument_time_s)
    return Performance(experiment, ending, verdict_on(parts, experiment.microscope, truth), curve.judged(truth))


def rehearse(plan: Rehearsal) -> dict[str, Any]:
    """Run it; the verdict with electrons, microscope time, frames, and the curve. Deterministic."""
    one_thread()
    started = time.process_time()
    parts = prepare(plan.spec, plan.seed, plan.settings, plan.cache_folder, _without_waiting)
    world = truth_of(parts.microscope)
    policy = make_policy(
        with_oracle(parts, world) if plan.policy == "oracle" and world else parts, plan.policy, plan.options
    )
    record = MemoryRecord(plan.policy)
    done = perform(parts, policy, record)
    experiment, spent = done.experiment, done.experiment.spent
    result: dict[str, Any] = {
        "policy": plan.policy,
        "seed": plan.seed,
        "electrons": experiment.microscope.ledger.electrons,
        "dose_max_e_per_a2": experiment.microscope.ledger.max_e_per_a2,
        "instrument_time_s": spent.instrument_time_s,
        "frames": spent.frames,
        "reason": done.ending.reason,
        "cpu_s": time.process_time() - started,
        "summary": parts.question.objective.summary(),
        "decisions": [{"seq": d.seq, "point": d.point, "status": d.status, "score": d.score} for d in record.decisions],
    }
    return {**result, **done.verdict, "curve": done.curve} if world is not None else result


def _without_waiting(adapter: str, config: Mapping[str, Any]) -> Microscope:
    """A fresh world in this process; nobody looks on, so its beam need not be on in wall time."""
    hurried = {"time_scale": 0.0} if adapter == "simulated" else {}
    return open_here(adapter, {**config, **hurried})


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
