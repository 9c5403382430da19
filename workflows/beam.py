"""The beam of one session: dark before anything else is asked, dark at the end; what is not confirmed is said.

Neighbours: `session` runs between the two, `attachment` asks an instrument's process the same once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from instruments import Blank, GuardedMicroscope, InstrumentError, InstrumentFault, Microscope, when_free
from instruments.remote.daemon_executor import DaemonExecutor
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.events import BEAM_NOT_BLANKED, STATUS_CHANGED
from orchestrator.journal import Journal
from orchestrator.loop import Ending
from workflows.assembly import OpenInstrument

BUSY_S: Final = 60.0  # an exposure of somebody else that has not ended when the instrument is loaded
STOP_S: Final = 25.0  # longer than an instrument elsewhere takes to say that its own stop does not come back


@dataclass
class DarkOpening:
    """Opens an instrument; a beam that is on is taken off before anything else is asked of it.

    `note` is told at once of a beam that was on, and whether it is off now.
    """

    open_instrument: OpenInstrument
    say: Callable[[str], None]
    note: Callable[[bool], object] = bool
    was_on: bool = False

    def __call__(self, adapter: str, config: Mapping[str, Any]) -> Microscope:
        """The microscope, its beam blanked. Raises InstrumentFault where it cannot be."""
        microscope = self.open_instrument(adapter, config)
        if not when_free(microscope.read_state, BUSY_S).beam_blanked:
            self.was_on = True
            self.say("the beam was on when the instrument was loaded; it is blanked first")
            try:
                _make_dark(microscope)
            except InstrumentFault:
                self.note(False)
                raise
            self.note(True)
        return microscope


def _make_dark(microscope: Microscope) -> None:
    """Blank under an id that no command had before; stop what does not obey."""
    name = microscope.capabilities().name
    try:
        blank = Blank(action_id=f"blank-at-load-{uuid4().hex}")
        if when_free(lambda: microscope.execute(blank), BUSY_S).beam_blanked:
            return
        because = "it says that its beam is on after the command to blank it"
    except InstrumentError as error:
        because = str(error)
    trouble = _trouble_of_stop(microscope)
    stopped = "it was stopped" if trouble is None else f"THE BEAM MAY BE ON, the stop was not confirmed: {trouble}"
    raise InstrumentFault(
        f"the beam of {name} was on when it was loaded and did not blank ({because}); {stopped}: look at the "
        "instrument, then start the experiment again"
    )


def _trouble_of_stop(microscope: Microscope) -> str | None:
    """None once the microscope's stop came back, else why it did not: an adapter may raise what it likes, or hang."""
    stopping = DaemonExecutor("stop").submit(microscope.stop)
    if not wait([stopping], timeout=STOP_S).done:
        return f"the microscope's stop has not come back in {STOP_S:.0f} s"
    error = stopping.exception()
    if error is None or isinstance(error, InstrumentError):
        return None if error is None else str(error)
    return f"{type(error).__name__}: {error}"


@dataclass
class Beam:
    """The beam of one experiment. `not_blanked` is why it may be on after `blank` or `stop`; None: it is off."""

    microscope: GuardedMicroscope
    journal: Journal
    say: Callable[[str], None]
    not_blanked: str | None = None

    def blank(self) -> None:
        """Leave it blanked; a microscope that cannot answer, or answers that it is on, is stopped instead.

        Raises StorageError after a stop, where the journal does not say how often it was blanked before.
        """
        try:
            state = self.microscope.execute(Blank(action_id=self._fresh_id()))
        except InstrumentError:
            self.stop()
            return
        except StorageError:
            self.stop()
            raise
        if not state.beam_blanked:
            self.stop()

    def _fresh_id(self) -> str:
        """One that no blank of this experiment had: its number grows with each session."""
        own = self.journal.experiment_id
        number = sum(1 for _ in self.journal.catalogue.events(own, kinds=(STATUS_CHANGED,)))
        return f"{own}-blank-{number:04d}"

    def stop(self) -> None:
        """Interrupt and blank; where that is not confirmed, it is said and written down."""
        self.halt()
        if self.not_blanked is None:
            return
        told = {"instrument": self.microscope.capabilities().name, "reason": self.not_blanked}
        try:
            self.journal.note(BEAM_NOT_BLANKED, told)
        except OrchestratorError as error:  # whoever stops has more to do than to write it down
            self.say(f"it could not be written down: {error}")

    def halt(self) -> None:
        """Interrupt and blank; nothing is written, so from any thread and from the handler of a signal."""
        self.not_blanked = _trouble_of_stop(self.microscope)
        if self.not_blanked is not None:
            self.say(self.warning)

    @property
    def warning(self) -> str:
        """What a person must know and do."""
        return f"THE BEAM MAY BE ON, the stop was not confirmed: {self.not_blanked}; blank it at the instrument"

    def told_in(self, ending: Ending) -> Ending:
        """The ending, with the warning where the beam may be on."""
        if self.not_blanked is None:
            return ending
        return Ending(ending.status, f"{ending.reason}; {self.warning}")

    def raise_if_on(self) -> None:
        """Raises InstrumentFault where the beam may be on: a run does not end well with that."""
        if self.not_blanked is not None:
            raise InstrumentFault(self.warning)
