"""Everything that can be known to be wrong with a spec before it runs; all of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import policies
from instruments import ConfigurationError, InstrumentError, SafetyEnvelope
from orchestrator.errors import NotFound, OrchestratorError, SpecError
from orchestrator.loop import Experiment
from orchestrator.settings import InstrumentSettings, Settings
from orchestrator.spec import ExperimentSpec
from policies import SearchSpace
from workflows.assembly import Parts, check_first_frame, join, make_policy, prepare
from workflows.questions.registry import QUESTIONS


def faults_of(path: Path, overrides: dict[str, Any], settings: Settings) -> list[str]:
    """One line an error, each with its path in the file; an empty list for a spec that `run` would accept."""
    try:
        spec = ExperimentSpec.from_yaml(path, overrides)
    except SpecError as error:
        head, *lines = str(error).splitlines()
        return [line.strip() for line in lines] or [head]
    return faults_in(spec, settings)


def check_spec(spec: ExperimentSpec, settings: Settings) -> None:
    """Raise SpecError with one line an error for a spec that `run` would not accept."""
    if faults := faults_in(spec, settings):
        raise SpecError("\n".join(faults))


def faults_in(spec: ExperimentSpec, settings: Settings) -> list[str]:
    """One line an error, each with its path in the spec; an empty list for one that `run` would accept."""
    faults = [*_structure(spec), *_space(spec), *_names(spec, settings)]
    instrument = _instrument(spec, settings, faults)
    if instrument is not None:
        faults += _envelope(spec, instrument)
    return faults or (_trial(spec, instrument) if instrument is not None else faults)


def _structure(spec: ExperimentSpec) -> list[str]:
    structure = spec.specimen.structure
    if structure is None:
        return []
    from simulation.errors import SimulationError
    from simulation.specimens import read_structure

    try:
        read_structure(structure)
    except (SimulationError, OSError, ValueError) as error:
        return [f"specimen.structure: {error}"]
    return []


def _space(spec: ExperimentSpec) -> list[str]:
    faults: list[str] = []
    for name, variable in spec.search_space.items():
        try:
            SearchSpace.from_dict({name: variable})
        except policies.PolicyError as error:
            faults.append(f"search_space.{name}: {error}")
    return faults


def _names(spec: ExperimentSpec, settings: Settings) -> list[str]:
    del settings
    faults: list[str] = []
    if spec.objective.name not in QUESTIONS:
        faults.append(f"objective.name: {spec.objective.name!r} is not known; known: {', '.join(sorted(QUESTIONS))}")
    if spec.policy.name not in policies.names():
        faults.append(f"policy.name: {spec.policy.name!r} is not known; known: {', '.join(sorted(policies.names()))}")
    return faults


def _instrument(spec: ExperimentSpec, settings: Settings, faults: list[str]) -> InstrumentSettings | None:
    try:
        return settings.instrument(spec.instrument.name)
    except (NotFound, SpecError) as error:
        faults.append(f"instrument.name: {error}")
        return None


def _envelope(spec: ExperimentSpec, instrument: InstrumentSettings) -> list[str]:
    faults: list[str] = []
    for name in SafetyEnvelope.model_fields:
        if (value := getattr(spec.safety, name)) is not None:
            try:
                instrument.safety.narrowed_by(SafetyEnvelope(**{name: value}))
            except ConfigurationError as error:
                faults.append(str(error))
    return faults


def _trial(spec: ExperimentSpec, instrument: InstrumentSettings) -> list[str]:
    """What only shows when the parts are joined: modes, options, a budget too small for one frame."""
    try:
        parts = prepare(spec, 0, instrument, None)
        policy = make_policy(parts, spec.policy.name, spec.policy.options)
        check_first_frame(_unrecorded(parts, policy))
    except (OrchestratorError, InstrumentError) as error:
        return [line.strip() for line in str(error).splitlines()]
    return []


def _unrecorded(parts: Parts, policy: policies.Policy) -> Experiment:
    from workflows.looking_back import NoRecord

    return join(parts, policy, NoRecord(), lambda kind, payload: None)
