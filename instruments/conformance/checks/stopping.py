"""Stopping an exposure from beside it, and what blanking does to the detectors."""

from __future__ import annotations

import time
from concurrent.futures import Future

import numpy as np

from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.without_frames import stop_at_rest
from instruments.conformance.findings import Measured
from instruments.conformance.owner import Hung, OwnerThread
from instruments.errors import InstrumentError, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import TakesDarkFrames

_DARK = 0.05  # of the lit image's mean
_LEAST_COUNTS = 100.0  # of a whole image with the beam on: fewer are darkness themselves
_LOOK_S = 0.01
_UNDER_WAY_S = 0.3  # of the exposure before it is stopped


def _stop_latency(bench: Bench) -> Result:
    allowed_s = bench.capabilities.stop_latency_s + bench.conditions.stop_margin_s
    if not bench.capabilities.modes:
        try:
            return stop_at_rest(bench, _stop(bench, allowed_s), allowed_s)
        finally:
            bench.go_on()
    error = bench.why_none("still")
    if error is not None:
        raise CannotJudge(f"no frame 'still': {error}")
    command = bench.shots.command("stopped")
    exposure_s = command.scan.duration_s(command.subframe_count)
    if exposure_s < 2 * allowed_s:
        raise CannotJudge(
            f"the longest exposure of the kit is {exposure_s:.3g} s, too short to tell a stop (allowed are "
            f"{allowed_s:.3g} s) from its end; raise stop_exposure_s"
        )
    started_s = time.monotonic()
    exposing = bench.begin(command)
    _exposing_for(exposing, min(_UNDER_WAY_S, exposure_s / 8), command.action_id, started_s)
    try:
        return _stopped(bench, exposing, allowed_s)
    finally:
        _put_right(bench, exposing, exposure_s)


def _exposing_for(exposing: Future[Frame], duration_s: float, action_id: str, started_s: float) -> None:
    """Wait until the exposure has run for a while. Raises CannotJudge if it is over before that."""
    while time.monotonic() - started_s < duration_s:
        if exposing.done():
            if (error := exposing.exception()) is not None:
                raise CannotJudge(f"the long exposure was not begun: {error}")
            raise CannotJudge(
                f"exposure {action_id} was over after {time.monotonic() - started_s:.3f} s of this computer's time, "
                "before it could be stopped (a simulated one needs a clock that runs: time_scale)"
            )
        time.sleep(_LOOK_S)


def _stopped(bench: Bench, exposing: Future[Frame], allowed_s: float) -> Result:
    begun_s = time.monotonic()
    stop_s = _stop(bench, allowed_s)
    while not exposing.done() and time.monotonic() - begun_s < allowed_s:
        time.sleep(_LOOK_S)
    end_s = time.monotonic() - begun_s
    measured = (
        Measured(name="stop came back after", value=stop_s, unit="s", high=allowed_s),
        Measured(name="exposure ended after", value=end_s, unit="s", high=allowed_s),
    )
    if not exposing.done():
        return failed(f"{allowed_s:.3g} s after stop the exposure still runs", *measured)
    if stop_s > allowed_s:
        return failed(f"stop came back after {stop_s:.3g} s, allowed are {allowed_s:.3g} s", *measured)
    is_blanked = bench.read_state().beam_blanked
    if not is_blanked and not _has_no_blanker(bench):
        return failed("stopped, and the beam is not blanked", *measured)
    if fault := _exposes_after_stop(bench):
        return failed(fault, *measured)
    how = "stopped and blanked" if is_blanked else "stopped (it has no beam to blank)"
    return passed(f"{how} within {bench.capabilities.stop_latency_s:g} s and this computer's own", *measured)


def _stop(bench: Bench, allowed_s: float) -> float:
    """How long stop took, called from a thread that has nothing to do with the exposure. Raises Hung."""
    beside = OwnerThread("conformance stop")
    microscope = bench.microscope
    begun_s = time.monotonic()
    try:
        beside.call(microscope.stop, max(allowed_s, bench.conditions.patience_s), "stop during an exposure")
    finally:
        beside.end(0.1)
    return time.monotonic() - begun_s


