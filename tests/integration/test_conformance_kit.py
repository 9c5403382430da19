"""The kit on good instruments, and on the same broken on purpose: it names each fault, and only that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from instruments import Capabilities, Command, InstrumentFault, Microscope, MicroscopeState, SetAxes
from instruments.conformance import CHECKS, Bench, Conditions, OpenedTarget, Report, run
from instruments.conformance.broken import FAULTS, Fault
from instruments.conformance.broken.altered import Altered, Ways
from instruments.conformance.broken.clients import several
from instruments.conformance.broken.faults import LEAKS_MAY_END
from instruments.conformance.broken.tilts import TILT_FAULTS, tilting_wrong
from instruments.conformance.kit import check_named
from simulation.microscope import SimulatedMicroscope, open_simulated
from tests.integration.instruments.conformed import keep
from tests.integration.steady_twin import UNHURRIED, failed, steady_config

HASTY = UNHURRIED.model_copy(update={"stop_exposure_s": 6.0, "stop_margin_s": 0.5})
NEED_A_SERVER = {"concurrent_clients", "mute_server", "call_after_timeout", "lost_answer", "server_killed"}


@pytest.fixture
def one_world(image_cache: Path) -> SimulatedMicroscope:
    """Anew for each test: neither the dose nor the current of another is left in it."""
    return open_simulated(**steady_config(image_cache))


@pytest.fixture
def twin(one_world: SimulatedMicroscope) -> Microscope:
    return one_world


def tried(name: str, opener: Callable[[], Microscope], conditions: Conditions = UNHURRIED, only: str = "") -> Report:
    with Bench(OpenedTarget(name, opener), conditions) as bench:
        return run(bench, [check_named(only)] if only else CHECKS)


def test_the_simulated_microscope_conforms(twin: Microscope) -> None:
    report = tried("simulated", lambda: twin)
    keep(report, "simulated, in process")
    verdicts = {finding.check: finding.verdict for finding in report.findings}
    assert list(verdicts) == [check.name for check in CHECKS]
    not_there = NEED_A_SERVER | {"stage_tilt"}
    assert {name for name, verdict in verdicts.items() if verdict == "skipped"} == not_there, report.table()
    assert not report.has_failed, report.table()
    assert {verdicts[name] for name in verdicts if name not in not_there} == {"passed"}, report.table()
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


@pytest.fixture
def leaning(image_cache: Path) -> Microscope:
    return open_simulated(**steady_config(image_cache) | {"fittings": True})


def test_a_stage_that_tilts_as_it_is_told_passes(leaning: Microscope) -> None:
    finding = tried("leaning", lambda: leaning, only="stage_tilt").findings[0]
    assert finding.verdict == "passed", finding
    assert [str(one) for one in finding.measured] == ["alpha_deg 2 deg", "beta_deg 2 deg"]


@pytest.mark.parametrize("fault", TILT_FAULTS)
def test_the_kit_says_how_a_stage_tilts_wrong(fault: str, leaning: Microscope) -> None:
    finding = tried(fault, lambda: tilting_wrong(fault)(leaning), only="stage_tilt").findings[0]
    assert finding.verdict == "failed", finding
    assert TILT_FAULTS[fault][1] in finding.found, finding


@pytest.mark.parametrize("name", ["wrong_scale", "swapped_axes"])
def test_wrong_moves_are_named_by_little_light(name: str, twin: Microscope) -> None:
    """Half of the counts shows a move too faintly by itself; that both halves tell the same one is enough."""
    dim = UNHURRIED.model_copy(update={"probe_current_pa": 10.0})
    fault = next(one for one in FAULTS if one.name == name)
    report = tried(name, lambda: fault.breaks(twin), dim, "beam_shift_motion")
    assert failed(report) == {"beam_shift_motion"}, report.table()
    assert fault.says in report.findings[0].found


def test_noise_is_not_called_a_wrong_move(twin: Microscope) -> None:
    """A count a pixel: whatever two images of it seem to tell is chance."""
    dim = UNHURRIED.model_copy(update={"probe_current_pa": 10.0, "dwell_time_us": 0.5})
    with Bench(OpenedTarget("dim", lambda: twin), dim) as bench:
        report = run(bench, [check_named(name) for name in ("beam_shift_motion", "stage_motion")])
    assert not report.has_failed, report.table()


def test_axes_that_are_set_alone_are_tried_as_those_of_a_frame(
    twin: Microscope, one_world: SimulatedMicroscope
) -> None:
    card = twin.capabilities()

    def clamped(microscope: Microscope, command: Command) -> MicroscopeState:
        if not isinstance(command, SetAxes):
            return microscope.execute(command)
        limits = {axis.name: (axis.minimum, axis.maximum) for axis in card.axes if not axis.choices}
        values = {
            name: min(max(value, limits[name][0]), limits[name][1]) if name in limits else value
            for name, value in command.values.items()
            if not isinstance(value, str)
        }
        return microscope.execute(command.model_copy(update={"values": values}))

    def one_after_another(microscope: Microscope, command: Command) -> MicroscopeState:
        if isinstance(command, SetAxes):
            for name, value in command.values.items():
                microscope.execute(SetAxes(action_id=f"{command.action_id}-{name}", values={name: value}))
        return microscope.execute(command)

    found = tried("clamps", lambda: Altered(twin, Ways(execute=clamped)), only="out_of_range").findings[0]
    assert (found.verdict, "clamped to" in found.found) == ("failed", True), found
    one_world.release()
    found = tried("half", lambda: Altered(twin, Ways(execute=one_after_another)), only="unknown_control").findings[0]
    assert found.verdict == "failed"
    assert "x_nm and no_such_axis_nm together, one of which there is not: refused" in found.found
    assert "yet x_nm changed" in found.found


def test_counts_without_references_are_told(twin: Microscope) -> None:
    card = twin.capabilities()
    bare = [detector.model_copy(update={"without_references": ""}) for detector in card.modes[0].detectors]
    mode = card.modes[0].model_copy(update={"detectors": tuple(bare)})
    silent = card.model_copy(update={"modes": (mode, *card.modes[1:])})
    ways = Ways(
        capabilities=lambda _: silent, acquire=lambda inner, command: replace(inner.acquire(command), mode=mode)
    )
    found = tried("bare", lambda: Altered(twin, ways), only="metadata").findings[0]
    assert found.verdict == "failed"
    assert found.found.startswith("maadf: gain, dark and gain reference are neither all given nor said to be missing")


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
