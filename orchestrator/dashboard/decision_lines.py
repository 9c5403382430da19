"""Decisions as the page tells them: where, why in words, what came of it. Newest first, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.dashboard.chronicle import Step
from orchestrator.dashboard.footprints import where
from orchestrator.dashboard.phrases import OUTCOME_WORDS, clock_time
from orchestrator.report.wording import numbers, words_of

PAGE_LENGTH: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLine:
    """One decision; `outcome` says what came of it, `status` is its word for programs and for its colour."""

    seq: int
    at: datetime
    at_words: str
    where: str
    why: str
    numbers: str
    point: str
    status: str
    outcome: str
    statement: str
    dose: str
    frame_id: str | None

    @property
    def is_amiss(self) -> bool:
        """Whether it brought no frame."""
        return self.status in ("refused", "failed", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPage:
    """Some of the decisions; `number` counts pages from 1, the newest."""

    lines: tuple[DecisionLine, ...]
    number: int
    page_count: int
    decision_count: int


def decision_page(steps: Sequence[Step], number: int, now: datetime, *, is_running: bool) -> DecisionPage:
    """A page of decisions; a number beyond the last page gives the last."""
    page_count = max(1, -(-len(steps) // PAGE_LENGTH))
    number = min(max(1, number), page_count)
    newest_first = steps[::-1][(number - 1) * PAGE_LENGTH : number * PAGE_LENGTH]
    return DecisionPage(
        lines=tuple(decision_line(step, now, is_running=is_running) for step in newest_first),
        number=number, page_count=page_count, decision_count=len(steps),
    )  # fmt: skip


def decision_line(step: Step, now: datetime, *, is_running: bool) -> DecisionLine:
    """One decision in words."""
    rest = {key: value for key, value in step.reason.items() if key != "why"}
    return DecisionLine(
        seq=step.seq,
        at=step.intended_at,
        at_words=clock_time(step.intended_at, now),
        where=where(step),
        why=why(step),
        numbers=numbers(rest),
        point=words_of(step.point),
        status=step.status,
        outcome=_outcome(step, is_running=is_running),
        statement=str(step.score.get("statement", "")),
        dose="" if step.dose_e_per_a2 is None else f"{step.dose_e_per_a2:,.0f} e/Å²",
        frame_id=step.frame_id if step.has_frame else None,
    )


def why(step: Step) -> str:
    """The policy's reason in words."""
    return str(step.reason.get("why", "no reason given"))


def last_decision_in_words(steps: Sequence[Step]) -> str | None:
    """The newest decision in one sentence, None before there is one."""
    if not steps:
        return None
    step = steps[-1]
    return f"{step.seq}: {where(step)}. {why(step).rstrip('.')}."


def _outcome(step: Step, *, is_running: bool) -> str:
    if step.status in ("intended", "stored") and not is_running:
        return "not finished; settled when the experiment goes on"
    words = OUTCOME_WORDS.get(step.status, step.status)
    return f"{words}: {step.status_reason}" if step.status_reason else words
