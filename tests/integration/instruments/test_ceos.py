"""A corrector beside a microscope, against a double of CEOS's gateway written from public clients, not CEOS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentFault,
    LinkLost,
    Optics,
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unsupported,
    evidence,
    is_idempotent,
    registry,
)
from instruments.adapters.ceos import CorrectedMicroscope
from instruments.conformance import Conditions
from instruments.units import electrons
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.ceos_double import CeosDouble, failure, framed
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.digitalmicrograph_target import DigitalMicrographTarget
from tests.integration.instruments.double_targets import DoubleTarget
from tests.integration.instruments.serialem_double import NUMBERS, SerialEMDouble
from tests.integration.instruments.server_process import Otherwise

CURRENT_PA = 50.0
OVERHEAD_S = 1.0  # of the blanker, as the microscope beside declares it
MAX_S = {"c12_nm": 100.0, "c21_nm": 500.0, "c23_nm": 500.0, "defocus_nm": 500.0, "c30_nm": 5000.0}


@pytest.fixture
def column() -> Iterator[SerialEMDouble]:
    with SerialEMDouble() as column:
        yield column


@pytest.fixture
def gateway(column: SerialEMDouble) -> Iterator[CeosDouble]:
    with CeosDouble(lambda: not column.is_blanked) as gateway:
        yield gateway


@pytest.fixture
def microscope(column: SerialEMDouble, gateway: CeosDouble) -> Iterator[CorrectedMicroscope]:
    opened = registry.open("ceos", **config(column, gateway))
    assert isinstance(opened, CorrectedMicroscope)
    yield opened
    opened.close()


def config(column: SerialEMDouble, gateway: CeosDouble, **more: Any) -> dict[str, Any]:
    beside = {
        "port": column.port, "command_numbers": NUMBERS, "settle_s": 0.0,
        "limits": {"x_nm": (-200, 200), "y_nm": (-200, 200), "alpha_deg": (-30, 30)},
        "shape_px": (64, 64), "pixel_size_nm": 1.0, "tolerances": {"x_nm": 0.01, "y_nm": 0.01},
        "probe_current_pa": CURRENT_PA, "beam_overhead_s": OVERHEAD_S, "beam_energy_ev": 60e3,
        "semi_convergence_angle_mrad": 31.5, "min_exposure_s": 0.001, "max_exposure_s": 0.5, "readout_s": 8.0,
        "answer_s": 8.0,
    }  # fmt: skip
    return {
        "port": gateway.port, "beside": {"adapter": "serialem", "config": beside}, "max_magnitude_nm": MAX_S,
        "tableaus": {"fast": {"tab_type": "Fast", "angle_mrad": 18, "max_duration_s": 20, "illuminated_nm": 200.0}},
        "c1a1_max_duration_s": 30.0, "answer_s": 8.0, **more,
    }  # fmt: skip


def running(name: str, action_id: str = "") -> RunProcedure:
    return RunProcedure(action_id=action_id or f"run {name}", name=name)


def correcting(action_id: str = "correct", **values: float | str) -> SetAxes:
    return SetAxes(action_id=action_id, values=values)


def test_it_is_listed_as_tried_against_documents_alone() -> None:
    assert str(evidence.evidence_of("ceos")).startswith("contract-tested only")


def test_an_absolute_command_is_made_of_a_fresh_measurement(
    column: SerialEMDouble, gateway: CeosDouble, microscope: CorrectedMicroscope
) -> None:
    lit_nm = {one.name: one.illuminated_nm for one in microscope.capabilities().procedures}
    assert (lit_nm["tableau_fast"], lit_nm["measure_c1a1"]) == (200.0, None)
    assert "not measured yet" in microscope.read_state().undetermined["c12_nm"]
    with pytest.raises(CommandRefused, match="not measured yet"):
        microscope.execute(correcting(c12_nm=0.0))
    state = microscope.execute(running("tableau_fast"))
    assert gateway.calls[-1] == ("acquireTableau", {"tabType": "Fast", "angle": 18.0})
    assert (state.optics.aberrations.c12_nm, state.optics.defocus_nm) == (pytest.approx(13.0), pytest.approx(30.0))
    assert state.axis_value("corrector.c21_within_nm") == pytest.approx(3 * 0.2)
    assert "c12_nm" not in state.undetermined
    assert microscope.read_state().undetermined.keys().isdisjoint(("c12_nm", "corrector.c12_within_nm"))

    after = microscope.execute(correcting(c12_nm=4.0, phi12_deg=30.0, c21_nm=0.0, defocus_nm=-10.0))
    assert gateway.names().count("correctAberration") == 3
    assert gateway.true_m["A1"] == pytest.approx(4e-9 * complex(0.5, 3**0.5 / 2), abs=1e-15)
    assert gateway.true_m["B2"] == pytest.approx(0, abs=1e-15)
    assert gateway.true_m["C1"] == pytest.approx(10e-9)
    assert gateway.true_m["A2"] == 60e-9 - 20e-9j, "what was not named stays"
    assert after.axes["c12_nm"].requested == 4.0
    assert after.axes["c12_nm"].is_reached is None, "nobody has measured it since"
    assert "corrected since" in after.undetermined["c23_nm"]
    state = microscope.execute(running("measure_c1a1"))
    aberrations = state.optics.aberrations
    assert (aberrations.c12_nm, aberrations.phi12_deg) == (pytest.approx(4.0), pytest.approx(30.0))


def test_the_same_correction_sent_again_is_refused_not_applied_twice(
    gateway: CeosDouble, microscope: CorrectedMicroscope
) -> None:
    microscope.execute(running("measure_c1a1"))
    command = correcting(c12_nm=0.0)
    assert is_idempotent(command), "others may send it again"
    microscope.execute(command)
    for again in (command, correcting("another id", c12_nm=0.0)):
        with pytest.raises(CommandRefused, match=r"corrected since it was measured|sent before"):
            microscope.execute(again)
    assert gateway.names().count("correctAberration") == 1
    assert gateway.true_m["A1"] == 0
    assert microscope.outcome(command.action_id) == "delivered"


def test_what_was_measured_long_ago_corrects_nothing(column: SerialEMDouble, gateway: CeosDouble) -> None:
    microscope = registry.open("ceos", **config(column, gateway, max_age_s=1e-6))
    assert isinstance(microscope, CorrectedMicroscope)
    try:
        microscope.execute(running("measure_c1a1"))
        with pytest.raises(CommandRefused, match="s ago; measure it again"):
            microscope.execute(correcting(c12_nm=0.0))
    finally:
        microscope.close()


def test_what_was_measured_elsewhere_corrects_nothing(gateway: CeosDouble, microscope: CorrectedMicroscope) -> None:
    microscope.execute(running("measure_c1a1"))
    microscope.execute(SetAxes(action_id="aside", values={"x_nm": 20.0}))
    assert "c12_nm" not in microscope.read_state().undetermined, "the same probe beside"
    state = microscope.execute(SetAxes(action_id="tilt", values={"alpha_deg": 5.0}))
    assert state.undetermined["c12_nm"].startswith("alpha_deg changed since it was measured")
    with pytest.raises(CommandRefused, match="alpha_deg changed"):
        microscope.execute(correcting(c12_nm=0.0))
    assert "correctAberration" not in gateway.names()


def test_refusals_come_before_anything_is_sent(gateway: CeosDouble, microscope: CorrectedMicroscope) -> None:
    microscope.execute(running("measure_c1a1"))
    sent = len(gateway.calls)
    for values in (
        {"c12_nm": 101.0},
        {"c12_nm": -1.0},
        {"phi12_deg": 91.0},
        {"c12_nm": 0.0, "x_nm": 5.0},
        {"c23_nm": 0.0},
    ):
        with pytest.raises(CommandRefused):
            microscope.execute(correcting(str(values), **values))
    with pytest.raises(CommandRefused, match="can be read, not set"):
        microscope.execute(SetAxes(action_id="within", values={"corrector.c12_within_nm": 0.0}))
    with pytest.raises(Unsupported):
        microscope.execute(running("tableau_huge"))
    assert len(gateway.calls) == sent


def test_a_measurement_has_the_beam_on_and_is_booked_by_the_guard(
    column: SerialEMDouble, gateway: CeosDouble, microscope: CorrectedMicroscope
) -> None:
    forbidden = GuardedMicroscope(microscope, SafetyEnvelope())
    with pytest.raises(CommandRefused, match="not in the facility's envelope"):
        forbidden.execute(running("tableau_fast"))
    seen: list[bool] = []
    plain = gateway.is_lit
    gateway.is_lit = lambda: seen.append(plain()) or plain()
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(procedures=("tableau_fast",), max_exposure_s=60))
    guarded.execute(running("tableau_fast"))
    assert seen == [True]
    assert column.is_blanked
    assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 20.0 + OVERHEAD_S)), (
        "for as long as it may take"
    )
    short = GuardedMicroscope(microscope, SafetyEnvelope(procedures=("tableau_fast",), max_exposure_s=18))
    with pytest.raises(CommandRefused, match="procedure tableau_fast 21"):
        short.execute(running("tableau_fast", "too long"))


def spoilt(kind: str) -> Callable[[bytes], bytes | None]:
    """A reply that is none: what a broken gateway, or another client's answer, looks like."""
    body: dict[str, Callable[[bytes], bytes | None]] = {
        "mute": lambda _: None,
        "of another call": lambda _: framed({"jsonrpc": "2.0", "id": 10**6, "result": {"aberrations": {"A1": [0, 0]}}}),
        "no netstring": lambda reply: b"x" + reply,
        "leading zero": lambda reply: b"0" + reply,
        "too long": lambda _: b"99999999:",
        "no comma": lambda reply: reply[:-1] + b";",
        "cut": lambda reply: reply[: len(reply) // 2],
        "no JSON": lambda _: b"3:{{{,",
        "no object": lambda _: framed([1]),
        "no result": lambda reply: framed({"jsonrpc": "2.0", "id": _id(reply)}),
        "wrong type": lambda reply: framed(
            {"jsonrpc": "2.0", "id": _id(reply), "result": {"aberrations": {"A1": "12 nm"}}}
        ),
        "not a number": lambda reply: reply.replace(b"1.2e-08", b"    NaN"),
        "no aberration": lambda reply: framed({"jsonrpc": "2.0", "id": _id(reply), "result": {"aberrations": {}}}),
    }
    return body[kind]


def _id(reply: bytes) -> int:
    return int(json.loads(reply.partition(b":")[2][:-1])["id"])


@pytest.mark.parametrize(
    "kind",
    [
        "mute", "of another call", "no netstring", "leading zero", "too long", "no comma", "cut", "no JSON",
        "no object", "no result", "wrong type", "not a number", "no aberration",
    ],
)  # fmt: skip
def test_a_measurement_without_a_right_answer_is_unknown_blanked_and_never_repeated(
    column: SerialEMDouble, gateway: CeosDouble, kind: str
) -> None:
    microscope = registry.open("ceos", **config(column, gateway, c1a1_max_duration_s=0.3))
    assert isinstance(microscope, CorrectedMicroscope)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(procedures=("measure_c1a1",)))
    try:
        gateway.spoil = spoilt(kind)
        with pytest.raises(ResultUnknown):
            guarded.execute(running("measure_c1a1"))
        assert gateway.names().count("measureC1A1") == 1
        assert column.is_blanked
        assert microscope.outcome("run measure_c1a1") == "unknown"
        assert guarded.ledger.electrons == pytest.approx(electrons(CURRENT_PA, 0.3 + OVERHEAD_S)), (
            "its dose counts as spent"
        )
        with pytest.raises(LinkLost):
            guarded.execute(running("measure_c1a1", "again"))
        gateway.spoil = lambda reply: reply
        microscope.reconnect()
        with pytest.raises(CommandRefused, match="was sent before"):
            microscope.execute(running("measure_c1a1"))
        assert microscope.execute(running("measure_c1a1", "new")).optics.aberrations.c12_nm == pytest.approx(13.0)
    finally:
        microscope.close()


