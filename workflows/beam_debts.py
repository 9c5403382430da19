"""What the ledger of an experiment holds besides its frames, across processes: written down, booked again, settled.

A process that dies cannot debit what its beam does afterwards; the next one does, from what the journal says.
Neighbours: `restart` books the frames again, `beam` makes the beam dark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from instruments import AcquireFrame, InstrumentError
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.remote.ownership import Ownership, ownership_path
from orchestrator.catalogue import Catalogue
from orchestrator.errors import OrchestratorError, Refused, SpecError
from orchestrator.events import (
    BEAM_BLANKED,
    BEAM_SEEN_OFF,
    EXTRA_DEBIT,
    FRAME_STORED,
    INTENDED,
    LINK_LOSS,
    MARKED,
    OBSERVED,
)
from orchestrator.journal import Journal
from orchestrator.loop import Experiment
from workflows.roles import run_folder

LONG_S: Final = 600.0
FOUND_ON: Final = "the program ended with its beam on"
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


@dataclass(frozen=True, slots=True)
class SeenOff:
    """A person's word: from this moment on the beam was off, until the experiment was taken up again."""

    since: datetime
    by: str

    @classmethod
    def told(cls, off_since: str | None, by: str | None) -> SeenOff | None:
        """From words; a time without a zone is this computer's. Raises SpecError for half of it, or for no time."""
        if off_since is None and by is None:
            return None
        if off_since is None or not by:
            raise SpecError("--off-since and --by go together: when the beam was off, and who saw it")
        try:
            return cls(datetime.fromisoformat(off_since).astimezone(), by)
        except (ValueError, OverflowError) as error:
            raise SpecError(f'--off-since {off_since!r} is no time; write it like "2026-01-31 18:30"') from error


class BeamUnwatched(Refused):
    """Nobody watched the beam for long: what a person saw of it has to be said, or that nobody saw anything."""


def note_seen_off(journal: Journal, seen: SeenOff, now: datetime) -> None:
    """Write down what a person saw. Raises SpecError for what has not come yet, or was before the last sign of life."""
    last_at = _last_sign_of_life(journal)
    if seen.since > now:
        raise SpecError(f"--off-since {seen.since:%Y-%m-%d %H:%M:%S %Z}: that is still to come; give when it was off")
    if last_at is not None and seen.since < last_at:
        raise SpecError(
            f"--off-since {seen.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: the experiment lived until "
            f"{last_at:%Y-%m-%d %H:%M:%S} UTC; give when the beam was off after that"
        )
    journal.note(BEAM_SEEN_OFF, {"since": seen.since.isoformat(), "by": seen.by})


def note_found_on(catalogue: Catalogue, experiment_id: str, instrument: str, *, is_dark: bool) -> None:
    """Write down that the beam was on when the instrument was loaded, and whether it is off now.

    Where the experiment had begun, it counts as on since its last sign of life: that is owed, whoever dies next.
    """
    journal = Journal(catalogue, experiment_id)
    if (last_at := _last_sign_of_life(journal)) is not None:
        loss = LinkLoss(lost_at=last_at, because=FOUND_ON, current_pa=0.0)
        journal.note(loss.kind, loss.model_dump(mode="json"))
    if is_dark:
        journal.note(BEAM_BLANKED, {"instrument": instrument, "reason": "it was on at load"})


def book_debts(
    experiment: Experiment, journal: Journal, *, under_way: UnderWay | None, asks_about_beam: bool = False
) -> None:
    """Book again what was debited besides frames, and settle what no process came back to.

    A lost link, a beam that was found on, and an exposure of which the instrument cannot tell: from the last sign of
    life until the beam was known to be off. Raises BeamUnwatched for longer than `LONG_S` if a person can be asked.
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
        if asks_about_beam:
            _refuse_long(experiment, journal, owed, dark_at)
        debit = experiment.microscope.settle(owed, dark_at, under_way.command if under_way is not None else None)
        log.warning("%s: %.3g electrons debited: %s", journal.experiment_id, debit.electrons, debit.reason)


def _refuse_long(experiment: Experiment, journal: Journal, owed: LinkLoss, dark_at: datetime) -> None:
    """Raise BeamUnwatched before so long a debit is written down for good: a person may know better."""
    lit_s = (dark_at - owed.lost_at).total_seconds()
    if lit_s <= LONG_S or owed.because == FOUND_ON or not experiment.capabilities.has_beam:
        return
    own = journal.experiment_id
    raise BeamUnwatched(
        f"the beam of {experiment.spec.instrument.name!r} counts as on from {owed.lost_at:%Y-%m-%d %H:%M:%S} UTC for "
        f"{lit_s:.0f} s ({owed.because}), where it stood. If somebody saw it off before, say since when and who: "
        f'stempilot resume {own} --off-since "2026-01-31 18:30" --by NAME; else have all of it debited: '
        f"stempilot resume {own} --debit-all"
    )


def _known_dark(
    experiment: Experiment, journal: Journal, since: datetime, under_way: UnderWay | None
) -> Iterator[datetime]:
    """When the beam was known to be off: now, by the watchdog, another process or a person, at a deadline."""
    yield experiment.now()
    blanked = journal.catalogue.events(journal.experiment_id, kinds=(BEAM_BLANKED,))
    yield from (event.recorded_at for event in blanked if event.recorded_at >= since)
    yield from _seen_off(journal, since)
    cleared_at = _cleared_at(journal.catalogue.data_folder, experiment.spec.instrument.name)
    if cleared_at is not None and cleared_at > since:
        yield cleared_at
    if under_way is not None and under_way.is_living:
        yield since + timedelta(seconds=under_way.command.deadline_s)


def _seen_off(journal: Journal, since: datetime) -> Iterator[datetime]:
    """What persons said who saw the beam off."""
    for event in journal.catalogue.events(journal.experiment_id, kinds=(BEAM_SEEN_OFF,)):
        if (off_at := datetime.fromisoformat(event.payload["since"])) >= since:
            yield off_at


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
