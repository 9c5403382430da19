"""The temscript adapter against temscript's own server and null microscope, in a process of its own."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
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
    InstrumentError,
    InstrumentFault,
    LinkLost,
    Microscope,
    Optics,
    Park,
    Releasable,
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StageBox,
    StagePosition,
    Unblank,
    Unsupported,
)
from instruments.conformance import Bench, Conditions
from instruments.conformance.kit import CHECKS, run
from instruments.conformance.proxy import FaultyLine
from instruments.microscope import Linked
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, keep, names
from tests.integration.instruments.own_clock import assert_ours
from tests.integration.instruments.server_process import Otherwise
from tests.integration.instruments.temscript_target import CURRENT_PA, TemscriptTarget

if find_spec("temscript") is None:
    if os.environ.get("CI") == "true":
        pytest.fail("temscript is not installed: pip install 'stempilot[temscript]'", pytrace=False)
    pytest.skip("temscript is not installed: pip install 'stempilot[temscript]'", allow_module_level=True)

CAMERAS = {
    "CCD": {
        "pixel_size_nm": {10: 0.24, 5: 0.48}, "camera_lengths_mm": {6: 600.0, 3: 300.0}, "selected_area_nm": 200.0,
    }
}  # fmt: skip
LIMITS = {
    "descan_x_mrad": (-5.0, 5.0), "descan_y_mrad": (-5.0, 5.0),
    "defocus_nm": (-1000.0, 1000.0), "spot_index": (1, 20), "image_shift_x_nm": (-200.0, 200.0),
}  # fmt: skip
SHIFTS = {"beam_shift_x_nm": (-200.0, 200.0), "beam_shift_y_nm": (-200.0, 200.0)}
CALM = {"answer_s": 30.0, "readout_s": 30.0, "max_exposure_s": 5.0, "beam_overhead_s": 60.0}
HASTE = {"answer_s": 1.0, "readout_s": 1.0}  # for tests that wait in vain
LONG_S = 3.0  # an exposure in which something happens
STEM = {"field_at_magnification_one_nm": 1e7, "full_px": 256}


@pytest.fixture(scope="module")
def null() -> Iterator[TemscriptTarget]:
    with TemscriptTarget("null", {"cameras": CAMERAS, "limits": LIMITS, **CALM}) as target:
        yield target


@pytest.fixture(scope="module")
def lit() -> Iterator[TemscriptTarget]:
    config = {"cameras": CAMERAS, "limits": {**LIMITS, **SHIFTS}, "stem": STEM, "calibration_id": "dots", **CALM}
    with TemscriptTarget("lit", config) as target:
        yield target


@pytest.fixture
def microscope(null: TemscriptTarget) -> Iterator[Microscope]:
    opened = null.open()
    opened.execute(Blank(action_id="blank"))
    yield opened
    opened.stop()
    null.close(opened)


def image(
    action_id: str, x_nm: float = 0.0, exposure_s: float = 0.02, energy_ev: float = 200e3, **scan: Any
) -> AcquireFrame:
    """64 x 64 pixels of the null microscope's 2048: a quarter of the chip, binned by 8."""
    geometry = {"field_of_view_nm": 64 * 8 * 0.24, "shape_px": (64, 64), "at_once": True, **scan}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=30,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=energy_ev, semi_convergence_angle_mrad=0.5, probe_current_pa=CURRENT_PA),
        scan=ScanPattern.model_validate({"dwell_time_us": exposure_s * 1e6, **geometry}),
        mode="CCD",
    )


def setting(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values)


