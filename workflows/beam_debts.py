"""What the ledger of an experiment holds besides its frames, across processes: written down, booked again, settled.

A process that dies cannot debit what its beam does afterwards; the next one does, from what the journal says.
Neighbours: `restart` books the frames again, `beam` makes the beam dark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instruments import AcquireFrame, InstrumentError
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.remote.ownership import Ownership, ownership_path
from orchestrator.errors import OrchestratorError
from orchestrator.events import BEAM_BLANKED, EXTRA_DEBIT, FRAME_STORED, INTENDED, LINK_LOSS, MARKED, OBSERVED
from orchestrator.journal import Journal
from orchestrator.loop import Experiment
from workflows.roles import run_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DebtsKept:
    """Writes into the journal what a guard books besides frames."""

    journal: Journal
    say: Callable[[str], None]

    def __call__(self, entry: BookEntry) -> None:
        """Write it down; what cannot be is said, and stays in this process' books."""
        try:
            self.journal.note(entry.kind, entry.model_dump(mode="json"))
        except OrchestratorError as error:  # whoever lost a link has more to do than to write it down
            self.say(f"it could not be written down, a restart will not know of it: {error}")


def book_debts(experiment: Experiment, journal: Journal, *, under_way: AcquireFrame | None, was_on: bool) -> None:
    """Book again what was debited besides frames, and settle what no process came back to.

    `was_on`: the beam was on when the instrument was loaded, so from the last sign of life until now; `under_way` is
    the exposure whose answer nobody has.
    """
    owed: LinkLoss | None = None
    for event in journal.catalogue.events(journal.experiment_id, kinds=(EXTRA_DEBIT, LINK_LOSS)):
        if event.kind == LINK_LOSS:
            owed = owed or LinkLoss.model_validate(event.payload)
            continue
        debit = ExtraDebit.model_validate(event.payload)
        experiment.microscope.book_again(debit)
        if owed is not None and debit.settles == owed.lost_at:
            owed = None
    now = experiment.now()
    dark_at = now
    if owed is not None and not was_on:
        dark_at = min([*_known_dark(journal, owed.lost_at), *_seen_by_a_person(experiment, journal, owed), now])
    if owed is None and was_on and (last_at := _last_sign_of_life(journal)) is not None:
        owed = LinkLoss(lost_at=last_at, because="the program ended with its beam on", current_pa=0.0)
    if owed is not None:
        debit = experiment.microscope.settle(owed, dark_at, under_way)
        log.warning("%s: %.3g electrons debited: %s", journal.experiment_id, debit.electrons, debit.reason)


def _known_dark(journal: Journal, since: datetime) -> list[datetime]:
    """When the watchdog, or another process, had the beam confirmed off."""
    blanked = journal.catalogue.events(journal.experiment_id, kinds=(BEAM_BLANKED,))
    return [event.recorded_at for event in blanked if event.recorded_at > since]


def _seen_by_a_person(experiment: Experiment, journal: Journal, owed: LinkLoss) -> list[datetime]:
    """When a person, having looked at the instrument, took its lock off."""
    cleared_at = _cleared_at(journal.catalogue.data_folder, experiment.spec.instrument.name)
    return [cleared_at] if cleared_at is not None and cleared_at > owed.lost_at else []


def _cleared_at(data_folder: Path, name: str) -> datetime | None:
    try:
        return Ownership(name, ownership_path(run_folder(data_folder), name)).cleared_at
    except InstrumentError:  # then nobody is known to have looked
        return None


def _last_sign_of_life(journal: Journal) -> datetime | None:
    kinds = (INTENDED, FRAME_STORED, OBSERVED, MARKED)
    return max(
        (event.recorded_at for event in journal.catalogue.events(journal.experiment_id, kinds=kinds)), default=None
    )
