"""What must be refused: values outside the limits, controls and modes that there are none of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from instruments.axes import FRAME_ONLY, permission_for
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame, AxisValue, Command, Park, SetAxes
from instruments.conformance.bench import Bench, CannotJudge, Halted
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.owner import attempted
from instruments.errors import CommandRefused, Unsupported
from instruments.models import Record
from instruments.optics import Aberrations, Optics
from instruments.scans import ScanPattern, StagePosition
from instruments.state import MicroscopeState

_NO_CHOICE = "no-such-choice"
_ENOUGH = 2  # faults after which no more is tried: each may have moved or exposed something
_UNDECLARED = (
    "x_nm",
    "y_nm",
    "z_nm",
    "alpha_deg",
    "beta_deg",
    "beam_shift_x_nm",
    "beam_shift_y_nm",
    "rotation_deg",
    "tilt_x_mrad",
    "tilt_y_mrad",
    "defocus_nm",
)  # fmt: skip  asked for where the instrument has no such axis
_REFUSALS = (CommandRefused, Unsupported)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something the instrument must not do, and the axis it is about."""

    words: str
    axis: str | None
    value: float | str | None
    command: Command
    by_execute: bool = False
    as_if: AcquireFrame | None = None


def _out_of_range(bench: Bench) -> Result:
    return _all_refused(bench, list(_attempts_beyond(bench)), "outside its limits")


def _unknown_control(bench: Bench) -> Result:
    return _all_refused(bench, list(_attempts_unknown(bench)), "it does not have")


def _all_refused(bench: Bench, attempts: list[Attempt], what: str) -> Result:
    if not attempts:
        raise CannotJudge(
            "no frame within the limits is taken here (see the check `frame`), so no refusal says anything"
        )
    faults: list[str] = []
    forbidden: list[CannotJudge] = []
    for attempt in attempts:
        try:
            fault = _fault(bench, attempt)
        except CannotJudge as error:
            forbidden.append(error)
            continue
        faults += [fault] if fault else []
        if len(faults) == _ENOUGH:
            break
    if faults:
        return failed("; ".join(faults))
    if len(forbidden) == len(attempts):
        raise forbidden[0]
    untried = f"; {len(forbidden)} more were not tried: {forbidden[0]}" if forbidden else ""
    tried = len(attempts) - len(forbidden)
    return passed(f"{tried} commands {what} were refused, the read-back stayed as it was{untried}")


def _fault(bench: Bench, attempt: Attempt) -> str | None:
    """What is wrong with the answer; None if it was a refusal that changed nothing."""
    before = bench.read_state()
    error = attempted(
        lambda: bench.dare(attempt.command, by_execute=attempt.by_execute, as_if=attempt.as_if)
    ).exception()
    if isinstance(error, _REFUSALS):
        moved = _moved(before, bench.read_state(), bench.capabilities)
        return f"{attempt.words}: refused ({error}), yet {moved} changed" if moved else None
    if isinstance(error, Halted | CannotJudge):
        raise error
    if error is not None:
        return f"{attempt.words}: {type(error).__name__} instead of CommandRefused ({error})"
    after = bench.read_state()
    if attempt.axis is None:
        return f"{attempt.words}: accepted"
    return f"{attempt.words}: accepted, {_where_it_went(attempt, before, after, bench.capabilities)}"


def _where_it_went(
    attempt: Attempt, before: MicroscopeState, after: MicroscopeState, capabilities: Capabilities
) -> str:
    axis = capabilities.axis(attempt.axis or "")
    value = after.axis_value(attempt.axis or "")
    if value is None or axis is None or isinstance(value, str):
        return f"read-back {value}"
    if value in (axis.minimum, axis.maximum) and value != before.axis_value(axis.name):
        return f"clamped to {value:g} without a word"
    if value == attempt.value:
        return f"and it went there: read-back {value:g}"
    return f"the error was swallowed: read-back {value:g} as before"


def _moved(before: MicroscopeState, after: MicroscopeState, capabilities: Capabilities) -> str:
    """Names of the axes that stand elsewhere, beyond what their read-back may be off."""
    names: list[str] = []
    for axis in capabilities.axes:
        one, other = before.axis_value(axis.name), after.axis_value(axis.name)
        if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
            names += [axis.name] if one != other else []
        elif abs(one - other) > 2 * axis.allowed_error:
            names.append(axis.name)
    return ", ".join(names)


# --- outside the limits


def _attempts_beyond(bench: Bench) -> Iterator[Attempt]:
    for axis in bench.capabilities.axes:
        for value in _beyond(axis):
            words = f"{axis.name} {value:g} (limits {axis.minimum:g} to {axis.maximum:g})"
            for command in _ways(bench, axis.name, value):
                yield Attempt(words, axis.name, value, command)
        if (attempt := _never_settable(bench, axis)) is not None:
            yield attempt


