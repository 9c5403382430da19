"""One experiment from spec to record: opened, run by an engine, judged, reported; or resumed where it stood.

Neighbours: `assembly` joins the parts, `restart` rebuilds an interrupted one, `evaluation` knows the truth.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from instruments import AcquireFrame, Blank, Frame, InstrumentError, InstrumentFault
from orchestrator import loop
from orchestrator.answer_file import AnswerKeeper, answer_path
from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.errors import InstrumentLost, Interrupted, LeaseLost
from orchestrator.events import CONTEXT_SET
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal
from orchestrator.loop import Control, Ending, Experiment
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.plain_json import plain
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions
from policies import Observation, Policy, Suggestion
from workflows.assembly import (
    MakePolicy,
    OpenInstrument,
    Parts,
    check_first_frame,
    join,
    make_policy,
    open_here,
    prepare,
    spec_of,
)
from workflows.evaluation.baselines import BaselinesStopped, end_processes
from workflows.evaluation.comparison import Comparison
from workflows.evaluation.rehearsal import Curve, one_thread, truth_of, verdict_on
from workflows.flows.names import flow_name
from workflows.prefect_engine import PrefectEngine
from workflows.restart import restore

_BYTES_PER_PX = 2.0
_FRAME_OVERHEAD_BYTES = 200_000.0
FIRST_INTERRUPT = "finishing this frame, then blanking and saving (Ctrl-C again aborts at once)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything `stempilot run` was told besides the spec; remembered, so that `resume` needs nothing."""

    seed: int = 0
    engine: str = "prefect"
    baselines: bool = True
    settings_file: str | None = None

    @classmethod
    def of(cls, row: ExperimentRow) -> RunOptions:
        """Those an experiment was started or submitted with; what it was not told is as if left out."""
        known = {option.name for option in fields(cls)}
        told: dict[str, Any] = {"seed": row.seed} | {key: row.options[key] for key in row.options.keys() & known}
        return cls(**told)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "seed": self.seed, "engine": self.engine, "baselines": self.baselines, "settings_file": self.settings_file,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment on its way."""

    parts: Parts
    experiment: Experiment
    journal: Journal
    engine: PrefectEngine | None
    options: RunOptions
    curve: Curve
    answers: AnswerKeeper


@dataclass
class Session:
    """One open data folder and the person watching it.

    How a microscope is opened, who controls the loop, whether Prefect is embedded, how the last word about an
    experiment is written and what a policy's name stands for are given: `stempilot run` and a worker differ in nothing
    else.
    """

    catalogue: Catalogue
    settings: Settings
    listen: Callable[[str, Mapping[str, Any]], None]
    say: Callable[[str], None]
    control: Control = field(default_factory=Control)
    open_instrument: OpenInstrument = open_here
    embeds_prefect: bool = True
    set_status: Callable[[str, str, str | None], None] | None = None
    policy_of: MakePolicy = make_policy
    _under_way: Experiment | None = None

    @property
    def cache_folder(self) -> Path:
        """Where expensive, reproducible things are kept between runs."""
        return self.catalogue.data_folder / "cache"

    def stop_now(self) -> None:
        """Stop the microscope of the experiment under way, where there is one, and end its baselines; from any thread.

        For who leaves at once: nothing is written.
        """
        if self._under_way is not None:
            stop(self._under_way, self.say)
        end_processes()

    def start(self, spec: ExperimentSpec, options: RunOptions) -> str:
        """Run a new experiment to its end; its id."""
        one_thread()
        parts, policy = self._checked(spec, options)
        experiment_id = self.catalogue.create_experiment(
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            seed=options.seed,
            engine=options.engine,
            options=options.to_dict(),
        )
        return self._begin(experiment_id, parts, policy, options)

    def take(self, experiment_id: str) -> str:
        """Run an experiment that was submitted, or go on with it where it has begun; its id."""
        one_thread()
        row = self.catalogue.experiment(experiment_id)
        if any(self.catalogue.events(row.id, kinds=(CONTEXT_SET,))):
            return self.resume(row.id)
        options = RunOptions.of(row)
        parts, policy = self._checked(spec_of(self.catalogue, row), options)
        return self._begin(row.id, parts, policy, options)

    def resume(self, experiment_id: str) -> str:
        """Go on with an interrupted or crashed experiment with the decisions it would have made; its id."""
        one_thread()
        row = self.catalogue.experiment(experiment_id)
        spec, options = spec_of(self.catalogue, row), RunOptions.of(row)
        engine = self._engine(options, start=False)
        parts, policy = self._parts(spec, options)
        report = self.catalogue.recover(row.id)
        if not report.is_clean:
            self.catalogue.append(row.id, "recovered", plain(report))
        run = self._run_of(row.id, parts, policy, engine, options)
        self._set_status(row.id, "running", None)
        with self._resumable(row.id, run.experiment, "while it was put back to where it stood, beam blanked"):
            restored = restore(run.experiment, run.journal)
        self.say(f"resumed {row.id}: {restored} decisions taken from the journal")
        if engine is not None:
            engine.start()
        return self._drive(run)

    def _checked(self, spec: ExperimentSpec, options: RunOptions) -> tuple[Parts, Policy]:
        """Parts and policy of an experiment that may start: its first frame can be paid, its frames have room."""
        parts, policy = self._parts(spec, options)
        check_first_frame(join(parts, policy, NoRecord(), _ignore))
        self.catalogue.forecast(bytes_needed(spec))
        return parts, policy

    def _parts(self, spec: ExperimentSpec, options: RunOptions) -> tuple[Parts, Policy]:
        settings = self.settings.instrument(spec.instrument.name)
        parts = prepare(spec, options.seed, settings, self.cache_folder, self.open_instrument)
        return parts, self.policy_of(parts, spec.policy.name, spec.policy.options)

    def _begin(self, experiment_id: str, parts: Parts, policy: Policy, options: RunOptions) -> str:
        self.catalogue.begin(experiment_id, context_of(parts.spec))
        engine = self._engine(options)  # only now: an error above must not meet a server that is still starting
        run = self._run_of(experiment_id, parts, policy, engine, options)
        self.say("preparing the specimen's forward model (kept in the data folder for the next time)")
        with self._resumable(experiment_id, run.experiment, "before the first frame, nothing was exposed"):
            parts.question.prepare()
        return self._drive(run)

    @contextmanager
    def _resumable(self, experiment_id: str, experiment: Experiment, when: str) -> Iterator[None]:
        """Ctrl-C before the loop begins. Raises Interrupted, which says how to go on."""
        try:
            yield
        except KeyboardInterrupt as error:
            stop(experiment, self.say)
            self._set_status(experiment_id, "interrupted", f"interrupted by a person {when}")
            raise Interrupted(f"interrupted {when}; go on with: stempilot resume {experiment_id}") from error

    def _run_of(
        self, experiment_id: str, parts: Parts, policy: Policy, engine: PrefectEngine | None, options: RunOptions
    ) -> Run:
        journal = Journal(self.catalogue, experiment_id)
        curve = Curve.over(parts.question, parts.spec.budget)
        answers = AnswerKeeper(answer_path(self.catalogue.data_folder, experiment_id), parts.question.objective)

        def listen(kind: str, payload: Mapping[str, Any]) -> None:
            self.listen(kind, payload)
            curve(kind, payload)
            answers(kind, payload)

        experiment = self._under_way = join(parts, policy, journal, listen, self.control)
        return Run(parts, experiment, journal, engine, options, curve, answers)

    def _engine(self, options: RunOptions, *, start: bool = True) -> PrefectEngine | None:
        if options.engine != "prefect" or not self.embeds_prefect:
            return None
        engine = PrefectEngine(self.catalogue.data_folder / "prefect")
        if start:
            engine.start()
        return engine

    def _set_status(self, experiment_id: str, status: str, reason: str | None) -> None:
        (self.set_status or self.catalogue.set_status)(experiment_id, status, reason)

    def _drive(self, run: Run) -> str:
        """Run to the end; whatever happens, the beam is blanked. The final status is written last."""
        own = run.journal.experiment_id
        self._set_status(own, "running", None)
        started = time.monotonic()
        with interruptible(self.control, self.stop_now, self.say):
            ending = self._ended(run, started)
            blank(run.experiment, run.journal)
            self._close(run, ending, started)
            if ending.status == "completed":
                ending = self._evaluated(run, ending)
        self._set_status(own, ending.status, ending.reason)
        return own

    def _ended(self, run: Run, started: float) -> Ending:
        """How the loop ended. After an instrument's fault that is written down, and the fault is raised."""
        try:
            return self._loop(run)
        except InstrumentError as error:
            stop(run.experiment, self.say)
            ending = Ending("failed", f"instrument: {error}")
            self._close(run, ending, started)
            self._set_status(run.journal.experiment_id, ending.status, ending.reason)
            raise
        except (LeaseLost, InstrumentLost):
            raise  # the instrument is somebody else's now, or gone
        except BaseException:
            stop(run.experiment, self.say)
            raise
        finally:
            if run.engine is not None:
                run.engine.stop()

    def _loop(self, run: Run) -> Ending:
        if run.engine is not None:
            late = run.engine.not_ready_because()
            if late is None:
                named = flow_name(run.parts.spec.objective.name)
                return run.engine.run(run.journal.experiment_id, lambda: loop.run(run.experiment), named)
            run.journal.note("engine_changed", {"engine": "local", "because": late})
            self.say(f"{late}; going on with the local engine")
        return loop.run(run.experiment)

    def _close(self, run: Run, ending: Ending, started: float) -> None:
        run.answers.keep()
        ledger = run.experiment.microscope.ledger
        run.journal.note(
            "closed",
            {
                "status": ending.status,
                "reason": ending.reason,
                "wall_time_s": time.monotonic() - started,
                "electrons": ledger.electrons,
                "dose_max_e_per_a2": ledger.max_e_per_a2,
                "instrument_time_s": run.experiment.spent.instrument_time_s,
                "frames": run.experiment.spent.frames,
                "summary": run.experiment.objective.summary(),
            },
        )

    def _evaluated(self, run: Run, ending: Ending) -> Ending:
        """Judge a completed run where the truth is known; its ending, or that a person stopped the baselines."""
        world = truth_of(run.parts.microscope)
        if world is None:
            return ending
        truth, spent = world.truth(), run.experiment.spent
        run.curve.take(spent.electrons, spent.instrument_time_s)
        verdict = verdict_on(run.parts, run.experiment.microscope, truth)
        verdict["curve"] = run.curve.judged(truth)
        spec = run.parts.spec
        comparison = Comparison(
            catalogue=self.catalogue,
            settings=self.settings.instrument(spec.instrument.name),
            cache_folder=self.cache_folder,
            say=self.say,
            stopped=lambda: self.control.reason() is not None,
        )
        own, seed = run.journal.experiment_id, run.options.seed
        try:
            results = comparison.with_baselines(own, spec, seed) if run.options.baselines else {}
        except BaselinesStopped:
            wanted = self.control.reason() or "interrupted"
            return Ending(wanted, f"{ending.reason}; {wanted} by a person while the baselines ran")
        run.journal.note("evaluated", {"truth": verdict, "baselines": results})
        return ending


