"""Whether the axes there are can do what a frame or a park commands: one may be out of range, fixed, read only, absent.

Neighbours: `Capabilities.check_values` asks this of axes that are set, `envelope_checks` what the facility allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from instruments.axes import unit_of
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame, AxisValue, Park
from instruments.errors import CommandRefused, Unsupported
from instruments.optics import Aberrations
from instruments.state import MicroscopeState

SAME_FRACTION: Final = 0.01
"""Energy and convergence that are read back within this of what a frame says are that."""
_ROUNDING: Final = 1e-9
_ENERGY: Final = "beam_energy_ev"
_OF_A_BEAM: Final = frozenset((_ENERGY, "semi_convergence_angle_mrad", "probe_current_pa"))
_OF_EACH_FRAME: Final = _OF_A_BEAM | {
    "field_of_view_nm", "pixel_size_nm", "dwell_time_us", "subframe_count", "frame_px",
}  # fmt: skip
"""What every frame says: without an axis of that name, the instrument states no limit."""
_AZIMUTHS: Final = {name: f"c{name[3:5]}_nm" for name in Aberrations.model_fields if name.startswith("phi")}


def check_axes_of(
    command: AcquireFrame | Park,
    values: Mapping[str, AxisValue],
    card: Capabilities,
    state: MicroscopeState | None,
) -> None:
    """Raise CommandRefused for what an axis cannot be at, Unsupported for what there is no axis of.

    `values` are those of the command (`axes.axis_values`). An axis that can only be read is left alone by 0, and by the
    value at which it stands in `state`.
    """
    axes = {axis.name: axis for axis in card.axes}
    refused, missing = list[str](), list[str]()
    for name, value in _meant(command, values, card, axes).items():
        axis = axes.get(name)
        if axis is not None and not axis.read_only:
            if axis.choices or not axis.minimum < value < axis.maximum:
                refused += _refusal(axis, value)
        elif axis is not None or name == _ENERGY:
            refused += _refusal_of_reading(name, value, axis, state)
        elif value and name not in _OF_EACH_FRAME:
            missing.append(_said(name, value))
    if refused:
        raise CommandRefused("; ".join(refused))
    if missing:
        raise Unsupported(f"instrument {card.name!r} has no axis for {', '.join(missing)}; leave it at 0")


def _meant(
    command: AcquireFrame | Park, said: Mapping[str, AxisValue], card: Capabilities, axes: Mapping[str, Axis]
) -> dict[str, float]:
    """What is commanded of every axis, without what means nothing here: azimuths of no aberration, for one."""
    values = {name: float(value) for name, value in said.items()}
    if isinstance(command, Park):
        return values | ({"park_s": command.duration_s} if "park_s" in axes else {})
    rows, columns = command.scan.shape_px
    values["frame_px"] = float(rows * columns * command.subframe_count)
    idle = {name for name, magnitude in _AZIMUTHS.items() if not values[magnitude]}
    idle |= set() if card.has_beam else _OF_A_BEAM
    idle |= {"flyback_time_us"} if command.scan.at_once else set()
    current = axes.get("probe_current_pa")
    if current is not None and current.read_only:
        idle.add(current.name)  # `beam_knowledge` compares it with what flows
    mode = card.mode(command.mode)
    if mode is not None and values.get("camera_length_mm") == mode.camera_length_mm:
        idle.add("camera_length_mm")
    return {name: value for name, value in values.items() if name not in idle}


def _refusal(axis: Axis, value: float) -> Iterator[str]:
    """Why this axis cannot be there; nothing where it can."""
    if axis.choices:
        numbers = [number for choice in axis.choices if (number := _number(choice)) is not None]
        if numbers and value not in numbers:
            yield f"{_said(axis.name, value)} is not a choice of this instrument: {', '.join(axis.choices)}"
    elif axis.minimum == axis.maximum:
        if abs(value - axis.minimum) > max(axis.allowed_error, _ROUNDING * abs(axis.minimum)):
            fixed = _amount(axis.name, axis.minimum)
            yield f"{_said(axis.name, value)} cannot be set: it is fixed at {fixed}; say that"
    else:
        slack = _ROUNDING * max(abs(axis.minimum), abs(axis.maximum))
        if not axis.minimum - slack <= value <= axis.maximum + slack:
            yield str(axis.refusal(value))


def _refusal_of_reading(name: str, value: float, axis: Axis | None, state: MicroscopeState | None) -> Iterator[str]:
    """Why what can only be read, or is only told of, cannot be this; nothing where it is, or was not asked for."""
    found, is_declared = None if state is None else state.axis_value(name), name in _OF_A_BEAM
    allowed = max(axis.allowed_error if axis else 0.0, SAME_FRACTION * abs(value) * is_declared)
    if isinstance(found, float | int):
        if value and not abs(value - found) <= allowed:
            yield f"{_said(name, value)} cannot be set, and is read back as {_amount(name, found)}; say that"
    elif value and not is_declared:
        yield f"{_said(name, value)} cannot be set, only read; leave it at 0"


def _said(name: str, value: float) -> str:
    return f"{name} {_amount(name, value)}"


def _amount(name: str, value: float) -> str:
    return f"{value:.6g} {unit_of(name) or ''}".rstrip()


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
