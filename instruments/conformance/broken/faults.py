"""The faults, one wrapper each, with the checks that must find it and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import numpy as np

from instruments.commands import AcquireFrame, Command, Park, SetAxes
from instruments.conformance.broken import frames
from instruments.conformance.broken.altered import Altered, Ways, commanded_otherwise, delivered_otherwise
from instruments.conformance.broken.clients import crosstalking
from instruments.errors import CommandRefused, InstrumentError, Unsupported
from instruments.frames import Frame
from instruments.microscope import Microscope
from instruments.scans import ScanPattern
from instruments.state import MicroscopeState

_SERIAL = count()
LEAKS_MAY_END = threading.Event()
"""Ends the threads that the fault `leaked_thread` leaves behind, once they were found."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to be broken: what it is, which checks must fail, and a word that their findings must say."""

    name: str
    words: str
    caught_by: frozenset[str]
    says: str
    breaks: Callable[[Microscope], Microscope]


def fault_named(name: str) -> Fault:
    """The fault of that name. Raises KeyError."""
    return {fault.name: fault for fault in FAULTS}[name]


def _broken(name: str, words: str, caught_by: str, says: str, ways: Callable[[], Ways]) -> Fault:
    return Fault(name, words, frozenset(caught_by.split()), says, lambda inner: Altered(inner, ways()))


# --- moving


def _scan_with(change: Callable[[ScanPattern], dict[str, float]]) -> Callable[[], Ways]:
    return lambda: commanded_otherwise(
        lambda command: command.model_copy(update={"scan": command.scan.model_copy(update=change(command.scan))})
    )


def _wrong_sign(scan: ScanPattern) -> dict[str, float]:
    return {"beam_shift_x_nm": -scan.beam_shift_x_nm}


def _swapped(scan: ScanPattern) -> dict[str, float]:
    return {"beam_shift_x_nm": scan.beam_shift_y_nm, "beam_shift_y_nm": scan.beam_shift_x_nm}


def _wrong_scale(scan: ScanPattern) -> dict[str, float]:
    return {"beam_shift_x_nm": 1.25 * scan.beam_shift_x_nm, "beam_shift_y_nm": 1.25 * scan.beam_shift_y_nm}


def _wrong_pixel(scan: ScanPattern) -> dict[str, float]:
    return {"field_of_view_nm": 1.2 * scan.field_of_view_nm}


def _short_dwell(scan: ScanPattern) -> dict[str, float]:
    return {"dwell_time_us": min(scan.dwell_time_us, 5.0)}


def _stuck_stage() -> Ways:
    def stay(command: AcquireFrame) -> AcquireFrame:
        at_home = command.stage.model_copy(update={"x_nm": 0.0, "y_nm": 0.0})
        return command.model_copy(update={"stage": at_home})

    return commanded_otherwise(stay)


def _wandering_read_back() -> Ways:
    def off(state: MicroscopeState) -> MicroscopeState:
        return state.model_copy(update={"beam_shift_x_nm": state.beam_shift_x_nm + 3.0})

    return Ways(
        read_state=lambda microscope: off(microscope.read_state()),
        execute=lambda microscope, command: off(microscope.execute(command)),
        acquire=lambda microscope, command: _with_state(microscope.acquire(command), off),
    )


def _with_state(frame: Frame, change: Callable[[MicroscopeState], MicroscopeState]) -> Frame:
    return replace(frame, state=change(frame.state))


# --- refusing


def _clamping() -> Ways:
    def within(microscope: Microscope, name: str, value: float) -> float:
        axis = microscope.capabilities().axis(name)
        return value if axis is None else min(max(value, axis.minimum), axis.maximum)

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        scan = command.scan
        x_nm = within(microscope, "beam_shift_x_nm", scan.beam_shift_x_nm)
        clamped = command.model_copy(update={"scan": scan.model_copy(update={"beam_shift_x_nm": x_nm})})
        return replace(microscope.acquire(clamped), requested=command)

    return Ways(acquire=acquire)