def context_of(spec: ExperimentSpec) -> dict[str, Any]:
    """What every frame's file tells of the experiment."""
    return {
        "specimen": specimen_context(spec),
        "experiment": spec.name,
        "proposal": spec.proposal,
        "labels": spec.labels,
        "versions": versions(),
    }


def specimen_context(spec: ExperimentSpec) -> dict[str, Any]:
    """The specimen believed, with its elements."""
    document = spec.specimen.model_dump(mode="json")
    if document["atom_types"] is None and spec.specimen.structure is not None:
        from simulation.specimens import read_structure

        document["atom_types"] = ", ".join(sorted(set(read_structure(spec.specimen.structure).get_chemical_symbols())))
    return document


class NoRecord:
    """The record of an experiment that must expose nothing (a check before the start, a look back); it never writes."""

    def intend(self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"suggestion {suggestion.id} may not be exposed: there is no journal to write it to")

    def keep(self, intent: Any, frame: Frame) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"frame {frame.action_id} was exposed without a journal to keep it in")

    def observe(self, intent: Any, facts: FrameFacts, features: FeatureSet, score: Score) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"frame {facts.action_id} was seen without a journal to write it to")

    def mark(self, intent: Any, status: str, reason: str) -> NoReturn:
        """Refuse. Raises InstrumentFault."""
        raise InstrumentFault(f"there is no journal to write {status} ({reason}) to")


class NoPolicy:
    """The policy of an experiment that is only looked back at: nobody asks it, so it may be gone by now."""

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Nothing."""
        del count
        return []

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Nothing is learned."""

    def should_stop(self) -> str:
        """It never goes on."""
        return "this experiment is only looked at"

    def snapshot(self) -> dict[str, Any]:
        """No state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """No state."""


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload


def blank(experiment: Experiment, journal: Journal) -> None:
    """Leave the beam blanked; a microscope that cannot answer is stopped instead."""
    try:
        experiment.microscope.execute(Blank(action_id=f"{journal.experiment_id}-blank"))
    except InstrumentError:
        experiment.microscope.stop()


def stop(experiment: Experiment, say: Callable[[str], None]) -> None:
    """Stop the microscope; one that does not confirm it is told of, so that what has to be written still is."""
    try:
        experiment.microscope.stop()
    except InstrumentError as error:
        say(f"the stop was not confirmed: {error}")


def bytes_needed(spec: ExperimentSpec) -> int:
    """Disk a run may take: every frame at full size, two detectors, as many as budget and space allow (capped)."""
    scan = spec.instrument.scan
    frames = spec.budget.frames or 500
    size = 512 * 512 * scan.subframe_count * 2 * _BYTES_PER_PX / 4 + _FRAME_OVERHEAD_BYTES
    return int(frames * size)


@contextmanager
def interruptible(
    control: Control, stop_now: Callable[[], None], say: Callable[[str], None], first: str = FIRST_INTERRUPT
) -> Iterator[None]:
    """Ctrl-C once asks to end in order and says `first`; twice stops the microscope and leaves at once.

    Only in the main thread; elsewhere the caller has its own way.
    """

    def handle(number: int, frame: object) -> None:
        del number, frame
        if control.interrupt.is_set():
            try:
                stop_now()
            finally:
                os._exit(130)
        control.interrupt.set()
        say(f"interrupted: {first}")

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
