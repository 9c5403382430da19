"""Fills the report's data from the catalogue alone and writes the file beside the frames."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from instruments import Capabilities, DoseLedger
from instruments.units import electrons as electrons_of
from orchestrator.catalogue import Catalogue, ExperimentRow, StoredFrame
from orchestrator.errors import OrchestratorError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.journal import Journal, Past
from orchestrator.report import render_report
from orchestrator.report.report_data import (
    Evaluation,
    ExperimentFacts,
    LedgerShare,
    ReportData,
    ReportDecision,
    ReportFrame,
    Spending,
)
from orchestrator.report.wording import without_folders
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import join, prepare, spec_of
from workflows.described import looking_back
from workflows.flows.survey_report import is_survey, write_survey_page
from workflows.looking_back import NoPolicy, NoRecord
from workflows.restart import taken_again


def write_report(catalogue: Catalogue, settings: Settings, experiment_id: str) -> Path:
    """The report as one HTML file in the experiment's folder; its path. Raises OrchestratorError if it cannot write."""
    row = catalogue.experiment(experiment_id)
    if is_survey(row):
        return write_survey_page(catalogue, row.id)
    page = render_report(report_data(catalogue, settings, row))
    path = catalogue.data_folder / "experiments" / row.id / "report.html"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OrchestratorError(f"{path} cannot be written: {error}; the experiment itself is stored") from error
    return path


def report_data(catalogue: Catalogue, settings: Settings, row: ExperimentRow) -> ReportData:
    """Everything the report shows; the objective is answered again from the journalled features."""
    spec = spec_of(catalogue, row)
    steps = list(Journal(catalogue, row.id).past())
    cache = catalogue.data_folder / "cache"
    described = looking_back(catalogue, row.id)
    parts = prepare(spec, row.seed, settings.instrument(spec.instrument.name), cache, described)
    experiment = join(parts, NoPolicy(), NoRecord(), _ignore)
    features: dict[str, bytes] = {}
    for step in steps:
        taken_again(experiment, step)
        if step.observation is not None and step.observation.arrays is not None:
            features[step.intent.action_id] = step.observation.arrays
    closed, evaluated = _last(catalogue, row.id, "closed"), _last(catalogue, row.id, "evaluated")
    frames = {frame.id: frame for frame in catalogue.frames(row.id)}
    spending = _spending(spec, closed, steps, frames)

    def load_features(action_id: str) -> FeatureSet | None:
        return FeatureSet.from_bytes(features[action_id]) if action_id in features else None

    return ReportData(
        experiment=_facts(row, spec, closed, parts.microscope.capabilities()),
        spec=without_folders(row.spec),
        spec_text=yaml.safe_dump(without_folders(row.spec), sort_keys=False, allow_unicode=True),
        decisions=_decisions(steps),
        frames=tuple(_frame(step, frames[step.frame.id]) for step in steps if step.frame is not None),
        spending=spending,
        ledger=_shares(steps, frames, parts.microscope.capabilities()),
        summary=experiment.objective.summary(),
        maps=experiment.objective.maps(),
        load_frame=catalogue.load_frame,
        load_features=load_features,
        evaluation=_evaluation(evaluated),
        measured=parts.question.on_measured(settings.real_data_folder, cache) if parts.question.on_measured else None,
    )


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload


def _last(catalogue: Catalogue, experiment_id: str, kind: str) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for event in catalogue.events(experiment_id, kinds=(kind,)):
        payload = {**event.payload, "recorded_at": event.recorded_at.isoformat(timespec="seconds")}
    return payload


def _facts(
    row: ExperimentRow, spec: ExperimentSpec, closed: Mapping[str, Any], capabilities: Capabilities
) -> ExperimentFacts:
    return ExperimentFacts(
        id=row.id,
        name=row.name,
        status=row.status,
        reason=row.reason,
        created_at=row.created_at.isoformat(timespec="seconds"),
        ended_at=closed.get("recorded_at"),
        engine=row.engine,
        policy=spec.policy.name,
        seed=row.seed,
        instrument=spec.instrument.name,
        is_simulated=capabilities.simulated,
        versions=row.context.get("versions", {}),
    )


