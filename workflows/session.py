"""One experiment from spec to record: opened, run by an engine, judged, reported; or resumed where it stood.

Neighbours: `assembly` joins the parts, `restart` rebuilds an interrupted one, `evaluation` knows the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruments import InstrumentError
from instruments.dose_ledger import DoseLedger
from orchestrator import loop
from orchestrator.answer_file import AnswerKeeper, answer_path
from orchestrator.catalogue import Catalogue
from orchestrator.errors import InstrumentLost, Interrupted, LeaseLost
from orchestrator.events import CONTEXT_SET, OUT_OF_REACH, SPECIMEN_DOSE
from orchestrator.journal import Journal
from orchestrator.loop import Control, Ending, Experiment
from orchestrator.plain_json import plain
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from policies import Policy
from workflows.assembly import (
    MakePolicy,
    OpenInstrument,
    Parts,
    check_first_frame,
    join,
    make_policy,
    prepare,
    spec_of,
)
from workflows.beam import Beam, DarkOpening
from workflows.beam_debts import BeamUnwatched, DebtsKept, SeenOff, note_found_on, note_seen_off
from workflows.described import note_instrument, note_specimen
from workflows.embedded import EmbeddedInstrument
from workflows.evaluation.baselines import BaselinesStopped, end_processes
from workflows.evaluation.comparison import Comparison
from workflows.evaluation.rehearsal import Curve, truth_of, verdict_on
from workflows.flows.names import flow_name
from workflows.foreword import bytes_needed, context_of
from workflows.interrupting import interruptible, terminable
from workflows.looking_back import NoRecord
from workflows.one_thread import one_thread
from workflows.prefect_engine import PrefectEngine
from workflows.restart import restore
from workflows.run_options import RunOptions
from workflows.specimen_history import earlier_dose, summed


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment on its way."""

    parts: Parts
    experiment: Experiment
    beam: Beam
    journal: Journal
    engine: PrefectEngine | None
    options: RunOptions
    curve: Curve
    answers: AnswerKeeper


