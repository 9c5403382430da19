"""What a guard notes of every command it lets through: its states, where it may leave axes and beam, a lost link.

Neighbours: `guards` decides what goes through, `whereabouts` and `link_watch` keep what is noted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import hypot

from pydantic import ValidationError

from instruments.actions import NOTHING_MOVED, ActionState, state_after
from instruments.axes import axis_values
from instruments.beam_knowledge import BeamKnowledge
from instruments.book_entries import BookEntry, ExtraDebit, Region
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes
from instruments.errors import AcquisitionFailed, InstrumentError
from instruments.events import EventKind, InstrumentEvent, Teller
from instruments.exposure_checks import Charge
from instruments.illumination import Lean
from instruments.limits import SafetyEnvelope
from instruments.link_watch import LinkWatch, Moment
from instruments.microscope import Microscope, Rebuildable
from instruments.regions import half_extent_nm
from instruments.state import MicroscopeState, unsound
from instruments.units import electrons
from instruments.whereabouts import Whereabouts


class ActionWatch:
    """Notes what is issued to one microscope; `seen` is its state as last read, `time_s` the latest of its clock.

    `last_dark` is when its beam was last read back as off; `unanswered_s` how long the last command ran that failed.
    """

    def __init__(
        self,
        inner: Microscope,
        envelope: Callable[[], SafetyEnvelope],
        events: Teller,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        keep: Callable[[BookEntry], None],
        debit: Callable[[ExtraDebit], None],
    ) -> None:
        """`keep` is told of a lost link, `debit` of what a beam burnt that was seen on between two commands."""
        self.card: Capabilities = inner.capabilities()
        self.whereabouts = Whereabouts()
        self.link = LinkWatch(clock, now, self._last_region)
        self.beam = BeamKnowledge(self.card, envelope)
        self.seen: MicroscopeState | None = None
        self.unknown: dict[str, Command] = {}
        self.time_s = 0.0
        self.unanswered_s = 0.0
        self.last_dark: Moment | None = None
        self._issued: Moment | None = None
        self._lit_since: Moment | None = None
        self._doubted_since: Moment | None = None  # an exposure ended in a fault, and the beam was not read since
        self._put_out: Moment | None = None
        self._lit = _POINT
        self._inner, self._envelope, self._events, self._now, self._keep = inner, envelope, events, now, keep
        self._debit = debit

    def look(self) -> MicroscopeState:
        """The state read back now; what it tells of a link or a current that changed is noted."""
        with self.watched():
            self.seen = self._inner.read_state()
        self._doubted_since = None
        self.time_s = self.seen.time_s
        if self._issued is None:  # else it is what runs in another thread that lights it
            self._note_light(self.seen, self.last_dark)
        self.beam.look(self.seen, self._now())
        return self.seen

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notice a link that is lost, whichever question finds it out."""
        asked = self.link.moment()
        try:
            yield
        except InstrumentError as error:
            self.notice(error, asked)
            raise
        except ValidationError as error:
            raise unsound(error) from error

    def notice(self, error: InstrumentError, asked: Moment) -> None:
        """Keep what has to be debited if this says that the link is lost: since the call began that found it out.

        Or, where a command runs in another thread, since that began; where the beam was seen on before, since then.
        """
        if self.link.notice(error, self._inner, self._lit_since or self._issued or asked):
            self._lit_since = None
            self._tell_loss(str(error))

    def notice_lit(self, last_dark: Moment) -> None:
        """The beam was read back as on though nothing is exposed: since it was last seen off, nobody watched it."""
        self._lit_since = None
        self.link.notice_lit(last_dark)
        self._tell_loss("it is on though nothing is exposed")

    def _tell_loss(self, because: str) -> None:
        self.tell("link_lost", f"{because}; the beam counts as on")
        if self.link.loss is not None:
            self._keep(self.link.loss)

    @contextmanager
    def issued(self, command: Command, charge: Charge | None = None) -> Iterator[None]:
        """Tell what becomes of an action; remember where it may have left axes and beam; notice a lost link."""
        values = axis_values(command)
        self.tell_action(command, "accepted")
        self.tell_action(command, "running")
        self._issued = asked = self.link.moment()
        try:
            yield
        except BaseException as error:  # Ctrl-C, and what an adapter should not raise, leave it unknown too
            state = state_after(error) if isinstance(error, InstrumentError) else "unknown"
            self.tell_action(command, state, str(error))
            if state == "unknown":
                self.unknown[command.action_id] = command
            if not isinstance(error, NOTHING_MOVED):
                self.whereabouts.may_have_moved(values, self.time_s + command.deadline_s)
                self._note_current(command, values, asked.at, is_sure=False)
                self._note_lit(command, values, charge, may_be_before=True)
            self.unanswered_s = max(self.link.clock() - asked.clock_s, 0.0)
            was_put_out = self._put_out is not None and self._put_out.clock_s >= asked.clock_s
            may_be_lit = isinstance(command, AcquireFrame | RunProcedure) and not was_put_out
            if may_be_lit and not isinstance(error, (*NOTHING_MOVED, AcquisitionFailed)):
                self._doubted_since = self.link.moment()
            if isinstance(error, InstrumentError):
                self.notice(error, asked)
            if isinstance(error, ValidationError):
                raise unsound(error) from error
            raise
        finally:
            self._issued = None
        self.whereabouts.moved(values, self._time_after_s())
        self._note_current(command, values, asked.at, is_sure=True)
        self.tell_action(command, "done")
        if isinstance(command, Blank):
            self.tell("blanked", "the beam is blanked", command.action_id)

    def came_back(
        self, command: Command, state: MicroscopeState, charge: Charge | None = None, *, exposed: bool = True
    ) -> None:
        """What was read back when it was done: the beam may stand there as well. A dark frame exposed nothing."""
        self.seen = state
        self._note_light(state, None)
        if isinstance(command, AcquireFrame) and exposed:
            self.beam.exposed(command, state)
        self._note_lit(command, axis_values(command) if isinstance(command, SetAxes) else {}, charge)

    @property
    def is_lit(self) -> bool:
        """Whether the beam was last read back as on, nothing being exposed."""
        return self._lit_since is not None

    def debit_blanking(self) -> None:
        """Book what a beam that is on burns until it is off once it is told to be: the blanker's settling."""
        current_pa = max(self.link.current_pa, self.beam.most_pa(self.seen))
        burnt = electrons(current_pa, self.card.blanker_settle_s)
        if burnt > 0 and self.card.has_beam:
            reason = "the beam was on while it was blanked"
            self._debit(ExtraDebit(reason=reason, region=self.region(), electrons=burnt))

    def debit_doubt(self) -> None:
        """The beam is off, told so and not asked whether it was before: it may have been on since the last fault."""
        since, self._doubted_since, self._put_out = self._doubted_since, None, self.link.moment()
        if since is None or not self._counts_light():
            return
        unread_s = _between(since, self._put_out)
        current_pa = max(self.link.current_pa, self.beam.most_pa(self.seen))
        burnt = electrons(current_pa, unread_s + self.card.blanker_settle_s)
        if burnt > 0:
            reason = f"nobody knows whether the beam was on after a fault, {unread_s:.1f} s before it was blanked"
            self._debit(ExtraDebit(reason=reason, region=self.region(), electrons=burnt))

    def _counts_light(self) -> bool:
        """Whether light between two commands has to be booked here: a lost link is, when it is back."""
        return self.card.has_beam and self.link.loss is None and not isinstance(self._inner, Rebuildable)

    def region(self, wider_nm: float = 0.0) -> Region:
        """Where the beam may stand, and what it lights there at least; `wider_nm`: what it lights further around."""
        lit = self._lit
        x_nm, y_nm = lit.x_nm + wider_nm, lit.y_nm + wider_nm
        lowest, highest, shift_nm = self.whereabouts.steepest(self.seen, self.card)
        height_nm = max(self.beam.height_nm(stage) for stage in (lowest, highest))
        astray_nm = Lean.of(lowest, height_nm).astray_nm(hypot(x_nm, y_nm), shift_nm)
        box = self.whereabouts.box(self.seen, self.card)
        return Region.of(box.grown(x_nm + astray_nm, y_nm + astray_nm), lit.least_nm2)

    def unwatched(self, under_way: AcquireFrame | None) -> tuple[Region, float]:
        """Where a beam that nobody watched may stand, and its current at most: as read back now and as was asked."""
        state, current_pa = self.look(), 0.0
        charge = None
        if under_way is not None:
            charge = self.beam.charge_unseen(under_way)
            current_pa = charge.current_pa
            self.whereabouts.may_have_moved(axis_values(under_way), state.time_s)
            self._note_lit(under_way, {}, charge, may_be_before=True)
        return self.region(), max(current_pa, self.beam.most_pa(state, state.mode))

    def tell(self, kind: EventKind, message: str, action_id: str | None = None) -> None:
        """Publish something that is no state of a command, of `action_id` where it is one's."""
        self._events.publish(InstrumentEvent(kind=kind, message=message, action_id=action_id))

    def tell_action(self, command: Command, state: ActionState, message: str = "") -> None:
        """Publish what became of a command."""
        self._events.publish(
            InstrumentEvent(
                kind="action", action_id=command.action_id, command=command.kind, state=state, message=message
            )
        )

    def _note_light(self, state: MicroscopeState, since: Moment | None) -> None:
        """Whether the beam is on while nothing is exposed, since then or from now on; what it burnt once it is off."""
        now = self.link.moment()
        if not state.beam_blanked:
            self._lit_since = self._lit_since or since or now
            return
        since, self._lit_since, self.last_dark = self._lit_since, None, now
        if since is None or not self._counts_light():
            return
        lit_s = _between(since, now)
        burnt = electrons(max(self.link.current_pa, self.beam.most_pa(state, state.mode)), lit_s)
        if burnt > 0:
            reason = f"the beam was on though nothing was exposed, for {lit_s:.1f} s at most"
            self._debit(ExtraDebit(reason=reason, region=self.region(), electrons=burnt))

    def _note_current(
        self, command: Command, values: Mapping[str, AxisValue], sent_at: datetime, *, is_sure: bool
    ) -> None:
        """Whether the current is known any more."""
        self.beam.sets(values, sent_at, is_sure=is_sure)
        if isinstance(command, SetAxes):
            self.beam.set_to(values, self._now())
        procedure = self.card.procedure(command.name) if isinstance(command, RunProcedure) else None
        if procedure is not None and procedure.alters_current:
            self.beam.changed(f"procedure {procedure.name}", self._now())

    def _note_lit(
        self,
        command: Command,
        values: Mapping[str, AxisValue],
        charge: Charge | None,
        *,
        may_be_before: bool = False,
    ) -> None:
        """What the beam may light if the link is lost from now on; what it lit before, too, where that may be so."""
        if not self.card.has_beam:
            return
        if isinstance(command, RunProcedure):
            procedure = self.card.procedure(command.name)
            reach_nm = ((procedure.illuminated_nm if procedure is not None else None) or 0.0) / 2
            self._lit = self._lit.joined(_LitAround(reach_nm, reach_nm))
        elif isinstance(command, AcquireFrame | Park | SetAxes):
            lit = _LitAround.by(command, charge)
            self._lit = lit.joined(self._lit) if may_be_before else lit
            self.link.current_pa = self._current_pa(values, charge)

    def _last_region(self) -> Region | None:
        is_known = self.seen is not None or self.whereabouts.is_known
        return self.region() if is_known else None

    def _current_pa(self, values: Mapping[str, AxisValue], charge: Charge | None) -> float:
        if charge is not None:
            return charge.current_pa
        sent_pa = values.get("probe_current_pa")
        if isinstance(sent_pa, float | int):
            return sent_pa * (1 + self.card.current_uncertainty_fraction)
        return max(self.link.current_pa, self.beam.most_pa(self.seen))

    def _time_after_s(self) -> float:
        """The instrument's clock, asked only where a rate is limited."""
        limits = (self._envelope().axes or {}).values()
        has_rates = any(limit.max_rate_per_s is not None for limit in limits)
        return self.look().time_s if has_rates else self.time_s


