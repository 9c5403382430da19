"""What a configured device tree can do and what it refuses: of the facility's limits and the devices' the tighter.

Neighbour: `config` is what the facility wrote, `microscope` carries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from instruments.adapters.ophyd.config import AxisConfig, OphydConfig
from instruments.axes import axis_values, known_axis
from instruments.capabilities import Axis, Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import CommandRefused, ConfigurationError
from instruments.optics import Aberrations, Optics
from instruments.scans import ScanPattern, StagePosition

Facts = Mapping[str, Mapping[str, float]]
_NOT_SET: Final = ("pixel_size_nm", "camera_length_mm")
_OPTICS: Final = (*Optics.model_fields, *Aberrations.model_fields)
_DEFAULTS: Final[dict[str, float]] = {
    **StagePosition().model_dump(),
    **Aberrations().model_dump(),
    **{
        name: float(field.default)
        for fields in (Optics.model_fields, ScanPattern.model_fields)
        for name, field in fields.items()
        if isinstance(field.default, float)
    },
    "subframe_count": 1.0,
}


def card_of(config: OphydConfig, facts: Facts) -> Capabilities:
    """Capabilities, from the configuration and what the devices said of themselves. Raises ConfigurationError."""
    settable = [axis for axis in config.axes.values() if axis.signal and not axis.choices]
    quirks = list(config.quirks)
    if config.stop_line == "shared":
        quirks.append("stop goes beside the calls of one devices' process, not on a connection of its own")
    return Capabilities(
        name=config.label,
        simulated=config.simulated,
        axes=tuple(_axis(name, axis, facts) for name, axis in config.axes.items()),
        modes=tuple(mode.as_mode(name) for name, mode in config.modes.items()),
        can_interrupt=config.can_interrupt,
        stop_latency_s=config.stop_latency_s,
        subframes="subframe_count" in config.axes,
        reports_dose=config.measured_current_pa is not None,
        blanker_settle_s=config.blanker_settle_s,
        flyback_exposes=config.flyback_exposes,
        current_uncertainty_fraction=config.current_uncertainty_fraction,
        quirks=tuple(quirks),
        reports_limits=all(facts.get(axis.signal or "") for axis in settable),
        has_beam=config.has_beam,
    )


def limits_of(name: str, axis: AxisConfig, facts: Facts) -> tuple[float, float]:
    """The tighter of the facility's limits and the device's, in house units. Raises ConfigurationError."""
    said = facts.get(axis.signal or "", {})
    low, high = -inf, inf
    if said:
        low, high = sorted((said[end] - axis.offset) / axis.scale for end in ("low", "high"))
    low = low if axis.minimum is None else max(low, axis.minimum)
    high = high if axis.maximum is None else min(high, axis.maximum)
    if low == -inf or high == inf:
        raise ConfigurationError(f"axis {name}: {axis.signal} says no limits, and neither do you; set minimum, maximum")
    if low > high:
        raise ConfigurationError(f"axis {name}: its limits and the device's have nothing in common; correct them")
    return low, high


def _axis(name: str, axis: AxisConfig, facts: Facts) -> Axis:
    known = known_axis(name)
    common = {"name": name, "frame": known.frame if known else "optics", "settle_s": axis.settle_s}
    if axis.fixed is not None:
        return Axis.model_validate({**common, "minimum": axis.fixed, "maximum": axis.fixed})
    common |= {"resolution": axis.resolution, "tolerance": axis.tolerance, "rate_per_s": axis.rate_per_s}
    if axis.choices:
        return Axis.model_validate({**common, "choices": tuple(axis.choices), "read_only": axis.signal is None})
    if axis.signal is None:
        return Axis.model_validate({**common, "read_only": True})
    low, high = limits_of(name, axis, facts)
    return Axis.model_validate({**common, "minimum": low, "maximum": high})


def frame_values(command: AcquireFrame, config: OphydConfig, card: Capabilities, facts: Facts) -> dict[str, AxisValue]:
    """What a frame sets of the axes there are. Raises CommandRefused for everything else it asks for."""
    mode = card.mode(command.mode)
    if mode is None:
        known = ", ".join(one.name for one in card.modes)
        raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {known}")
    refusals: list[str | None] = [*_mode_refusals(command, mode), *_shape_refusals(command, config, facts)]
    values: dict[str, AxisValue] = {}
    for name, value in axis_values(command).items():
        axis = card.axis(name)
        if axis is not None and name not in _NOT_SET:
            refusals.append(axis.refusal(value))
            values[name] = value
        elif name not in _NOT_SET and not _is_default(name, value, command, card):
            refusals.append(f"{name} {value:g}: this instrument has no such axis; leave it at {_DEFAULTS[name]:g}")
    if mode.camera_length_mm is not None and card.axis("camera_length_mm") is not None:
        values["camera_length_mm"] = mode.camera_length_mm
    if said := [refusal for refusal in refusals if refusal]:
        raise CommandRefused("; ".join(said))
    return values


def _is_default(name: str, value: AxisValue, command: AcquireFrame, card: Capabilities) -> bool:
    """Whether an axis that is not there is left alone; azimuths of nothing and optics without a beam do not count."""
    if name.startswith("phi") and getattr(command.optics.aberrations, f"c{name[3:5]}_nm") == 0:
        return True
    if not card.has_beam and name in _OPTICS:
        return True
    return value == _DEFAULTS.get(name, 0.0)


def _mode_refusals(command: AcquireFrame, mode: Mode) -> list[str]:
    refusals: list[str] = []
    length_mm = command.optics.camera_length_mm
    if length_mm is not None and length_mm != mode.camera_length_mm:
        refusals.append(f"camera length {length_mm:g} mm is not mode {mode.name!r}'s; leave it out")
    if command.scan.at_once != mode.is_at_once:
        refusals.append(f"mode {mode.name!r} is of kind {mode.kind}: scan.at_once must be {mode.is_at_once}")
    return refusals


def _shape_refusals(command: AcquireFrame, config: OphydConfig, facts: Facts) -> list[str]:
    refusals: list[str] = []
    for name, axis, wanted in zip(
        ("rows", "columns"), (config.rows, config.columns), command.scan.shape_px, strict=True
    ):
        low, high = (axis.fixed, axis.fixed) if axis.fixed is not None else limits_of(name, axis, facts)
        if not max(low, 1) <= wanted <= high:
            refusals.append(f"{wanted} {name} are outside {max(low, 1):g} to {high:g} px; stay inside")
    return refusals
