"""What can be judged of an instrument that takes no frames: where it says it stands, and that a stop stops it.

Neighbours: `exposures` and `stopping`, which ask this where an instrument declares no mode.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from instruments.axes import STAGE_AXES
from instruments.capabilities import Axis
from instruments.commands import AxisValue, SetAxes
from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Result, failed, passed
from instruments.conformance.findings import Measured
from instruments.errors import InstrumentError, InstrumentFault, Unsupported
from instruments.state import MicroscopeState

_MOVED: Final = (*STAGE_AXES, "beam_shift_x_nm", "beam_shift_y_nm", "tilt_x_mrad", "tilt_y_mrad")
_PART: Final = 0.01  # of an axis' range
_LEAST_ERRORS: Final = 5.0  # of what its read-back may be off: so far it goes at least, or nothing is seen


def read_back_of_axes(bench: Bench, names: Collection[str] = _MOVED) -> Result:
    """Set stage and deflectors a little off where they stand, and back, the beam blanked; compare what is read."""
    with suppress(Unsupported):
        bench.blank()
    before = bench.read_state()
    axes = bench.capabilities.axes
    places = {axis.name: (axis, place) for axis in axes if (place := _place(axis, before, names)) is not None}
    if not places:
        raise CannotJudge("this instrument takes no frames, and declares no axis of stage or beam that is read back")
    measured: list[Measured] = []
    for values in (
        {name: _beside(axis, place) for name, (axis, place) in places.items()},
        {name: place for name, (_, place) in places.items()},
    ):
        for state in (_set(bench, values), bench.read_state()):
            measured += [_compared(axis, values[name], state) for name, (axis, _) in places.items()]
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(f"not where it was sent: {'; '.join(map(str, wrong))}", *measured)
    return passed(f"{len(places)} axes were set together and back, and read back as sent", *measured)


def _place(axis: Axis, state: MicroscopeState, names: Collection[str] = _MOVED) -> float | None:
    """Where an axis of stage or beam stands that can be moved and brought back; None for others."""
    place = state.axis_value(axis.name)
    is_moved = axis.name in names and axis.minimum < axis.maximum and not axis.read_only and not axis.interlocked
    if not is_moved or not isinstance(place, float | int) or not axis.minimum <= place <= axis.maximum:
        return None
    return float(place)


def _beside(axis: Axis, place: float) -> float:
    step = max(_PART * min(axis.maximum - axis.minimum, 1e4), _LEAST_ERRORS * axis.allowed_error)
    return place + step if place + step <= axis.maximum else place - step


def _set(bench: Bench, values: dict[str, float]) -> MicroscopeState:
    numbers: dict[str, AxisValue] = dict(values)
    command = SetAxes(action_id=bench.shots.action_id(), deadline_s=bench.conditions.patience_s, values=numbers)
    state = bench.dare(command)
    assert isinstance(state, MicroscopeState), f"execute() gave {state!r:.80}"
    return state


def _compared(axis: Axis, asked: float, state: MicroscopeState) -> Measured:
    found = state.axis_value(axis.name)
    slack = axis.allowed_error + 1e-9 * max(1.0, abs(asked))
    value = float(found) if isinstance(found, float | int) else float("nan")
    return Measured(name=axis.name, value=value, low=asked - slack, high=asked + slack)


def stop_at_rest(bench: Bench, stop_s: float, allowed_s: float) -> Result:
    """After a stop with nothing to interrupt: it came back in time, nothing moves until it is released."""
    took = Measured(name="stop came back after", value=stop_s, unit="s", high=allowed_s)
    if not took.is_within:
        return failed(f"stop came back after {stop_s:.3g} s, allowed are {allowed_s:.3g} s", took)
    state = bench.read_state()
    if not state.beam_blanked and "beam_blanked" not in state.undetermined:
        return failed("stopped, and the beam is not blanked", took)
    stands = {axis.name: place for axis in bench.capabilities.axes if (place := _place(axis, state)) is not None}
    if stands:
        try:
            _set(bench, stands)
        except InstrumentFault:
            pass
        except InstrumentError as error:
            return failed(f"stopped, a further setting is {type(error).__name__} ({error}), not InstrumentFault", took)
        else:
            return failed("stopped, and it was set again before anybody released it or opened it anew", took)
    return passed("stopped; it takes no frames, so there was nothing to interrupt", took)