@dataclass
class Session:
    """One open data folder and the person watching it.

    How a microscope is opened (None: in this process, which then is its instrument), who controls the loop, whether
    Prefect is embedded, how the last word about an experiment is written and what a policy's name stands for are given:
    `stempilot run` and a worker differ in nothing else.
    """

    catalogue: Catalogue
    settings: Settings
    listen: Callable[[str, Mapping[str, Any]], None]
    say: Callable[[str], None]
    control: Control = field(default_factory=Control)
    open_instrument: OpenInstrument | None = None
    embeds_prefect: bool = True
    set_status: Callable[[str, str, str | None], None] | None = None
    policy_of: MakePolicy = make_policy
    _under_way: Beam | None = None
    _here: EmbeddedInstrument | None = None

    @property
    def cache_folder(self) -> Path:
        """Where expensive, reproducible things are kept between runs."""
        return self.catalogue.data_folder / "cache"

    def stop_now(self) -> None:
        """Stop the microscope of the experiment under way, where there is one, and end its baselines; from any thread.

        For who leaves at once: nothing is written.
        """
        if self._under_way is not None:
            self._under_way.halt()
        end_processes()

    def start(self, spec: ExperimentSpec, options: RunOptions) -> str:
        """Run a new experiment to its end; its id."""
        one_thread()
        with self._owning(spec.instrument.name) as opening:
            parts, policy = self._checked(spec, options, opening)
            experiment_id = self.catalogue.create_experiment(
                name=spec.name,
                spec=spec.model_dump(mode="json"),
                seed=options.seed,
                engine=options.engine,
                options=options.to_dict(),
            )
            return self._begin(experiment_id, parts, policy, options, opening)

    def take(self, experiment_id: str) -> str:
        """Run an experiment that was submitted, or go on with it where it has begun; its id."""
        one_thread()
        row = self.catalogue.experiment(experiment_id)
        if any(self.catalogue.events(row.id, kinds=(CONTEXT_SET,))):
            return self.resume(row.id)
        spec, options = spec_of(self.catalogue, row), RunOptions.of(row)
        with self._owning(spec.instrument.name) as opening:
            parts, policy = self._checked(spec, options, opening)
            return self._begin(row.id, parts, policy, options, opening)

    def resume(self, experiment_id: str, *, seen_off: SeenOff | None = None, asks_about_beam: bool = False) -> str:
        """Go on with an interrupted or crashed experiment with the decisions it would have made; its id.

        `seen_off` is what a person saw of a beam that nobody watched. With `asks_about_beam` a long debit for that is
        refused (BeamUnwatched) instead of written down.
        """
        one_thread()
        row = self.catalogue.experiment(experiment_id)
        spec, options = spec_of(self.catalogue, row), RunOptions.of(row)
        engine = self._engine(options, start=False)
        with self._owning(spec.instrument.name) as opening:
            if seen_off is not None:
                note_seen_off(Journal(self.catalogue, row.id), seen_off, self.catalogue.now())
            opening.note = self._note_found_on(row.id, spec.instrument.name)
            parts, policy = self._parts(spec, options, opening)
            report = self.catalogue.recover(row.id)
            if not report.is_clean:
                self.catalogue.append(row.id, "recovered", plain(report))
            run = self._run_of(row.id, parts, policy, engine, options)
            self._set_status(row.id, "running", None)
            with self._resumable(run, "while it was put back to where it stood"):
                restored = restore(run.experiment, run.journal, asks_about_beam=asks_about_beam)
            self.say(f"resumed {row.id}: {restored} decisions taken from the journal")
            if engine is not None:
                engine.start()
            return self._drive(run)

    @contextmanager
    def _owning(self, name: str) -> Iterator[DarkOpening]:
        """How the instrument is opened; while this lasts nobody else opens it in this data folder.

        Raises DataFolderBusy where another process is this instrument, InstrumentFault where it is locked.
        """
        if self.open_instrument is not None:  # it lives elsewhere, and there a fence says whose it is
            yield DarkOpening(self.open_instrument, self.say)
            return
        with EmbeddedInstrument(self.catalogue, name, self.control.interrupt.set) as self._here:
            yield DarkOpening(self._here.open, self.say)

    def _checked(self, spec: ExperimentSpec, options: RunOptions, opening: OpenInstrument) -> tuple[Parts, Policy]:
        """Parts and policy of an experiment that may start: its first frame can be paid, its frames have room."""
        parts, policy = self._parts(spec, options, opening)
        check_first_frame(join(parts, policy, NoRecord(), _ignore, earlier=earlier_dose(self.catalogue, parts)))
        self.catalogue.forecast(bytes_needed(spec, parts.microscope.capabilities()))
        return parts, policy

    def _parts(self, spec: ExperimentSpec, options: RunOptions, opening: OpenInstrument) -> tuple[Parts, Policy]:
        settings = self.settings.instrument(spec.instrument.name)
        parts = prepare(spec, options.seed, settings, self.cache_folder, opening)
        return parts, self.policy_of(parts, spec.policy.name, spec.policy.options)

    def _begin(
        self, experiment_id: str, parts: Parts, policy: Policy, options: RunOptions, opening: DarkOpening
    ) -> str:
        self.catalogue.begin(experiment_id, context_of(parts.spec))
        engine = self._engine(options)  # only now: an error above must not meet a server that is still starting
        run = self._run_of(experiment_id, parts, policy, engine, options)
        self._note_out_of_reach(run)
        if opening.was_on:
            self._note_found_on(experiment_id, parts.spec.instrument.name)(True)
        self.say("preparing the specimen's forward model (kept in the data folder for the next time)")
        with self._resumable(run, "before the first frame, nothing was exposed"):
            parts.question.prepare()
        return self._drive(run)

    @contextmanager
    def _resumable(self, run: Run, when: str) -> Iterator[None]:
        """What comes before the loop: Ctrl-C or SIGTERM ends it in order; whatever else does, the beam is stopped.

        Raises Interrupted, which says how to go on; an instrument's fault after it was written down.
        """
        own = run.journal.experiment_id
        try:
            with terminable():
                yield
        except KeyboardInterrupt as error:
            run.beam.stop()
            self._end(run, Ending("interrupted", f"interrupted by a person {when}"))
            run.beam.raise_if_on()
            raise Interrupted(f"interrupted {when}, beam blanked; go on with: stempilot resume {own}") from error
        except InstrumentError as error:  # an exposure that was in flight is finished here too
            run.beam.stop()
            stopped = self._stopped_from_beside()
            self._end(run, stopped or Ending("failed", f"instrument: {error}"))
            run.beam.raise_if_on()
            if stopped is not None:
                raise Interrupted(stopped.reason) from error
            raise
        except BeamUnwatched as error:
            run.beam.stop()
            self._end(run, Ending("interrupted", str(error)))
            run.beam.raise_if_on()
            raise
        except (LeaseLost, InstrumentLost):
            raise  # the instrument is somebody else's now, or gone
        except BaseException:
            run.beam.stop()
            raise

    def _end(self, run: Run, ending: Ending) -> None:
        ending = self._warned(run, ending)
        self._set_status(run.journal.experiment_id, ending.status, ending.reason)

    def _run_of(
        self,
        experiment_id: str,
        parts: Parts,
        policy: Policy,
        engine: PrefectEngine | None,
        options: RunOptions,
    ) -> Run:
        journal = Journal(self.catalogue, experiment_id)
        note_instrument(self.catalogue, experiment_id, parts.microscope.capabilities(), parts.calibrations)
        note_specimen(self.catalogue, experiment_id, parts.microscope)
        curve = Curve.over(parts.question, parts.spec.budget)
        answers = AnswerKeeper(answer_path(self.catalogue.data_folder, experiment_id), parts.question.objective)

        def listen(kind: str, payload: Mapping[str, Any]) -> None:
            self.listen(kind, payload)
            curve(kind, payload)
            answers(kind, payload)

        earlier = earlier_dose(self.catalogue, parts, experiment_id)
        self._note_earlier(journal, parts, earlier)
        experiment = join(parts, policy, journal, listen, self.control, earlier=earlier)
        experiment.microscope.keep = DebtsKept(journal, self.say)
        beam = self._under_way = Beam(experiment.microscope, journal, self.say)
        return Run(parts, experiment, beam, journal, engine, options, curve, answers)

    def _note_found_on(self, experiment_id: str, instrument: str) -> Callable[[bool], None]:
        return lambda is_dark: note_found_on(self.catalogue, experiment_id, instrument, is_dark=is_dark)

    def _note_out_of_reach(self, run: Run) -> None:
        if notes := run.parts.out_of_reach:
            run.journal.note(OUT_OF_REACH, {"notes": list(notes)})
        for note in notes:
            self.say(note)

    def _note_earlier(self, journal: Journal, parts: Parts, earlier: DoseLedger | None) -> None:
        specimen = parts.spec.specimen.id
        if specimen is not None and earlier is not None:
            dose = summed(specimen, earlier)
            journal.note(SPECIMEN_DOSE, dose.model_dump())
            self.say(f"specimen {specimen!r} got {dose.electrons:.3g} electrons before, at most "
                     f"{dose.dose_max_e_per_a2:.0f} e/A2 anywhere; that counts")  # fmt: skip
        elif not parts.microscope.capabilities().simulated and parts.spec.safety.max_dose_e_per_a2 is not None:
            self.say("the spec gives no specimen.id: what earlier experiments put on the specimen is not counted")

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
            run.beam.blank()
            ending = self._warned(run, ending)
            self._close(run, ending, started)
            if ending.status == "completed" and run.beam.not_blanked is None:
                ending = self._evaluated(run, ending)
        self._set_status(own, ending.status, ending.reason)
        run.beam.raise_if_on()
        return own

    def _ended(self, run: Run, started: float) -> Ending:
        """How the loop ended. After an instrument's fault that is written down, and the fault is raised."""
        try:
            ending = self._loop(run)
            run.beam.microscope.refuse_held()
            return ending if ending.status == "completed" else self._stopped_from_beside() or ending
        except InstrumentError as error:
            run.beam.stop()
            if (stopped := self._stopped_from_beside()) is not None:
                return stopped
            ending = self._warned(run, Ending("failed", f"instrument: {error}"))
            self._close(run, ending, started)
            self._set_status(run.journal.experiment_id, ending.status, ending.reason)
            raise
        except (LeaseLost, InstrumentLost):
            raise  # the instrument is somebody else's now, or gone
        except BaseException:
            run.beam.stop()
            raise
        finally:
            if run.engine is not None:
                run.engine.stop()

    def _warned(self, run: Run, ending: Ending) -> Ending:
        """The ending, with a warning where the beam may be on; an instrument elsewhere is asked again by its owner."""
        return run.beam.told_in(ending) if self.open_instrument is None else ending

    def _stopped_from_beside(self) -> Ending | None:
        """How a run here ends that somebody stopped by the stop line; None where nobody did."""
        because = self._here.stopped_because if self._here is not None else None
        return None if because is None else Ending("interrupted", because)

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
        microscope = run.experiment.microscope
        ledger = microscope.ledger
        run.journal.note(
            "closed",
            {
                "status": ending.status,
                "reason": ending.reason,
                "wall_time_s": time.monotonic() - started,
                "electrons": ledger.electrons,
                "dose_max_e_per_a2": ledger.max_e_per_a2,
                "dose_judged_e_per_a2": microscope.dose_judged_e_per_a2,
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


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload
