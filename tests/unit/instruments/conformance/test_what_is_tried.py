"""What the kit tries besides numbers beyond limits, and what it does not call judged."""

from __future__ import annotations

import time

import pytest

from instruments import AcquireFrame, Capabilities, Frame, Microscope, Unsupported
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.capabilities import Axis, Mode
from instruments.conformance import Bench, Conditions, OpenedTarget, Report, run
from instruments.conformance.broken.altered import Altered, Ways
from instruments.conformance.kit import check_named
from tests.unit.instruments.test_driven import CARD, OPTICS, StubbornDriver

SPECIAL = CARD.model_copy(
    update={
        "axes": (
            Axis(name="screen", choices=("up", "down"), frame="detector"),
            Axis(name="beam_energy_ev", minimum=80e3, maximum=300e3, read_only=True),
        )
    }
)


class DarkDriver(StubbornDriver):
    """Takes its time, and sees nothing."""

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        time.sleep(command.scan.duration_s(command.subframe_count))
        return super().expose(command, mode, until_s, is_lit=is_lit)


def tried(microscope: Microscope, *names: str) -> Report:
    conditions = Conditions(field_of_view_nm=20.0, shape_px=(8, 8), dwell_time_us=1.0, patience_s=60.0)
    with Bench(OpenedTarget("stubborn", lambda: microscope), conditions) as bench:
        return run(bench, [check_named(name) for name in names])


def test_words_that_are_no_choice_and_axes_that_are_only_read_are_refused() -> None:
    report = tried(DrivenMicroscope(StubbornDriver(capabilities=SPECIAL)), "out_of_range")
    finding = report.finding("out_of_range")
    assert finding.verdict == "passed", finding
    assert finding.found.startswith("2 commands")


def test_who_takes_them_is_told() -> None:
    def obeys(microscope: Microscope) -> Capabilities:
        del microscope
        return SPECIAL

    careless = Altered(
        DrivenMicroscope(StubbornDriver()),
        Ways(capabilities=obeys, execute=lambda microscope, command: microscope.read_state()),
    )
    finding = tried(careless, "out_of_range").finding("out_of_range")
    assert finding.verdict == "failed"
    assert "screen 'no-such-choice' (choices up, down): accepted" in finding.found
    assert f"beam_energy_ev {OPTICS.beam_energy_ev}, which can only be read: accepted" in finding.found


@pytest.mark.parametrize("check", ["counts", "dwell"])
def test_counts_too_few_to_judge_are_not_called_right(check: str) -> None:
    finding = tried(DrivenMicroscope(DarkDriver()), check).finding(check)
    assert finding.verdict == "skipped", finding
    assert "too few to judge, at least 2 a pixel are needed: haadf 0" in finding.found


def test_a_blank_that_nobody_sees_is_not_called_dark() -> None:
    def none_here(microscope: Microscope, command: AcquireFrame) -> Frame:
        del microscope
        raise Unsupported(f"no dark frame for {command.action_id}")

    finding = tried(DrivenMicroscope(DarkDriver()), "blank").finding("blank")
    assert (finding.verdict, "no detector sees anything" in finding.found) == ("skipped", True), finding
    undark = Altered(DrivenMicroscope(StubbornDriver()), Ways(acquire_dark=none_here))
    finding = tried(undark, "blank").finding("blank")
    assert (finding.verdict, "takes no dark frames" in finding.found) == ("skipped", True), finding
