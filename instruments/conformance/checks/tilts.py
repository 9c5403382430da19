"""Whether the stage tilts as it is told: each tilt by itself, a little aside and back, the beam blanked.

Of the read-back alone, for a level specimen looks alike tilted either way: an adapter whose read-back repeats what
it was told is not found out here.
"""

from __future__ import annotations

from contextlib import suppress
from math import degrees, radians
from typing import Final

from instruments.capabilities import Axis
from instruments.commands import SetAxes
from instruments.conformance.bench import Bench, CannotJudge, Halted
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.findings import Measured
from instruments.errors import InstrumentFault, Unsupported
from instruments.state import MicroscopeState

_TILTS: Final = ("alpha_deg", "beta_deg")
_STEP_DEG: Final = 2.0
_PART: Final = 0.05  # of an axis' range at most
_LEAST_ERRORS: Final = 5.0  # of what its read-back may be off: so far it goes at least, or nothing is seen
_ALIKE: Final = 0.2  # how near, in parts of it, a wrong read-back comes to one that is explained
_SMALL: Final = radians(1.0)
_EXPLAINED: Final = {
    0.0: "it did not tilt",
    -1.0: "its sign is wrong",
    radians(1.0): "degrees and radians are mixed up: it went too little, or is read in radians",
    degrees(1.0): "degrees and radians are mixed up: it went too far, or radians are read as degrees",
}


def _stage_tilt(bench: Bench) -> Result:
    with suppress(Unsupported):
        bench.blank()
    before = bench.read_state()
    places = {name: place for name in _TILTS if (place := _place(bench.capabilities.axis(name), before)) is not None}
    if not places:
        raise CannotJudge("this instrument declares no tilt of the stage that can be set and is read back")
    measured, faults = list[Measured](), list[str]()
    for name, place in places.items():
        axis = bench.capabilities.axis(name)
        assert axis is not None, "it has a place"
        try:
            faults += _tilted(bench, axis, place, places, measured)
        finally:
            _sent(bench, name, place)
        after = bench.read_state().axis_value(name)
        if not faults and not _is_near(after, place, axis.allowed_error):
            faults.append(f"{name} was sent back to {place:g} deg, and reads {after}")
        if faults:
            return failed("; ".join(faults), *measured)
    return passed(f"each tilt went where it was sent, by itself, and back: {', '.join(places)}", *measured)


def _place(axis: Axis | None, state: MicroscopeState) -> float | None:
    """Where a tilt stands that can be moved; None for others."""
    if axis is None or axis.read_only or axis.interlocked or axis.minimum >= axis.maximum:
        return None
    place = _number(state, axis.name)
    is_known = not any(key.rpartition(".")[2] == axis.name for key in state.undetermined)
    return place if is_known and axis.minimum <= place <= axis.maximum else None


def _tilted(bench: Bench, axis: Axis, place: float, places: dict[str, float], measured: list[Measured]) -> list[str]:
    """What is wrong after one tilt was sent a step aside."""
    step = max(min(_STEP_DEG, _PART * (axis.maximum - axis.minimum)), _LEAST_ERRORS * axis.allowed_error)
    asked = place + step if place + step <= axis.maximum else place - step
    if asked < axis.minimum:
        raise CannotJudge(f"{axis.name} is read back no better than its limits are apart")
    refusal = _sent(bench, axis.name, asked)
    state = bench.read_state()
    found = _number(state, axis.name)
    slack = axis.allowed_error + 1e-9 * max(1.0, abs(asked))
    measured.append(Measured(name=axis.name, value=found, unit="deg", low=asked - slack, high=asked + slack))
    faults: list[str] = []
    if not measured[-1].is_within:
        faults.append(f"{axis.name} {asked:g} deg was asked for, {found:g} read back{_why(found, place, asked)}")
    elif refusal is not None:
        faults.append(f"{axis.name} {asked:g} deg: {refusal}")
    for other, stood in places.items():
        card = bench.capabilities.axis(other)
        if other != axis.name and card is not None and not _is_near(_number(state, other), stood, card.allowed_error):
            faults.append(f"{axis.name} was tilted, and {other} went from {stood:g} to {_number(state, other):g} deg")
    return faults


def _why(found: float, place: float, asked: float) -> str:
    """The likely cause of a wrong read-back, in words; empty where it looks like none that is known."""
    shares = [(found - place) / (asked - place), *([found / asked] if asked else [])]
    for wrong, words in _EXPLAINED.items():
        if any(abs(share - wrong) <= _ALIKE * max(abs(wrong), _SMALL) for share in shares):
            return f": {words}"
    return ""


def _sent(bench: Bench, name: str, value: float) -> InstrumentFault | None:
    """Set one tilt; the fault, where the adapter itself says that it did not arrive."""
    command = SetAxes(action_id=bench.shots.action_id(), deadline_s=bench.conditions.patience_s, values={name: value})
    try:
        bench.dare(command)
    except Halted:
        raise
    except Unsupported as error:
        raise CannotJudge(f"{name} is set by no command of its own: {error}") from error
    except InstrumentFault as error:
        return error
    return None


def _number(state: MicroscopeState, name: str) -> float:
    value = state.axis_value(name)
    return float(value) if isinstance(value, float | int) else float("nan")


def _is_near(found: object, wanted: float, allowed: float) -> bool:
    return isinstance(found, float | int) and abs(found - wanted) <= 2 * allowed + 1e-9 * max(1.0, abs(wanted))


STAGE_TILT = Check(
    name="stage_tilt",
    does="blanks the beam, tilts the stage a little about each axis and back, and compares what is read back",
    cure="convert tilts to the instrument's unit and sense in both directions, and read them back from it",
    run=_stage_tilt,
    may_be_quirk=True,
)
