"""The kit asks of a real instrument nothing that the facility's envelope forbids, however careless its adapter is."""

from __future__ import annotations

import pytest

from instruments import (
    AcquireFrame,
    Capabilities,
    Command,
    CommandRefused,
    Frame,
    MicroscopeState,
    Outcome,
    SafetyEnvelope,
    axis_values,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import Bench, Conditions, Report
from instruments.conformance.kit import CHECKS, run
from instruments.conformance.target import OpenedTarget
from instruments.envelope_checks import check_bounds
from tests.unit.instruments.test_driven import CARD, StubbornDriver

ENVELOPE = SafetyEnvelope(min_stage_x_nm=-90.0, max_stage_x_nm=90.0, min_stage_y_nm=-5000.0, max_stage_y_nm=5000.0)
CONDITIONS = Conditions(field_of_view_nm=20.0, shape_px=(8, 8), dwell_time_us=1.0, patience_s=10.0)


class Careless:
    """Does whatever it is asked, within its axes or not, and writes it down."""

    def __init__(self, asked: list[Command], *, is_simulated: bool) -> None:
        self._card = CARD.model_copy(update={"simulated": is_simulated})
        self._inner = DrivenMicroscope(StubbornDriver())
        self._asked = asked

    def capabilities(self) -> Capabilities:
        return self._card

    def read_state(self) -> MicroscopeState:
        return self._inner.read_state()

    def execute(self, command: Command) -> MicroscopeState:
        self._asked.append(command)
        return self._inner.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        self._asked.append(command)
        within = command.model_copy(update={"stage": command.stage.model_copy(update={"x_nm": 0.0, "y_nm": 0.0})})
        return self._inner.acquire(within)

    def outcome(self, action_id: str) -> Outcome:
        return self._inner.outcome(action_id)

    def stop(self) -> None:
        self._inner.stop()

    def release(self) -> None:
        self._inner.release()


def tried(*, is_simulated: bool) -> tuple[Report, list[Command]]:
    """What the whole kit finds, and every command that reached the adapter."""
    asked: list[Command] = []
    target = OpenedTarget("careless", lambda: Careless(asked, is_simulated=is_simulated))
    with Bench(target, CONDITIONS, ENVELOPE) as bench:
        return run(bench, CHECKS), asked


def is_within(command: Command) -> bool:
    try:
        check_bounds(axis_values(command), ENVELOPE)
    except CommandRefused:
        return False
    return True


@pytest.mark.parametrize("is_simulated", [False, True])
def test_of_a_real_instrument_nothing_beyond_the_envelope_is_asked(is_simulated: bool) -> None:
    report, asked = tried(is_simulated=is_simulated)
    beyond = [command for command in asked if not is_within(command)]
    assert len(asked) > 10
    assert bool(beyond) is is_simulated, "a simulation has nothing to lose, and shows that the kit would have asked"
    found = report.finding("out_of_range")
    assert found.verdict == "failed"
    words = "y_nm" if not is_simulated else "x_nm"
    assert found.found.startswith(words), "what the envelope allows is tried in earnest"
