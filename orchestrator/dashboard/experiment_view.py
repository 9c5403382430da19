"""One experiment as its page shows it: from its row, its journal, its answer so far and its queue entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml
from markupsafe import Markup

from orchestrator.answer_file import AnswerSoFar
from orchestrator.catalogue import ExperimentRow
from orchestrator.dashboard import answers
from orchestrator.dashboard.asked import what_is_asked
from orchestrator.dashboard.chronicle import Chronicle, Note, Step
from orchestrator.dashboard.decision_lines import DecisionPage, decision_page
from orchestrator.dashboard.footprints import conditions, report_frame, where
from orchestrator.dashboard.meters import Meter, budget_meters
from orchestrator.dashboard.phrases import STATUS_WORDS, clock_time, counted, duration
from orchestrator.dashboard.queue_view import actions, wish_in_words
from orchestrator.dashboard.specimen_map import SpecimenMap, map_extent, scale_bar, specimen_map
from orchestrator.queue import WAITING, QueueEntry
from orchestrator.report.pictures import round_length_nm
from orchestrator.report.wording import numbers, without_folders

_PICTURE_PX = 480.0
_ENDED = ("completed", "failed", "cancelled", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePicture:
    """One detector of the last frame, with its scale bar."""

    detector: str
    markup: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class LastFrame:
    """The newest stored frame."""

    title: str
    pictures: tuple[FramePicture, ...]
    conditions: tuple[tuple[str, str], ...]
    download_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPage:
    """Everything on one experiment's page."""

    id: str
    name: str
    status: str
    status_words: str
    reason: str
    is_live: bool
    when: str
    entry: QueueEntry | None
    wanted: str | None
    actions: list[tuple[str, str]]
    instrument: str
    asked: list[tuple[str, str]]
    spec_text: str
    meters: list[Meter]
    headline: str | None
    answer_rows: list[answers.AnswerRow]
    answer_as_of: str
    map: SpecimenMap | None
    maps: list[tuple[str, str]]
    finds: list[answers.Find]
    last_frame: LastFrame | None
    decisions: DecisionPage
    notes: list[tuple[str, str]]
    unanswered: str
    version: str


def experiment_page(
    row: ExperimentRow,
    chronicle: Chronicle,
    *,
    entry: QueueEntry | None,
    answer: AnswerSoFar | None,
    detectors: tuple[str, ...],
    dose_max_e_per_a2: float,
    page_number: int,
    now: datetime,
) -> ExperimentPage:
    """The view of an experiment now; `detectors` are those of its newest frame."""
    spec, status = row.spec, row.status
    summary = chronicle.closed.get("summary") or (answer.summary if answer is not None else {})
    return ExperimentPage(
        id=row.id, name=row.name, status=status, status_words=STATUS_WORDS.get(status, status),
        reason=_reason(row, entry), is_live=status not in _ENDED, when=_when(row, chronicle, now),
        entry=entry, wanted=wish_in_words(entry) if entry is not None else None,
        actions=actions(status) if entry is not None else [], instrument=str(spec["instrument"]["name"]),
        asked=what_is_asked(spec, row.seed), spec_text=spec_text(spec),
        meters=budget_meters(chronicle, spec, dose_max_e_per_a2),
        headline=answers.headline(summary), answer_rows=answers.answer_rows(summary),
        answer_as_of=_as_of(chronicle, answer), map=_map(row, chronicle, answer), maps=answers.map_names(answer),
        finds=answers.surest_finds(answer, [report_frame(step) for step in chronicle.frames]),
        last_frame=_last_frame(row.id, chronicle, detectors),
        decisions=decision_page(chronicle.steps, page_number, now, is_running=status == "running"),
        notes=[_note(note, now) for note in chronicle.notes],
        unanswered=_unanswered(chronicle), version=f"{chronicle.last_seq}",
    )  # fmt: skip


def spec_text(spec: Mapping[str, Any]) -> str:
    """The spec as YAML, without the folders of the machine it was written on."""
    return yaml.safe_dump(without_folders(spec), sort_keys=False, allow_unicode=True)


def _reason(row: ExperimentRow, entry: QueueEntry | None) -> str:
    waits = entry is not None and row.status in WAITING
    return (entry.wait_reason if waits and entry is not None else row.reason) or ""


def _when(row: ExperimentRow, chronicle: Chronicle, now: datetime) -> str:
    submitted = f"submitted {clock_time(row.created_at, now)}"
    if chronicle.started_at is None:
        return submitted
    words = f"{submitted}, started {clock_time(chronicle.started_at, now)}"
    if row.status not in _ENDED:
        return words
    took = chronicle.closed.get("wall_time_s")
    return f"{words}, ended {clock_time(row.updated_at, now)}" + (f" after {duration(took)}" if took else "")


def _as_of(chronicle: Chronicle, answer: AnswerSoFar | None) -> str:
    if answer is None or chronicle.closed:
        return ""
    return f"after {answer.frame_count:,} of {counted(len(chronicle.frames), 'frame')}"


def _map(row: ExperimentRow, chronicle: Chronicle, answer: AnswerSoFar | None) -> SpecimenMap | None:
    extent = map_extent(chronicle, row.spec, answer)
    if extent is None or not chronicle.steps:
        return None
    surveys = sum(step.command["purpose"] == "survey" for step in chronicle.frames)
    ground = f"/experiments/{row.id}/ground.png?surveys={surveys}" if surveys else None
    return specimen_map(chronicle, extent, answer, ground_url=ground, is_running=row.status == "running")


def _last_frame(experiment_id: str, chronicle: Chronicle, detectors: tuple[str, ...]) -> LastFrame | None:
    if not chronicle.frames:
        return None
    step = chronicle.frames[-1]
    folder = f"/experiments/{experiment_id}/frames/{step.frame_id}"
    return LastFrame(
        title=f"Decision {step.seq}: {where(step)}",
        pictures=tuple(_picture(step, folder, detector) for detector in detectors),
        conditions=tuple(conditions(step)),
        download_url=f"/api/v1{folder}/file",
    )


def _picture(step: Step, folder: str, detector: str) -> FramePicture:
    frame = report_frame(step)
    height_px = _PICTURE_PX * frame.height_nm / frame.width_nm
    bar_nm = round_length_nm(0.25 * frame.width_nm)
    is_one_point = frame.width_nm == frame.pixel_size_nm  # a camera's pattern, which has no length
    bar = Markup() if is_one_point else scale_bar(bar_nm / frame.width_nm * _PICTURE_PX, bar_nm, height_px)
    label = f"{detector} image of decision {step.seq}, {frame.width_nm:.3g} nm wide"
    markup = Markup(
        '<svg class="frame" width="{0:.0f}" height="{1:.1f}" viewBox="0 0 {0:.0f} {1:.1f}" role="img" aria-label="{2}">'
        '<image href="{3}/{4}.png" width="{0:.0f}" height="{1:.1f}"/>{5}</svg>'
    ).format(_PICTURE_PX, height_px, label, folder, detector, bar)
    return FramePicture(detector=detector.upper(), markup=markup)


def _note(note: Note, now: datetime) -> tuple[str, str]:
    return clock_time(note.recorded_at, now), f"{note.kind.replace('_', ' ')}: {numbers(note.payload)}"


def _unanswered(chronicle: Chronicle) -> str:
    count = chronicle.unanswered_count
    if not count:
        return ""
    return f"{counted(count, 'exposure')} without an answer; the dose counts as spent and is in no frame."
