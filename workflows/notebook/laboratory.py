"""An experiment to try things on: a spec, a world for every seed, and policies to run there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from instruments import Capabilities, DoseLedger, Frame, GuardedMicroscope, cards
from orchestrator import loop
from orchestrator.errors import Refused
from orchestrator.mapping import command_for
from orchestrator.memory_record import MemoryRecord
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from policies import Context, Observation, SearchSpace, Status, Suggestion, conformance
from workflows.assembly import Parts, join
from workflows.notebook.candidate import Candidate, Options, PolicyLike, candidate
from workflows.notebook.comparison import Comparison
from workflows.notebook.recorded import Recorded
from workflows.notebook.running import parts_of, run_trial, run_trials
from workflows.notebook.trial import Narrator, Trial

ADAPTERS = ("simulated", "replay")
_FAILURES: dict[int, Status] = {3: "failed", 7: "refused", 11: "unknown"}


class Laboratory:
    """A spec and this installation's settings; every run gets a fresh world of its seed.

    `overrides` sets keys of the spec, as `--set` of the command line does; the data folder holds the forward model and
    recorded runs. Only simulated and replayed instruments: a real one is used with `stempilot run`, which asks first.
    The settings are read again for every world, so that none goes by limits that the facility has replaced since.
    """

    def __init__(
        self,
        spec: ExperimentSpec | Path | str,
        overrides: Mapping[str, Any] | None = None,
        *,
        data: Path | str | None = None,
    ) -> None:
        self.spec = spec if isinstance(spec, ExperimentSpec) else ExperimentSpec.from_yaml(spec, dict(overrides or {}))
        self._data = Settings.folder_of(None if data is None else Path(data))
        self.settings = self._read()

    def _read(self) -> Settings:
        """The settings as they are now. Raises Refused for a real instrument, and as `Settings.load` does."""
        settings, name = Settings.load(self._data), self.spec.instrument.name
        adapter = settings.instrument(name).adapter
        if adapter not in ADAPTERS:
            raise Refused(
                f"instrument {name!r} (adapter {adapter!r}) is real; use `stempilot run`, which asks a person first"
            )
        return settings

    @cached_property
    def _known(self) -> Parts:
        return self._parts(0)

    @property
    def space(self) -> SearchSpace:
        """What a policy chooses."""
        return self._known.space

    @property
    def capabilities(self) -> Capabilities:
        """What the instrument can do."""
        return self._known.microscope.capabilities()

    @property
    def context(self) -> Context:
        """What a policy is told before it starts."""
        return self._known.question.context

    def prepare(self) -> None:
        """Compute the forward model now; it is kept in the data folder, so this is slow only once."""
        self._known.question.prepare()

    def frame_at(self, point: Mapping[str, Any], *, seed: int = 0) -> Frame:
        """One frame by hand, on a fresh world, within the safety envelope.

        Raises CommandRefused naming the limit, SpecError for a point that lacks a value.
        """
        parts = self._parts(seed)
        guarded = GuardedMicroscope(parts.microscope, parts.envelope, DoseLedger(), calibrations=parts.calibrations)
        return guarded.acquire(command_for(point, self.spec, guarded.capabilities(), "by-hand"))

    def run(
        self,
        policy: PolicyLike | Candidate | None = None,
        *,
        seed: int = 0,
        options: Options | None = None,
        say: Narrator | None = None,
        keep_frames: bool = True,
    ) -> Trial:
        """Run a policy (default: the spec's, with its options) to its end, in memory. Deterministic.

        `say` (for instance `print`) hears of every decision as it is taken.
        """
        chosen = self._chosen(policy, options, seed)
        self.settings = self._read()
        return run_trial(self.spec, self.settings, chosen, seed, say=say, keep_frames=keep_frames)

    def compare(
        self,
        policies: Mapping[str, PolicyLike | Candidate | None],
        *,
        seeds: Sequence[int] = (0, 1, 2),
        say: Narrator | None = None,
        processes: int | None = None,
    ) -> Comparison:
        """Run each policy on each seed, in as many processes as there are cores (or `processes`).

        The same seed is the same world for all of them, and results do not depend on the number of processes. A policy
        of None is the spec's own. Frames are not kept; `say` hears of every run as it ends.
        """
        plans = [(name, seed, self._chosen(policy, None, seed)) for seed in seeds for name, policy in policies.items()]
        if once := {name for name, _, chosen in plans if not chosen.is_reusable}:
            raise Refused(f"{', '.join(sorted(once))}: an object can be run once only; hand in its class")
        self.settings = self._read()
        self.prepare()
        trials: dict[str, list[Trial]] = {name: [] for name in policies}
        done = run_trials(self.spec, self.settings, [(chosen, seed) for _, seed, chosen in plans], processes)
        for (name, seed, _), trial in zip(plans, done, strict=True):
            trials[name].append(trial)
            if say is not None:
                say(f"seed {seed}  {name:20} {trial.measure} {trial.value():.3f}  {trial.electrons:.3g} electrons")
        return Comparison({name: tuple(each) for name, each in trials.items()})

    def record(
        self,
        policy: PolicyLike | Candidate | None = None,
        *,
        seed: int = 0,
        options: Options | None = None,
        say: Narrator | None = None,
        baselines: bool = False,
    ) -> Recorded:
        """Run a policy and keep everything in the data folder, as `stempilot run` does.

        The command line can resume and replay it as far as it finds the policy by its name.
        """
        from workflows.notebook.recorded import run_recorded

        chosen = self._chosen(policy, options, seed)
        self.settings = self._read()
        return run_recorded(self.spec, self.settings, chosen, seed, say, baselines=baselines)

    def check(
        self,
        policy: PolicyLike | Candidate,
        *,
        seed: int = 0,
        options: Options | None = None,
        step_count: int = 12,
    ) -> list[Suggestion]:
        """The laws of a policy, held against frames of this experiment; the suggestions made.

        A failed, a refused and an unanswered frame are among them. Raises `policies.conformance.LawBroken`, which says
        what was broken and where.
        """
        chosen = self._chosen(policy, options, seed)
        if not chosen.is_reusable:
            raise Refused(f"{chosen.name} is an object; the check needs many alike, hand in its class")
        parts = self._parts(seed)
        parts.question.prepare()
        record = MemoryRecord("check")
        experiment = join(parts, chosen.made(parts), record, _ignore)

        def measure(suggestion: Suggestion, step: int) -> Observation:
            if (status := _FAILURES.get(step % 12)) is not None:
                return loop.missed(experiment, suggestion, status, "one of the failures every policy must bear")
            intent, command = record.intend(suggestion, lambda action: experiment.command(suggestion, action))
            return loop.attempt(experiment, suggestion, intent, command)

        return conformance.check(lambda: chosen.made(parts), parts.space, measure=measure, step_count=step_count)

    def _chosen(self, policy: PolicyLike | Candidate | None, options: Options | None, seed: int) -> Candidate:
        if policy is None:
            return candidate(Candidate(self.spec.policy.name, self.spec.policy.options), options, seed)
        return candidate(policy, options, seed)

    def _parts(self, seed: int) -> Parts:
        self.settings = self._read()
        return parts_of(self.spec, self.settings, seed)

    def __repr__(self) -> str:
        return f"Laboratory({self.spec.name!r}, data={str(self.settings.data_folder)!r})"

    def _repr_html_(self) -> str:
        spec = self.spec
        budget = {name: value for name, value in spec.budget if value is not None}
        rows = {
            "question": spec.objective.name,
            "specimen": spec.specimen.material,
            "instrument": f"{spec.instrument.name} ({self.settings.instrument(spec.instrument.name).adapter})",
            "policy of the spec": spec.policy.name,
            "a policy chooses": list(spec.search_space),
            "budget": budget,
            "data folder": self.settings.data_folder,
        }
        return cards.card(f"Laboratory: {spec.name}", "", cards.facts(rows))


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload
