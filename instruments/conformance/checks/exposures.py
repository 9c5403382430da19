"""What a frame must be: the exposure that was asked for, as long as was asked for, once and once only."""

from __future__ import annotations

from typing import Final, get_args

import numpy as np

from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.counts import LEAST_COUNTS, are_plausible, detectors, too_dark, variance_over_mean
from instruments.conformance.findings import Measured
from instruments.conformance.frames import LONGER
from instruments.errors import CommandRefused, InstrumentError
from instruments.frames import Frame
from instruments.microscope import Outcome

OUTCOMES: Final = get_args(Outcome)
_COUNTS_TOLERANCE, _COUNTS_TOLERANCE_UNMEASURED = 0.08, 0.15  # a current that nobody measures may fall meanwhile
_TIME_TOLERANCE = 0.05
_SCATTERS = 0.05  # variance over mean: so much, and no two exposures have the same counts


def _frame(bench: Bench) -> Result:
    if not bench.capabilities.modes:
        raise CannotJudge("this instrument declares no mode: it takes no frames")
    error = bench.why_none("still")
    if isinstance(error, CommandRefused) and bench.capabilities.has_beam and not bench.read_state().beam_blanked:
        raise CannotJudge(f"the beam is read back as on (see the check `blank`), so no frame is taken: {error}")
    if error is not None:
        return failed(f"a frame within all limits was not given: {type(error).__name__}: {error}")
    frame, command = bench.frame("still"), bench.asked("still")
    rows, columns = command.scan.shape_px
    asked = (command.subframe_count, rows, columns)
    mode = bench.capabilities.mode(command.mode)
    promised = {detector.name for detector in mode.detectors} if mode else set[str]()
    missing = sorted(promised - set(frame.counts))
    shapes = {name: counts.shape for name, counts in frame.counts.items() if counts.shape[:3] != asked}
    if missing:
        return failed(f"mode {command.mode!r} promises {', '.join(missing)}, the frame has no such detector")
    if shapes:
        return failed(f"{asked} (sub-frames, rows, columns) were asked for, given were {shapes}")
    return passed(f"{len(frame.counts)} detectors of {rows} x {columns} px, {asked[0]} sub-frames")


def _dwell(bench: Bench) -> Result:
    short, long = bench.frame("still"), bench.frame("long")
    measured = [_beam_on(bench, long)] if long.started_s < long.ended_s else []  # else see the check `metadata`
    expected, tolerance = _more_counts(short, long)
    for detector in detectors(short):
        if not (are_plausible(short, detector) and are_plausible(long, detector)):
            continue
        few, many = (frame.counts[detector.name].mean() - detector.offset_counts for frame in (short, long))
        if few >= LEAST_COUNTS:
            measured.append(
                Measured(
                    name=f"{detector.name} counts at {LONGER} times the dwell", value=float(many / few),
                    low=(1 - tolerance) * expected, high=(1 + tolerance) * expected,
                )
            )  # fmt: skip
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(f"{LONGER} times the dwell was asked for: {'; '.join(map(str, wrong))}", *measured)
    if len(measured) > 1 or (measured and long.started_s >= long.ended_s):
        return passed(f"time and counts follow the dwell ({LONGER} times)", *measured)
    if dark := too_dark(short):
        raise CannotJudge(f"the time follows the dwell ({LONGER} times), but the counts are {dark}")
    return passed(f"time follows the dwell ({LONGER} times); counts that are not raw were not compared", *measured)


def _more_counts(short: Frame, long: Frame) -> tuple[float, float]:
    """How many times the counts the longer frame should have, by dwell and measured current, and how exactly."""
    before_pa, after_pa = (frame.state.measured_current_pa for frame in (short, long))
    if not before_pa or not after_pa:
        return float(LONGER), _COUNTS_TOLERANCE_UNMEASURED
    return LONGER * after_pa / before_pa, _COUNTS_TOLERANCE


def _beam_on(bench: Bench, long: Frame) -> Measured:
    """Time of the long frame that its scan needs at least, and got."""
    command = bench.asked("long")
    needed_s = command.scan.duration_s(command.subframe_count)
    return Measured(
        name="time of the frame over that of its scan", value=long.instrument_time_s / needed_s, low=1 - _TIME_TOLERANCE
    )


def _known_action(bench: Bench) -> Result:
    first, command = bench.renewed("still"), bench.asked("still")
    action_id, never_asked = command.action_id, bench.shots.action_id()
    outcome = bench.call(lambda microscope: microscope.outcome(action_id), "outcome")
    unheard = bench.call(lambda microscope: microscope.outcome(never_asked), "outcome")
    if odd := [one for one in (outcome, unheard) if one not in OUTCOMES]:
        return failed(f"outcome() gave {odd[0]!r:.80}, which is none of {', '.join(OUTCOMES)}")
    if unheard == "delivered":
        return failed("an action that was never asked for is 'delivered'")
    if outcome == "not_started":
        return failed(f"action {action_id} gave a frame, and is now 'not_started': its dose would be spent twice")
    before_s = bench.read_state().time_s
    try:
        again = bench.dare(command)
    except InstrumentError as error:
        if outcome == "delivered":
            raise
        return passed(f"what became of it is unknown; asked for again it is {type(error).__name__}, and not exposed")
    if not isinstance(again, Frame):
        return failed(f"the same action asked for again gave no frame, but {again!r:.80}")
    if not _is_same(first, again):
        unknown = "" if outcome == "delivered" else f" though its outcome is {outcome!r}"
        return failed(f"the same action asked for again was exposed again{unknown}: other counts, or another time")
    other = command.model_copy(update={"subframe_count": command.subframe_count + 1})
    try:
        bench.dare(other)
    except CommandRefused:
        spent_s = bench.read_state().time_s - before_s
        return passed(
            "the same frame came again, another command of the same id was refused",
            Measured(name="instrument time meanwhile", value=spent_s, unit="s"),
        )
    return failed("another command under a used action id was carried out")


def _is_same(first: Frame, again: Frame) -> bool:
    """Whether it is one exposure: counts that scatter tell by themselves, others by their time."""
    if first.counts.keys() != again.counts.keys():
        return False
    if not all(np.array_equal(again.counts[name], counts) for name, counts in first.counts.items()):
        return False
    scatter = [variance_over_mean(first.counts[one.name], one) for one in detectors(first)]
    return again.started_s == first.started_s or max((one or 0.0 for one in scatter), default=0.0) > _SCATTERS


FRAME = Check(
    name="frame",
    does="takes one frame, small and within all limits",
    cure="give what was asked for: every detector of the mode, (sub-frames, rows, columns); the kit's own conditions "
    "may have to be set for this instrument",
    run=_frame,
    shots=("still",),
)
DWELL = Check(
    name="dwell",
    does=f"takes the frame again with {LONGER} times the dwell, and compares counts and time",
    cure="pass the dwell on, in microseconds per pixel of one sub-frame; report when the exposure began and ended",
    run=_dwell,
    shots=("still", "long"),
    may_be_quirk=True,
)
KNOWN_ACTION = Check(
    name="known_action",
    does="asks again for a frame that was taken, then for another under the same action id; nothing may be exposed",
    cure="keep action ids: give the frame again, refuse another command, or say outcome 'unknown'",
    run=_known_action,
    shots=("still",),
)
