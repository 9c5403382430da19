"""The guard around a microscope: it refuses, never clamps, and nothing goes round it.

Its neighbours: `limits` (what is allowed), `conditions` (whether a command may go, now), `action_watch` (what is noted
of it), `taken` (what a frame turns out to be), `books` (what was spent), `link_watch` (while nobody answers).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from uuid import uuid4

from instruments.action_watch import ActionWatch
from instruments.actions import NOTHING_MOVED, reconciled
from instruments.book_entries import BookEntry, ExtraDebit, LinkLoss
from instruments.books import Books
from instruments.calibrations import CalibrationRegistry
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.conditions import Conditions
from instruments.dose_ledger import DoseLedger
from instruments.envelope_checks import check_reached, sound, unknown_limits
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentFault,
    Unsupported,
)
from instruments.events import Eventful, Events, ToldOnce
from instruments.exposure_checks import Charge, worst_charge
from instruments.frames import Frame
from instruments.limits import SafetyEnvelope
from instruments.microscope import Closable, Linked, Microscope, Outcome, Rebuildable, TakesDarkFrames
from instruments.state import MicroscopeState
from instruments.taken import Taken, refuse_another
from instruments.units import electrons

__all__ = ["Charge", "GuardedMicroscope", "SafetyCheck", "worst_charge"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _keep_nothing(entry: BookEntry) -> None:
    del entry


@dataclass
class GuardedMicroscope:
    """A microscope that refuses what the envelope forbids and debits every exposure before it happens.

    The debit is the worst case; after a frame it is corrected to the electrons the instrument read back (if it reports
    dose). A failed or unanswered exposure stays debited in full. Once the link is lost nothing is issued: `reconnect`
    blanks first and debits the time between, and `acknowledge` is a person's. `keep` is told what is booked besides
    frames, so that a new process can book it again. Commands of several threads go one after another.
    """

    inner: Microscope
    envelope: SafetyEnvelope
    ledger: DoseLedger = field(default_factory=DoseLedger)
    time_before_s: float = 0.0
    calibrations: CalibrationRegistry = field(default_factory=CalibrationRegistry)
    events: Events = field(default_factory=Events)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _utc_now
    keep: Callable[[BookEntry], None] = _keep_nothing

    def __post_init__(self) -> None:
        told = ToldOnce(self.events)
        self._books = Books(lambda: self.ledger, lambda entry: self.keep(entry))
        self._watch = ActionWatch(
            self.inner, lambda: self.envelope, told, self.clock, self.now, lambda entry: self.keep(entry),
            self._books.debit_besides,
        )  # fmt: skip
        self._capabilities = self._watch.card
        if faults := unknown_limits(self.envelope, self._capabilities):
            raise ConfigurationError("; ".join(faults))
        self._conditions = Conditions(self.inner, lambda: self.envelope, self.calibrations, self._watch, self.now)
        self._one_at_a_time = threading.RLock()
        if isinstance(self.inner, Eventful):
            self.inner.events.attach(told)

    def capabilities(self) -> Capabilities:
        """Those of the instrument."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values of the instrument."""
        return self._watch.look()

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost; one that was unknown is told as what it turned out to be."""
        with self._watch.watched():
            outcome = self.inner.outcome(action_id)
        if action_id in self._watch.unknown and outcome != "unknown":
            self._watch.tell_action(self._watch.unknown.pop(action_id), reconciled(outcome))
        return outcome

    def stop(self) -> None:
        """Blank and interrupt; never refused, and it waits for no other command."""
        with self._watch.watched():
            self.inner.stop()
        if self._watch.is_lit:
            self._watch.debit_blanking()
        self._watch.debit_doubt()
        self._watch.tell("stopped", "stopped, the beam is blanked")

    def close(self) -> None:
        """Let go of what the instrument holds, where it holds anything."""
        if isinstance(self.inner, Closable):
            self.inner.close()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Check, debit, expose, correct the debit to what was read back. A CommandRefused comes before any move."""
        command = sound(command)
        with self._alone(command):
            self._watch.link.refuse()
            charge = self.check(command)
            self._refuse_lit()
            frame = self._paid(command, charge, self.inner.acquire)
            return self._with_calibrations(self._booked(command, charge, frame))

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """A dark frame: checked and debited as an exposure, until it says by itself that the beam was off after it."""
        inner = self.inner
        if not isinstance(inner, TakesDarkFrames):
            raise Unsupported(f"instrument {self._capabilities.name!r} takes no dark frames")
        command = sound(command)
        with self._alone(command):
            self._watch.link.refuse()
            charge = self.check(command)
            self._refuse_lit()
            frame = self._paid(command, charge, inner.acquire_dark)
            refuse_another(command, frame)
            self._watch.came_back(command, frame.state, charge, exposed=False)
            if frame.state.is_dark and frame.electrons == 0:
                self._books.take_back(command, charge)
            return frame

    def _paid(self, command: AcquireFrame, charge: Charge, expose: Callable[[AcquireFrame], Frame]) -> Frame:
        """Debited before it is exposed; taken back only where nothing moved, and more where nobody answers."""
        self._books.debit(command, charge)
        try:
            with self._watch.issued(command, charge):
                return expose(command)
        except NOTHING_MOVED:  # after any other error the debit stays
            self._books.take_back(command, charge)
            raise
        except AcquisitionFailed:
            raise
        except BaseException:
            self._debit_silence(command, charge.electrons)
            raise

    def fetch(self, command: AcquireFrame) -> Frame:
        """The frame of an exposure that the instrument says was made before a restart: debited, but not checked.

        Its electrons are on the specimen already, so no limit may refuse it now. Raises AcquisitionFailed where it is
        not handed over; the debit stays.
        """
        with self._alone(command):
            self._watch.link.refuse()
            charge = self._watch.beam.charge_unseen(command).placed(command)
            self._books.debit(command, charge)
            try:
                with self._watch.watched():
                    frame = self.inner.acquire(command)
            except (CommandRefused, Unsupported) as error:
                raise AcquisitionFailed(
                    f"exposed before the restart, but its frame is not handed over: {error}"
                ) from error
            return self._booked(command, charge, frame)

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, set axes, run a procedure; what exposes meanwhile is limited by the envelope and counted."""
        command = sound(command)
        with self._alone(command):
            match command:
                case Blank():
                    return self._blank(command)
                case AcquireFrame():
                    raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
                case Unblank():
                    raise CommandRefused(
                        "unblank is refused: a parked beam burns (30 pA for 1 s is 1.9e8 electrons on one spot); "
                        "acquire_frame unblanks and blanks by itself"
                    )
                case Park():
                    self._watch.link.refuse()
                    self._conditions.check_park(command)
                    return self._carry_out(command)
                case SetAxes():
                    return self._set_axes(command)
                case RunProcedure():
                    return self._run(command)

    def reconnect(self) -> MicroscopeState:
        """Connect anew and blank before anything else; the time between is debited. `acknowledge` comes after it.

        Raises LinkLost while nobody answers, InstrumentFault if the beam is not confirmed off.
        """
        with self._one_at_a_time:
            if isinstance(self.inner, Linked):
                self.inner.reconnect()
            state = self.inner.execute(Blank(action_id=f"blank-{uuid4().hex}"))
            if self._conditions.may_be_lit(state):
                raise InstrumentFault("the link is back, but the beam is not blanked: blank it at the instrument")
            self._watch.seen = state
            current_pa, settle_s = self._watch.beam.read_back_pa(state), self._capabilities.blanker_settle_s
            debit = self._watch.link.back(self._watch.region(), current_pa, settle_s)
            if debit is not None:
                self._books.debit_besides(debit)
            burnt = debit.electrons if debit is not None else 0.0
        self._watch.tell("link_back", f"the beam is blanked; {burnt:.3g} electrons debited for the time between")
        return state

    def is_link_lost(self) -> bool:
        """Whether nothing is issued until `reconnect`."""
        return self._watch.link.loss is not None

    @property
    def held_because(self) -> str | None:
        """Why nothing is issued until a person has acknowledged; None: it is."""
        return self._watch.link.held_because

    def refuse_held(self) -> None:
        """Raise LinkLost or LookNeeded where nothing would be issued any more."""
        self._watch.link.refuse()

    def acknowledge(self, by: str) -> None:
        """A person, by name, has looked at the instrument: after a lost link, or a frame that was taken elsewhere.

        Raises LinkLost while the link is lost.
        """
        self._watch.link.acknowledge()
        self._watch.tell("acknowledged", f"acknowledged by {by}")

    def tell_current(self, measured_pa: float, by: str) -> None:
        """A person, by name, measured the current, at a screen or a Faraday cup: it holds until something changes it.

        Raises CommandRefused for what is no current.
        """
        if not 0 <= measured_pa < inf:
            raise CommandRefused(f"a current of {measured_pa} pA is none: give what was measured, in pA")
        self._watch.beam.measured(measured_pa, self._watch.look())  # what stands now is what it was measured at
        self._watch.tell("current_measured", f"{measured_pa:g} pA, measured by {by}")

    def check(self, command: AcquireFrame) -> Charge:
        """What `command` would cost, or CommandRefused naming the value, the limit and the unit; nothing moves.

        Unsupported where it needs an axis that the instrument has not.
        """
        return self._conditions.check(command, self.ledger, self.time_before_s)

    @property
    def dose_judged_e_per_a2(self) -> float:
        """The highest dose of a cell as the limit is held against it: booked, and the uncertainty of the current."""
        return self.ledger.max_e_per_a2 * (1 + self._conditions.current_uncertainty_fraction)

    def check_limits(self, command: AcquireFrame) -> Charge:
        """The same by the envelope alone: for whoever tries whether an adapter refuses what its axes cannot do."""
        return self._conditions.check(command, self.ledger, self.time_before_s, by_axes=False)

    # --- after a restart

    def recharge(self, command: AcquireFrame, read_back_electrons: float | None) -> None:
        """Debit again what the journal holds; None (no answer was stored) costs the worst case."""
        charge = self._watch.beam.charge_unseen(command).placed(command)
        self._books.recharge(command, charge, read_back_electrons, is_told=self._capabilities.reports_dose)

    def book_again(self, entry: ExtraDebit) -> None:
        """Debit again what was booked besides frames."""
        self._books.book_again(entry)

    def settle(self, loss: LinkLoss, dark_at: datetime, under_way: AcquireFrame | None = None) -> ExtraDebit:
        """Debit a beam that nobody watched: from the loss until `dark_at`, when it is known to be off.

        `under_way` is the exposure then, whose answer nobody has. Raises InstrumentFault where it was dark before.
        """
        duration_s = (dark_at - loss.lost_at).total_seconds()
        if duration_s < 0:
            raise InstrumentFault(
                f"the beam was last known on at {loss.lost_at:%Y-%m-%d %H:%M:%S} UTC and dark at {dark_at:%H:%M:%S}, "
                "before that: set this computer's clock right"
            )
        debit = loss.widened(*self._watch.unwatched(under_way)).debit(duration_s)
        self._books.debit_besides(debit)
        return debit

    def count_time_from(self, spent_s: float) -> None:
        """So much microscope time was spent before; the instrument's clock adds to it from now on."""
        self.time_before_s = spent_s - self._conditions.clock_s(self.read_state())

    # --- commands without a frame

    def _carry_out(self, command: Command) -> MicroscopeState:
        with self._watch.issued(command):
            state = self.inner.execute(command)
        self._watch.came_back(command, state)
        return state

    def _blank(self, command: Blank) -> MicroscopeState:
        """The beam off. What it burns meanwhile is booked before; one that nobody saw yet, when its place is known."""
        is_unseen = self._watch.seen is None
        if self._watch.is_lit:
            self._watch.debit_blanking()
        state = self._carry_out(command)
        if is_unseen:
            self._watch.debit_blanking()
        self._watch.debit_doubt()
        return state

    def _set_axes(self, command: SetAxes) -> MicroscopeState:
        self._watch.link.refuse()
        self._conditions.check_setting(command)
        state = self._carry_out(command)
        if missing := {name: value for name, value in command.values.items() if name not in state.axes}:
            state = state.with_readings(missing, self._capabilities)
        check_reached(command.values, state)
        return state

    def _run(self, command: RunProcedure) -> MicroscopeState:
        self._watch.link.refuse()
        debit = self._conditions.check_procedure(command, self.ledger)
        self._refuse_lit()
        if debit is None:
            return self._carry_out(command)
        self._books.debit_besides(debit)
        self._watch.link.current_pa = self._watch.beam.most_pa(self._watch.seen)
        try:
            return self._carry_out(command)
        except NOTHING_MOVED:
            self._books.debit_besides(debit.model_copy(update={"electrons": -debit.electrons}))
            raise
        except BaseException:
            self._debit_silence(command, debit.electrons)
            raise

    def _refuse_lit(self) -> None:
        """Nothing moves under a beam that was just read back as on: it burns where nobody counts it.

        One that was off before counts as lost from sight (LinkLost); one that nobody saw off yet is blanked. Raises
        CommandRefused where it stays on.
        """
        state = self._watch.seen
        if not self._capabilities.has_beam or state is None or state.beam_blanked:
            return
        if self._watch.last_dark is not None:
            self._watch.notice_lit(self._watch.last_dark)
            self._watch.link.refuse()
        if not self._blank(Blank(action_id=f"blank-{uuid4().hex}")).beam_blanked:
            raise CommandRefused("the beam is on and does not blank: it would burn until the exposure; look why")

    # --- the books

    def _debit_silence(self, command: Command, booked_electrons: float) -> None:
        """The beam may be on until an answer is given up: what that is beyond the books. A lost link is counted so.

        Nothing burns in a simulated world that is rebuilt from its commands, whose time is not the clock's.
        """
        if isinstance(self.inner, Rebuildable):
            return
        burnt = electrons(self._watch.link.current_pa, self._watch.unanswered_s) - booked_electrons
        if burnt > 0 and self._capabilities.has_beam and not self.is_link_lost():
            reason = f"{command.kind} {command.action_id}: no answer for {self._watch.unanswered_s:.1f} s"
            self._books.debit_besides(ExtraDebit(reason=reason, region=self._watch.region(), electrons=burnt))

    def _booked(self, command: AcquireFrame, charge: Charge, frame: Frame) -> Frame:
        """The frame, the books made to say what was read back: how much, where, and how wide.

        Raises InstrumentFault for the frame of another command: then the worst case stays.
        """
        refuse_another(command, frame)
        measured_pa = self._watch.beam.measured_in(frame.state)
        taken = Taken.of(command, charge, frame, self._capabilities, measured_pa)
        self._books.correct(command, charge, taken.electrons)
        self._watch.came_back(command, frame.state, charge)
        if (debit := taken.debit_elsewhere(charge)) is not None:
            self._books.debit_besides(debit)
        for kind, message in taken.findings:
            self._watch.tell(kind, message, command.action_id)
        if (fault := self._conditions.fault_of(taken)) is not None:
            self._watch.link.hold(fault)
        return taken.frame

    def _with_calibrations(self, frame: Frame) -> Frame:
        used = tuple(one.id for one in self.calibrations.in_use(self.now()))
        return replace(frame, state=frame.state.model_copy(update={"calibrations": used})) if used else frame

    @contextmanager
    def _alone(self, command: Command) -> Iterator[None]:
        """Whoever checks a command against the books and the axes is the only one who changes them meanwhile.

        Raises InstrumentBusy where it has to wait past its deadline; a blank that has to becomes a stop.
        """
        if not self._one_at_a_time.acquire(timeout=command.deadline_s):
            if isinstance(command, Blank):
                self.stop()
            raise InstrumentBusy(
                f"another command has run for {command.deadline_s:g} s; nothing moved: try again, or stop it"
            )
        try:
            yield
        finally:
            self._one_at_a_time.release()


SafetyCheck = Callable[[AcquireFrame], Charge]
