"""What a guard holds to while nobody answers at the other end: nothing is issued, and the beam counts as on.

The way back: connect, blank, debit the time between, and a person who has looked. Neighbour: `guards`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from instruments.book_entries import ExtraDebit, LinkLoss, Region
from instruments.errors import InstrumentError, InstrumentFault, LinkLost, ResultUnknown
from instruments.microscope import Linked, Microscope
from instruments.units import electrons


@dataclass
class LinkWatch:
    """Whether commands may go out; where the beam may stand when the link breaks, and with which current."""

    clock: Callable[[], float]
    now: Callable[[], datetime]
    region: Region | None = None
    current_pa: float = 0.0
    loss: LinkLoss | None = None
    held_because: str | None = None
    _lost_since_s: float = 0.0

    def notice(self, error: InstrumentError, microscope: Microscope) -> bool:
        """Whether `error` says that the link is gone, now for the first time."""
        is_gone = isinstance(error, LinkLost) or (
            isinstance(error, ResultUnknown) and isinstance(microscope, Linked) and microscope.is_link_lost()
        )
        if not is_gone or self.loss is not None:
            return False
        self._lost_since_s, because = self.clock(), str(error)
        self.loss = LinkLoss(lost_at=self.now(), because=because, current_pa=self.current_pa, region=self.region)
        self.hold(f"the link was lost ({because}) and is back, the beam is blanked")
        return True

    def hold(self, because: str) -> None:
        """Let nothing out until a person has acknowledged; the first reason is the one to tell."""
        self.held_because = self.held_because or because

    def refuse(self) -> None:
        """Raise LinkLost while nothing may be issued, InstrumentFault until a person has looked."""
        if self.loss is not None:
            raise LinkLost(
                f"nothing is issued: the link was lost {self.clock() - self._lost_since_s:.0f} s ago "
                f"({self.loss.because}); the beam counts as on; reconnect, which blanks it first"
            )
        if self.held_because is not None:
            raise InstrumentFault(f"{self.held_because}; a person has to look at the instrument and acknowledge")

    def lit(self, region: Region, current_pa: float) -> None:
        """What the beam may light from now on."""
        self.region, self.current_pa = region, current_pa

    def lit_besides(self, region: Region, current_pa: float) -> None:
        """What is found out while it is lost: what the beam had at least, and where it may stand as well."""
        loss = self.loss
        if loss is None:
            return
        if loss.region is not None:
            least_nm2 = min(region.least_nm2, loss.region.least_nm2)
            region = Region.of(region.box.joined(loss.region.box), least_nm2)
        current_pa = max(loss.current_pa, current_pa)
        self.loss = loss.model_copy(update={"region": region, "current_pa": current_pa})

    def back(self) -> ExtraDebit | None:
        """The beam is confirmed off: what it may have done anywhere it may have been, or None if it was not lost."""
        loss, self.loss = self.loss, None
        if loss is None:
            return None
        by_the_clock_s = self.clock() - self._lost_since_s  # it may stand still while a computer sleeps
        return debit_of(loss, max(by_the_clock_s, (self.now() - loss.lost_at).total_seconds(), 0.0))

    def acknowledge(self) -> None:
        """A person has looked. Raises LinkLost while the link is still gone."""
        if self.loss is not None:
            self.refuse()
        self.held_because = None


def debit_of(loss: LinkLoss, duration_s: float) -> ExtraDebit | None:
    """What the beam of a lost link may have burnt in this time; None where that is nothing."""
    burnt = electrons(loss.current_pa, duration_s)
    if loss.region is None or burnt <= 0:
        return None
    reason = f"link lost at {loss.lost_at:%Y-%m-%d %H:%M:%S} UTC, the beam known dark {duration_s:.0f} s later"
    return ExtraDebit(reason=reason, region=loss.region, electrons=burnt)
