"""The guard around a microscope: it refuses, never clamps, and nothing goes round it.

Its neighbours: `limits` (what is allowed), `envelope_checks` (whether a command is), `exposure_checks` (what it costs),
`dose_ledger` (what was spent), `link_watch` (what holds while nobody answers).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from uuid import uuid4

from instruments.actions import NOTHING_MOVED, ActionState, reconciled, state_after
from instruments.axes import axis_values
from instruments.calibrations import CalibrationRegistry
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.dose_ledger import DoseLedger
from instruments.envelope_checks import (
    check_bounds,
    check_permissions,
    check_pole_piece,
    check_steps,
    moves_the_beam,
    needs_permission,
    sound,
    stands,
    unknown_limits,
    within,
)
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentError,
    InstrumentFault,
    Unsupported,
)
from instruments.events import EventKind, Events, InstrumentEvent
from instruments.exposure_checks import Charge, check_dose, check_exposure, procedure_electrons, worst_charge
from instruments.footprints import footprint, spot
from instruments.frames import Frame
from instruments.limits import SafetyEnvelope
from instruments.link_watch import LinkWatch
from instruments.microscope import Closable, Forecasting, Linked, Microscope, Outcome
from instruments.state import MicroscopeState
from instruments.whereabouts import Whereabouts

log = logging.getLogger(__name__)
_CURRENT_ROUNDING = 1e-6
__all__ = ["Charge", "GuardedMicroscope", "SafetyCheck", "worst_charge"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class GuardedMicroscope:
    """A microscope that refuses what the envelope forbids and debits every exposure before it happens.

    The debit is the worst case; after a frame it is corrected to the electrons the instrument read back (if it reports
    dose). A failed or unanswered exposure stays debited in full. Once the link is lost nothing is issued: `reconnect`
    blanks first and debits the time between, and `acknowledge` is a person's.
    """

    inner: Microscope
    envelope: SafetyEnvelope
    ledger: DoseLedger = field(default_factory=DoseLedger)
    time_before_s: float = 0.0
    calibrations: CalibrationRegistry = field(default_factory=CalibrationRegistry)
    events: Events = field(default_factory=Events)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _utc_now

    def __post_init__(self) -> None:
        self._capabilities = self.inner.capabilities()
        if faults := unknown_limits(self.envelope, self._capabilities):
            raise ConfigurationError("; ".join(faults))
        self._whereabouts = Whereabouts()
        self._link = LinkWatch(self.clock)
        self._warned: set[str] = set()
        self._unknown: dict[str, Command] = {}
        self._time_s = 0.0  # of the instrument's clock, as last read
        self._seen: MicroscopeState | None = None

    def capabilities(self) -> Capabilities:
        """Those of the instrument."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values of the instrument."""
        with self._watched():
            self._seen = self.inner.read_state()
        return self._seen

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost; one that was unknown is told as what it turned out to be."""
        with self._watched():
            outcome = self.inner.outcome(action_id)
        if action_id in self._unknown and outcome != "unknown":
            self._tell_action(self._unknown.pop(action_id), reconciled(outcome))
        return outcome

    def stop(self) -> None:
        """Blank and interrupt; never refused."""
        with self._watched():
            self.inner.stop()
        self._tell("stopped", "stopped, the beam is blanked")

    def close(self) -> None:
        """Let go of what the instrument holds, where it holds anything."""
        if isinstance(self.inner, Closable):
            self.inner.close()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Check, debit, expose, correct the debit to what was read back. A CommandRefused comes before any move."""
        self._link.refuse()
        command = sound(command)
        charge = self.check(command)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        try:
            with self._issued(command):
                frame = self.inner.acquire(command)
        except NOTHING_MOVED:  # after any other error the debit stays
            self.ledger.add_frame(command, -charge.electrons, -charge.settling_electrons)
            raise
        self._correct(command, charge, frame.electrons)
        return self._with_calibrations(frame)

    def fetch(self, command: AcquireFrame) -> Frame:
        """The frame of an exposure that the instrument says was made before a restart: debited, but not checked.

        Its electrons are on the specimen already, so no limit may refuse it now. Raises AcquisitionFailed where it is
        not handed over; the debit stays.
        """
        self._link.refuse()
        charge = worst_charge(command, self._capabilities)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        try:
            with self._watched():
                frame = self.inner.acquire(command)
        except (CommandRefused, Unsupported) as error:
            raise AcquisitionFailed(f"exposed before the restart, but its frame is not handed over: {error}") from error
        self._correct(command, charge, frame.electrons)
        return frame

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, set axes, run a procedure; what exposes meanwhile is limited by the envelope and counted."""
        command = sound(command)
        match command:
            case Blank():
                with self._issued(command):
                    return self.inner.execute(command)
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
            case Unblank():
                raise CommandRefused(
                    "unblank is refused: a parked beam burns (30 pA for 1 s is 1.9e8 electrons on one spot); "
                    "acquire_frame unblanks and blanks by itself"
                )
            case Park():
                return self._park(command)
            case SetAxes():
                return self._set_axes(command)
            case RunProcedure():
                return self._run(command)

    def reconnect(self) -> MicroscopeState:
        """Connect anew and blank before anything else; the time between is debited. `acknowledge` comes after it.

        Raises LinkLost while nobody answers, InstrumentFault if the beam is not confirmed off.
        """
        if isinstance(self.inner, Linked):
            self.inner.reconnect()
        state = self.inner.execute(Blank(action_id=f"blank-{uuid4().hex}"))
        if self._may_be_lit(state):
            raise InstrumentFault("the link is back, but the beam is not blanked: blank it at the instrument")
        here = spot(state.stage.x_nm + state.beam_shift_x_nm, state.stage.y_nm + state.beam_shift_y_nm)
        self._link.had_at_least(self._read_back_pa(state), here)
        burnt = self._link.back(self.ledger)
        self._tell("link_back", f"the beam is blanked; {burnt:.3g} electrons debited for the time between")
        return state

    def is_link_lost(self) -> bool:
        """Whether nothing is issued until `reconnect`."""
        return self._link.lost_since_s is not None

    def acknowledge(self, by: str) -> None:
        """A person, by name, has looked at the instrument after a lost link. Raises LinkLost while it is lost."""
        self._link.acknowledge()
        self._tell("acknowledged", f"acknowledged by {by}")

    def recharge(self, command: AcquireFrame, read_back_electrons: float | None) -> None:
        """After a restart: debit again what the journal holds; None (no answer was stored) costs the worst case."""
        charge = worst_charge(command, self._capabilities)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        if read_back_electrons is not None:
            self._correct(command, charge, read_back_electrons)

    def count_time_from(self, spent_s: float) -> None:
        """After a restart: so much microscope time was spent before; the instrument's clock adds to it from now on."""
        self.time_before_s = spent_s - self.read_state().time_s

    def check(self, command: AcquireFrame) -> Charge:
        """What `command` would cost, or CommandRefused naming the value, the limit and the unit; nothing moves."""
        self._check_current(command)
        values = axis_values(command)
        check_bounds(values, self.envelope)
        check_exposure(command, self._capabilities, self.envelope)
        self._check_moves(values)
        self._check_calibrations()
        charge = worst_charge(command, self._capabilities)
        check_dose(command, charge, self.ledger, self.envelope)
        self._check_time(command)
        return charge

    # --- commands without a frame

    def _park(self, command: Park) -> MicroscopeState:
        self._link.refuse()
        within("park time", command.duration_s, None, self.envelope.max_park_s, "s")
        values = axis_values(command)
        check_bounds(values, self.envelope)
        self._check_moves(values)
        if self._may_be_lit(self.read_state()):
            raise CommandRefused("the beam is not blanked and would burn where it is parked; blank it first")
        with self._issued(command):
            return self.inner.execute(command)

    def _set_axes(self, command: SetAxes) -> MicroscopeState:
        self._link.refuse()
        card, values = self._capabilities, dict(command.values)
        card.check_values(values)
        check_permissions(values, card, self.envelope)
        check_bounds(values, self.envelope)
        self._check_moves(values)
        if moves_the_beam(values, card) and self._may_be_lit(self.read_state()):
            raise CommandRefused("the beam is not blanked and would burn while axes move; blank it first")
        with self._issued(command):
            state = self.inner.execute(command.model_copy(update={"values": values}))
        if missing := {name: value for name, value in values.items() if name not in state.axes}:
            state = state.with_readings(missing, card)
        self._check_reached(values, state)
        return state

    def _run(self, command: RunProcedure) -> MicroscopeState:
        self._link.refuse()
        procedure = self._capabilities.procedure(command.name)
        if procedure is None:
            raise Unsupported(f"instrument {self._capabilities.name!r} has no procedure {command.name!r}")
        if command.name not in (self.envelope.procedures or ()):
            raise CommandRefused(f"procedure {command.name!r} is not in the facility's envelope; run it by hand")
        state = self.read_state()
        burnt = procedure_electrons(procedure, state, self.ledger, self._capabilities, self.envelope)
        here = spot(state.stage.x_nm + state.beam_shift_x_nm, state.stage.y_nm + state.beam_shift_y_nm)
        self._link.lit, self._link.current_pa = (lambda: here), self._read_back_pa(state)
        self.ledger.add_somewhere(here, burnt)
        try:
            with self._issued(command):
                return self.inner.execute(command)
        except NOTHING_MOVED:
            self.ledger.add_somewhere(here, -burnt)
            raise

    # --- what has to hold before

    def _check_current(self, command: AcquireFrame) -> None:
        """A current that a frame cannot set must not be more than the frame says, for its dose is counted from that."""
        card, said_pa = self._capabilities, command.optics.probe_current_pa
        axis = card.axis("probe_current_pa")
        if not card.has_beam or (axis is not None and axis.minimum < axis.maximum):
            return
        true_pa = self._read_back_pa(self.read_state()) if axis is None else axis.maximum
        if true_pa > said_pa * (1 + card.current_uncertainty_fraction) * (1 + _CURRENT_ROUNDING):
            raise CommandRefused(
                f"probe_current_pa {said_pa:g} is less than the {true_pa:g} pA that flow, and a frame cannot set it: "
                "command what flows, so that its dose is counted"
            )

    def _check_moves(self, values: dict[str, AxisValue]) -> None:
        """Steps, rates, the pole-piece table and permissions, which are about where the axes stand now."""
        limits, locked = self.envelope, needs_permission(values, self._capabilities)
        if limits.axes is None and limits.pole_piece is None and not locked:
            return
        state = self.read_state()
        self._time_s = state.time_s
        places = self._whereabouts.places(state)
        check_steps(values, places, self._whereabouts.since_s(state.time_s), limits)
        check_pole_piece(values, places, limits)
        moved = {axis.name: values[axis.name] for axis in locked if not stands(axis, values[axis.name], state)}
        check_permissions(moved, self._capabilities, limits)

    def _check_calibrations(self) -> None:
        limits = self.envelope
        if not len(self.calibrations) and limits.required_calibrations is None:
            return
        when_expired, required = limits.expired_calibrations or "warn", limits.required_calibrations or ()
        for warning in self.calibrations.check(self.now(), when_expired, required):
            if warning not in self._warned:
                self._warned.add(warning)
                log.warning("%s: %s", self._capabilities.name, warning)
                self._tell("calibration_expired", warning)

    def _check_time(self, command: AcquireFrame) -> None:
        limit_s = self.envelope.max_instrument_time_s
        if limit_s is not None:
            now_s = self.time_before_s + self.read_state().time_s
            within("microscope time after this frame", now_s + self._duration_s(command), None, limit_s, "s")

    def _duration_s(self, command: AcquireFrame) -> float:
        """Moves and settling included where the instrument can tell, else the exposure alone."""
        if isinstance(self.inner, Forecasting):
            with self._watched():
                return self.inner.forecast(command)[1]
        return command.scan.duration_s(command.subframe_count)

    # --- what is done after

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Notice a link that is lost, whichever question finds it out."""
        try:
            yield
        except InstrumentError as error:
            if self._link.notice(error, self.inner):
                self._tell("link_lost", f"{error}; the beam counts as on")
            raise

    @contextmanager
    def _issued(self, command: Command) -> Iterator[None]:
        """Tell what becomes of an action; remember where it may have left the axes; notice a lost link."""
        values = axis_values(command)
        self._tell_action(command, "accepted")
        self._tell_action(command, "running")
        try:
            with self._watched():
                yield
        except BaseException as error:  # Ctrl-C, and what an adapter should not raise, leave it unknown too
            state = state_after(error) if isinstance(error, InstrumentError) else "unknown"
            self._tell_action(command, state, str(error))
            if state == "unknown":
                self._unknown[command.action_id] = command
            if not isinstance(error, NOTHING_MOVED):
                self._whereabouts.may_have_moved(values, self._time_s + command.deadline_s)
                self._note_lit(command)
            raise
        self._whereabouts.moved(values, self._time_after_s())
        self._note_lit(command)
        self._tell_action(command, "done")
        if isinstance(command, Blank):
            self._tell("blanked", "the beam is blanked")

    def _note_lit(self, command: Command) -> None:
        """What the beam may light if the link is lost from now on: the last raster, or the spot it was sent to."""
        if not self._capabilities.has_beam:
            return
        if isinstance(command, AcquireFrame):
            self._link.lit = partial(footprint, command.stage, command.scan)
            self._link.current_pa = self._current_pa(command)
        elif isinstance(command, Park | SetAxes):
            names = ("x_nm", "y_nm", "beam_shift_x_nm", "beam_shift_y_nm")
            x_nm, y_nm, shift_x_nm, shift_y_nm = (self._whereabouts.sent_to(name, self._seen) for name in names)
            self._link.lit = partial(spot, x_nm + shift_x_nm, y_nm + shift_y_nm)
            if isinstance(command, SetAxes) and isinstance(sent_pa := command.values.get("probe_current_pa"), float):
                self._link.current_pa = sent_pa * (1 + self._capabilities.current_uncertainty_fraction)

    def _time_after_s(self) -> float:
        """The instrument's clock, asked only where a rate is limited."""
        limits = (self.envelope.axes or {}).values()
        if any(limit.max_rate_per_s is not None for limit in limits):
            self._time_s = self.read_state().time_s
        return self._time_s

    def _check_reached(self, values: dict[str, AxisValue], state: MicroscopeState) -> None:
        missed = [
            f"{name} was sent to {reading.requested} and stands at {reading.read_back}, {reading.tolerance:g} allowed"
            for name, reading in state.axes.items()
            if name in values and reading.is_reached is False
        ]
        if missed:
            raise InstrumentFault(f"{'; '.join(missed)}: look at the instrument before anything else")

    def _may_be_lit(self, state: MicroscopeState) -> bool:
        return self._capabilities.has_beam and not state.is_dark

    def _read_back_pa(self, state: MicroscopeState) -> float:
        """The highest current that the instrument tells of; 0 without a beam."""
        read_pa = max(state.optics.probe_current_pa, state.measured_current_pa or 0.0) * self._capabilities.has_beam
        return read_pa * (1 + self._capabilities.current_uncertainty_fraction)

    def _current_pa(self, command: AcquireFrame) -> float:
        return command.optics.probe_current_pa * (1 + self._capabilities.current_uncertainty_fraction)

    def _with_calibrations(self, frame: Frame) -> Frame:
        used = tuple(one.id for one in self.calibrations.in_use(self.now()))
        return replace(frame, state=frame.state.model_copy(update={"calibrations": used})) if used else frame

    def _correct(self, command: AcquireFrame, charge: Charge, read_back_electrons: float) -> None:
        is_told = self._capabilities.reports_dose and 0 <= read_back_electrons < inf
        if not is_told or charge.electrons <= 0:
            return
        excess = charge.electrons - read_back_electrons
        self.ledger.add_frame(command, -excess, -excess * charge.settling_electrons / charge.electrons)

    def _tell(self, kind: EventKind, message: str) -> None:
        self.events.publish(InstrumentEvent(kind=kind, message=message))

    def _tell_action(self, command: Command, state: ActionState, message: str = "") -> None:
        self.events.publish(
            InstrumentEvent(
                kind="action", action_id=command.action_id, command=command.kind, state=state, message=message
            )
        )


SafetyCheck = Callable[[AcquireFrame], Charge]
