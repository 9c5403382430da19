"""Whether a command may go to the microscope as it stands now; nothing is issued here.

Neighbours: `envelope_checks` and `exposure_checks` are pure, `action_watch` knows where things stand, `guards` asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from math import pi
from typing import Final

from instruments.action_watch import ActionWatch
from instruments.axes import STAGE_AXES, axis_values
from instruments.book_entries import ExtraDebit, Region
from instruments.calibrations import CalibrationRegistry
from instruments.commands import AcquireFrame, AxisValue, Park, RunProcedure, SetAxes
from instruments.dose_ledger import DoseLedger
from instruments.envelope_checks import (
    check_bounds,
    check_permissions,
    check_pole_piece,
    check_steps,
    moves_the_beam,
    needs_permission,
    stands,
    within,
)
from instruments.errors import CommandRefused, Unsupported
from instruments.exposure_checks import Charge, check_dose, check_exposure, procedure_electrons
from instruments.frame_axes import check_axes_of
from instruments.limits import SafetyEnvelope
from instruments.microscope import Forecasting, Microscope
from instruments.state import MicroscopeState
from instruments.taken import Taken, raster_words, sides_off_fraction

FIELD_TOLERANCE_FRACTION: Final = 0.05
"""A raster that came with a side further off than this: a person has to look."""
CURRENT: Final = "probe_current_pa"
log = logging.getLogger(__name__)


class Conditions:
    """The envelope, the calibrations and the clock of one microscope, against where it stands."""

    def __init__(
        self,
        inner: Microscope,
        envelope: Callable[[], SafetyEnvelope],
        calibrations: CalibrationRegistry,
        watch: ActionWatch,
        now: Callable[[], datetime],
    ) -> None:
        self._inner, self._envelope_now, self._calibrations = inner, envelope, calibrations
        self._watch, self._now, self._card = watch, now, watch.card
        self._warned: set[str] = set()
        self._spent_s = self._read_s = 0.0
        self._latest: datetime | None = None

    @property
    def _envelope(self) -> SafetyEnvelope:
        return self._envelope_now()

    @property
    def current_uncertainty_fraction(self) -> float:
        """How much more current may have flowed than was read: as the facility says, else its calibration, else 0."""
        said = self._envelope.current_uncertainty_fraction
        if said is None and len(self._calibrations):
            return self._calibrations.uncertainty_fraction(CURRENT, self._now())
        return said or 0.0

    def check(self, command: AcquireFrame, ledger: DoseLedger, time_before_s: float, *, by_axes: bool = True) -> Charge:
        """What a frame would cost. Raises CommandRefused, Unsupported. The state is read once.

        `by_axes`: refuse what the axes of the instrument cannot do, too.
        """
        values = axis_values(command)
        check_bounds(values, self._envelope)
        check_exposure(command, self._card, self._envelope)
        state = self._state_for(values)
        if by_axes:
            check_axes_of(command, values, self._card, state)
        self._check_moves(values, state)
        charge = self._watch.beam.charge(command, state) if state is not None else Charge(0.0, 0.0)
        self._check_calibrations()
        charge = charge.placed(command)
        check_dose(command, charge, ledger, self._envelope, self.current_uncertainty_fraction)
        if state is not None and self._envelope.max_instrument_time_s is not None:
            after_s = time_before_s + self.clock_s(state) + self._duration_s(command)
            within("microscope time after this frame", after_s, None, self._envelope.max_instrument_time_s, "s")
        return charge

    def check_park(self, command: Park) -> None:
        """Raise CommandRefused for a park beyond the envelope or under an open beam."""
        within("park time", command.duration_s, None, self._envelope.max_park_s, "s")
        values = axis_values(command)
        check_bounds(values, self._envelope)
        state = self._watch.look()
        check_axes_of(command, values, self._card, state)
        self._check_moves(values, state)
        if self.may_be_lit(state):
            raise CommandRefused("the beam is not blanked and would burn where it is parked; blank it first")

    def check_setting(self, command: SetAxes) -> None:
        """Raise CommandRefused or Unsupported for axes that may not be set, or not there, or not from here."""
        values = command.values
        self._card.check_values(values)
        check_permissions(values, self._card, self._envelope)
        check_bounds(values, self._envelope)
        state = self._watch.look()
        self._check_moves(values, state)
        if moves_the_beam(values, self._card) and self.may_be_lit(state):
            raise CommandRefused("the beam is not blanked and would burn while axes move; blank it first")

    def check_procedure(self, command: RunProcedure, ledger: DoseLedger) -> ExtraDebit | None:
        """What a procedure may burn, None for nothing. Raises CommandRefused, Unsupported."""
        procedure = self._card.procedure(command.name)
        if procedure is None:
            raise Unsupported(f"instrument {self._card.name!r} has no procedure {command.name!r}")
        if command.name not in (self._envelope.procedures or ()):
            raise CommandRefused(f"procedure {command.name!r} is not in the facility's envelope; run it by hand")
        state = self._watch.look()
        region = self._watch.region()
        if procedure.exposes and self._card.has_beam:
            self._watch.beam.refuse_unknown(state, state.mode)
            if widths_nm := self._watch.beam.widths_nm(procedure, state):
                widest_nm, least_nm2 = max(widths_nm), max(pi / 4 * min(widths_nm) ** 2, 1.0)
                region = Region.of(self._watch.region(widest_nm / 2).box, least_nm2)  # longer on a tilted specimen
        current_pa = self._watch.beam.most_pa(state, state.mode)
        burnt = procedure_electrons(
            procedure, region, current_pa, ledger, self._card, self._envelope, self.current_uncertainty_fraction
        )
        return ExtraDebit(reason=f"procedure {procedure.name}", region=region, electrons=burnt) if burnt else None

    def may_be_lit(self, state: MicroscopeState) -> bool:
        """Whether the beam may be on the specimen."""
        return self._card.has_beam and not state.is_dark

    def clock_s(self, state: MicroscopeState) -> float:
        """The instrument's time, all of it: a clock that went back was started anew, and counts on top."""
        step_s = state.time_s - self._read_s
        self._spent_s += state.time_s if step_s < 0 else step_s
        self._read_s = state.time_s
        return self._spent_s

    def fault_of(self, taken: Taken) -> str | None:
        """Why nothing more is issued after a frame that was taken elsewhere; None: go on."""
        found = {name: value for name, (_, value) in taken.off.items()}
        limit_nm = self._envelope.max_position_error_nm
        for name, (asked, value) in taken.off.items():
            if limit_nm is not None and name.endswith("_nm") and not abs(value - asked) <= limit_nm:
                return (
                    f"frame {taken.command.action_id} was taken at {name} {value:.6g} nm instead of {asked:.6g} nm, "
                    f"more than {limit_nm:g} nm off"
                )
        if taken.scan is not None and sides_off_fraction(taken.command.scan, taken.scan) > FIELD_TOLERANCE_FRACTION:
            return (
                f"frame {taken.command.action_id} came as {raster_words(taken.scan)}, not as "
                f"{raster_words(taken.command.scan)}, more than {FIELD_TOLERANCE_FRACTION:.0%} off"
            )
        if not found:
            return None
        try:
            check_bounds(found, self._envelope)
            if any(name in found for name in STAGE_AXES):
                stage = dict(taken.frame.state.stage)
                check_pole_piece(stage, {name: [value] for name, value in stage.items()}, self._envelope)
        except CommandRefused as error:
            return f"frame {taken.command.action_id} was taken where it may not be: {error}"
        return None

    def _state_for(self, values: Mapping[str, AxisValue]) -> MicroscopeState | None:
        """The state, read back now; None where nothing depends on it."""
        limits = self._envelope
        is_asked = limits.axes is not None or limits.pole_piece is not None or limits.max_instrument_time_s is not None
        if self._card.has_beam or is_asked or needs_permission(values, self._card):
            return self._watch.look()
        return None

    def _check_moves(self, values: Mapping[str, AxisValue], state: MicroscopeState | None) -> None:
        """Steps, rates, the pole-piece table and permissions, which are about where the axes stand now."""
        limits, locked = self._envelope, needs_permission(values, self._card)
        if state is None or (limits.axes is None and limits.pole_piece is None and not locked):
            return
        places = self._watch.whereabouts.places(state, {*STAGE_AXES, *(limits.axes or ())})
        check_steps(values, places, self._watch.whereabouts.since_s(state.time_s), limits)
        check_pole_piece(values, places, limits)
        moved = {axis.name: values[axis.name] for axis in locked if not stands(axis, values[axis.name], state)}
        check_permissions(moved, self._card, limits)

    def _check_calibrations(self) -> None:
        limits = self._envelope
        if not len(self._calibrations) and limits.required_calibrations is None:
            return
        now = self._now()
        self._latest = now if self._latest is None else max(now, self._latest)  # a clock set back revives nothing
        when_expired, required = limits.expired_calibrations or "warn", limits.required_calibrations or ()
        for warning in self._calibrations.check(self._latest, when_expired, required):
            if warning not in self._warned:
                self._warned.add(warning)
                log.warning("%s: %s", self._card.name, warning)
                self._watch.tell("calibration_expired", warning)

    def _duration_s(self, command: AcquireFrame) -> float:
        """Moves and settling included where the instrument can tell, else the exposure alone."""
        if isinstance(self._inner, Forecasting):
            with self._watch.watched():
                return self._inner.forecast(command)[1]
        return command.scan.duration_s(command.subframe_count)
