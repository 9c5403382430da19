"""What the ledger of an experiment holds besides its frames, across processes: written down, booked again, settled.

A process that dies cannot debit what its beam does afterwards; the next one does, from what the journal says.
Neighbours: `restart` books the frames again, `beam` makes the beam dark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from instruments import AcquireFrame, InstrumentError
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.remote.ownership import Ownership, ownership_path
from orchestrator.catalogue import Catalogue
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


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The exposure whose answer nobody has. `is_told`: the instrument knows what became of it, so when it ended, too.

    `is_living`: its process outlived whoever commanded it, and ends what runs past its deadline.
    """

    command: AcquireFrame
    is_told: bool
    is_living: bool


def note_found_on(catalogue: Catalogue, experiment_id: str, instrument: str, *, is_dark: bool) -> None:
    """Write down that the beam was on when the instrument was loaded, and whether it is off now.

    Where the experiment had begun, it counts as on since its last sign of life: that is owed, whoever dies next.
    """
    journal = Journal(catalogue, experiment_id)
    if (last_at := _last_sign_of_life(journal)) is not None:
        loss = LinkLoss(lost_at=last_at, because="the program ended with its beam on", current_pa=0.0)
        journal.note(loss.kind, loss.model_dump(mode="json"))
    if is_dark:
        journal.note(BEAM_BLANKED, {"instrument": instrument, "reason": "it was on at load"})


def book_debts(experiment: Experiment, journal: Journal, *, under_way: UnderWay | None) -> None:
    """Book again what was debited besides frames, and settle what no process came back to.

    A lost link, a beam that was found on, and an exposure of which the instrument cannot tell: from the last sign of
    life until the beam was known to be off.
    """
    owed: LinkLoss | None = None
    lost_at = _last_sign_of_life(journal)  # of what is under way
    is_settled, since = False, lost_at
    for event in journal.catalogue.events(journal.experiment_id, kinds=(EXTRA_DEBIT, LINK_LOSS)):
        if event.kind == LINK_LOSS:
            owed, since = owed or LinkLoss.model_validate(event.payload), event.recorded_at
            continue
        debit = ExtraDebit.model_validate(event.payload)
        experiment.microscope.book_again(debit)
        is_settled |= debit.settles is not None and debit.settles == lost_at
        if owed is not None and debit.settles == owed.lost_at:
            owed = None
    if owed is None and lost_at is not None and not is_settled and under_way is not None and not under_way.is_told:
        because = "the program ended during an exposure, and the instrument cannot tell what became of it"
        owed, since = LinkLoss(lost_at=lost_at, because=because, current_pa=0.0), lost_at
    if owed is not None and since is not None:
        dark_at = min(_known_dark(experiment, journal, since, under_way))
        debit = experiment.microscope.settle(owed, dark_at, under_way.command if under_way is not None else None)
        log.warning("%s: %.3g electrons debited: %s", journal.experiment_id, debit.electrons, debit.reason)


def _known_dark(
    experiment: Experiment, journal: Journal, since: datetime, under_way: UnderWay | None
) -> Iterator[datetime]:
    """When the beam was known to be off: now, by the watchdog, another process or a person, at a deadline."""
    yield experiment.now()
    blanked = journal.catalogue.events(journal.experiment_id, kinds=(BEAM_BLANKED,))
    yield from (event.recorded_at for event in blanked if event.recorded_at >= since)
    cleared_at = _cleared_at(journal.catalogue.data_folder, experiment.spec.instrument.name)
    if cleared_at is not None and cleared_at > since:
        yield cleared_at
    if under_way is not None and under_way.is_living:
        yield since + timedelta(seconds=under_way.command.deadline_s)


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