def test_beside_a_microscope_that_reports_its_blanker_a_person_can_go_on() -> None:
    """A measurement without an answer locks the guard; it blanks, and goes on once somebody has looked."""
    with DigitalMicrographTarget() as target, CeosDouble(lambda: lit(target)) as gateway:
        beside = {"adapter": "digitalmicrograph", "config": target.config(focus=None, limits={}, beam_shift=None)}
        microscope = registry.open(
            "ceos", port=gateway.port, beside=beside, max_magnitude_nm=MAX_S, c1a1_max_duration_s=0.3
        )
        assert isinstance(microscope, CorrectedMicroscope)
        guarded = GuardedMicroscope(microscope, SafetyEnvelope(procedures=("measure_c1a1",)))
        gateway.spoil = lambda _: None
        with pytest.raises(ResultUnknown):
            guarded.execute(running("measure_c1a1"))
        with pytest.raises(LinkLost, match="reconnect"):
            guarded.execute(running("measure_c1a1", "again"))
        gateway.spoil = lambda reply: reply
        assert guarded.reconnect().beam_blanked
        with pytest.raises(InstrumentFault, match="a person has to look"):
            guarded.execute(running("measure_c1a1", "and again"))
        guarded.acknowledge("somebody")
        assert guarded.execute(running("measure_c1a1", "new")).optics.aberrations.c12_nm == pytest.approx(13.0)
        assert guarded.execute(correcting(c12_nm=0.0)).axes["c12_nm"].requested == 0.0
        assert gateway.true_m["A1"] == pytest.approx(0, abs=1e-15)
        assert not lit(target)
        microscope.close()


