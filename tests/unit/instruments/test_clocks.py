"""Offsets of clocks: what a question and its answer say of them, and where a state says that nobody knows."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate

import numpy as np
import pytest

from instruments import ClockOffset
from instruments.adapters.clocks import CLOCKS, offset_by_date, offset_of, seen_through, with_clocks
from instruments.conformance.checks.metadata import clock_faults
from tests.unit.orchestrator import microscope_frames

ASKED_S, TOOK_S = 1_700_000_000.25, 0.5


@pytest.mark.parametrize("true_offset_s", [-3600.0, 0.0, 0.4, 12.75])
@pytest.mark.parametrize("read_after", np.linspace(0, 1, 5))
def test_the_true_offset_lies_within_the_uncertainty(true_offset_s: float, read_after: float) -> None:
    told_s = ASKED_S + read_after * TOOK_S + true_offset_s
    exact = offset_of(told_s, ASKED_S, ASKED_S + TOOK_S)
    whole = offset_by_date(formatdate(np.floor(told_s), usegmt=True), ASKED_S, ASKED_S + TOOK_S)
    assert whole is not None
    for offset, uncertainty_s in ((exact, 0.25), (whole, 0.75)):
        assert offset.uncertainty_s == uncertainty_s
        assert abs(offset.offset_s - true_offset_s) <= uncertainty_s + 1e-6


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026"])
def test_a_reply_without_a_date_tells_nothing(date: str | None) -> None:
    assert offset_by_date(date, 0.0, 1.0) is None


def test_through_another_computer_offsets_and_doubts_add() -> None:
    near, far = offset_of(10.0, 7.0, 9.0), offset_of(5.0, 4.0, 5.0)
    seen = seen_through({"scan": far}, near)["scan"]
    assert (seen.offset_s, seen.uncertainty_s) == (near.offset_s + far.offset_s, 1.5)


def test_a_frame_tells_of_clocks_or_why_not() -> None:
    frame = replace(microscope_frames.frame(microscope_frames.command("a")), simulated=False)
    silent = frame.state.model_copy(update={"column": None, "undetermined": {}})
    clock = offset_of(1.0, 0.0, 1.0)

    def faults(clocks: dict[str, ClockOffset] | None) -> list[str]:
        state = silent if clocks is None else with_clocks(silent, clocks, "it has no clock")
        return clock_faults(replace(frame, state=state))

    assert faults(None), "neither a clock nor a reason"
    assert faults({}) == faults({"camera": clock}) == []
    assert with_clocks(silent, {}, "it has no clock").undetermined == {CLOCKS: "it has no clock"}
    both = with_clocks(with_clocks(silent, {"camera": clock}), {"stage": clock})
    assert both.column is not None
    assert both.column.clocks.keys() == {"camera", "stage"}
    assert both.undetermined == {}
