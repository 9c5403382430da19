"""Trials run one by one in this process, or many at a time in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.memory_record import MemoryRecord
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import Parts, prepare
from workflows.evaluation.rehearsal import perform
from workflows.notebook.candidate import Candidate
from workflows.notebook.trial import KeptRecord, Narration, Narrator, Trial
from workflows.one_thread import one_thread

ANSWERS = 12


def parts_of(spec: ExperimentSpec, settings: Settings, seed: int) -> Parts:
    """A fresh world of this seed and what is asked of it; the forward model is kept in the data folder."""
    one_thread()
    cache_folder = settings.data_folder / "cache"
    cache_folder.mkdir(parents=True, exist_ok=True)
    return prepare(spec, seed, settings.instrument(spec.instrument.name), cache_folder)


def run_trial(
    spec: ExperimentSpec,
    settings: Settings,
    chosen: Candidate,
    seed: int,
    *,
    say: Narrator | None = None,
    keep_frames: bool = False,
) -> Trial:
    """One policy to its end, in memory. Deterministic."""
    parts = parts_of(spec, settings, seed)
    parts.question.prepare()
    record = KeptRecord(MemoryRecord(chosen.name), keep_frames)
    listen = None if say is None else Narration(say)
    done = perform(parts, chosen.made(parts), record, listen, answer_count=ANSWERS)
    return Trial.of(chosen.name, seed, parts.space, record, done)


def run_trials(
    spec: ExperimentSpec, settings: Settings, plans: Sequence[tuple[Candidate, int]], processes: int | None
) -> Iterator[Trial]:
    """The trials in the order of their plans, each as soon as it and those before it are there.

    A policy written in a notebook travels to the other processes by value.
    """
    from joblib import Parallel, cpu_count, delayed

    count = min(processes or cpu_count(), len(plans))
    if count <= 1:
        return (run_trial(spec, settings, chosen, seed) for chosen, seed in plans)
    work = (delayed(run_trial)(spec, settings, chosen, seed) for chosen, seed in plans)
    return iter(Parallel(n_jobs=count, return_as="generator")(work))