def lit(target: DigitalMicrographTarget) -> bool:
    return next(call for call in reversed(target.calls()) if call.startswith("SetBeamBlanked")).endswith("False")


def test_a_late_answer_is_given_to_no_later_call(column: SerialEMDouble, gateway: CeosDouble) -> None:
    microscope = registry.open("ceos", **config(column, gateway, c1a1_max_duration_s=0.2))
    assert isinstance(microscope, CorrectedMicroscope)
    may_answer = threading.Event()

    def late(reply: bytes) -> bytes:
        assert may_answer.wait(30)
        gateway.spoil = lambda reply: reply
        return reply

    try:
        gateway.spoil = late
        with pytest.raises(ResultUnknown, match="silent until the deadline"):
            microscope.execute(running("measure_c1a1"))
        gateway.true_m["A1"] = 1e-9 + 0j
        may_answer.set()
        state = microscope.execute(RunProcedure(action_id="next", name="tableau_fast"))
        assert state.optics.aberrations.c12_nm == pytest.approx(1.0), "not the 13 nm of the late one"
    finally:
        may_answer.set()
        microscope.close()


def test_what_the_gateway_says_no_to_is_named_by_what_follows(
    column: SerialEMDouble, gateway: CeosDouble, microscope: CorrectedMicroscope
) -> None:
    gateway.is_lit = lambda: False
    with pytest.raises(AcquisitionFailed, match="no beam on the detector"):
        microscope.execute(running("measure_c1a1"))
    gateway.is_lit = lambda: True
    microscope.execute(running("measure_c1a1", "second"))
    no_method = {"code": -32601, "message": "Method not found"}
    gateway.spoil = lambda reply: framed({"jsonrpc": "2.0", "id": _id(reply), "error": no_method})
    with pytest.raises(Unsupported, match="no such method"):
        microscope.execute(correcting(c12_nm=0.0))
    assert microscope.outcome("correct") == "not_started"
    with pytest.raises(AcquisitionFailed, match="the beam was on meanwhile"):
        microscope.execute(running("measure_c1a1", "third"))
    gateway.spoil = lambda reply: reply
    microscope.execute(running("tableau_fast"))
    answers = iter([lambda reply: reply, lambda reply: framed({"id": _id(reply), **failure("coil at its limit")})])
    gateway.spoil = lambda reply: next(answers)(reply)
    with pytest.raises(InstrumentFault, match="coil at its limit"):
        microscope.execute(correcting("two", c12_nm=0.0, c21_nm=0.0))
    assert microscope.outcome("two") == "unknown"
    assert column.is_blanked


