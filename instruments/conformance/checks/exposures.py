"""What a frame must be: the exposure that was asked for, its counts, its read-back, its context, once and once only."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from instruments.capabilities import Detector
from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.doses import doses
from instruments.conformance.checks.without_frames import read_back_of_axes
from instruments.conformance.findings import Measured
from instruments.conformance.frames import LONGER
from instruments.errors import CommandRefused, InstrumentError
from instruments.frames import Frame

_RATIO_LOW, _RATIO_HIGH = 0.85 * LONGER, 1.15 * LONGER
_TIME_TOLERANCE = 0.1
_LEAST_COUNTS = 2.0  # mean of a pixel: below it a ratio says little
_POISSON_LOW, _POISSON_HIGH = 0.3, 5.0  # variance over mean, in counts of one electron: real detectors spread wider
_READ_BACK: Final = (
    "x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg", "beam_shift_x_nm", "beam_shift_y_nm", "defocus_nm",
    "beam_energy_ev", "semi_convergence_angle_mrad",
)  # fmt: skip


def _frame(bench: Bench) -> Result:
    if not bench.capabilities.modes:
        raise CannotJudge("this instrument declares no mode: it takes no frames")
    error = bench.why_none("still")
    if error is not None:
        return failed(f"a frame within all limits was not given: {type(error).__name__}: {error}")
    frame = bench.frame("still")
    rows, columns = frame.requested.scan.shape_px
    asked = (frame.requested.subframe_count, rows, columns)
    mode = bench.capabilities.mode(frame.requested.mode)
    promised = {detector.name for detector in mode.detectors} if mode else set[str]()
    missing = sorted(promised - set(frame.counts))
    shapes = {name: counts.shape for name, counts in frame.counts.items() if counts.shape[:3] != asked}
    if missing:
        return failed(f"mode {frame.requested.mode!r} promises {', '.join(missing)}, the frame has no such detector")
    if shapes:
        return failed(f"{asked} (sub-frames, rows, columns) were asked for, given were {shapes}")
    return passed(f"{len(frame.counts)} detectors of {rows} x {columns} px, {asked[0]} sub-frames")


def _detectors(frame: Frame) -> list[Detector]:
    """Those of the mode that the frame has; which are missing is said by the check `frame`."""
    return [detector for detector in frame.mode.detectors if detector.name in frame.counts]


def _counts(bench: Bench) -> Result:
    frame = bench.frame("still")
    measured: list[Measured] = []
    for detector in _detectors(frame):
        counts = frame.counts[detector.name]
        if counts.dtype.kind != "u":
            return failed(f"{detector.name} is {counts.dtype}; raw counts are unsigned integers", *measured)
        if not detector.raw_counts:
            continue
        ratio = _variance_over_mean(counts, detector)
        if ratio is None:
            continue
        bounded = detector.gain_counts_per_electron is not None
        measured.append(
            Measured(
                name=f"{detector.name} variance over mean", value=ratio, unit="electrons" if bounded else "",
                low=_POISSON_LOW if bounded else 0.0, high=_POISSON_HIGH if bounded else None,
            )
        )  # fmt: skip
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(f"declared raw, but the counts do not scatter like electrons: {wrong[0]}", *measured)
    if not measured and (dark := _too_dark(frame)):
        raise CannotJudge(f"unsigned integers, but {dark}")
    scatter = "scatter as electrons do" if measured else "are not declared raw, or of one sub-frame: nothing to compare"
    return passed(f"unsigned integers of {', '.join(frame.counts)}; they {scatter}", *measured)


def _too_dark(frame: Frame) -> str:
    """Why nothing is said of the counts: of every detector that is declared raw there are too few. Empty: there are."""
    means = {one.name: float(frame.counts[one.name].mean()) for one in _detectors(frame) if one.raw_counts}
    if not means or max(means.values()) >= _LEAST_COUNTS:
        return ""
    counts = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    return (
        f"too few to judge, at least {_LEAST_COUNTS:g} a pixel are needed: {counts}; take more dose, or another field"
    )


def _variance_over_mean(counts: np.ndarray, detector: Detector) -> float | None:
    """Scatter between neighbouring sub-frames over the mean, in electrons; None for fewer than two of them."""
    if len(counts) < 2 or counts.mean() < _LEAST_COUNTS:
        return None
    difference = counts[1:].astype(float) - counts[:-1]
    gain = detector.gain_counts_per_electron or 1.0
    mean = (counts - detector.offset_counts).mean()
    return float((difference**2).mean() / 2 / mean / gain)


def _is_raw(frame: Frame, detector: Detector) -> bool:
    ratio = _variance_over_mean(frame.counts[detector.name], detector)
    is_known = detector.gain_counts_per_electron is not None
    return detector.raw_counts and (ratio is None or not is_known or _POISSON_LOW <= ratio <= _POISSON_HIGH)


def _dwell(bench: Bench) -> Result:
    short, long = bench.frame("still"), bench.frame("long")
    measured = [_beam_on(short, long)]
    for detector in _detectors(short):
        if not _is_raw(short, detector):
            continue
        few, many = (frame.counts[detector.name].mean() - detector.offset_counts for frame in (short, long))
        if few >= _LEAST_COUNTS:
            measured.append(
                Measured(
                    name=f"{detector.name} counts at {LONGER} times the dwell", value=float(many / few),
                    low=_RATIO_LOW, high=_RATIO_HIGH,
                )
            )  # fmt: skip
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(f"{LONGER} times the dwell was asked for: {'; '.join(map(str, wrong))}", *measured)
    if len(measured) > 1:
        return passed(f"time and counts follow the dwell ({LONGER} times)", *measured)
    if dark := _too_dark(short):
        raise CannotJudge(f"the time follows the dwell ({LONGER} times), but the counts are {dark}")
    return passed(f"time follows the dwell ({LONGER} times); counts that are not raw were not compared", *measured)


def _beam_on(short: Frame, long: Frame) -> Measured:
    """Time of the long frame that its scan needs at least, and got."""
    needed_s = long.requested.scan.duration_s(long.requested.subframe_count)
    return Measured(
        name="time of the frame over that of its scan", value=long.instrument_time_s / needed_s, low=1 - _TIME_TOLERANCE
    )


def _read_back(bench: Bench) -> Result:
    if not bench.capabilities.modes:
        return read_back_of_axes(bench)
    shot = "shift_x" if bench.capabilities.axis("beam_shift_x_nm") else "still"
    frame = bench.frame(shot)
    measured: list[Measured] = []
    asked = {**dict(frame.requested.stage), **dict(frame.requested.optics), **dict(frame.requested.scan)}
    for name in _READ_BACK:
        axis = bench.capabilities.axis(name)
        value = frame.state.axis_value(name)
        is_known = not any(key.rpartition(".")[2] == name for key in frame.state.undetermined)
        if axis is None or not is_known or value is None or isinstance(value, str):
            continue
        slack = axis.allowed_error + 1e-9 * max(1.0, abs(asked[name]))
        measured.append(Measured(name=name, value=value, low=asked[name] - slack, high=asked[name] + slack))
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(
            "; ".join(f"{one.name} {asked[one.name]:g} was asked for, {one.value:g} read back" for one in wrong),
            *measured,
        )
    if not measured:
        raise CannotJudge("this instrument declares no axis that is read back with a frame")
    return passed(f"{len(measured)} axes were read back as asked for, within what each declares", *measured)


def _metadata(bench: Bench) -> Result:
    frame = bench.frame("still")
    faults = [*_identity_faults(bench, frame), *_unknown_faults(frame), *clock_faults(frame), *_undeclared(frame)]
    measured: list[Measured] = []
    if bench.capabilities.reports_dose:
        measured = doses(bench, frame)
        faults += [f"{one} is not what current and time give" for one in measured if not one.is_within]
    if faults:
        return failed("; ".join(faults), *measured)
    return passed("command, ids, times, state and dose are there and agree", *measured)


def _identity_faults(bench: Bench, frame: Frame) -> list[str]:
    facts = {
        "action id": frame.action_id == frame.requested.action_id,
        "mode": frame.mode == bench.capabilities.mode(frame.requested.mode),
        "instrument's name": frame.instrument == bench.capabilities.name,
        "whether it is simulated": frame.simulated == bench.capabilities.simulated,
        "blanked beam at its end": frame.state.beam_blanked or "beam_blanked" in frame.state.undetermined,
        "start before its end": frame.started_s < frame.ended_s or frame.state.time_s >= frame.ended_s,
        "what else made it (`context` is empty: the library and its version, at least)": bool(frame.context),
    }
    return [f"the frame does not say right: {name}" for name, is_right in facts.items() if not is_right]


def _unknown_faults(frame: Frame) -> list[str]:
    """What is None or not finite without a reason in `undetermined`."""
    state = frame.state
    reasons = {key.rpartition(".")[2] for key in state.undetermined}
    missing = [name for name in ("measured_current_pa", "coherence", "mode") if getattr(state, name) is None]
    faults = [f"{name} is not known, and no reason is given" for name in missing if name not in reasons]
    numbers = {"dose_e_per_a2": frame.dose_e_per_a2, "electrons": frame.electrons, "time_s": state.time_s}
    return faults + [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]


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
        for detector in _detectors(frame)
        if not detector.is_declared
    ]


def _known_action(bench: Bench) -> Result:
    first = bench.renewed("still")
    outcome = bench.call(lambda microscope: microscope.outcome(first.action_id), "outcome")
    unheard = bench.call(lambda microscope: microscope.outcome(bench.shots.action_id()), "outcome")
    if unheard == "delivered":
        return failed("an action that was never asked for is 'delivered'")
    if outcome == "not_started":
        return failed(f"action {first.action_id} gave a frame, and is now 'not_started': its dose would be spent twice")
    before_s = bench.read_state().time_s
    try:
        again = bench.dare(first.requested)
    except InstrumentError as error:
        if outcome == "delivered":
            raise
        return passed(f"what became of it is unknown; asked for again it is {type(error).__name__}, and not exposed")
    if not isinstance(again, Frame):
        return failed(f"the same action asked for again gave no frame, but {again!r:.80}")
    is_same = all(np.array_equal(again.counts[name], counts) for name, counts in first.counts.items())
    if not is_same or again.started_s != first.started_s:
        unknown = "" if outcome == "delivered" else f" though its outcome is {outcome!r}"
        return failed(f"the same action asked for again was exposed again{unknown}: other counts, or another time")
    other = first.requested.model_copy(update={"subframe_count": first.requested.subframe_count + 1})
    try:
        bench.dare(other)
    except CommandRefused:
        spent_s = bench.read_state().time_s - before_s
        return passed(
            "the same frame came again, another command of the same id was refused",
            Measured(name="instrument time meanwhile", value=spent_s, unit="s"),
        )
    return failed("another command under a used action id was carried out")


FRAME = Check(
    name="frame",
    does="takes one frame, small and within all limits",
    cure="give what was asked for: every detector of the mode, (sub-frames, rows, columns); the kit's own conditions "
    "may have to be set for this instrument",
    run=_frame,
    shots=("still",),
)
COUNTS = Check(
    name="counts",
    does="looks at the counts of that frame: their kind, and how they scatter between sub-frames",
    cure="deliver raw counts as unsigned integers, or declare raw_counts = false and why",
    run=_counts,
    shots=("still",),
    may_be_quirk=True,
)
DWELL = Check(
    name="dwell",
    does=f"takes the frame again with {LONGER} times the dwell, and compares counts and time",
    cure="pass the dwell on, in microseconds per pixel of one sub-frame; report when the exposure began and ended",
    run=_dwell,
    shots=("still", "long"),
    may_be_quirk=True,
)
READ_BACK = Check(
    name="read_back",
    does="compares what was asked for with what was read back in a frame taken with the beam shifted",
    cure="read the values back from the instrument, in house units; declare the tolerance of each axis",
    run=_read_back,
    shots=("shift_x",),
)
METADATA = Check(
    name="metadata",
    does="looks whether that frame says all of itself: command, times, state, dose, or why something is not known",
    cure="fill the frame's fields; what cannot be known is None with its reason in state.undetermined",
    run=_metadata,
    shots=("still",),
)
KNOWN_ACTION = Check(
    name="known_action",
    does="asks again for a frame that was taken, then for another under the same action id; nothing may be exposed",
    cure="keep action ids: give the frame again, refuse another command, or say outcome 'unknown'",
    run=_known_action,
    shots=("still",),
)
