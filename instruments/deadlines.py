"""How long a command may take before its result is unknown: from its exposure and what has to settle."""

from __future__ import annotations

from typing import Final

from instruments.axes import axis_values
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, Unblank

OVERHEAD_S: Final = 10.0  # for the answer itself, on a slow line and a busy computer
MARGIN: Final = 2.0


def deadline_for(command: Command, capabilities: Capabilities) -> float:
    """Seconds after which `command` counts as unanswered: twice what it takes at most, the stop latency, and 10 s."""
    longest_s = _exposure_s(command, capabilities) + _settling_s(command, capabilities)
    return MARGIN * longest_s + capabilities.stop_latency_s + OVERHEAD_S


def _exposure_s(command: Command, capabilities: Capabilities) -> float:
    match command:
        case AcquireFrame():
            return command.scan.duration_s(command.subframe_count) + capabilities.blanker_settle_s
        case Park():
            return command.duration_s
        case Blank() | Unblank():
            return capabilities.blanker_settle_s
        case RunProcedure():
            procedure = capabilities.procedure(command.name)
            return procedure.duration_s if procedure else 0.0
        case _:
            return 0.0


def _settling_s(command: Command, capabilities: Capabilities) -> float:
    """All axes one after another, each over its whole range."""
    values = axis_values(command)
    return sum(travel_s(axis, values[axis.name]) for axis in capabilities.axes if axis.name in values)


def travel_s(axis: Axis, value: AxisValue) -> float:
    """The longest an axis can take to come to a value and settle, from wherever it is."""
    if axis.rate_per_s is None or isinstance(value, str):
        return axis.settle_s
    return axis.settle_s + max(value - axis.minimum, axis.maximum - value, 0.0) / axis.rate_per_s
