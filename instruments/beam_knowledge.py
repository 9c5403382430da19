"""What a guard knows of the beam before it lets an exposure through: its current, and how wide it is at least.

The instrument's reading comes first, then the facility's table, then what was declared or commanded; where none of
these holds, nothing is exposed. Neighbours: `beam_table`, `exposure_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Final

from instruments.beam_table import (
    Settings,
    gives_current,
    highest_pa,
    highest_pa_anywhere,
    narrowest_nm,
    narrowest_nm_anywhere,
)
from instruments.capabilities import Axis, Capabilities, Procedure
from instruments.commands import AcquireFrame, AxisValue
from instruments.envelope_checks import within
from instruments.errors import CommandRefused
from instruments.exposure_checks import Charge, check_tilted, worst_charge
from instruments.footprints import MAX_SIDE_NM
from instruments.illumination import Lit, height_above_nm
from instruments.limits import SafetyEnvelope
from instruments.scans import StagePosition
from instruments.state import MicroscopeState

LIT_AXIS: Final = "illuminated_nm"
_CURRENT: Final = "probe_current_pa"
_ROUNDING: Final = 1e-6


class BeamKnowledge:
    """The current and the width of one instrument's beam.

    `changed_by` is what changed the current since it was known; None: nothing did.
    """

    def __init__(self, capabilities: Capabilities, envelope: Callable[[], SafetyEnvelope]) -> None:
        self._card, self._envelope_now = capabilities, envelope
        self._changing = tuple(axis for axis in capabilities.axes if axis.alters_current)
        self._stood: dict[str, AxisValue] = {}
        self._measured_pa: float | None = None
        self._changed_at: datetime | None = None
        self._set_pa: float | None = None
        self._set_at: datetime | None = None
        self._measured_at_pa: float | None = None  # the setting at which a person measured
        self._excess = 1.0
        self.changed_by: str | None = None

    @property
    def _envelope(self) -> SafetyEnvelope:
        return self._envelope_now()

    def changed(self, by: str, at: datetime) -> None:
        """From now on the current is not known, until it is read back or measured."""
        self.changed_by, self._changed_at, self._measured_pa = by, at, None
        self._excess = 1.0

    def measured(self, current_pa: float, state: MicroscopeState) -> None:
        """A person measured it, in this state: it holds until something changes it."""
        self._measured_pa, self.changed_by = current_pa, None
        self._excess, self._measured_at_pa = 1.0, self._stands_at_pa(state)

    def exposed(self, command: AcquireFrame, state: MicroscopeState) -> None:
        """A frame tells what flowed in it: more than was commanded will flow in the next one, too."""
        if (measured_pa := self.measured_in(state)) is not None:
            self._excess = self._excess_of(measured_pa, command.optics.probe_current_pa)

    def measured_in(self, state: MicroscopeState) -> float | None:
        """What this state tells of the current; None where nothing, or what was measured at another setting."""
        measured_pa, column = state.measured_current_pa, state.column
        measured_at = column.current_measured_at if column is not None else None
        since = max((at for at in (self._changed_at, self._set_at) if at is not None), default=None)
        is_old = measured_at is not None and since is not None and measured_at < since
        return None if is_old or measured_pa is None or not isfinite(measured_pa) else measured_pa

    def sets(self, values: Mapping[str, AxisValue], at: datetime, *, is_sure: bool) -> None:
        """A command that was sent then may set the current: what was measured before tells nothing of it."""
        wanted_pa = values.get(_CURRENT)
        if isinstance(wanted_pa, float | int) and wanted_pa != self._set_pa:
            self._set_pa, self._set_at = wanted_pa if is_sure else None, at

    def look(self, state: MicroscopeState, at: datetime) -> None:
        """Notice what was changed from elsewhere, at the instrument's own panel for one."""
        for axis in self._changing:
            value, before = state.axis_value(axis.name), self._stood.get(axis.name)
            if value is None or _is_same(value, before, axis.allowed_error):
                continue
            self._stood[axis.name] = value
            if before is not None:
                self.changed(f"{axis.name} went from {before} to {value}", at)

    def set_to(self, values: Mapping[str, AxisValue], at: datetime) -> None:
        """A command may have brought these axes there."""
        names = {axis.name for axis in self._changing}
        moved = {name: value for name, value in values.items() if name in names and self._stood.get(name) != value}
        if moved:
            self._stood |= moved
            self.changed(", ".join(f"{name} = {value}" for name, value in moved.items()), at)

    # --- before an exposure

    def charge(self, command: AcquireFrame, state: MicroscopeState) -> Charge:
        """What it costs at most with the beam as it is now. Raises CommandRefused where that is not known."""
        if not self._card.has_beam:
            return worst_charge(command, self._card)
        lit, height_nm = self._lit(command, state), self.height_nm(command.stage)
        check_tilted(command, height_nm)
        return worst_charge(command, self._card, self._booked_pa(command, state), lit, height_nm)

    def charge_unseen(self, command: AcquireFrame) -> Charge:
        """The same where nobody can be asked any more: the facility's worst at any setting."""
        narrowest = narrowest_nm_anywhere(self._envelope.beam, command.mode)
        lit = Lit.between(command.scan, [] if narrowest is None else [narrowest])
        most_pa = max(self._with_uncertainty(command.optics.probe_current_pa), self._highest_pa_of_table())
        return worst_charge(command, self._card, most_pa, lit, self.height_nm(command.stage))

    def height_nm(self, stage: StagePosition) -> float:
        """How far the specimen may lie from the tilt axis, by the facility, else by the instrument, else by custom."""
        axis = self._envelope.tilt_axis
        if axis is None:
            return height_above_nm(stage, 0.0, self._card.height_error_nm)
        return height_above_nm(stage, axis.z_nm, axis.error_nm)

    def read_back_pa(self, state: MicroscopeState) -> float:
        """The highest current that the instrument tells of, its uncertainty included; 0 without a beam."""
        if not self._card.has_beam:
            return 0.0
        told = (state.optics.probe_current_pa, state.measured_current_pa or 0.0)
        return self._with_uncertainty(max((value for value in told if isfinite(value)), default=0.0))

    def most_pa(self, state: MicroscopeState | None, mode: str | None = None) -> float:
        """At most, whatever the setting: what is told, the table's row or, while it is not known, all it allows."""
        if not self._card.has_beam:
            return 0.0
        told = self.read_back_pa(state) if state is not None else 0.0
        told = max(told, self._measured_pa or 0.0)
        if state is not None and self._told_pa(state) is not None:
            return told
        row = None if state is None else highest_pa(self._envelope.beam, mode or "", self._settings(state))
        if row is not None:
            return max(told, row)
        if self.changed_by is None:
            return told
        return max(told, self._highest_pa_of_table(), self._envelope.max_current_pa or 0.0)

    def refuse_unknown(self, state: MicroscopeState, mode: str | None = None) -> None:
        """Raise CommandRefused where nobody knows the current: it was changed, or the table leaves this setting out."""
        table = self._envelope.beam
        if self._told_pa(state) is not None or highest_pa(table, mode or "", self._settings(state)) is not None:
            return
        if self.changed_by is not None:
            because = f"since {self.changed_by}"
        elif gives_current(table, mode or ""):
            because = "at this setting, which no row of safety.beam is sure to be about"
        else:
            return
        raise CommandRefused(
            f"the current is not known {because}: measure it and say so (tell_current), or have the facility give "
            "max_current_pa of this setting in safety.beam"
        )

    def _booked_pa(self, command: AcquireFrame, state: MicroscopeState) -> float:
        """The current an exposure is booked with, its uncertainty included."""
        said_pa, limit_pa = self._with_uncertainty(command.optics.probe_current_pa), self._envelope.max_current_pa
        axis, told_pa = self._card.axis(_CURRENT), self._told_pa(state)
        if told_pa is None:
            row_pa = highest_pa(self._envelope.beam, command.mode, self._settings(state))
            if row_pa is not None:
                within("probe current of this setting", row_pa, None, limit_pa, "pA")
                return max(said_pa, row_pa)
            self.refuse_unknown(state, command.mode)
        if _is_settable(axis):
            return self._flows_pa(said_pa * self._excess_now(state, said_pa), said_pa)
        flows_pa = self.read_back_pa(state) if axis is None or axis.read_only else axis.maximum
        if flows_pa > said_pa * (1 + _ROUNDING):
            raise CommandRefused(
                f"probe_current_pa {command.optics.probe_current_pa:g} is less than the {flows_pa:g} pA that flow, and "
                "a frame cannot set it: command what flows, so that its dose is counted"
            )
        within("probe current as measured", told_pa or 0.0, None, limit_pa, "pA")
        return max(self._flows_pa(said_pa * self._excess, said_pa), self._with_uncertainty(told_pa or 0.0))

    def _flows_pa(self, measured_pa: float, said_pa: float) -> float:
        """The higher of the two. Raises CommandRefused where more was measured than is allowed."""
        if measured_pa > said_pa:
            within("probe current as measured", measured_pa, None, self._envelope.max_current_pa, "pA")
        return max(measured_pa, said_pa)

    def _excess_now(self, state: MicroscopeState, said_pa: float) -> float:
        """How many times what is commanded (`said_pa`) flows, by any measurement that still holds."""
        found, measured_pa = self._excess, self.measured_in(state)
        if self._measured_pa is not None:
            found = max(found, self._excess_of(self._measured_pa, self._measured_at_pa, said_pa))
        if measured_pa is None:
            return found
        uncertainty = state.column.current_uncertainty_fraction if state.column is not None else None
        return max(found, self._excess_of(measured_pa * (1 + (uncertainty or 0.0)), self._stands_at_pa(state), said_pa))

    def _excess_of(self, measured_pa: float, set_pa: float | None, otherwise_pa: float = 0.0) -> float:
        """Against what it was set to, uncertainty included, or where nobody knows that against `otherwise_pa`."""
        said_pa = self._with_uncertainty(set_pa) if set_pa else otherwise_pa
        return measured_pa / said_pa if measured_pa > said_pa * (1 + _ROUNDING) > 0 else 1.0

    def _stands_at_pa(self, state: MicroscopeState) -> float | None:
        """What the current is set to: as read back, else as it was sent."""
        found_pa = state.axis_value(_CURRENT)
        return found_pa if isinstance(found_pa, float | int) else self._set_pa

    def widths_nm(self, procedure: Procedure, state: MicroscopeState) -> list[float]:
        """Every diameter that is known of the disc that a procedure lights; empty: a spot."""
        said_nm = procedure.illuminated_nm
        return [] if said_nm is None else [said_nm, *self._known_nm(state, state.mode or "")]

    def _known_nm(self, state: MicroscopeState, mode: str) -> list[float]:
        """What instrument and facility tell of the width, now."""
        read, row = state.axis_value(LIT_AXIS), narrowest_nm(self._envelope.beam, mode, self._settings(state))
        return [value for value in (read, row) if isinstance(value, float | int) and value > 0]

    def _lit(self, command: AcquireFrame, state: MicroscopeState) -> Lit | None:
        if not command.scan.at_once:
            return None
        known = self._known_nm(state, command.mode)
        if not known and not self._envelope.assumes_illumination:
            raise CommandRefused(
                f"nobody knows how wide the beam is in mode {command.mode!r}, so neither its dose: have the facility "
                'give min_illuminated_nm of this setting in safety.beam, or set safety.unknown_illumination = "assume"'
            )
        lit = Lit.between(command.scan, known)
        if lit is not None and lit.widest_nm is not None:
            within("lit disc for the dose ledger", lit.widest_nm, None, MAX_SIDE_NM, "nm")
        return lit

    def _told_pa(self, state: MicroscopeState) -> float | None:
        """What the instrument or a person measured; None where nobody has, or not since it was changed."""
        column = state.column
        measured_at = column.current_measured_at if column is not None else None
        is_old = measured_at is not None and self._changed_at is not None and measured_at < self._changed_at
        axis = self._card.axis(_CURRENT)
        is_read = (axis is None or axis.read_only or _is_settable(axis)) and state.axis_value(_CURRENT) is not None
        told = (
            None if is_old else state.measured_current_pa,
            state.optics.probe_current_pa if is_read else None,
            self._measured_pa,
        )
        return max((value for value in told if value is not None and isfinite(value)), default=None)

    def _settings(self, state: MicroscopeState) -> Settings:
        """Where the axes stand, as read back, else as they were sent."""
        return {**self._stood, **{name: value for name, value in state.all_axes().items() if value is not None}}

    def _highest_pa_of_table(self) -> float:
        return highest_pa_anywhere(self._envelope.beam)

    def _with_uncertainty(self, current_pa: float) -> float:
        return current_pa * (1 + self._card.current_uncertainty_fraction)


def _is_settable(axis: Axis | None) -> bool:
    return axis is not None and axis.minimum < axis.maximum and not axis.read_only


def _is_same(value: AxisValue, before: AxisValue | None, allowed: float) -> bool:
    if before is None or isinstance(value, str) or isinstance(before, str):
        return value == before
    return abs(value - before) <= allowed
