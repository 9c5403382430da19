"""The Merlin adapter against LiberTEM-live's simulated Merlin, in a process and an environment of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
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
    Releasable,
    SafetyEnvelope,
    ScanPattern,
    StagePosition,
    Unsupported,
    registry,
)
from instruments.adapters.merlin import MerlinMicroscope
from instruments.conformance import Conditions
from instruments.conformance.proxy import FaultyLine
from instruments.conformance.target import Address
from orchestrator.features.patterns import Patterns
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.merlin_files import DARK_FIELD_MRAD, Scan, binned, simulated_scan
from tests.integration.instruments.merlin_target import MerlinTarget
from tests.integration.instruments.other_pythons import python_of
from tests.integration.instruments.server_process import Otherwise

PYTHON = python_of("merlin")
RINGS = {"bright_field": (0.0, 25.0), "dark_field": DARK_FIELD_MRAD}


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulated_scan()


def config_of(scan: Scan) -> dict[str, Any]:
    rings = {name: {"inner_mrad": inner, "outer_mrad": outer} for name, (inner, outer) in RINGS.items()}
    return {
        "geometry": scan.geometry.model_dump(), "rings": rings, "calibration_id": "wse2-2026", "settle_s": 0.3,
        "answer_s": 8.0, "first_frame_s": 60.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def target(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MerlinTarget]:
    with MerlinTarget(PYTHON, tmp_path_factory.mktemp("merlin"), scan.counts, config_of(scan)) as target:
        yield target


@pytest.fixture
def microscope(target: MerlinTarget) -> Iterator[MerlinMicroscope]:
    opened = target.open()
    assert isinstance(opened, MerlinMicroscope)
    yield opened
    target.close(opened)


def frame_of(action_id: str, mode: str = "patterns", shape_px: tuple[int, int] = (16, 16), **more: Any) -> AcquireFrame:
    scan = ScanPattern(field_of_view_nm=0.328, shape_px=shape_px, dwell_time_us=more.pop("dwell_time_us", 1000.0))
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25.0)
    return AcquireFrame(action_id=action_id, deadline_s=60.0, optics=optics, scan=scan, mode=mode, **more)


def test_every_count_arrives_with_what_the_headers_say(microscope: MerlinMicroscope, scan: Scan) -> None:
    frame = microscope.acquire(frame_of("all"))
    counts = frame.counts["merlin"]
    assert counts.dtype == np.uint16
    assert np.array_equal(counts, scan.counts[None])
    said = frame.context["merlin"]
    assert said["frame_count"] == 256
    assert said["thresholds_ev"][:2] == [12e3, 511e3]
    assert (said["shortest_exposure_s"], said["longest_exposure_s"]) == (0.001, 0.001)
    assert said["first_frame_at"] == "2026-11-22 01:02:03.000001"
    assert said["acquisition"]["Gain"] == "SLGM"
    assert said["calibration_id"] == "wse2-2026"
    assert frame.state.column is not None
    clock = frame.state.column.clocks["merlin"]
    stamp = datetime(2026, 11, 22, 1, 2, 3, 1, UTC)  # of the file that the simulator sends, not of now
    assert abs(clock.offset_s - (stamp - clock.measured_at).total_seconds()) < 1e-3
    assert 0 < clock.uncertainty_s < 30
    assert microscope.acquire(frame_of("all")) is frame, "given again, not exposed again"
    assert microscope.outcome("all") == "delivered"


def test_features_grow_while_patterns_arrive_and_end_as_those_of_the_frame(
    microscope: MerlinMicroscope, scan: Scan
) -> None:
    """Through the guard, which knows nothing of it; read in another thread than the one that owns the instrument."""
    extractor, command = Patterns(scan.geometry, RINGS), frame_of("live", dwell_time_us=1000.0)
    guarded, running = GuardedMicroscope(microscope, SafetyEnvelope()), extractor.running(command)
    seen: list[float] = []
    with microscope.patterns.subscribe() as reader, ThreadPoolExecutor(1) as owner:
        coming = owner.submit(guarded.acquire, command)
        for block in reader.blocks(patience_s=60.0):
            running.add(block)
            seen.append(running.so_far().values["pattern_fraction"].value)
        frame = coming.result()
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert running.so_far().to_bytes() == extractor.extract(frame).to_bytes(), "to the bit"

    images = extractor.extract(frame).arrays
    virtual = microscope.acquire(frame_of("rings", "virtual"))
    for name in RINGS:
        assert np.array_equal(virtual.counts[name][0], images[name])
    expected = scan.dark_field  # by the simulator's own ring detector, without patterns
    assert images["dark_field"].mean() == pytest.approx(expected.mean(), rel=0.05)
    assert np.corrcoef(images["dark_field"].ravel(), expected.ravel())[0, 1] > 0.95
    assert abs(np.nanmean(images["centre_x_mrad"])) < 0.2, "a crystal deflects a scan over one cell nowhere"


def test_it_conforms(target: MerlinTarget) -> None:
    """On a simulator that exposes for as long as it is told to."""
    conditions = Conditions(shape_px=(16, 16), dwell_time_us=1000.0, subframe_count=1, stop_exposure_s=80.0)
    one_client = "the simulator takes one client, and serves those that gave up waiting before the next check's"
    try:
        obeying = Obeying(target)
        hasty = Otherwise(obeying, answer_s=2.0)
        report = conformed(obeying, conditions, without={"concurrent_clients": one_client}, hasty=hasty)
    finally:
        target.say("recites")
    of_a_stage = {"read_back", "beam_shift_motion", "stage_motion", "stage_tilt", "calibration"}
    assert names(report, "skipped") == of_a_stage | {"blank"}, report.table()


class Obeying:
    """The target, obeying."""

    name = "merlin"

    def __init__(self, target: MerlinTarget) -> None:
        self.addresses, self.kill, self.close = target.addresses, target.kill, target.close
        self._target = target
        target.say("obeys")

    def exposure_count(self) -> int:
        return int(self._target.say("counts"))

    def revive(self) -> None:
        self._target.revive()
        self._target.say("obeys")

    def open(self) -> Microscope:
        return self.open_at(self.addresses())

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope:
        return self._target.open_at(addresses, **more)


def test_what_it_cannot_do_is_refused_before_anything_is_armed(target: MerlinTarget, scan: Scan) -> None:
    small = target.open(max_bytes=1000)
    try:
        for command in (
            frame_of("short", dwell_time_us=1.0), frame_of("large"), frame_of("mode", "imaging"),
        ):  # fmt: skip
            with pytest.raises(CommandRefused):
                small.acquire(command)
            assert small.outcome(command.action_id) == "not_started"
        with pytest.raises(Unsupported, match="at the microscope"):
            small.execute(Blank(action_id="blank"))
    finally:
        target.close(small)
    with pytest.raises(ConfigurationError, match="shape_px says 256 x 256"):
        _open(target, {"shape_px": (256, 256), "geometry": None, "rings": {}})


def _open(target: MerlinTarget, other: dict[str, Any]) -> Microscope:
    return registry.open("merlin", **{**target.config_at(target.addresses()), **other})


def test_another_number_of_frames_is_no_frame(microscope: MerlinMicroscope) -> None:
    """The simulator sends its 256 whatever it is told; ours says so, and works on."""
    with pytest.raises(AcquisitionFailed, match="announces 256 frames, asked for 64"):
        microscope.acquire(frame_of("fewer", shape_px=(8, 8)))
    with pytest.raises(AcquisitionFailed, match=r"was exposed for 0\.001 s instead of 0\.002 s"):
        microscope.acquire(frame_of("longer", dwell_time_us=2000.0))  # its headers say 1 ms
    assert microscope.outcome("longer") == "unknown"
    with pytest.raises(AcquisitionFailed, match="not repeated"):
        microscope.acquire(frame_of("longer", dwell_time_us=2000.0))
    assert microscope.acquire(frame_of("right")).counts["merlin"].shape == (1, 16, 16, 64, 64)


def test_a_second_client_is_told(target: MerlinTarget, microscope: MerlinMicroscope) -> None:
    with pytest.raises(LinkLost, match="did not answer"):
        _open(target, {"answer_s": 0.5})
    assert microscope.acquire(frame_of("first client")).counts


def test_a_stop_ends_the_wait_at_once(target: MerlinTarget) -> None:
    never = _open(target, {"trigger": "rising"})  # nobody triggers
    stopping = threading.Timer(0.8, never.stop)
    try:
        assert isinstance(never, Releasable)
        stopping.start()
        with pytest.raises(InstrumentFault, match="stopped"):
            never.acquire(frame_of("waits"))
        stopping.join()
        with pytest.raises(InstrumentFault, match="stopped"):
            never.acquire(frame_of("after"))
        never.release()
        assert never.outcome("after") == "not_started"
    finally:
        stopping.cancel()
        target.close(never)


def test_no_trigger_is_said_in_the_time_that_frames_take(target: MerlinTarget) -> None:
    never = _open(target, {"trigger": "rising", "first_frame_s": 0.5})
    try:
        with pytest.raises(AcquisitionFailed, match="after 0 of 256 frames: nothing more came"):
            never.acquire(frame_of("waits"))
    finally:
        target.close(never)


def test_a_data_line_that_falls_silent_or_is_cut(target: MerlinTarget) -> None:
    with FaultyLine(target.addresses()[1]) as line:
        opened = _open(target, {"data_port": line.address[1], "first_frame_s": 4.0, "answer_s": 4.0})
        try:
            assert opened.acquire(frame_of("well")).counts
            line.fall_silent()
            with pytest.raises(InstrumentError):
                opened.acquire(frame_of("silent"))
            line.heal()
            assert opened.acquire(frame_of("healed")).counts["merlin"].any()
            line.cut()
            assert opened.acquire(frame_of("a new line")).counts["merlin"].any()
        finally:
            target.close(opened)


def test_the_scan_of_another_instrument(target: MerlinTarget, image_cache: Path) -> None:
    """The twin scans (and blanks, and knows the dose), the Merlin counts beside its detectors."""
    opened = _open(target, {"column": column(image_cache)})
    try:
        card = opened.capabilities()
        assert card.has_beam
        assert [mode.name for mode in card.modes] == ["virtual", "patterns"]
        optics = opened.read_state().optics
        command = frame_of("both").model_copy(update={"stage": StagePosition(x_nm=5.0), "optics": optics})
        frame = opened.acquire(command)
        assert frame.counts["merlin"].shape == (1, 16, 16, 64, 64)
        assert {detector.name for detector in frame.mode.detectors} == frame.counts.keys() > {"merlin"}
        assert frame.electrons > 0
        assert frame.state.stage.x_nm == pytest.approx(5.0, abs=1.0)
        assert opened.read_state().beam_blanked
        far = command.model_copy(update={"action_id": "far", "stage": StagePosition(x_nm=1e9)})
        with pytest.raises(CommandRefused):
            opened.acquire(far)
        assert opened.outcome("far") == "not_started"
    finally:
        target.close(opened)


def column(image_cache: Path) -> dict[str, Any]:
    structure = Path(__file__).parents[3] / "examples" / "structures" / "WSe2.extxyz"
    twin = {
        "structure": str(structure), "seed": 3, "cache_folder": str(image_cache), "width_nm": 60, "height_nm": 60,
        "window_min_nm": 8, "window_max_nm": 20, "clean_fraction": 0.4, "phonon_count": 1, "max_dwell_time_us": 1000,
    }  # fmt: skip
    return {"adapter": "simulated", "mode": "maadf", "config": twin}


def test_the_experiment_that_runs_anywhere(scan: Scan, tmp_path: Path, image_cache: Path) -> None:
    """The patterns are a file's, so they do not follow the stage; moves, dose and record are those of the twin."""
    patterns = np.tile(binned(scan.counts, 4), (4, 4, 1, 1))  # one cell after another
    with MerlinTarget(PYTHON, tmp_path, patterns, {"column": column(image_cache)}) as target:
        answer = run_anywhere("merlin", target.config_at(target.addresses()))
    check(answer)
    assert answer.electrons > 0
    assert answer.brightness["counts_per_px"] == pytest.approx(patterns.mean())
