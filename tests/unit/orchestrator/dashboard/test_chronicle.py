"""An experiment as its journal tells it, read at once or on and on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instruments import DoseLedger
from orchestrator.catalogue import Catalogue
from orchestrator.dashboard.chronicle import Chronicle, advance
from orchestrator.dashboard.chronicles import Chronicles
from orchestrator.queue import ExperimentQueue
from tests.unit.orchestrator.dashboard.journals import intend, measured, started


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder) as opened:
        yield opened


def test_read_on_and_on_is_read_at_once(catalogue: Catalogue) -> None:
    claim = started(catalogue, ExperimentQueue(catalogue))
    chronicles, own = Chronicles(catalogue), claim.experiment_id
    seen = [chronicles.of(own).last_seq]
    for seq in (1, 2):
        measured(catalogue, own, seq)
        seen.append(chronicles.of(own).last_seq)
    catalogue.mark(intend(catalogue, own, 3), "refused", "stage x 900 nm is outside +/-500 nm")
    catalogue.mark(intend(catalogue, own, 4), "unknown", "no answer in 30 s")
    intend(catalogue, own, 5)
    catalogue.append(own, "engine_changed", {"engine": "local", "because": "no server"})
    told = chronicles.of(own)
    assert told == advance(Chronicle(), catalogue.events(own))
    assert seen == sorted(set(seen))
    assert [step.status for step in told.steps] == ["done", "done", "refused", "unknown", "intended"]
    assert [step.seq for step in told.frames] == [1, 2]
    assert told.unanswered_count == 1
    assert [note.kind for note in told.notes] == ["engine_changed"]
    assert chronicles.of(own) is told


def test_what_was_spent_is_what_the_catalogue_counts(catalogue: Catalogue) -> None:
    own = started(catalogue, ExperimentQueue(catalogue)).experiment_id
    ledger = DoseLedger()
    for seq in (1, 2, 3):
        intent = measured(catalogue, own, seq)
        ledger.add_frame(intent.command, catalogue.frames(own)[-1].electrons)
    chronicles = Chronicles(catalogue)
    told, frames = chronicles.of(own), catalogue.frames(own)
    assert told.electrons == pytest.approx(sum(frame.electrons for frame in frames))
    assert told.instrument_time_s == pytest.approx(sum(frame.ended_s - frame.started_s for frame in frames))
    assert chronicles.dose_max_e_per_a2(own) == pytest.approx(ledger.max_e_per_a2)


def test_an_end_is_forgotten_when_it_goes_on(catalogue: Catalogue) -> None:
    queue = ExperimentQueue(catalogue)
    claim = started(catalogue, queue)
    own, chronicles = claim.experiment_id, Chronicles(catalogue)
    measured(catalogue, own, 1)
    catalogue.append(own, "closed", {"electrons": 5.0, "dose_max_e_per_a2": 7.0, "summary": {}})
    assert chronicles.of(own).electrons == 5.0
    assert chronicles.dose_max_e_per_a2(own) == 7.0
    queue.finish(claim, "interrupted", "its worker was stopped")
    queue.resume(own)
    assert queue.claim("simulated", "another", 600.0) is not None
    catalogue.set_status(own, "running", None)
    assert chronicles.of(own).closed == {}
    assert chronicles.dose_max_e_per_a2(own) > 7.0
