"""The kit on good instruments, and on the same broken on purpose: it names each fault, and only that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instruments import Capabilities, InstrumentFault, Microscope
from instruments.conformance import CHECKS, Bench, Conditions, OpenedTarget, Report, run
from instruments.conformance.broken import FAULTS, Fault
from instruments.conformance.broken.altered import Altered, Ways
from instruments.conformance.broken.clients import several
from instruments.conformance.broken.faults import LEAKS_MAY_END
from instruments.conformance.broken.lines import BROKEN_LINES
from instruments.conformance.hosted import HostedTarget
from instruments.conformance.kit import check_named
from simulation.microscope import SimulatedMicroscope, open_simulated
from tests.integration.instrument_processes import twin_config

UNHURRIED = Conditions(stage_x_nm=0.0, stage_y_nm=0.0, stop_exposure_s=20.0, stop_margin_s=4.0, patience_s=120.0)
HASTY = UNHURRIED.model_copy(update={"stop_exposure_s": 6.0, "stop_margin_s": 0.5})
TRANSPORT = ("mute_server", "call_after_timeout", "lost_answer", "server_killed")
NEED_A_SERVER = {"concurrent_clients", *TRANSPORT}


def steady_config(cache: Path) -> dict[str, object]:
    """A world without drift, whose stage goes where it is sent, and whose exposures take their time."""
    return twin_config(
        cache, width_nm=160.0, height_nm=160.0, backlash_min_nm=0.0, backlash_max_nm=0.0, drift_nm_per_min=0.0,
        move_drift_nm_per_min=0.0, move_drift_floor_nm_per_min=0.0, max_dwell_time_us=1000.0, time_scale=0.3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_world(image_cache: Path) -> SimulatedMicroscope:
    return open_simulated(**steady_config(image_cache))


@pytest.fixture
def twin(one_world: SimulatedMicroscope) -> Microscope:
    one_world.release()
    return one_world


def tried(name: str, opener: Callable[[], Microscope], conditions: Conditions = UNHURRIED, only: str = "") -> Report:
    with Bench(OpenedTarget(name, opener), conditions) as bench:
        return run(bench, [check_named(only)] if only else CHECKS)


def failed(report: Report) -> set[str]:
    return {finding.check for finding in report.findings if finding.verdict == "failed"}


def test_the_simulated_microscope_conforms(twin: Microscope) -> None:
    report = tried("simulated", lambda: twin)
    verdicts = {finding.check: finding.verdict for finding in report.findings}
    assert list(verdicts) == [check.name for check in CHECKS]
    assert {name for name, verdict in verdicts.items() if verdict == "skipped"} == NEED_A_SERVER, report.table()
    assert not report.has_failed, report.table()
    assert {verdicts[name] for name in verdicts if name not in NEED_A_SERVER} == {"passed"}, report.table()
    assert report.finding("blank").found == "every detector is dark while the beam is blanked"
    assert 0 < report.electrons < 1e11
    assert 0 < report.max_dose_e_per_a2 < 1e5
    assert Report.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_the_kit_names_each_fault_and_only_that(fault: Fault, twin: Microscope) -> None:
    conditions = HASTY if fault.name == "stop_waits" else UNHURRIED
    try:
        report = tried(fault.name, lambda: fault.breaks(twin), conditions)
    finally:
        LEAKS_MAY_END.set()
        LEAKS_MAY_END.clear()
    assert failed(report) == fault.caught_by, report.table()
    for check in fault.caught_by:
        assert fault.says in report.finding(check).found, report.table()
        assert report.finding(check).cure


def test_clients_that_keep_their_answers_apart_pass(twin: Microscope) -> None:
    def capabilities(microscope: Microscope) -> Capabilities:
        return several(microscope.capabilities(), 8)

    report = tried("shared", lambda: Altered(twin, Ways(capabilities=capabilities)), only="concurrent_clients")
    assert report.findings[0].verdict == "passed", report.table()


def test_a_declared_quirk_is_no_failure_where_it_may_be_one(twin: Microscope, one_world: SimulatedMicroscope) -> None:
    def declaring(words: str, fault: str) -> Microscope:
        broken = next(one for one in FAULTS if one.name == fault).breaks(twin)
        card = twin.capabilities().model_copy(update={"quirks": (words,)})
        return Altered(broken, Ways(capabilities=lambda microscope: card))

    lit = "blank: the annular detector sees the room's light"
    found = tried("lit", lambda: declaring(lit, "blank_stays_lit"), only="blank").findings[0]
    assert found.verdict == "declared quirk"
    assert "sees the room's light" in found.found
    one_world.release()
    careless = "out_of_range: we clamp"
    found = tried("clamps", lambda: declaring(careless, "clamping"), only="out_of_range").findings[0]
    assert found.verdict == "failed", "what must be refused cannot be excused"


def test_nothing_is_asked_of_an_instrument_that_was_stopped_from_outside(twin: Microscope) -> None:
    with Bench(OpenedTarget("halted", lambda: twin), UNHURRIED) as bench:
        bench.frame("still")
        bench.halt("smoke in the room")
        with pytest.raises(InstrumentFault, match="smoke in the room"):
            run(bench)


# --- behind a server


@pytest.fixture(scope="module")
def hosted(image_cache: Path) -> Iterator[HostedTarget]:
    with HostedTarget("hosted", steady_config(image_cache), "simulated", patience_s=4.0) as target:
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