def _between(since: Moment, now: Moment) -> float:
    """Seconds by whichever clock says more: one may stand still while a computer sleeps."""
    return max(now.clock_s - since.clock_s, (now.at - since.at).total_seconds())


@dataclass(frozen=True, slots=True)
class _LitAround:
    """How far from its place a beam may light, along x and y, and over which area at least."""

    x_nm: float = 0.0
    y_nm: float = 0.0
    least_nm2: float = 1.0

    @classmethod
    def by(cls, command: Command, charge: Charge | None) -> _LitAround:
        """What a command lights: a raster or a disc, or the point under a beam that stands still."""
        if not isinstance(command, AcquireFrame):
            return _POINT
        lit = charge.lit if charge is not None else None
        widest_nm = (lit.widest_nm if lit is not None else None) or command.scan.illuminated_nm or 0.0
        x_nm, y_nm = half_extent_nm(command.scan, widest_nm)
        return cls(x_nm, y_nm, max(lit.least_nm2, 1.0) if lit is not None else 1.0)

    def joined(self, other: _LitAround) -> _LitAround:
        """Either of them."""
        return _LitAround(max(self.x_nm, other.x_nm), max(self.y_nm, other.y_nm), min(self.least_nm2, other.least_nm2))


_POINT = _LitAround()
