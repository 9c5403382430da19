"""The kit on the twin in a process of its own: lines that are cut, silent and late, and clients that are careless."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from instruments.conformance import Bench, run
from instruments.conformance.broken.lines import BROKEN_LINES, CarelessLine
from instruments.conformance.hosted import HostedTarget
from instruments.conformance.kit import check_named
from instruments.remote import Endpoint
from simulation.microscope import open_simulated
from tests.integration.instruments.conformed import conformed, names
from tests.integration.steady_twin import UNHURRIED, failed, steady_config

TRANSPORT = ("mute_server", "call_after_timeout", "lost_answer", "server_killed")


@pytest.fixture(scope="module")
def hosted(image_cache: Path) -> Iterator[HostedTarget]:
    open_simulated(**steady_config(image_cache)).prepare()  # nobody's patience ends while they are computed
    with HostedTarget("hosted", steady_config(image_cache), "simulated", patience_s=8.0) as target:
        yield target


def test_the_twin_in_its_own_process_conforms_when_lines_break(hosted: HostedTarget) -> None:
    report = conformed(hosted, UNHURRIED, "simulated, in an instrument's process")
    assert not names(report, "declared quirk"), report.table()
    assert names(report, "skipped") == {"stage_tilt"}, report.table()


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_the_kit_names_what_is_careless_about_a_line(name: str, hosted: HostedTarget) -> None:
    line, caught_by, says = BROKEN_LINES[name]
    wanted = [check_named(check) for check in TRANSPORT if check != "server_killed"]
    impatient = UNHURRIED.model_copy(update={"patience_s": 8.0})
    hosted.line = line
    try:
        with Bench(hosted, impatient) as bench:
            report = run(bench, wanted)
    finally:
        hosted.line = None
    assert failed(report) == caught_by, report.table()
    assert all(says in report.finding(check).found for check in caught_by), report.table()


class ReadsFirst:
    """Reads the state before each exposure, and repeats the reading alone when its answer is lost."""

    def __init__(self, endpoint: Endpoint, *, exposes_again: bool) -> None:
        self._reading = CarelessLine(endpoint, resends=True)
        self._exposing = CarelessLine(endpoint, resends=exposes_again)

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        if call != "acquire":
            return self._reading.call(call, fence, arguments, patience_s=patience_s, moves=moves)
        self._reading.call("read_state", fence, {}, patience_s=patience_s)
        return self._exposing.call(call, fence, arguments, patience_s=patience_s, moves=moves)

    def close(self) -> None:
        self._reading.close()
        self._exposing.close()


@pytest.mark.parametrize("exposes_again", [False, True])
def test_a_reading_before_the_exposure_may_be_repeated_and_the_exposure_not(
    exposes_again: bool, hosted: HostedTarget
) -> None:
    hosted.line = lambda endpoint: ReadsFirst(endpoint, exposes_again=exposes_again)
    try:
        with Bench(hosted, UNHURRIED) as bench:
            report = run(bench, [check_named("lost_answer")])
    finally:
        hosted.line = None
    assert report.findings[0].verdict == ("failed" if exposes_again else "passed"), report.table()
    assert not exposes_again or "gave a frame" in report.findings[0].found
