"""What a guard holds to while nobody answers at the other end: nothing is issued, and the beam counts as on.

The way back: connect, blank, debit the time between, and a person who has looked. Neighbour: `guards`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from instruments.book_entries import ExtraDebit, LinkLoss, Region
from instruments.errors import InstrumentError, LinkLost, LookNeeded, ResultUnknown
from instruments.microscope import Linked, Microscope


@dataclass(frozen=True, slots=True)
class Moment:
    """A time by both clocks: seconds that grow evenly, and the date."""

    clock_s: float
    at: datetime


@dataclass
class LinkWatch:
    """Whether commands may go out; `where` the beam may stand when the link breaks, and with which current."""

    clock: Callable[[], float]
    now: Callable[[], datetime]
    where: Callable[[], Region | None]
    current_pa: float = 0.0
    loss: LinkLoss | None = None
    held_because: str | None = None
    _lost_since_s: float = 0.0
    _what: str = ""

    def moment(self) -> Moment:
        """Now."""
        return Moment(self.clock(), self.now())

    def notice(self, error: InstrumentError, microscope: Microscope, asked: Moment) -> bool:
        """Whether `error` says that the link is gone, now for the first time.

        `asked` is when the call began that got no answer: nobody knows what the beam did since.
        """
        is_gone = isinstance(error, LinkLost) or (
            isinstance(error, ResultUnknown) and isinstance(microscope, Linked) and microscope.is_link_lost()
        )
        if not is_gone or self.loss is not None:
            return False
        self._lose("the link was lost", str(error), asked)
        return True

    def notice_lit(self, last_dark: Moment) -> None:
        """The beam is on though nothing is exposed: since when, and why, nobody knows."""
        self._lose("the beam was last seen off", "it is on though nothing is exposed", last_dark)

    def hold(self, because: str) -> None:
        """Let nothing out until a person has acknowledged; the first reason is the one to tell."""
        self.held_because = self.held_because or because

    def refuse(self) -> None:
        """Raise LinkLost while nothing may be issued, LookNeeded until a person has looked."""
        if self.loss is not None:
            raise LinkLost(
                f"nothing is issued: {self._what} {self.clock() - self._lost_since_s:.0f} s ago "
                f"({self.loss.because}); the beam counts as on; reconnect, which blanks it first"
            )
        if self.held_because is not None:
            raise LookNeeded(f"{self.held_because}; a person has to look at the instrument and acknowledge")

    def _lose(self, what: str, because: str, since: Moment) -> None:
        self._what, self._lost_since_s = what, since.clock_s
        self.loss = LinkLoss(lost_at=since.at, because=because, current_pa=self.current_pa, region=self.where())
        self.hold(f"{what} ({because}) and is back, the beam is blanked")

    def back(self, region: Region, current_pa: float, settle_s: float) -> ExtraDebit | None:
        """The beam is confirmed off: what it may have done anywhere it may have been; None: it was not lost.

        `region` and `current_pa` are what is read back now: it had that current at least, and may have stood there too.
        `settle_s` is how long the blanker takes, which may have only begun when it answered.
        """
        loss, self.loss = self.loss, None
        if loss is None:
            return None
        by_the_clock_s = self.clock() - self._lost_since_s  # it may stand still while a computer sleeps
        return loss.widened(region, current_pa).debit(
            max(by_the_clock_s, (self.now() - loss.lost_at).total_seconds(), 0.0) + settle_s
        )

    def acknowledge(self) -> None:
        """A person has looked. Raises LinkLost while the link is still gone."""
        if self.loss is not None:
            self.refuse()
        self.held_because = None
