"""What a guard holds to while nobody answers at the other end: nothing is issued, and the beam counts as on.

The way back: connect, blank, debit the time between, and a person who has looked. Neighbour: `guards`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instruments.dose_ledger import DoseLedger
from instruments.errors import InstrumentError, InstrumentFault, LinkLost, ResultUnknown
from instruments.footprints import Footprint
from instruments.microscope import Linked, Microscope
from instruments.units import electrons


@dataclass
class LinkWatch:
    """Whether commands may go out; what the beam lit when the link broke, with which current."""

    clock: Callable[[], float]
    lit: Callable[[], Footprint] | None = None
    current_pa: float = 0.0
    lost_since_s: float | None = None
    lost_because: str = ""
    needs_person: bool = False

    def notice(self, error: InstrumentError, microscope: Microscope) -> bool:
        """Whether `error` says that the link is gone, now for the first time."""
        is_gone = isinstance(error, LinkLost) or (
            isinstance(error, ResultUnknown) and isinstance(microscope, Linked) and microscope.is_link_lost()
        )
        if not is_gone or self.lost_since_s is not None:
            return False
        self.lost_since_s, self.lost_because, self.needs_person = self.clock(), str(error), True
        return True

    def refuse(self) -> None:
        """Raise LinkLost while nothing may be issued, InstrumentFault until a person has looked."""
        if self.lost_since_s is not None:
            raise LinkLost(
                f"nothing is issued: the link was lost {self.clock() - self.lost_since_s:.0f} s ago "
                f"({self.lost_because}); the beam counts as on; reconnect, which blanks it first"
            )
        if self.needs_person:
            raise InstrumentFault(
                f"the link was lost ({self.lost_because}) and is back, the beam is blanked; a person has to look at "
                "the instrument and acknowledge"
            )

    def had_at_least(self, current_pa: float, here: Footprint) -> None:
        """What is read back once it answers again: the least the beam had, and its place if no command said one."""
        self.current_pa = max(self.current_pa, current_pa)
        self.lit = self.lit or (lambda: here)

    def back(self, ledger: DoseLedger) -> float:
        """The beam is confirmed off: debit what it may have done anywhere it may have been; the electrons."""
        if self.lost_since_s is None:
            return 0.0
        burnt = electrons(self.current_pa, max(0.0, self.clock() - self.lost_since_s))
        if self.lit is not None and burnt > 0:
            ledger.add_somewhere(self.lit(), burnt)
        self.lost_since_s = None
        return burnt

    def acknowledge(self) -> None:
        """A person has looked. Raises LinkLost while the link is still gone."""
        if self.lost_since_s is not None:
            self.refuse()
        self.needs_person = False
