"""Our server script run over a double of DigitalMicrograph's Python module; DigitalMicrograph itself has not run."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Blank,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    Optics,
    ResultUnknown,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
    Unsupported,
    evidence,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import Conditions
from instruments.conformance.proxy import FaultyLine
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.digitalmicrograph_target import HASTE, SERVER, DigitalMicrographTarget
from tests.integration.instruments.own_clock import assert_ours
from tests.integration.instruments.server_process import Otherwise

PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def target() -> Iterator[DigitalMicrographTarget]:
    with DigitalMicrographTarget() as target:
        yield target


@pytest.fixture
def microscope(target: DigitalMicrographTarget) -> Iterator[DrivenMicroscope]:
    target.fault()
    opened = target.open()
    yield opened
    target.fault()
    opened.close()


def frame(action_id: str, x_nm: float = 0.0, **more: Any) -> AcquireFrame:
    scan: dict[str, Any] = {"field_of_view_nm": 64.0, "shape_px": (64, 64), "dwell_time_us": 10.0}
    scan |= {name: more.pop(name) for name in list(more) if name in ScanPattern.model_fields}
    rest: dict[str, Any] = {"mode": "scan", **more}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=30.0,
        stage=StagePosition(x_nm=x_nm),
        scan=ScanPattern(**scan),
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=50.0),
        **rest,
    )


def going(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", deadline_s=5.0, values=values)


def eventually(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def lit_scans(target: DigitalMicrographTarget) -> int:
    return target.calls().count("DS_StartAcquisition lit True")


def test_the_script_is_one_file_for_an_old_python() -> None:
    """Python 3.7 came with DigitalMicrograph 3.5; nothing but the standard library, NumPy and its own module."""
    tree = ast.parse(SERVER.read_text(encoding="utf-8"), feature_version=(3, 7))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {"__future__", "hashlib", "hmac", "json", "os", "secrets", "socket", "struct", "threading", "time"}
    assert modules == standard | {"typing", "numpy", "DigitalMicrograph"}
    assert str(evidence.evidence_of("digitalmicrograph")).startswith("contract-tested only")


def test_axes_in_house_units(target: DigitalMicrographTarget, microscope: DrivenMicroscope) -> None:
    before = len(target.calls())
    for values in ({"x_nm": 201.0}, {"defocus_nm": 501.0}, {"beam_shift_x_nm": -31.0}):
        with pytest.raises(CommandRefused):
            microscope.execute(going(**values))
    with pytest.raises(Unsupported):
        microscope.execute(going(z_nm=1.0))
    assert target.calls()[before:] == []
    shifted_x_nm = microscope.read_state().beam_shift_x_nm  # as the test before left it
    state = microscope.execute(going(x_nm=100.0, alpha_deg=5.0, defocus_nm=50.0, beam_shift_y_nm=10.0))
    assert "SetStagePositions 9" in target.calls(), "x and alpha, nothing else"
    assert (state.stage.x_nm, state.stage.alpha_deg) == (pytest.approx(100.0), 5.0)
    assert state.optics.defocus_nm == pytest.approx(50.0)
    assert (state.beam_shift_x_nm, state.beam_shift_y_nm) == (pytest.approx(shifted_x_nm), pytest.approx(10.0))
    assert all(state.axes[name].is_reached for name in ("x_nm", "alpha_deg", "defocus_nm", "beam_shift_y_nm"))
    moves = target.calls().count("SetStagePositions 9")
    microscope.execute(going(x_nm=100.0, alpha_deg=5.0))
    assert target.calls().count("SetStagePositions 9") == moves, "a stage that stands there is left alone"
    microscope.execute(going(x_nm=0.0, alpha_deg=0.0, defocus_nm=0.0, beam_shift_y_nm=0.0))


def test_a_frame_is_lit_once_and_known_afterwards(
    target: DigitalMicrographTarget, microscope: DrivenMicroscope
) -> None:
    before = lit_scans(target)
    taken = microscope.acquire(frame("one", 20.0, subframe_count=2))
    assert_ours(taken, "DigitalMicrograph", 10.0)
    assert {name: counts.shape for name, counts in taken.counts.items()} == {"haadf": (2, 64, 64), "bf": (2, 64, 64)}
    assert taken.counts["haadf"].dtype.kind == "u"
    assert taken.counts["haadf"].mean() > 1.5 * taken.counts["bf"].mean(), "each signal in its own place"
    assert taken.state.beam_blanked
    assert lit_scans(target) == before + 2
    assert target.calls()[-1] == "SetBeamBlanked True"
    again = microscope.acquire(frame("one", 20.0, subframe_count=2))
    assert np.array_equal(again.counts["haadf"], taken.counts["haadf"])
    dark = microscope.acquire_dark(frame("dark"))
    assert dark.counts["haadf"].max() == 0
    assert lit_scans(target) == before + 2
    tall = microscope.acquire(frame("tall", field_of_view_nm=32.0, shape_px=(128, 32), dwell_time_us=5.0))
    assert tall.counts["haadf"].shape == (1, 128, 32)
    assert "SetMagIndex 5" in target.calls(), "the field of 128 nm along the longer side"


NOT_THERE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"field_of_view_nm": 70.0}, "no magnification gives"),
    ({"dwell_time_us": 0.1}, "dwell_time_us 0.1 is outside"),
    ({"shape_px": (4097, 64)}, "cannot be scanned"),
    ({"shape_px": (640, 64), "field_of_view_nm": 6.4, "dwell_time_us": 500.0}, "cannot be interrupted"),
    ({"at_once": True}, "scan.at_once"),
    ({"flyback_time_us": 10.0}, "flyback_time_us"),
    ({"mode": "camera"}, "not one of this instrument's"),
)


def test_frames_that_it_has_not_are_refused(target: DigitalMicrographTarget, microscope: DrivenMicroscope) -> None:
    before = lit_scans(target)
    for number, (more, words) in enumerate(NOT_THERE):
        with pytest.raises(CommandRefused, match=words):
            microscope.acquire(frame(f"refused {number}", **more))
    with pytest.raises(Unsupported, match="rotation_deg"):
        microscope.acquire(frame("turned", rotation_deg=5.0))
    assert lit_scans(target) == before


def test_a_camera_besides(target: DigitalMicrographTarget) -> None:
    camera = {"shape_px": (48, 64), "pixels_nm": {5: 1.0, 7: 1.0}, "flip_rows": True}
    microscope = target.open(camera=camera)
    try:
        shot = frame("picture", shape_px=(48, 64), dwell_time_us=5e4, at_once=True, mode="camera")
        taken = microscope.acquire(shot)
        assert taken.counts["camera"].shape == (1, 48, 64)
        assert taken.counts["camera"].dtype.kind == "u"
        (call,) = (call for call in target.calls() if call.startswith("AcquireImage"))
        _, exposure_s, *lit = call.split()
        assert (float(exposure_s), lit) == (pytest.approx(0.05), ["lit", "True"])
        with pytest.raises(CommandRefused, match="moves the light"):
            microscope.acquire(shot.model_copy(update={
                "action_id": "shifted", "scan": shot.scan.model_copy(update={"beam_shift_x_nm": 5.0})
            }))  # fmt: skip
    finally:
        microscope.close()


def test_what_digitalmicrograph_does_wrong_is_named_by_what_follows(
    target: DigitalMicrographTarget, microscope: DrivenMicroscope
) -> None:
    target.fault("no beta")
    assert microscope.read_state().undetermined["stage.beta_deg"] == "DigitalMicrograph does not tell it"
    target.fault("scan raises")
    with pytest.raises(AcquisitionFailed, match="DigiScan is not available"):
        microscope.acquire(frame("raises"))
    assert microscope.read_state().beam_blanked
    assert microscope.outcome("raises") == "unknown"
    target.fault("other shape")
    with pytest.raises(AcquisitionFailed, match="counts from 0"):
        microscope.acquire(frame("shape"))
    target.fault("clamp")
    with pytest.raises(InstrumentFault, match="x_nm was sent to 190"):
        microscope.execute(SetAxes(action_id="clamped", deadline_s=1.0, values={"x_nm": 190.0}))
    target.fault("blanker stuck")
    with pytest.raises(ResultUnknown, match="blank it by hand"):
        microscope.acquire(frame("stuck"))
    with pytest.raises(InstrumentFault, match="told to blank, and the beam is on"):
        microscope.execute(Blank(action_id="blank"))
    target.fault()
    assert microscope.execute(Blank(action_id="blank again")).beam_blanked


def test_a_scan_that_hangs_is_unknown_and_a_stop_darkens_it(target: DigitalMicrographTarget) -> None:
    microscope = target.open(answer_s=2.0, readout_s=0.2, beam_overhead_s=0.0)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope())
    try:
        target.fault("scan hangs")
        before = lit_scans(target)
        with pytest.raises(ResultUnknown, match="dose counts as spent"):
            guarded.acquire(frame("hangs"))
        assert guarded.ledger.electrons > 0
        assert lit_scans(target) == before + 1
        assert microscope.outcome("hangs") == "unknown"
        microscope.stop()
        assert target.calls()[-1] == "SetBeamBlanked True", "while DigiScan still hangs"
        with pytest.raises((InstrumentBusy, LinkLost)):
            microscope.read_state()
        target.fault()
        eventually(lambda: target.calls()[-2:] == ["SetBeamBlanked True", "SetBeamBlanked True"])
        microscope.reconnect()
        microscope.release()
        with pytest.raises(AcquisitionFailed, match="not exposed again"):
            microscope.acquire(frame("hangs"))
        assert microscope.acquire(frame("after")).state.beam_blanked
    finally:
        target.fault()
        microscope.close()


def test_who_does_not_know_the_secret_is_not_heard(target: DigitalMicrographTarget) -> None:
    other = target.secret_file.with_name("other")
    other.write_text("another secret, just as long as the right one")
    with pytest.raises(LinkLost, match="is the secret the same at both ends"):
        target.open(secret_file=other)
    other.write_text("short")
    with pytest.raises(ConfigurationError, match="5 characters"):
        target.open(secret_file=other)
    with pytest.raises(ConfigurationError, match="the high tension is 60000 V"):
        target.open(beam_energy_ev=200e3)
    with pytest.raises(ConfigurationError, match="focus calibration"):
        target.open(focus=None)


def test_one_client_commands_at_a_time(target: DigitalMicrographTarget, microscope: DrivenMicroscope) -> None:
    with pytest.raises(InstrumentBusy, match="another client has it"):
        target.open()
    assert microscope.read_state().beam_blanked, "who has it keeps it"
    microscope.reconnect()
    assert microscope.read_state().beam_blanked, "and may come back on a new line"
    successor = target.open(takes_over=True)
    try:
        with pytest.raises(InstrumentBusy, match="another client has it"):
            microscope.read_state()
        assert successor.read_state().beam_blanked
    finally:
        successor.close()


def test_a_client_that_is_gone_leaves_no_beam(target: DigitalMicrographTarget, microscope: DrivenMicroscope) -> None:
    microscope.execute(Unblank(action_id="on"))
    assert not microscope.read_state().beam_blanked
    assert target.calls()[-1] == "SetBeamBlanked False"
    microscope.close()
    eventually(lambda: target.calls()[-1] == "SetBeamBlanked True")


def test_a_client_that_says_nothing_for_longer_than_the_lease_has_no_beam() -> None:
    with DigitalMicrographTarget(lease_s=3.0) as target:
        microscope = target.open()
        try:
            microscope.execute(Unblank(action_id="on"))
            eventually(lambda: target.calls()[-2:] == ["SetBeamBlanked False", "SetBeamBlanked True"])
            assert microscope.read_state().beam_blanked, "the line is there again"
        finally:
            microscope.close()


def begun(
    target: DigitalMicrographTarget, microscope: DrivenMicroscope, command: AcquireFrame
) -> tuple[threading.Thread, list[InstrumentError]]:
    """An exposure in a thread of its own, from when DigiScan scans; its error comes later."""
    before, errors = lit_scans(target), list[InstrumentError]()

    def expose() -> None:
        try:
            microscope.acquire(command)
        except InstrumentError as error:
            errors.append(error)

    thread = threading.Thread(target=expose)
    thread.start()
    eventually(lambda: lit_scans(target) > before)
    return thread, errors


def test_a_stop_between_passes_ends_the_frame(target: DigitalMicrographTarget, microscope: DrivenMicroscope) -> None:
    before = lit_scans(target)
    thread, errors = begun(target, microscope, frame("long", subframe_count=60, dwell_time_us=20.0))
    microscope.stop()
    thread.join(PATIENCE_S)
    assert [type(error) for error in errors] == [AcquisitionFailed]
    assert lit_scans(target) < before + 60
    with pytest.raises(InstrumentFault, match="was stopped"):
        microscope.acquire(frame("next"))
    microscope.release()
    assert microscope.acquire(frame("released")).state.beam_blanked


def test_a_lost_answer_is_unknown_blanked_and_never_exposed_again(target: DigitalMicrographTarget) -> None:
    with FaultyLine(target.addresses()[0]) as line:
        microscope = target.open(port=line.address[1])
        before = lit_scans(target)
        thread, errors = begun(target, microscope, frame("lost", dwell_time_us=50.0))
        line.cut()
        thread.join(PATIENCE_S)
        assert [type(error) for error in errors] == [ResultUnknown]
        assert microscope.outcome("lost") == "unknown"
        eventually(lambda: target.calls()[-2:] == ["SetBeamBlanked True"] * 2)
        with pytest.raises(AcquisitionFailed, match="not exposed again"):
            microscope.acquire(frame("lost", dwell_time_us=50.0))
        assert microscope.acquire(frame("next")).state.beam_blanked
        assert lit_scans(target) == before + 2
        microscope.close()


def test_it_conforms(target: DigitalMicrographTarget) -> None:
    target.fault()
    conditions = Conditions(
        shape_px=(64, 64),
        field_of_view_nm=64.0,
        dwell_time_us=30.0,
        client_call_count=5,
    )
    report = conformed(target, conditions, hasty=Otherwise(target, **HASTE))
    assert names(report, "skipped") == {"stop_latency"}, report.table()


def test_the_experiment_that_runs_anywhere(target: DigitalMicrographTarget) -> None:
    target.fault("no wait")
    answer = run_anywhere("digitalmicrograph", target.config())
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
