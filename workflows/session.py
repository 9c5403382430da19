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

from instruments import AcquireFrame, Blank, Frame, HiddenTruth, InstrumentError, InstrumentFault
from orchestrator import loop
from orchestrator.catalogue import Catalogue
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal
from orchestrator.loop import Control, Ending, Experiment
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.plain_json import plain
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions
from policies import Suggestion
from workflows.assembly import Parts, check_first_frame, join, make_policy, prepare
from workflows.evaluation.baselines import baseline_plans, run_all
from workflows.evaluation.rehearsal import CURVE_POINTS, Curve, Rehearsal, truth_of, verdict_on
from workflows.prefect_engine import PrefectEngine
from workflows.restart import restore, taken_again

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
        engine = self._engine(options)
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
        journal = Journal(self.catalogue, experiment_id)
        experiment = join(parts, policy, journal, self.listen, self.control)
        self.say("preparing the specimen's forward model (kept in the data folder for the next time)")
        parts.question.prepare()
        return self._drive(experiment_id, parts, experiment, journal, engine, options)

    def resume(self, experiment_id: str) -> str:
        """Go on with an interrupted or crashed experiment with the decisions it would have made; its id."""
        row = self.catalogue.experiment(experiment_id)
        spec = ExperimentSpec.model_validate(row.spec)
        options = RunOptions(**row.options)
        engine = self._engine(options)
        parts = prepare(spec, options.seed, self.settings.instrument(spec.instrument.name), self.cache_folder)
        policy = make_policy(parts, spec.policy.name, spec.policy.options)
        report = self.catalogue.recover(row.id)
        if not report.is_clean:
            self.catalogue.append(row.id, "recovered", plain(report))
        journal = Journal(self.catalogue, row.id)
        experiment = join(parts, policy, journal, self.listen, self.control)
        self.catalogue.set_status(row.id, "running", None)
        restored = restore(experiment, journal)
        self.say(f"resumed {row.id}: {restored} decisions taken from the journal")
        return self._drive(row.id, parts, experiment, journal, engine, options)

    def _engine(self, options: RunOptions) -> PrefectEngine | None:
        if options.engine != "prefect":
            return None
        engine = PrefectEngine(self.catalogue.data_folder / "prefect")
        engine.start()
        return engine

    def _drive(
        self, experiment_id: str, parts: Parts, experiment: Experiment, journal: Journal, engine: PrefectEngine | None,
        options: RunOptions,
    ) -> str:  # fmt: skip
        self.catalogue.set_status(experiment_id, "running", None)
        started = time.monotonic()
        try:
            with interruptible(self.control, experiment, self.say):
                ending = self._run(experiment_id, experiment, engine)
        except InstrumentFault as error:
            parts.microscope.stop()
            self._close(experiment_id, experiment, Ending("failed", f"instrument fault: {error}"), started)
            raise
        finally:
            if engine is not None:
                engine.stop()
        blank(experiment, journal)
        self._close(experiment_id, experiment, ending, started)
        if ending.status == "completed":
            self._evaluate(experiment_id, parts, experiment, options)
        return experiment_id

    def _run(self, experiment_id: str, experiment: Experiment, engine: PrefectEngine | None) -> Ending:
        if engine is not None:
            late = engine.not_ready_because()
            if late is None:
                return engine.run(experiment_id, lambda: loop.run(experiment))
            self.catalogue.append(experiment_id, "engine_changed", {"engine": "local", "because": late})
            self.say(f"{late}; going on with the local engine")
        return loop.run(experiment)

    def _close(self, experiment_id: str, experiment: Experiment, ending: Ending, started: float) -> None:
        wall_time_s = time.monotonic() - started
        self.catalogue.append(
            experiment_id,
            "closed",
            {
                "status": ending.status, "reason": ending.reason, "wall_time_s": wall_time_s,
                "electrons": experiment.microscope.ledger.electrons,
                "dose_max_e_per_a2": experiment.microscope.ledger.max_e_per_a2,
                "instrument_time_s": experiment.spent.instrument_time_s,
                "frames": experiment.spent.frames,
                "summary": experiment.objective.summary(),
            },
        )  # fmt: skip
        self.catalogue.set_status(experiment_id, ending.status, ending.reason)

    def _evaluate(self, experiment_id: str, parts: Parts, experiment: Experiment, options: RunOptions) -> None:
        world = truth_of(parts.microscope)
        if world is None:
            return
        verdict = verdict_on(parts, experiment.objective, experiment.microscope, world)
        verdict["curve"] = self._curve(experiment_id, parts, options, world)
        settings = self.settings.instrument(parts.spec.instrument.name)
        main = Rehearsal(
            spec=parts.spec, seed=options.seed, settings=settings, cache_folder=self.cache_folder,
            policy=parts.spec.policy.name, options=parts.spec.policy.options,
        )  # fmt: skip
        results: dict[str, Any] = {}
        if options.baselines:
            plans = baseline_plans(main, experiment.spent.frames)
            if plans:
                names = ", ".join(plan.policy for plan in plans)
                self.say(f"running {len(plans)} baselines on fresh worlds of the same seed: {names}")
            results = run_all(plans, lambda done: self.say(f"baseline {done['policy']} done"))
            self._keep_children(experiment_id, main, results)
        self.catalogue.append(experiment_id, "evaluated", {"truth": verdict, "baselines": results})

    def _curve(
        self, experiment_id: str, parts: Parts, options: RunOptions, world: HiddenTruth
    ) -> list[dict[str, float]]:
        """Truth against electrons for our own run: the journalled features are judged again, now and then."""
        settings = self.settings.instrument(parts.spec.instrument.name)
        again = prepare(parts.spec, options.seed, settings, self.cache_folder)
        curve = Curve(again, world, (parts.spec.budget.electrons or 0.0) / CURVE_POINTS)
        policy = make_policy(again, parts.spec.policy.name, parts.spec.policy.options)
        experiment = join(again, policy, NoRecord(), curve)
        for step in Journal(self.catalogue, experiment_id).past():
            taken_again(experiment, step)
        curve.add(experiment.spent.electrons, experiment.spent.instrument_time_s)
        return curve.points

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
    """The record of an experiment that must expose nothing: a check before the start, or a look back; it never writes."""

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