def _spending(
    spec: ExperimentSpec, closed: Mapping[str, Any], steps: list[Past], frames: Mapping[str, StoredFrame]
) -> Spending:
    ledger = DoseLedger()
    for step in steps:
        if step.frame is not None:
            ledger.add_frame(step.intent.command, frames[step.frame.id].electrons)
    return Spending(
        electrons=closed.get("electrons", ledger.electrons),
        instrument_time_s=sum((frame.ended_s - frame.started_s for frame in frames.values()), 0.0),
        dose_max_e_per_a2=closed.get("dose_max_e_per_a2", ledger.max_e_per_a2),
        limit_electrons=spec.budget.electrons,
        limit_instrument_time_s=spec.budget.instrument_time_s,
        limit_dose_e_per_a2=spec.safety.max_dose_e_per_a2,
    )


def _decisions(steps: list[Past]) -> tuple[ReportDecision, ...]:
    decisions: list[ReportDecision] = []
    electrons = seconds = 0.0
    for step in steps:
        decision = step.intent.decision
        if step.frame is not None:
            electrons += step.frame.electrons
            seconds += step.frame.ended_s - step.frame.started_s
        decisions.append(
            ReportDecision(
                seq=decision.seq,
                id=decision.id,
                suggestion_id=decision.suggestion_id,
                point=decision.point,
                prediction=decision.prediction,
                cost=decision.cost,
                reason=decision.reason,
                status=step.intent.stage,
                status_reason=step.reason,
                score=step.observation.payload["score"]["value"] if step.observation is not None else None,
                electrons=electrons,
                instrument_time_s=seconds if step.frame is not None else None,
                frame_id=step.frame.id if step.frame is not None else None,
            )
        )
    return tuple(decisions)


def _frame(step: Past, stored: StoredFrame) -> ReportFrame:
    command = step.intent.command
    return ReportFrame(
        id=stored.id,
        decision_seq=step.intent.decision.seq,
        action_id=stored.action_id,
        path=stored.path,
        sha256=stored.sha256,
        purpose=stored.purpose,
        mode=stored.mode,
        dose_e_per_a2=stored.dose_e_per_a2,
        electrons=stored.electrons,
        x_nm=command.stage.x_nm + command.scan.beam_shift_x_nm,
        y_nm=command.stage.y_nm + command.scan.beam_shift_y_nm,
        width_nm=command.scan.field_of_view_nm,
        height_nm=command.scan.height_nm,
        pixel_size_nm=stored.pixel_size_nm,
        dwell_time_us=stored.dwell_time_us,
        subframe_count=stored.subframe_count,
        started_s=stored.started_s,
        ended_s=stored.ended_s,
    )


def _shares(
    steps: list[Past], frames: Mapping[str, StoredFrame], capabilities: Capabilities
) -> tuple[LedgerShare, ...]:
    """Electrons on the pixels by purpose; flyback and blanker settling apart, in proportion to their time."""
    pixels: dict[str, float] = {}
    counts: dict[str, int] = {}
    flyback = settling = 0.0
    for step in steps:
        if step.frame is None:
            continue
        command, total = step.intent.command, frames[step.frame.id].electrons
        settle = min(electrons_of(command.optics.probe_current_pa, capabilities.blanker_settle_s), total)
        on_s, all_s = command.scan.beam_on_s(command.subframe_count), command.scan.duration_s(command.subframe_count)
        share = on_s / all_s if capabilities.flyback_exposes and all_s else 1.0
        pixels[command.purpose] = pixels.get(command.purpose, 0.0) + (total - settle) * share
        counts[command.purpose] = counts.get(command.purpose, 0) + 1
        flyback += (total - settle) * (1 - share)
        settling += settle
    rows = [LedgerShare(purpose=name, electrons=value, frame_count=counts[name]) for name, value in pixels.items()]
    return (
        *rows,
        LedgerShare(purpose="flyback", electrons=flyback),
        LedgerShare(purpose="blanker settling", electrons=settling),
    )


def _evaluation(evaluated: Mapping[str, Any]) -> Evaluation | None:
    if not evaluated:
        return None
    return Evaluation(
        verdict=evaluated["truth"],
        curve=tuple(evaluated["truth"].get("curve", ())),
        baselines=evaluated.get("baselines", {}),
    )
