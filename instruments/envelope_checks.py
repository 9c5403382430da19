"""Whether what a command sets lies in the envelope: bounds, steps, rates, the pole-piece table, permissions.

Pure functions of the command and of where the axes may stand; neighbour: `guards` keeps that and asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final, TypeVar, get_args

from pydantic import ValidationError

from instruments.axes import KNOWN_AXES, STAGE_AXES, Permission, known_axis, permission_for, unit_of
from instruments.axis_bounds import NAMED
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame, AxisValue, Command
from instruments.errors import CommandRefused, InstrumentFault
from instruments.limits import AxisLimit, SafetyEnvelope
from instruments.state import MicroscopeState

MAX_SIDE_PX: Final = 1 << 20
LONGEST_DEADLINE_S: Final = 7 * 86_400.0  # one beyond it is none
_NEVER_CHECKED: Final = frozenset({"frame_px", "park_s"})  # limits of capabilities; the envelope has `max_park_s`
T = TypeVar("T", bound=Command)
Places = Mapping[str, Sequence[float]]
"""Axis -> every value at which it may stand: what was read back, what was sent, both where an answer was lost."""


def sound(command: T) -> T:
    """The command, validated once more: one put together past its model may hold anything. Raises CommandRefused."""
    try:
        again = type(command).model_validate(command.model_dump(warnings=False))
    except (ValidationError, TypeError) as error:
        raise CommandRefused(f"{command.kind} is no valid command: {error}") from error
    within("deadline", again.deadline_s, None, LONGEST_DEADLINE_S, "s")
    if isinstance(again, AcquireFrame) and not 1 <= min(again.scan.shape_px) <= max(again.scan.shape_px) <= MAX_SIDE_PX:
        rows, columns = (str(side) if side < 1e9 else "over 1e9" for side in again.scan.shape_px)
        raise CommandRefused(f"scan shape {rows} x {columns} px is none: a side has 1 to {MAX_SIDE_PX} pixels")
    return again


def within(name: str, value: float, low: float | None, high: float | None, unit: str) -> None:
    """Raise CommandRefused unless low <= value <= high; None: no bound."""
    if low is not None and not value >= low:
        raise CommandRefused(f"{name} {value:.6g} {unit} is below the limit {low:.6g} {unit}; narrow the search space")
    if high is not None and not value <= high:
        raise CommandRefused(f"{name} {value:.6g} {unit} is above the limit {high:.6g} {unit}; narrow the search space")


def check_bounds(values: Mapping[str, AxisValue], envelope: SafetyEnvelope) -> None:
    """Raise CommandRefused for a value outside the envelope, whichever device's axis it is, or not a finite number."""
    for name, value in values.items():
        if not isinstance(value, str) and not isfinite(value):
            raise CommandRefused(f"{name} is {value}: only finite numbers are sent; give one")
        bounds = NAMED.get(name.rpartition(".")[2])
        if isinstance(value, str):
            if bounds is not None or _limit(name, envelope) is not None:
                raise CommandRefused(f"{name} takes a number, not {value!r}: the envelope limits it")
            continue
        if bounds is not None:
            high = _number(envelope, bounds.high)
            low = _number(envelope, bounds.low)
            if bounds.is_symmetric and high is not None:
                low = -high
            within(bounds.words, -value if bounds.is_negated else value, low, high, unit_of(name) or "")
        limit = _limit(name, envelope)
        if limit is not None:
            within(name, value, limit.minimum, limit.maximum, unit_of(name) or "")


def unknown_limits(envelope: SafetyEnvelope, capabilities: Capabilities) -> list[str]:
    """What is wrong with the names in an envelope: one that nothing is called limits, or permits, nothing."""
    unknown = (envelope.axes or {}).keys() - {axis.name for axis in capabilities.axes} - KNOWN_AXES.keys()
    unknown |= (envelope.axes or {}).keys() & _NEVER_CHECKED - {axis.name for axis in capabilities.axes}
    named = ", ".join(sorted(axis.name for axis in capabilities.axes))
    return [
        *(
            f"safety.axes.{name}: instrument {capabilities.name!r} has no such axis to limit; there are {named}"
            for name in sorted(unknown)
        ),
        *_unknown_permissions(envelope, capabilities),
        *_unknown_settings(envelope, capabilities),
    ]


def _unknown_permissions(envelope: SafetyEnvelope, capabilities: Capabilities) -> list[str]:
    """Permissions of no kind and for no axis: a word misspelt permits nothing, and nobody would notice."""
    known = {*get_args(Permission), *(axis.name for axis in capabilities.axes), *KNOWN_AXES}
    locked = ", ".join(axis.name for axis in capabilities.axes if axis.interlocked) or "none here"
    return [
        f"safety.permissions: there is no {name!r} to permit; there are {', '.join(get_args(Permission))}, and the "
        f"names of interlocked axes: {locked}"
        for name in envelope.permissions or ()
        if name not in known
    ]


def _unknown_settings(envelope: SafetyEnvelope, capabilities: Capabilities) -> list[str]:
    """Rows of the beam table that can never be about this instrument."""
    return [
        f"safety.beam.{number}: instrument {capabilities.name!r} has no {what} {name!r}; see `stempilot instruments`"
        for number, row in enumerate(envelope.beam or ())
        for what, name, is_there in (
            *(("axis", name, capabilities.axis(name) is not None) for name in row.axes),
            ("mode", row.mode, row.mode is None or capabilities.mode(row.mode) is not None),
        )
        if not is_there
    ]