def _exposes_after_stop(bench: Bench) -> str | None:
    """What is wrong if it takes a frame before anybody let it go on."""
    try:
        bench.dare(bench.shots.command("still"))
    except InstrumentFault:
        return None
    except InstrumentError as error:
        return f"stopped, a further exposure is {type(error).__name__} ({error}), not InstrumentFault"
    return "stopped, and it exposed again before anybody released it or opened it anew"


def _put_right(bench: Bench, exposing: Future[Frame], exposure_s: float) -> None:
    """Wait for an exposure that did not stop, so that nothing goes on behind; then make the microscope usable."""
    try:
        bench.wait(_quiet(exposing), 2 * exposure_s + bench.conditions.patience_s, "the exposure that did not stop")
    except Hung:
        return
    bench.go_on()


def _quiet(exposing: Future[Frame]) -> Future[None]:
    done: Future[None] = Future()
    exposing.add_done_callback(lambda _: done.set_result(None))
    return done


def _has_no_blanker(bench: Bench) -> bool:
    """Whether whoever has the beam is elsewhere, as beside a detector alone, and the state says so."""
    return not bench.capabilities.has_beam and "beam_blanked" in bench.read_state().undetermined


def _blank(bench: Bench) -> Result:
    if _has_no_blanker(bench):
        why = bench.read_state().undetermined["beam_blanked"]
        raise CannotJudge(f"there is nothing to blank: this instrument has no beam of its own ({why})")
    state = bench.blank()
    if not state.beam_blanked or not bench.read_state().beam_blanked:
        return failed("after blanking the state says that the beam is on")
    if not bench.capabilities.modes:
        return passed("the state says blanked (without frames nobody sees whether it is dark)")
    frame = bench.frame("still")
    if not frame.state.beam_blanked:
        return failed("after a frame the beam is not blanked")
    dark = _dark_frame(bench)
    if dark is None:
        raise CannotJudge(
            "the state says blanked, after blank and after a frame; whether the detectors are dark then nobody sees: "
            "it takes no dark frames (`acquire_dark`)"
        )
    measured = tuple(_darkness(frame, dark))
    if not measured:
        raise CannotJudge("the state says blanked; no detector sees anything with the beam on, so none can be darker")
    wrong = [one for one in measured if not one.is_within]
    if wrong:
        return failed(f"blanked, yet {'; '.join(map(str, wrong))} of the lit image", *measured)
    return passed("every detector is dark while the beam is blanked", *measured)


def _dark_frame(bench: Bench) -> Frame | None:
    """Read while the beam is blanked; None from an instrument that takes none."""
    microscope = bench.microscope
    if not isinstance(microscope, TakesDarkFrames):
        return None
    command = bench.shots.command("still")
    try:
        return bench.timed(lambda: microscope.acquire_dark(command), "acquire_dark")
    except Unsupported:
        return None


def _darkness(lit: Frame, dark: Frame) -> list[Measured]:
    measured: list[Measured] = []
    for detector in lit.mode.detectors:
        if detector.name not in lit.counts:
            continue
        means = [float(np.mean(frame.counts[detector.name])) - detector.offset_counts for frame in (lit, dark)]
        if means[0] * lit.counts[detector.name].size < _LEAST_COUNTS:
            continue
        measured.append(Measured(name=f"{detector.name} blanked over lit", value=means[1] / means[0], high=_DARK))
    return measured


STOP_LATENCY = Check(
    name="stop_latency",
    does="starts a long exposure and stops it from another thread soon after; then asks for one more frame",
    cure="give stop a connection and a thread of its own; if the exposure cannot be interrupted, declare "
    "can_interrupt = false and the true stop_latency_s, and the guard keeps exposures shorter than that",
    run=_stop_latency,
    shots=("still", "stopped"),
)
BLANK = Check(
    name="blank",
    does="blanks the beam, reads back, and where it can reads the detectors without exposing",
    cure="blank for real and read it back; detectors that do not darken are declared as a quirk 'blank: ...'",
    run=_blank,
    shots=("still",),
    may_be_quirk=True,
)
