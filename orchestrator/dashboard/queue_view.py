"""The queue as the first page shows it: what runs, what waits and why, what can go on, what has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.catalogue import Catalogue
from orchestrator.dashboard.chronicles import Chronicles
from orchestrator.dashboard.decision_lines import last_decision_in_words
from orchestrator.dashboard.instrument_view import InstrumentView
from orchestrator.dashboard.meters import Meter, budget_meters
from orchestrator.dashboard.past import PastPage
from orchestrator.dashboard.phrases import clock_time
from orchestrator.queue import QueueEntry, possible_actions

RUNNING_SHOWN: Final = 100
WAITING_SHOWN: Final = 50
ACTION_WORDS: Final = {"hold": "Hold", "release": "Release", "pause": "Pause", "resume": "Resume", "cancel": "Cancel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningExperiment:
    """One that runs: how far it is, what was decided last, what a person wants of it."""

    entry: QueueEntry
    since: str
    meters: tuple[Meter, ...]
    last_decision: str | None
    statement: str
    wanted: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """Everything on the first page; of those that wait the first ones, `more_waiting` where there are others."""

    running: tuple[RunningExperiment, ...]
    waiting: tuple[QueueEntry, ...]
    more_waiting: bool
    stopped: tuple[QueueEntry, ...]
    past: PastPage
    instruments: tuple[InstrumentView, ...]

    def reason_of(self, entry: QueueEntry) -> str:
        """Why an entry waits, with the name of what it waits for instead of its id."""
        reason = entry.wait_reason or ""
        for one in self.running:
            reason = reason.replace(f"{one.entry.id[:12]}…", one.entry.name)
        return reason

    @property
    def is_empty(self) -> bool:
        """Whether there has never been an experiment here."""
        return not (self.running or self.waiting or self.stopped or self.past.total)


def running_experiments(
    begun: Sequence[QueueEntry], catalogue: Catalogue, chronicles: Chronicles, now: datetime
) -> tuple[RunningExperiment, ...]:
    """Those that run, one an instrument at most."""
    return tuple(_running(entry, catalogue, chronicles, now) for entry in begun)


def _running(entry: QueueEntry, catalogue: Catalogue, chronicles: Chronicles, now: datetime) -> RunningExperiment:
    chronicle = chronicles.of(entry.id)
    meters = budget_meters(chronicle, catalogue.experiment(entry.id).spec, chronicles.dose_max_e_per_a2(entry.id))
    measured = [step for step in chronicle.steps if step.score]
    return RunningExperiment(
        entry=entry,
        since=clock_time(entry.started_at or entry.created_at, now),
        meters=tuple(meters),
        last_decision=last_decision_in_words(chronicle.steps),
        statement=str(measured[-1].score.get("statement", "")) if measured else "",
        wanted=wish_in_words(entry),
    )


def wish_in_words(entry: QueueEntry) -> str | None:
    """What was asked of a running one and not yet obeyed."""
    if entry.wanted is None:
        return None
    by = f" for {entry.wanted_by}" if entry.wanted_by else ""
    return f"will {entry.wanted} after this frame{by}"


def actions(status: str) -> list[tuple[str, str]]:
    """(action, what its button says) that are possible now; what ends it comes last."""
    possible = possible_actions(status)
    return [(action, words) for action, words in ACTION_WORDS.items() if action in possible]


def first_line(text: str | None) -> str:
    """The first line of a reason: the rest is on the experiment's own page."""
    return (text or "").splitlines()[0] if text else ""
