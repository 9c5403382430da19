"""The kit on the twin in a process of its own: lines that are cut, silent and late, and clients that are careless."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instruments.conformance import Bench, run
from instruments.conformance.broken.lines import BROKEN_LINES
from instruments.conformance.hosted import HostedTarget
from instruments.conformance.kit import check_named
from tests.integration.steady_twin import UNHURRIED, failed, steady_config

TRANSPORT = ("mute_server", "call_after_timeout", "lost_answer", "server_killed")


@pytest.fixture(scope="module")
def hosted(image_cache: Path) -> Iterator[HostedTarget]:
    with HostedTarget("hosted", steady_config(image_cache), "simulated", patience_s=8.0) as target:
        yield target


def test_the_twin_in_its_own_process_conforms_when_lines_break(hosted: HostedTarget) -> None:
    wanted = [check_named(name) for name in ("frame", "stop_latency", "concurrent_clients", *TRANSPORT, "teardown")]
    with Bench(hosted, UNHURRIED) as bench:
        report = run(bench, wanted)
    assert {finding.verdict for finding in report.findings} == {"passed"}, report.table()


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