def _swallowing() -> Ways:
    def execute(microscope: Microscope, command: Command) -> MicroscopeState:
        try:
            return microscope.execute(command)
        except InstrumentError:
            return microscope.read_state()

    return Ways(execute=execute)


def _moving_then_refusing() -> Ways:
    def execute(microscope: Microscope, command: Command) -> MicroscopeState:
        try:
            return microscope.execute(command)
        except CommandRefused:
            if isinstance(command, Park):
                microscope.execute(Park(action_id=f"anyway-{next(_SERIAL)}", beam_shift_x_nm=7.0))
            raise

    return Ways(execute=execute)


def _accepting_unknown() -> Ways:
    def execute(microscope: Microscope, command: Command) -> MicroscopeState:
        try:
            return microscope.execute(command)
        except Unsupported:
            if isinstance(command, SetAxes):
                return microscope.read_state()
            raise

    return Ways(execute=execute)


def _foreign_errors() -> Ways:
    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        if microscope.capabilities().mode(command.mode) is None:
            raise KeyError(command.mode)
        return microscope.acquire(command)

    return Ways(acquire=acquire)


# --- exposing


def _floats() -> Ways:
    def change(frame: Frame) -> Frame:
        return replace(frame, counts={name: counts.astype(np.float32) for name, counts in frame.counts.items()})

    return delivered_otherwise(change)


def _normalised() -> Ways:
    def stretched(counts: np.ndarray) -> np.ndarray:
        return (counts / max(1, counts.max()) * 65535).astype(np.uint16)

    def change(frame: Frame) -> Frame:
        return replace(frame, counts={name: stretched(counts) for name, counts in frame.counts.items()})

    return delivered_otherwise(change)


def _missing_detector() -> Ways:
    def change(frame: Frame) -> Frame:
        return replace(frame, counts=dict(list(frame.counts.items())[:1]))

    return delivered_otherwise(change)


def _silent_metadata() -> Ways:
    def forget(state: MicroscopeState) -> MicroscopeState:
        return state.model_copy(update={"measured_current_pa": None})

    return delivered_otherwise(lambda frame: replace(_with_state(frame, forget), electrons=0.0, context={}))


def _repeating() -> Ways:
    """Every call is an exposure of its own, whatever its action id."""
    seen: set[str] = set()

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        seen.add(command.action_id)
        fresh = command.model_copy(update={"action_id": f"{command.action_id}-again-{next(_SERIAL)}"})
        return replace(microscope.acquire(fresh), action_id=command.action_id, requested=command)

    return Ways(
        acquire=acquire, outcome=lambda microscope, action_id: "delivered" if action_id in seen else "not_started"
    )


def _forgetting() -> Ways:
    return Ways(outcome=lambda microscope, action_id: "not_started")


def _understated() -> Ways:
    """A sixth of the electrons is not told of, nor their dose."""
    return delivered_otherwise(
        lambda frame: replace(frame, electrons=frame.electrons * 5 / 6, dose_e_per_a2=frame.dose_e_per_a2 * 5 / 6)
    )


def _thinned() -> Ways:
    return delivered_otherwise(lambda frame: replace(frame, dose_e_per_a2=frame.dose_e_per_a2 * 5 / 6))


def _unknowing() -> Ways:
    """Every call is an exposure of its own, and of none is it known what became of it."""
    return replace(_repeating(), outcome=lambda microscope, action_id: "unknown")


# --- stopping, blanking, closing


def _not_stopping() -> Ways:
    """Waits with the stop until the exposure is over, as a server does that serves one call at a time."""
    exposing = threading.Lock()

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        with exposing:
            return microscope.acquire(command)

    def stop(microscope: Microscope) -> None:
        with exposing:
            microscope.stop()

    return Ways(acquire=acquire, stop=stop)


def _not_darkening() -> Ways:
    return Ways(acquire_dark=lambda microscope, command: microscope.acquire(command))


def _leaking() -> Ways:
    """Each opening starts a thread that nobody ends."""
    threading.Thread(target=LEAKS_MAY_END.wait, name=f"leaked {next(_SERIAL)}", daemon=True).start()
    return Ways()