def _never_settable(bench: Bench, axis: Axis) -> Attempt | None:
    """A word that is none of the choices, or where an axis that can only be read stands, so that nothing would move."""
    value: AxisValue | None = _NO_CHOICE
    words = f"{axis.name} {value!r} (choices {', '.join(axis.choices)})"
    if axis.read_only:
        value = bench.read_state().axis_value(axis.name)
        words = f"{axis.name} {value}, which can only be read"
    if axis.interlocked or axis.name in FRAME_ONLY or value is None or not (axis.read_only or axis.choices):
        return None
    return Attempt(words, axis.name, value, SetAxes(action_id=bench.shots.action_id(), values={axis.name: value}))


def _beyond(axis: Axis) -> list[float]:
    """A value just outside at each end: near enough to harm nothing, far enough not to be rounding."""
    if axis.choices or axis.read_only or axis.interlocked:
        return []
    low, high = axis.minimum, axis.maximum
    step = max(0.01 * (high - low), 2 * axis.resolution, 4 * axis.allowed_error)
    if high == low:
        step = max(step, 1.0, 0.01 * abs(high))
    below = low - step if low <= 0 else max(low - step, low / 2)
    return [high + step, below]


def _ways(bench: Bench, name: str, value: float) -> Iterator[Command]:
    """Every command that can ask for this value of this axis."""
    action_id = bench.shots.action_id()
    frame = _frame_with(bench.shots.command("still"), name, value)
    if frame is not None and bench.why_none("still") is None:  # where no frame is taken, a refusal says nothing
        yield frame
    if name in ("beam_shift_x_nm", "beam_shift_y_nm"):
        yield Park.model_validate({"action_id": action_id, name: value})
    if name not in FRAME_ONLY:
        yield SetAxes(action_id=bench.shots.action_id(), values={name: value})


def _frame_with(command: AcquireFrame, name: str, value: float) -> AcquireFrame | None:
    """The same exposure with one number changed; None where a frame has no such number, or cannot hold it."""
    parts: dict[str, tuple[type[Record], Record]] = {
        "stage": (StagePosition, command.stage),
        "scan": (ScanPattern, command.scan),
        "optics": (Optics, command.optics),
    }
    try:
        for part, (kind, now) in parts.items():
            if name in kind.model_fields:
                return command.model_copy(update={part: _checked(kind, now, name, value)})
        if name in Aberrations.model_fields:
            aberrations = _checked(Aberrations, command.optics.aberrations, name, value)
            optics = command.optics.model_copy(update={"aberrations": aberrations})
            return command.model_copy(update={"optics": optics})
    except ValidationError:
        return None
    return None


def _checked(kind: type[Record], now: Record, name: str, value: Any) -> Record:
    return kind.model_validate({**now.model_dump(), name: value})


# --- what there is none of


def _attempts_unknown(bench: Bench) -> Iterator[Attempt]:
    if bench.why_none("still") is not None and bench.capabilities.modes:
        return
    still = bench.shots.command("still")
    nowhere = still.model_copy(update={"mode": "no-such-mode", "action_id": bench.shots.action_id()})
    yield Attempt("mode 'no-such-mode'", None, None, nowhere, as_if=still)
    by_the_wrong_door = bench.shots.command("still")
    words = "an exposure given to execute(), which returns no frame"
    yield Attempt(words, None, None, by_the_wrong_door, by_execute=True)
    unknown = SetAxes(action_id=bench.shots.action_id(), values={"no_such_axis_nm": 1.0})
    yield Attempt("axis 'no_such_axis_nm'", None, None, unknown)
    if (step := _small_step(bench)) is not None:
        halves = SetAxes(action_id=bench.shots.action_id(), values=step | unknown.values)
        yield Attempt(f"{' and '.join(halves.values)} together, one of which there is not", None, None, halves)
    for name in _UNDECLARED:
        if bench.capabilities.axis(name) is None:
            frame = _frame_with(bench.shots.command("still"), name, 1.0)
            if frame is not None:
                yield Attempt(f"{name} 1, an axis it does not declare", name, 1.0, frame)


def _small_step(bench: Bench) -> dict[str, AxisValue] | None:
    """A value that one axis could take, a little beside where it stands; None where no axis moves."""
    state = bench.read_state()
    for axis in bench.capabilities.axes:
        now = state.axis_value(axis.name)
        is_kept = axis.name in FRAME_ONLY or axis.read_only or axis.interlocked or permission_for(axis.name) is not None
        if is_kept or now is None or isinstance(now, str) or axis.minimum >= axis.maximum:
            continue
        step = max(10 * axis.allowed_error, 10 * axis.resolution, 1e-4 * (axis.maximum - axis.minimum))
        for value in (now + step, now - step):
            if axis.minimum <= value <= axis.maximum:
                return {axis.name: value}
    return None


OUT_OF_RANGE = Check(
    name="out_of_range",
    does="takes one frame, then asks for values just outside each limit, of frames, parking and axes, for words that "
    "are no choice, and to set what can only be read",
    cure="compare every value with the limits before anything is sent, and raise CommandRefused; never clamp",
    run=_out_of_range,
    shots=("still",),
    may_expose=True,
)
UNKNOWN_CONTROL = Check(
    name="unknown_control",
    does="takes one frame, then asks for a mode, an axis and a command that the instrument does not have",
    cure="raise Unsupported or CommandRefused for what is not in capabilities(); ignore nothing",
    run=_unknown_control,
    shots=("still",),
    may_expose=True,
)