def told(target: TemscriptTarget, endpoint: str, value: object = None) -> Any:
    """What the server itself says, past the adapter."""
    host, port = target.addresses()[0]
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(
        f"http://{host}:{port}/v1/{endpoint}", data=body, method="GET" if value is None else "PUT"
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        content = reply.read()
    return json.loads(content) if content else None


def test_the_null_microscope_conforms(null: TemscriptTarget) -> None:
    conditions = Conditions(
        field_of_view_nm=64 * 8 * 0.24,
        shape_px=(64, 64),
        dwell_time_us=2e4,
        subframe_count=1,
        client_call_count=12,
    )
    report = conformed(null, conditions, "temscript, null microscope", hasty=Otherwise(null, **HASTE))
    passed = names(report, "passed")
    needed = {
        "out_of_range", "unknown_control", "frame", "read_back", "metadata", "known_action", "stage_tilt",
        "concurrent_clients", "mute_server", "call_after_timeout", "teardown",
    }  # fmt: skip
    assert needed <= passed, report.table()


SEEN_IN_IMAGES = ("stage_motion", "beam_shift_motion", "calibration", "counts", "blank")


def test_stage_and_beam_shift_are_seen_to_move(lit: TemscriptTarget) -> None:
    conditions = Conditions(mode="stem", field_of_view_nm=100, shape_px=(64, 64), dwell_time_us=10, subframe_count=2)
    moved = [check for check in CHECKS if check.name in SEEN_IN_IMAGES]
    with Bench(lit, conditions) as bench:
        report = run(bench, moved)
    elsewhere = {check.name: "as on the null microscope" for check in CHECKS if check not in moved}
    keep(report, "temscript, dots in a STEM detector", elsewhere)
    assert [finding.verdict for finding in report.findings] == ["passed"] * len(SEEN_IN_IMAGES), report.table()


def test_a_camera_counts_longer_for_a_longer_exposure(lit: TemscriptTarget) -> None:
    microscope = lit.open()
    try:
        scan = {"field_of_view_nm": 256 * 0.24, "shape_px": (64, 64)}
        short, long = (microscope.acquire(image(f"{s}", exposure_s=s, energy_ev=60e3, **scan)) for s in (0.02, 0.08))
        assert short.counts["CCD"].dtype == np.uint16
        assert long.counts["CCD"].mean() == pytest.approx(4 * short.counts["CCD"].mean(), rel=0.05)
        assert microscope.read_state().beam_blanked
    finally:
        lit.close(microscope)


def test_the_same_experiment_as_everywhere(lit: TemscriptTarget) -> None:
    """On a camera without beam shift, the stage does the moving."""
    facility = {
        "port": lit.addresses()[0][1],
        "probe_current_pa": 50,
        "cameras": {"CCD": {"pixel_size_nm": {10: 0.25}}},
        **CALM,
    }
    answer = run_anywhere("temscript", facility)
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
    assert told(lit, "stage_position")["x"] == pytest.approx(1e-9 * answer.decisions[-1].point["x_nm"])


def test_the_server_clamps_and_the_adapter_does_not(null: TemscriptTarget, microscope: Microscope) -> None:
    told(null, "stage_position", {"x": 1.0})
    assert told(null, "stage_position")["x"] == 1e-3  # the server moved elsewhere, and said nothing
    microscope.execute(setting(x_nm=500.0))
    with pytest.raises(CommandRefused, match=r"x_nm 1e\+09 is outside"):
        microscope.execute(setting(x_nm=1e9))
    assert microscope.read_state().stage.x_nm == pytest.approx(500.0)


def test_a_value_that_the_server_changed_is_a_fault(microscope: Microscope) -> None:
    with pytest.raises(InstrumentFault, match=r"spot_index is 11.0 instead of 15"):
        microscope.execute(setting(spot_index=15.0))


def test_what_is_set_is_read_back_in_house_units_and_signs(null: TemscriptTarget, microscope: Microscope) -> None:
    state = microscope.execute(
        setting(alpha_deg=9.0, defocus_nm=120.0, image_shift_x_nm=30.0, descan_x_mrad=1.5, screen="up")
    )
    assert state.axes["alpha_deg"].is_reached
    assert state.optics.defocus_nm == pytest.approx(120.0)
    raw = told(null, "state")
    assert raw["stage_position"]["a"] == pytest.approx(0.1570796)
    assert raw["defocus"] == pytest.approx(-120e-9)  # temscript counts towards overfocus
    assert raw["image_shift"] == pytest.approx([30e-9, 0.0])
    assert raw["diffraction_shift"] == pytest.approx([1.5e-3, 0.0])
    assert state.axes["descan_x_mrad"].is_reached
    assert raw["screen_position"] == "UP"


def pattern(action_id: str, camera_length_mm: float | None) -> AcquireFrame:
    command = image(action_id, field_of_view_nm=200.0)
    optics = command.optics.model_copy(update={"camera_length_mm": camera_length_mm})
    return command.model_copy(update={"mode": "CCD_diffraction", "optics": optics})


def test_patterns_are_taken_at_a_camera_length_that_is_read_back(null: TemscriptTarget, microscope: Microscope) -> None:
    """And images before and after them at their magnification: the projector is set first, what it holds afterwards."""
    for camera_length_mm, index in ((600.0, 6), (300.0, 3)):
        taken = microscope.acquire(pattern(f"pattern-{index}", camera_length_mm))
        assert taken.mode.kind == "tem_diffraction"
        assert taken.state.optics.camera_length_mm == camera_length_mm
        assert (told(null, "projection_mode"), told(null, "magnification_index")) == ("DIFFRACTION", index)
    microscope.acquire(image("image"))
    assert (told(null, "projection_mode"), told(null, "magnification_index")) == ("IMAGING", 10)
    for wrong in (None, 450.0):
        with pytest.raises(CommandRefused, match=r"camera length \(optics\) of 600, 300 mm"):
            microscope.acquire(pattern(f"wrong-{wrong}", wrong))
    with pytest.raises(CommandRefused, match="comes with a frame"):
        microscope.execute(setting(camera_length_mm=300.0))
    assert told(null, "projection_mode") == "IMAGING"


def test_a_camera_length_that_the_server_does_not_have_is_not_exposed(null: TemscriptTarget) -> None:
    wrong = {"CCD": {**CAMERAS["CCD"], "camera_lengths_mm": {6: 700.0}}}
    opened = null.open(cameras=wrong)
    try:
        opened.execute(Blank(action_id="blank"))
        with pytest.raises(InstrumentFault, match="camera length is 600 mm instead of 700 mm"):
            opened.acquire(pattern("lost", None))
        assert opened.outcome("lost") == "not_started"
    finally:
        null.close(opened)


def test_a_tilt_series_is_one_frame_after_another_at_its_tilts(null: TemscriptTarget, microscope: Microscope) -> None:
    """Within the facility's pole-piece table: a tilt that is too high where the stage stands is refused, unmoved."""
    table = (StageBox(max_alpha_deg=5.0), StageBox(max_alpha_deg=12.0, min_x_nm=-100.0, max_x_nm=100.0))
    microscope.execute(setting(x_nm=0.0, y_nm=0.0, alpha_deg=0.0))  # wherever the tests before have left it
    guard = GuardedMicroscope(microscope, SafetyEnvelope(pole_piece=table))
    tilts = (-10.0, 0.0, 10.0)
    for alpha_deg in tilts:
        command = image(f"tilt {alpha_deg}")
        taken = guard.acquire(command.model_copy(update={"stage": StagePosition(alpha_deg=alpha_deg)}))
        assert taken.state.stage.alpha_deg == pytest.approx(alpha_deg, abs=0.01)
        assert told(null, "stage_position")["a"] == pytest.approx(np.radians(alpha_deg))
    far = image("far").model_copy(update={"stage": StagePosition(x_nm=400.0, alpha_deg=10.0)})
    with pytest.raises(CommandRefused, match="pole"):
        guard.acquire(far)
    assert told(null, "stage_position")["x"] == pytest.approx(0.0)


def test_valves_stay_closed_and_a_lit_beam_does_not_move(null: TemscriptTarget, microscope: Microscope) -> None:
    with pytest.raises(CommandRefused, match="not allowed"):
        microscope.execute(setting(column_valves="open"))
    assert told(null, "column_valves_open") is False
    microscope.execute(Unblank(action_id="on"))
    with pytest.raises(CommandRefused, match="blank it first"):
        microscope.execute(setting(x_nm=0.0))
    assert microscope.execute(setting(column_valves="closed")).axes["column_valves"].is_reached
    with pytest.raises(Unsupported):
        microscope.execute(Park(action_id="park"))  # no limits were configured for the beam shift


def test_valves_that_the_facility_permits_are_still_the_servers_to_refuse(null: TemscriptTarget) -> None:
    opened = null.open(may_open_valves=True)
    try:
        opened.execute(Blank(action_id="blank"))
        with pytest.raises(CommandRefused, match="prohibited"):
            opened.execute(setting(column_valves="open"))
    finally:
        null.close(opened)


def test_stop_blanks_behind_the_exposure_and_nothing_is_exposed_after_it() -> None:
    with TemscriptTarget("null", {"cameras": CAMERAS, **CALM}) as target:
        microscope = target.open()
        microscope.execute(Blank(action_id="blank"))
        begun_s = time.monotonic()
        thread, errors = begun(target, microscope)
        microscope.stop()
        stopped_s = time.monotonic() - begun_s
        thread.join()
        assert stopped_s > LONG_S  # the server was at the exposure: no blank comes before its end
        assert errors == []
        assert told(target, "beam_blanked") is True
        assert microscope.outcome("long") == "delivered"
        with pytest.raises(InstrumentFault, match="stopped"):
            microscope.acquire(image("next"))
        assert microscope.outcome("next") == "not_started"
        assert isinstance(microscope, Releasable)
        microscope.release()
        microscope.acquire(image("after"))
        target.close(microscope)


def begun(target: TemscriptTarget, microscope: Microscope) -> tuple[threading.Thread, list[Exception]]:
    """An exposure that is under way, and where its error will be."""
    errors: list[Exception] = []

    def expose() -> None:
        try:
            microscope.acquire(image("long", exposure_s=LONG_S))
        except InstrumentError as error:
            errors.append(error)

    thread = threading.Thread(target=expose)
    thread.start()
    target.wait_for_exposure()
    return thread, errors


def test_a_lost_answer_is_unknown_and_the_beam_blanked_all_the_same() -> None:
    config = {"cameras": CAMERAS, **CALM}
    with TemscriptTarget("null", config) as target, FaultyLine(target.addresses()[0]) as line:
        microscope = target.open_at((line.address,))
        microscope.execute(Blank(action_id="blank"))
        thread, errors = begun(target, microscope)
        line.cut()
        thread.join()
        assert [type(error) for error in errors] == [ResultUnknown]
        assert microscope.outcome("long") == "unknown"
        assert told(target, "beam_blanked") is True
        with pytest.raises(CommandRefused, match="begun before"):
            microscope.acquire(image("long", exposure_s=LONG_S))
        target.close(microscope)


def test_a_server_killed_during_an_exposure_leaves_the_beam_unconfirmed() -> None:
    with TemscriptTarget("null", {"cameras": CAMERAS, **CALM}) as target:
        microscope = target.open()
        microscope.execute(Blank(action_id="blank"))
        thread, errors = begun(target, microscope)
        target.kill()
        thread.join()
        assert [type(error) for error in errors] == [LinkLost]
        assert "take it as on" in str(errors[0])
        assert isinstance(microscope, Linked)
        assert microscope.is_link_lost()
        with pytest.raises(LinkLost):
            microscope.stop()
        target.close(microscope)


def test_a_frame_is_given_again_and_never_exposed_again(microscope: Microscope) -> None:
    first = microscope.acquire(image("once", x_nm=50.0))
    assert_ours(first, "temscript", 30.0)
    assert microscope.acquire(image("once", x_nm=50.0)) is first
    with pytest.raises(CommandRefused, match="another command"):
        microscope.acquire(image("once", x_nm=60.0))
    for number in range(4):
        microscope.acquire(image(f"more {number}"))
    assert microscope.outcome("once") == "unknown"  # it was exposed, its frame is no longer kept
    with pytest.raises(CommandRefused, match="begun before"):
        microscope.acquire(image("once", x_nm=50.0))


def test_a_beam_that_was_on_for_longer_than_was_counted_is_a_fault(null: TemscriptTarget) -> None:
    opened = null.open(beam_overhead_s=0.0)
    try:
        with pytest.raises(InstrumentFault, match="raise beam_overhead_s"):
            opened.acquire(image("longer"))
        assert opened.outcome("longer") == "delivered"
        assert opened.acquire(image("longer")).counts["CCD"].shape == (1, 64, 64)
    finally:
        null.close(opened)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (image("a", shape_px=(50, 50)), "no magnification"),
        (image("b", field_of_view_nm=200.0), "no magnification"),
        (image("c", at_once=False), "at_once"),
        (image("d", exposure_s=5.1), "dwell_time_us"),
        (image("e", rotation_deg=5.0), "rotation_deg"),
        (image("f", beam_shift_x_nm=5.0), "no such axis"),
        (image("g").model_copy(update={"mode": "stem"}), "none of this instrument's"),
    ],
)
def test_a_frame_that_the_camera_cannot_give_is_refused(
    microscope: Microscope, command: AcquireFrame, words: str
) -> None:
    with pytest.raises(CommandRefused, match=words):
        microscope.acquire(command)
    assert microscope.outcome(command.action_id) == "not_started"


