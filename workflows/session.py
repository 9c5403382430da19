"""One experiment from spec to record: opened, run by an engine, judged, reported; or resumed where it stood.

Neighbours: `assembly` joins the parts, `restart` rebuilds an interrupted one, `evaluation` knows the truth.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from instruments import AcquireFrame, Blank, Frame, InstrumentError, InstrumentFault
from orchestrator import loop
from orchestrator.answer_file import AnswerKeeper, answer_path
from orchestrator.catalogue import Catalogue
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal
from orchestrator.loop import Control, Ending, Experiment
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.plain_json import plain
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions
from policies import Policy, Suggestion
from workflows.assembly import Parts, check_first_frame, join, make_policy, prepare
from workflows.evaluation.baselines import OurRun, baseline_plans, run_all
from workflows.evaluation.rehearsal import CURVE_POINTS, Curve, Rehearsal, one_thread, truth_of, verdict_on
from workflows.prefect_engine import PrefectEngine
from workflows.restart import restore

_BYTES_PER_PX = 2.0
_FRAME_OVERHEAD_BYTES = 200_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything `stempilot run` was told besides the spec; remembered, so that `resume` needs nothing."""

    seed: int = 0
    engine: str = "prefect"
    baselines: bool = True
    settings_file: str | None = None

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
    """One open data folder and the person watching it."""

    catalogue: Catalogue
    settings: Settings
    listen: Callable[[str, Mapping[str, Any]], None]
    say: Callable[[str], None]
    control: Control = field(default_factory=Control)

    @property
    def cache_folder(self) -> Path:
        """Where expensive, reproducible things are kept between runs."""
        return self.catalogue.data_folder / "cache"

    def start(self, spec: ExperimentSpec, options: RunOptions) -> str:
        """Run a new experiment to its end; its id."""
        one_thread()
        parts = prepare(spec, options.seed, self.settings.instrument(spec.instrument.name), self.cache_folder)
        policy = make_policy(parts, spec.policy.name, spec.policy.options)
        check_first_frame(join(parts, policy, NoRecord(), _ignore))
        self.catalogue.forecast(bytes_needed(spec))
        experiment_id = self.catalogue.create_experiment(
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            seed=options.seed,
            engine=options.engine,
            options=options.to_dict(),
        )
        self.catalogue.begin(experiment_id, context_of(spec))
        engine = self._engine(options)  # only now: an error above must not meet a server that is still starting
        self.say("preparing the specimen's forward model (kept in the data folder for the next time)")
        parts.question.prepare()
        return self._drive(self._run_of(experiment_id, parts, policy, engine, options))

    def resume(self, experiment_id: str) -> str:
        """Go on with an interrupted or crashed experiment with the decisions it would have made; its id."""
        one_thread()
        row = self.catalogue.experiment(experiment_id)
        spec = ExperimentSpec.model_validate(row.spec)
        options = RunOptions(**row.options)
        engine = self._engine(options, start=False)
        parts = prepare(spec, options.seed, self.settings.instrument(spec.instrument.name), self.cache_folder)
        policy = make_policy(parts, spec.policy.name, spec.policy.options)
        report = self.catalogue.recover(row.id)
        if not report.is_clean:
            self.catalogue.append(row.id, "recovered", plain(report))
        run = self._run_of(row.id, parts, policy, engine, options)
        self.catalogue.set_status(row.id, "running", None)
        restored = restore(run.experiment, run.journal)
        self.say(f"resumed {row.id}: {restored} decisions taken from the journal")
        if engine is not None:
            engine.start()
        return self._drive(run)

    def _run_of(
        self, experiment_id: str, parts: Parts, policy: Policy, engine: PrefectEngine | None, options: RunOptions
    ) -> Run:
        journal = Journal(self.catalogue, experiment_id)
        curve = Curve(parts.question, (parts.spec.budget.electrons or 0.0) / CURVE_POINTS)
        answers = AnswerKeeper(answer_path(self.catalogue.data_folder, experiment_id), parts.question.objective)

        def listen(kind: str, payload: Mapping[str, Any]) -> None:
            self.listen(kind, payload)
            curve(kind, payload)
            answers(kind, payload)

        experiment = join(parts, policy, journal, listen, self.control)
        return Run(parts, experiment, journal, engine, options, curve, answers)

    def _engine(self, options: RunOptions, *, start: bool = True) -> PrefectEngine | None:
        if options.engine != "prefect":
            return None
        engine = PrefectEngine(self.catalogue.data_folder / "prefect")
        if start:
            engine.start()
        return engine

    def _drive(self, run: Run) -> str:
        """Run to the end; whatever happens, the beam is blanked. The final status is written last."""
        own, experiment = run.journal.experiment_id, run.experiment
        self.catalogue.set_status(own, "running", None)
        started = time.monotonic()
        try:
            with interruptible(self.control, experiment, self.say):
                ending = self._loop(run)
        except InstrumentError as error:
            experiment.microscope.stop()
            ending = Ending("failed", f"instrument: {error}")
            self._close(run, ending, started)
            self.catalogue.set_status(own, ending.status, ending.reason)
            raise
        except BaseException:
            experiment.microscope.stop()
            raise
        finally:
            if run.engine is not None:
                run.engine.stop()
        blank(experiment, run.journal)
        self._close(run, ending, started)
        if ending.status == "completed":
            self._evaluate(run)
        self.catalogue.set_status(own, ending.status, ending.reason)
        return own

    def _loop(self, run: Run) -> Ending:
        if run.engine is not None:
            late = run.engine.not_ready_because()
            if late is None:
                return run.engine.run(run.journal.experiment_id, lambda: loop.run(run.experiment))
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

    def _evaluate(self, run: Run) -> None:
        world = truth_of(run.parts.microscope)
        if world is None:
            return
        truth, spent, spec = world.truth(), run.experiment.spent, run.parts.spec
        run.curve.take(spent.electrons, spent.instrument_time_s)
        verdict = verdict_on(run.parts, run.experiment.microscope, truth)
        verdict["curve"] = run.curve.judged(truth)
        main = Rehearsal(
            spec=spec,
            seed=run.options.seed,
            settings=self.settings.instrument(spec.instrument.name),
            cache_folder=self.cache_folder,
            policy=spec.policy.name,
            options=spec.policy.options,
        )
        results: dict[str, Any] = {}
        if run.options.baselines:
            points = [step.decision.point for step in self.catalogue.decisions(run.journal.experiment_id)]
            plans = baseline_plans(main, OurRun.of(points))
            names = ", ".join(plan.policy for plan in plans)
            self.say(f"running {len(plans)} baselines on fresh worlds of the same seed: {names}")
            results = run_all(plans, lambda done: self.say(f"baseline {done['policy']} done"))
            self._keep_children(run.journal.experiment_id, main, results)
        run.journal.note("evaluated", {"truth": verdict, "baselines": results})

    def _keep_children(self, experiment_id: str, main: Rehearsal, results: Mapping[str, Mapping[str, Any]]) -> None:
        for name, result in results.items():
            plan = replace(main, policy=name)
            child = self.catalogue.create_experiment(
                name=f"{main.spec.name}: baseline {name}",
                spec=plan.spec.model_dump(mode="json"),
                seed=plan.seed,
                engine="rehearsal",
                options={"policy": name},
                parent_id=experiment_id,
            )
            self.catalogue.append(child, "closed", dict(result))
            self.catalogue.set_status(child, "completed", str(result["reason"]))


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


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload


def blank(experiment: Experiment, journal: Journal) -> None:
    """Leave the beam blanked; a microscope that cannot answer is stopped instead."""
    try:
        experiment.microscope.execute(Blank(action_id=f"{journal.experiment_id}-blank"))
    except InstrumentError:
        experiment.microscope.stop()


def bytes_needed(spec: ExperimentSpec) -> int:
    """Disk a run may take: every frame at full size, two detectors, as many as budget and space allow (capped)."""
    scan = spec.instrument.scan
    frames = spec.budget.frames or 500
    size = 512 * 512 * scan.subframe_count * 2 * _BYTES_PER_PX / 4 + _FRAME_OVERHEAD_BYTES
    return int(frames * size)


@contextmanager
def interruptible(control: Control, experiment: Experiment, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C once finishes the frame, blanks and saves; twice stops the microscope and leaves at once."""

    def handle(number: int, frame: object) -> None:
        del number, frame
        if control.interrupt.is_set():
            experiment.microscope.stop()
            os._exit(130)
        control.interrupt.set()
        say("interrupted: finishing this frame, then blanking and saving (Ctrl-C again aborts at once)")

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller has its own way to interrupt
        before = {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