FAULTS: Final[tuple[Fault, ...]] = (
    _broken("wrong_sign", "beam shift x goes the other way", "beam_shift_motion", "sign of x", _scan_with(_wrong_sign)),
    _broken("swapped_axes", "beam shift x moves y", "beam_shift_motion", "swapped", _scan_with(_swapped)),
    _broken("wrong_scale", "beam shift 1.25 times too far", "beam_shift_motion", "scale", _scan_with(_wrong_scale)),
    _broken("stuck_stage", "the stage stays, its read-back moves", "stage_motion", "did not move", _stuck_stage),
    _broken("wrong_pixel", "the field is too wide", "calibration", "a pixel is", _scan_with(_wrong_pixel)),
    _broken("lying_read_back", "beam shift x reads 3 nm more", "read_back", "beam_shift_x_nm", _wandering_read_back),
    _broken("clamping", "beam shift x stops at its limit, silently", "out_of_range", "clamped", _clamping),
    _broken("swallowed_errors", "no refusal is heard", "out_of_range unknown_control", "accepted", _swallowing),
    _broken("moving_then_refusing", "refuses, and moves", "out_of_range", "yet beam_shift_x_nm", _moving_then_refusing),
    _broken("unknown_axis", "any axis is welcome", "unknown_control", "no_such_axis_nm", _accepting_unknown),
    _broken("foreign_errors", "an unknown mode is a KeyError", "unknown_control", "KeyError", _foreign_errors),
    _broken("floats", "counts are float32", "counts", "float32", _floats),
    _broken("normalised", "images stretched to 16 bits, called raw", "counts", "do not scatter", _normalised),
    _broken("missing_detector", "one detector of the mode is not there", "frame", "bf", _missing_detector),
    _broken("missing_metadata", "no current, no dose, no context", "metadata", "measured_current_pa", _silent_metadata),
    _broken("dwell_ignored", "never longer than 5 us", "dwell", "the dwell", _scan_with(_short_dwell)),
    _broken("repeated_exposure", "a known action is exposed again", "known_action", "exposed again", _repeating),
    _broken("unknowing", "exposes again, knows of nothing", "known_action", "outcome is 'unknown'", _unknowing),
    _broken("understated_dose", "a sixth of the electrons untold", "metadata", "electrons over the most", _understated),
    _broken("thinned_dose", "a sixth of the dose untold", "metadata", "dose times area", _thinned),
    _broken("forgetful", "no action was ever started", "known_action", "not_started", _forgetting),
    _broken("stop_waits", "stop waits for the exposure's end", "stop_latency", "stop", _not_stopping),
    _broken("blank_stays_lit", "a blanked beam lights the detectors", "blank", "blanked, yet", _not_darkening),
    _broken("leaked_thread", "a thread stays after closing", "teardown", "leaked", _leaking),
    _broken("copied_subframes", "every sub-frame is the first", "counts", "do not scatter", frames.copied),
    _broken("cut_counts", "no count is more than 255", "counts", "bf", frames.cut),
    _broken("mirrored", "rows upside down", "beam_shift_motion stage_motion", "mirrored or turned", frames.mirrored),
    _broken("never_turned", "scan rotation is not sent", "calibration", "not turned", frames.never_turned),
    _broken("other_clock", "times of a frame by another clock", "metadata", "another clock", frames.other_clock),
    _broken("other_id", "a frame under another id", "metadata", "action id", frames.other_id),
    _broken("no_frame", "acquire gives nothing", "frame", "no Frame", frames.no_frame),
    _broken("late_read_back", "the beam shift of the frame before", "read_back", "read back", frames.late_read_back),
    _broken("set_by_word", "axes set alone do not move", "read_back", "set without a frame", frames.set_by_word),
    _broken("says_lit", "blanks, and says it did not", "blank", "the beam is on", frames.says_lit),
    Fault(
        "crosstalk", "clients get each other's answers", frozenset({"concurrent_clients"}), "wrong", crosstalking()
    ),
)  # fmt: skip