def check_steps(
    values: Mapping[str, AxisValue], places: Places, since_s: Mapping[str, float], envelope: SafetyEnvelope
) -> None:
    """Raise CommandRefused for a move that is too long or too fast from anywhere the axis may stand.

    `since_s` is the instrument time since each axis was last moved; an axis that was not has none.
    """
    for name, value in values.items():
        limit = _limit(name, envelope)
        if limit is None or isinstance(value, str) or (limit.max_step is None and limit.max_rate_per_s is None):
            continue
        if not places.get(name):
            raise CommandRefused(
                f"where {name} stands is not known, so neither is the length of its move; have it read back"
            )
        unit = unit_of(name) or ""
        step = max(abs(value - place) for place in places[name])
        within(f"step of {name}", step, None, limit.max_step, unit)
        if limit.max_rate_per_s is not None and name in since_s and step > limit.max_rate_per_s * since_s[name]:
            wait_s = step / limit.max_rate_per_s - since_s[name]
            raise CommandRefused(
                f"{name} would move {step:.6g} {unit} {since_s[name]:.3g} s after its last move, faster than "
                f"{limit.max_rate_per_s:.6g} {unit}/s; wait {wait_s:.3g} s, or take a shorter step"
            )


def check_pole_piece(values: Mapping[str, AxisValue], places: Places, envelope: SafetyEnvelope) -> None:
    """Raise CommandRefused unless the stage stays in one box of the table, however its axes get there.

    Axes move at their own speeds and in any order, so the box must hold every combination of where they may stand and
    where they go.
    """
    if envelope.pole_piece is None:
        return
    for name in values.keys() - set(STAGE_AXES):
        if name.rpartition(".")[2] in STAGE_AXES:
            raise CommandRefused(
                f"{name} moves the specimen past the pole-piece table, which knows one stage; leave it"
            )
    if not any(name in values for name in STAGE_AXES):
        return
    reach: dict[str, tuple[float, float]] = {}
    for name in STAGE_AXES:
        stands = list(places.get(name, ()))
        if not stands:
            raise CommandRefused(f"where {name} stands is not known, so the stage does not move; have it read back")
        goes = values.get(name, stands[-1])
        if isinstance(goes, str):
            raise CommandRefused(f"{name} takes a number, not {goes!r}")
        reach[name] = min(*stands, goes), max(*stands, goes)
    for box in envelope.pole_piece:
        if all(low <= reach[name][0] and reach[name][1] <= high for name, (low, high) in box.bounds().items()):
            return
    way = ", ".join(f"{name} {low:.6g} to {high:.6g}" for name, (low, high) in reach.items())
    raise CommandRefused(
        f"the stage would pass {way}: no box of the pole-piece table holds that; go to the middle first, then tilt"
    )


def check_reached(values: Mapping[str, AxisValue], state: MicroscopeState) -> None:
    """Raise InstrumentFault for an axis that was read back elsewhere than it was sent to."""
    missed = [
        f"{name} was sent to {reading.requested} and stands at {reading.read_back}, {reading.tolerance:g} allowed"
        for name, reading in state.axes.items()
        if name in values and reading.is_reached is False
    ]
    if missed:
        raise InstrumentFault(f"{'; '.join(missed)}: look at the instrument before anything else")


def check_permissions(values: Mapping[str, AxisValue], capabilities: Capabilities, envelope: SafetyEnvelope) -> None:
    """Raise CommandRefused for what nobody may set unless the facility permits it."""
    permitted = envelope.permissions or ()
    for name in values:
        axis = capabilities.axis(name)
        needed = permission_for(name)
        if needed is None and (axis is None or not axis.interlocked):
            continue
        if name not in permitted and needed not in permitted:
            raise CommandRefused(
                f"{name} may not be set: permission {needed or name!r} is not in the facility's envelope; do it by hand"
            )


def needs_permission(values: Mapping[str, AxisValue], capabilities: Capabilities) -> list[Axis]:
    """The axes among these that the instrument can move and nobody may set without permission."""
    return [
        axis
        for axis in capabilities.axes
        if axis.name in values
        and (axis.interlocked or permission_for(axis.name) is not None)
        and (axis.choices or axis.minimum < axis.maximum)
    ]


def stands(axis: Axis, value: AxisValue, state: MicroscopeState) -> bool:
    """Whether this axis was read back at the value already, so that sending it there again moves nothing."""
    found = state.axis_value(axis.name)
    if isinstance(found, str) or isinstance(value, str) or found is None:
        return found == value
    return abs(found - value) <= (axis.allowed_error if axis.interlocked else 0.0)


def moves_the_beam(values: Mapping[str, AxisValue], capabilities: Capabilities) -> bool:
    """Whether setting these could carry an open beam over the specimen: anything but holder and detectors."""
    for name in values:
        axis, known = capabilities.axis(name), known_axis(name)
        frames = {axis.frame if axis else "stage", known.frame if known else "holder"}
        if not frames <= {"holder", "detector"}:
            return True
    return False


def _limit(name: str, envelope: SafetyEnvelope) -> AxisLimit | None:
    return envelope.axes.get(name) if envelope.axes is not None else None


def _number(envelope: SafetyEnvelope, field: str | None) -> float | None:
    return None if field is None else getattr(envelope, field)
