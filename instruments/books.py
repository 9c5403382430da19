"""What a guard writes into its ledger: debits of frames, corrections to what was read back, what comes besides.

Neighbours: `guards` says when, `dose_ledger` holds the cells, `book_entries` are what a new process books again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

from instruments.book_entries import BookEntry, ExtraDebit
from instruments.commands import AcquireFrame
from instruments.dose_ledger import DoseLedger
from instruments.exposure_checks import Charge


class Books:
    """Debits into the ledger of one guard, from any thread: a look, which waits for no command, may debit too."""

    def __init__(self, ledger: Callable[[], DoseLedger], keep: Callable[[BookEntry], None]) -> None:
        """`keep` is told of what is booked besides frames."""
        self._ledger, self._keep = ledger, keep
        self._one_at_a_time = threading.RLock()

    def debit(self, command: AcquireFrame, charge: Charge) -> None:
        """What a frame costs at most."""
        self._add(command, charge, 1.0)

    def take_back(self, command: AcquireFrame, charge: Charge) -> None:
        """All of that: nothing moved."""
        self._add(command, charge, -1.0)

    def debit_besides(self, debit: ExtraDebit) -> None:
        """What came with no frame of its own."""
        self.book_again(debit)
        self._keep(debit)

    def book_again(self, debit: ExtraDebit) -> None:
        """The same in a new process, which is told by whoever kept it."""
        with self._one_at_a_time:
            debit.book(self._ledger())

    def correct(self, command: AcquireFrame, charge: Charge, electrons: float | None) -> None:
        """A frame's debit to these electrons; None: it stays."""
        if electrons is None or charge.electrons <= 0:
            return
        excess = charge.electrons - electrons
        settling = charge.settling_electrons * (excess / charge.electrons)  # all of it where nothing was exposed
        with self._one_at_a_time:
            self._ledger().add_frame(command, -excess, -settling, charge.cells)

    def recharge(
        self, command: AcquireFrame, charge: Charge, read_back_electrons: float | None, *, is_told: bool
    ) -> None:
        """Debit a frame again. `is_told`: what was read back counts, else only where it is more."""
        self.debit(command, charge)
        if read_back_electrons is None or not 0 <= read_back_electrons < inf:
            return
        if is_told or read_back_electrons > charge.electrons:  # more than was commanded flowed
            self.correct(command, charge, read_back_electrons)

    def _add(self, command: AcquireFrame, charge: Charge, sign: float) -> None:
        with self._one_at_a_time:
            self._ledger().add_frame(command, sign * charge.electrons, sign * charge.settling_electrons, charge.cells)