def test_a_stubborn_camera_is_noticed_before_the_beam_is_on(null: TemscriptTarget) -> None:
    with TemscriptTarget("stubborn", {"cameras": CAMERAS, **CALM}) as stubborn:
        microscope = stubborn.open()
        with pytest.raises(InstrumentFault, match=r"exposure\(s\)"):
            microscope.acquire(image("never"))
        assert microscope.outcome("never") == "not_started"
        assert told(stubborn, "beam_blanked") is True
        told(stubborn, "spot_size_index", 2)  # from here it takes exposures, and gives nothing back
        with pytest.raises(AcquisitionFailed, match="no counts of CCD"):
            microscope.acquire(image("empty"))
        assert microscope.outcome("empty") == "unknown"
        assert told(stubborn, "beam_blanked") is True
        stubborn.close(microscope)


def test_lenses_are_normalised_once_and_never_with_the_beam_on(null: TemscriptTarget, microscope: Microscope) -> None:
    microscope.execute(Unblank(action_id="on"))
    assert microscope.execute(RunProcedure(action_id="n", name="normalize_all")).beam_blanked
    with pytest.raises(CommandRefused, match="never repeated"):
        microscope.execute(RunProcedure(action_id="n", name="normalize_all"))
    with pytest.raises(Unsupported):
        microscope.execute(RunProcedure(action_id="m", name="flash"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"stem": STEM}, "no STEM"),
        ({"cameras": {"Ceta": CAMERAS["CCD"]}}, "the server has CCD"),
        ({"cameras": {"CCD": {"pixel_size_nm": {10: 0.2}, "camera_lengths_mm": {6: 600}}}}, "belong together"),
        ({"cameras": {"CCD": {**CAMERAS["CCD"], "camera_lengths_mm": {6: 0.0}}}}, "camera_lengths_mm .* positive"),
        ({"limits": {"x_nm": (-2e6, 2e6)}}, "wider than the server's"),
        ({"limits": {"temperature_k": (0, 1)}}, "no such axis"),
        ({"port": 0}, "port"),
    ],
)
def test_a_configuration_that_does_not_fit_opens_nothing(
    null: TemscriptTarget, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        null.open(**config)