def test_stop_darkens_a_measurement_and_nothing_follows(
    column: SerialEMDouble, gateway: CeosDouble, microscope: CorrectedMicroscope
) -> None:
    gateway.spoil = lambda _: None
    gateway.asked.clear()
    errors: list[BaseException] = []

    def measure() -> None:
        try:
            microscope.execute(running("tableau_fast"))
        except ResultUnknown as error:
            errors.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    assert gateway.asked.wait(30)
    microscope.stop()
    assert column.is_blanked
    thread.join(30)
    assert not thread.is_alive()
    assert errors, "broken off long before the 20 s it may take"
    for command in (running("measure_c1a1"), correcting(c12_nm=0.0)):
        with pytest.raises((InstrumentFault, CommandRefused)):
            microscope.execute(command)
    gateway.spoil = lambda reply: reply
    microscope.release()
    microscope.execute(running("measure_c1a1", "after"))


def test_a_frame_leaves_aberrations_alone(gateway: CeosDouble, microscope: CorrectedMicroscope) -> None:
    state = microscope.execute(running("measure_c1a1"))
    sent = len(gateway.calls)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=CURRENT_PA)
    frame = AcquireFrame(
        action_id="frame", deadline_s=30, stage=StagePosition(), optics=optics, mode="record",
        scan=ScanPattern(field_of_view_nm=64, shape_px=(64, 64), dwell_time_us=1e4, at_once=True),
    )  # fmt: skip
    taken = microscope.acquire(frame)
    assert taken.requested == frame
    assert taken.state.optics.aberrations.c12_nm == pytest.approx(13.0)
    as_it_stands = frame.model_copy(update={"action_id": "same", "optics": state.optics})
    assert microscope.acquire(as_it_stands).requested == as_it_stands
    other = optics.model_copy(update={"defocus_nm": 7.0})
    with pytest.raises(CommandRefused, match="cannot be set by a frame"):
        microscope.acquire(frame.model_copy(update={"action_id": "other", "optics": other}))
    assert len(gateway.calls) == sent


