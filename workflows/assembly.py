"""Wiring: from a spec, a seed and settings to an experiment that can run. The one place that sees every package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import instruments
import policies
from instruments import (
    CalibrationRegistry,
    Capabilities,
    ConfigurationError,
    DoseLedger,
    GuardedMicroscope,
    Microscope,
    SafetyEnvelope,
)
from instruments.envelope_checks import unknown_limits
from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.errors import Refused, SpecError
from orchestrator.loop import Control, Experiment, Listener, Record
from orchestrator.mapping import command_for
from orchestrator.settings import BUILT_IN, InstrumentSettings
from orchestrator.spec import ExperimentSpec
from policies import Policy, SearchSpace
from workflows.questions.calibrated import calibrated, with_calibration
from workflows.questions.question import Question, Setting
from workflows.questions.registry import build_question
from workflows.reach import within_reach

OpenInstrument = Callable[[str, Mapping[str, Any]], Microscope]
"""How a microscope is opened: adapter and configuration to an instrument, in this process or where it lives."""


def open_here(adapter: str, config: Mapping[str, Any]) -> Microscope:
    """The instrument in this process."""
    return instruments.open(adapter, **config)


@dataclass(frozen=True, slots=True)
class Parts:
    """The pieces of one experiment before they are joined; baselines swap the policy."""

    spec: ExperimentSpec
    seed: int
    space: SearchSpace
    microscope: Microscope
    envelope: SafetyEnvelope
    question: Question
    calibrations: CalibrationRegistry = field(default_factory=CalibrationRegistry)
    out_of_reach: tuple[str, ...] = ()


def spec_of(catalogue: Catalogue, row: ExperimentRow) -> ExperimentSpec:
    """The spec an experiment was started or submitted with. Raises SpecError for an uploaded file that is missing."""
    return ExperimentSpec.model_validate(catalogue.uploads.resolve(row.spec))


def instrument_config(
    spec: ExperimentSpec, settings: InstrumentSettings, seed: int, cache_folder: Path | None
) -> dict[str, Any]:
    """The adapter's configuration: the facility's, then the spec's, then seed and structure for a simulated one.

    Raises SpecError for a spec that would configure a microscope: which one, and in what process, is the facility's.
    """
    if spec.instrument.config and settings.adapter not in BUILT_IN:
        keys = ", ".join(spec.instrument.config)
        raise SpecError(
            f"instrument.config: {keys}: the configuration of adapter {settings.adapter!r} is the facility's, in "
            f"[instruments.{spec.instrument.name}.config]; an experiment configures {' and '.join(BUILT_IN)} alone"
        )
    config: dict[str, Any] = {**settings.config, **spec.instrument.config}
    if settings.adapter in ("simulated", "replay"):
        config.setdefault("seed", seed)
    if settings.adapter == "simulated":
        if spec.specimen.structure is not None:
            config.setdefault("structure", str(spec.specimen.structure))
        if spec.specimen.defects:
            config.setdefault("defects", {name: change.model_dump() for name, change in spec.specimen.defects.items()})
        config.setdefault("beam_energy_ev", spec.instrument.optics.beam_energy_ev)
        config.setdefault("semi_convergence_angle_mrad", spec.instrument.optics.semi_convergence_angle_mrad)
        if cache_folder is not None:
            config.setdefault("cache_folder", str(cache_folder))
    return config


def envelope_of(spec: ExperimentSpec, settings: InstrumentSettings) -> SafetyEnvelope:
    """The facility's envelope, narrowed by the spec's safety and budget."""
    try:
        envelope = settings.safety.narrowed_by(spec.safety)
    except ConfigurationError as error:
        raise Refused(str(error)) from error
    electrons = [limit for limit in (envelope.max_electrons, spec.budget.electrons) if limit is not None]
    seconds = [limit for limit in (envelope.max_instrument_time_s, spec.budget.instrument_time_s) if limit is not None]
    return envelope.model_copy(
        update={
            "max_electrons": min(electrons, default=None),
            "max_instrument_time_s": min(seconds, default=None),
        }
    )


def prepare(
    spec: ExperimentSpec,
    seed: int,
    settings: InstrumentSettings,
    cache_folder: Path | None,
    open_instrument: OpenInstrument = open_here,
) -> Parts:
    """Open the instrument and build the question, exposing nothing. Raises SpecError, Refused or an InstrumentError."""
    space_of(spec)  # a mistake in it is said before anything is opened
    config = instrument_config(spec, settings, seed, cache_folder)
    try:
        microscope = open_instrument(settings.adapter, config)
    except ConfigurationError as error:
        raise SpecError(f"instrument.config: {error}") from error
    envelope, card = envelope_of(spec, settings), microscope.capabilities()
    if faults := [*mode_faults(spec, card), *unknown_limits(envelope, card)]:
        raise SpecError("\n  ".join(faults))
    reach = within_reach(spec, card)
    spec, space = reach.spec, space_of(reach.spec)
    question = build_question(Setting(spec, space, microscope.capabilities(), cache_folder))
    question = with_calibration(question, spec, microscope.capabilities())
    return Parts(
        spec,
        seed,
        space,
        microscope,
        envelope,
        question,
        CalibrationRegistry(settings.calibrations),
        reach.notes,
    )


def space_of(spec: ExperimentSpec) -> SearchSpace:
    """The search space of a spec. Raises SpecError naming what is wrong with it."""
    try:
        return SearchSpace.from_dict(spec.search_space)
    except policies.PolicyError as error:
        raise SpecError(f"search_space: {error}") from error


def mode_faults(spec: ExperimentSpec, capabilities: Capabilities) -> list[str]:
    """Modes the search space names and the instrument lacks, one line each."""
    known = [mode.name for mode in capabilities.modes]
    wanted = spec.search_space.get("mode", {}).get("choices", [])
    return [
        f"search_space.mode.choices: {mode!r} is not a mode of instrument {spec.instrument.name!r}; "
        f"it has {', '.join(known)}"
        for mode in wanted
        if mode not in known
    ]


MakePolicy = Callable[[Parts, str, Mapping[str, Any]], Policy]


def make_policy(parts: Parts, name: str, options: Mapping[str, Any]) -> Policy:
    """The policy by name. Raises SpecError for an unknown one or bad options."""
    try:
        return policies.create(name, parts.space, seed=parts.seed, context=parts.question.context, **options)
    except policies.PolicyError as error:
        raise SpecError(f"policy: {error}") from error


def join(
    parts: Parts,
    policy: Policy,
    record: Record,
    listen: Listener,
    control: Control | None = None,
    *,
    earlier: DoseLedger | None = None,
) -> Experiment:
    """One experiment, guarded, ready for `loop.run`; focused first where its spec says so.

    `earlier` is what its specimen got from other experiments.
    """
    ledger = DoseLedger(earlier=earlier)
    experiment = Experiment(
        spec=parts.spec,
        policy=policy,
        microscope=GuardedMicroscope(parts.microscope, parts.envelope, ledger, calibrations=parts.calibrations),
        record=record,
        extraction=parts.question.extraction,
        objective=parts.question.objective,
        listen=listen,
        control=control or Control(),
    )
    return calibrated(experiment, parts.seed)


def check_first_frame(experiment: Experiment) -> None:
    """Ask the guard about the policy's first frame before anything starts. Raises Refused when it cannot be paid."""
    suggestions = experiment.policy.suggest()
    if not suggestions:
        raise Refused(f"the policy has nothing to suggest within the budget: {experiment.policy.should_stop()}")
    command = command_for(suggestions[0].point, experiment.spec, experiment.capabilities, "check")
    try:
        instruments.when_free(lambda: experiment.microscope.check(command), command.deadline_s)
    except (instruments.CommandRefused, instruments.Unsupported) as error:
        earlier, known = experiment.microscope.ledger.earlier, ""
        if earlier is not None and earlier.electrons > 0:
            name = experiment.spec.specimen.id
            known = f"; specimen {name!r} got up to {earlier.max_e_per_a2:.0f} e/A2 from earlier experiments"
        raise Refused(f"the first frame would be refused: {error}{known}") from error
