"""What a frame says of itself: whose answer it is, when, of what, and what it cost. Neighbour: `doses`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from instruments.conformance.bench import Bench
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.counts import detectors
from instruments.conformance.checks.doses import doses
from instruments.conformance.findings import Measured
from instruments.frames import Frame

_CLOCK_S: Final = 0.05  # by which a state may be older than the end of its frame: clocks are coarse


def _metadata(bench: Bench) -> Result:
    frame = bench.frame("still")
    faults = [*_identity_faults(bench), *_unknown_faults(frame), *clock_faults(frame), *_undeclared(frame)]
    faults += _time_faults(frame, bench.conditions.patience_s)
    measured: list[Measured] = []
    if bench.capabilities.reports_dose and not _no_numbers(frame):
        measured = doses(bench, frame)
        faults += [f"{one} is not what current and time give" for one in measured if not one.is_within]
    if not faults and (objection := bench.objection("still")) is not None:
        faults = [f"the guard does not take the frame: {objection}"]
    if faults:
        return failed("; ".join(faults), *measured)
    return passed("command, ids, times, state and dose are there and agree", *measured)


def _identity_faults(bench: Bench) -> list[str]:
    frame, command = bench.frame("still"), bench.asked("still")
    facts = {
        "action id": frame.action_id == command.action_id,
        "command": frame.requested == command,
        "mode": frame.mode == bench.capabilities.mode(command.mode),
        "mode that was read back": frame.state.mode in (None, command.mode),
        "instrument's name": frame.instrument == bench.capabilities.name,
        "whether it is simulated": frame.simulated == bench.capabilities.simulated,
        "what else made it (`context` is empty: the library and its version, at least)": bool(frame.context),
    }
    return [f"the frame does not say right: {name}" for name, is_right in facts.items() if not is_right]


def _time_faults(frame: Frame, patience_s: float) -> list[str]:
    """What is wrong with its times: all three are by one clock, and the state is read at the end."""
    times = {"started_s": frame.started_s, "ended_s": frame.ended_s, "state.time_s": frame.state.time_s}
    if wrong := _not_numbers(times):
        return wrong
    said = ", ".join(f"{name} {value:.6g}" for name, value in times.items())
    if frame.started_s >= frame.ended_s:
        return [f"it does not begin before it ends: {said}"]
    if frame.state.time_s < frame.ended_s - _CLOCK_S:
        return [f"its state was read before it ended, or by another clock: {said}"]
    if frame.state.time_s > frame.ended_s + patience_s:
        return [f"its state was read long after it ended, or by another clock: {said}"]
    return []


def _unknown_faults(frame: Frame) -> list[str]:
    """What is None or not finite without a reason in `undetermined`."""
    state = frame.state
    reasons = {key.rpartition(".")[2] for key in state.undetermined}
    missing = [name for name in ("measured_current_pa", "coherence", "mode") if getattr(state, name) is None]
    return [f"{name} is not known, and no reason is given" for name in missing if name not in reasons] + _no_numbers(
        frame
    )


def _no_numbers(frame: Frame) -> list[str]:
    return _not_numbers({"dose_e_per_a2": frame.dose_e_per_a2, "electrons": frame.electrons})


def _not_numbers(values: Mapping[str, object]) -> list[str]:
    """Those that are no finite numbers: an adapter under test may give anything."""
    return [
        f"{name} is {value!r}"
        for name, value in values.items()
        if not isinstance(value, float | int) or not math.isfinite(value)
    ]


def clock_faults(frame: Frame) -> list[str]:
    """Whether it says how far the devices' clocks are off, or why not; of a simulated column nobody has to."""
    state = frame.state
    is_said = any(key.rpartition(".")[2] == "clocks" for key in state.undetermined)
    if is_said or (state.column.clocks if state.column is not None else frame.simulated):
        return []
    return ["no clock offset of any device is told (state.column.clocks), and no reason is given"]


def _undeclared(frame: Frame) -> list[str]:
    """Detectors of whose counts nobody says what they are."""
    return [
        f"{detector.name}: gain, dark and gain reference are neither all given nor said to be missing "
        "(without_references)"
        for detector in detectors(frame)
        if not detector.is_declared
    ]


METADATA = Check(
    name="metadata",
    does="looks whether that frame says all of itself: command, times, state, dose, or why something is not known",
    cure="fill the frame's fields; what cannot be known is None with its reason in state.undetermined",
    run=_metadata,
    shots=("still",),
)