def test_configurations_that_cannot_be_meant(column: SerialEMDouble, gateway: CeosDouble) -> None:
    for wrong, words in (
        ({"max_magnitude_nm": {"c12_nm": 0.0}}, "must be above 0"),
        ({"max_magnitude_nm": {"c99_nm": 1.0}}, "max_magnitude_nm"),
        ({"beside": {"adapter": "ceos"}}, "stands a microscope"),
        ({"tableaus": {"fast": {"tab_type": "Fast", "angle_mrad": 18}}}, "max_duration_s"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            registry.open("ceos", **config(column, gateway, **wrong))
    assert not gateway.calls


def test_it_conforms(column: SerialEMDouble, gateway: CeosDouble) -> None:
    conditions = Conditions(shape_px=(64, 64), field_of_view_nm=64.0, dwell_time_us=1e4)
    target = DoubleTarget("ceos", config(column, gateway), column, gateway)
    report = conformed(target, conditions, hasty=Otherwise(target, answer_s=2.0))
    of_a_server = {"mute_server", "call_after_timeout", "lost_answer", "server_killed", "concurrent_clients"}
    alone = {"out_of_range", "unknown_control", "stage_motion", "teardown"}
    assert alone | of_a_server <= names(report, "passed"), report.table()


def test_the_experiment_that_runs_anywhere(column: SerialEMDouble, gateway: CeosDouble) -> None:
    check(run_anywhere("ceos", config(column, gateway)))
