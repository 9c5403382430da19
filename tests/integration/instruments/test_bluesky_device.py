"""Bluesky's own plans and RunEngine on the simulated microscope, through the guard."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("bluesky") is None:
    if os.environ.get("CI") == "true":
        pytest.fail("bluesky is not installed: pip install 'stempilot[ophyd]'", pytrace=False)
    pytest.skip("bluesky is not installed: pip install 'stempilot[ophyd]'", allow_module_level=True)

from bluesky import RunEngine
from bluesky import plan_stubs as stubs
from bluesky.plans import count, fly, grid_scan, list_scan
from bluesky.preprocessors import stage_wrapper
from bluesky.protocols import Flyable, Movable, Pausable, Readable, Stageable, Status, Triggerable
from bluesky.utils import FailedStatus, RunEngineInterrupted
from event_model import DocumentNames, schema_validators, unpack_event_page

from instruments import AcquireFrame, GuardedMicroscope, InstrumentFault, Optics, SafetyEnvelope, ScanPattern
from instruments.adapters.bluesky_device import BlueskyMicroscope
from simulation.microscope import SimulatedMicroscope, open_simulated
from tests.integration.instrument_processes import twin_config

TEMPLATE = AcquireFrame(
    action_id="template",
    deadline_s=60.0,
    optics=Optics(beam_energy_ev=60_000, semi_convergence_angle_mrad=31.5, probe_current_pa=30),
    scan=ScanPattern(field_of_view_nm=4.0, shape_px=(16, 16), dwell_time_us=20.0),
    mode="maadf",
)
ENVELOPE = SafetyEnvelope(min_stage_x_nm=-30, max_stage_x_nm=30, max_dose_e_per_a2=1e6)


class Documents:
    """Everything a RunEngine said, by kind, each checked against Bluesky's own schema."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        if name == "event_page":
            self._by_kind["event"] += unpack_event_page(document)
            return
        if name != "event":  # its arrays are numpy's, which that schema does not know
            schema_validators[DocumentNames[name]].validate(document)
        self._by_kind[name].append(document)

    def __getitem__(self, kind: str) -> list[dict[str, Any]]:
        return self._by_kind[kind]

    def column(self, key: str) -> list[Any]:
        return [event["data"][key] for event in self["event"]]


@pytest.fixture(scope="module")
def engine() -> Iterator[RunEngine]:
    runner = RunEngine({}, context_managers=[])
    yield runner
    runner.loop.call_soon_threadsafe(runner.loop.stop)
    runner._th.join(10)


@pytest.fixture(scope="module")
def world(image_cache: Path) -> SimulatedMicroscope:
    return open_simulated(**twin_config(image_cache))


@pytest.fixture
def guarded(world: SimulatedMicroscope) -> GuardedMicroscope:
    world.release()
    return GuardedMicroscope(world, ENVELOPE)


@pytest.fixture
def stem(guarded: GuardedMicroscope) -> Iterator[BlueskyMicroscope]:
    devices = BlueskyMicroscope(guarded, TEMPLATE, name="stem")
    yield devices
    devices.close()


def test_devices_fulfil_blueskys_protocols(stem: BlueskyMicroscope) -> None:
    assert isinstance(stem.frames, Readable)
    assert isinstance(stem.frames, Triggerable)
    assert isinstance(stem.frames, Stageable)
    assert isinstance(stem.frames, Pausable)
    assert isinstance(stem.axis("x_nm"), Movable)
    assert isinstance(stem.axis("x_nm").set(0.0), Status)
    assert isinstance(stem.flyer([]), Flyable)


def test_nothing_goes_round_the_guard(world: SimulatedMicroscope) -> None:
    with pytest.raises(TypeError, match="wrap the SimulatedMicroscope in GuardedMicroscope"):
        BlueskyMicroscope(world, TEMPLATE)  # pyright: ignore[reportArgumentType]


def test_count_gives_raw_counts_and_all_that_made_them(
    engine: RunEngine, stem: BlueskyMicroscope, guarded: GuardedMicroscope
) -> None:
    documents = Documents()
    engine(count([stem.frames], 3), documents)

    counts = documents.column("stem_maadf")
    assert [one.shape for one in counts] == [(1, 16, 16)] * 3
    assert all(one.dtype.kind == "u" for one in counts)
    assert documents.column("stem_maadf_mean") == [float(np.mean(one)) for one in counts]
    keys = documents["descriptor"][0]["data_keys"]
    assert keys["stem_maadf"]["shape"] == [1, 16, 16]
    assert keys["stem_dose_e_per_a2"]["units"] == "e/A2"
    context = json.loads(documents.column("stem_context")[0])
    assert context["requested"]["action_id"] == documents.column("stem_action_id")[0]
    assert context["state"]["beam_blanked"]
    assert context["context"]["is_simulation"]
    configuration = documents["descriptor"][0]["configuration"]["stem"]["data"]
    assert json.loads(configuration["stem_limits"])["max_stage_x_nm"] == 30
    assert guarded.ledger.electrons == pytest.approx(sum(documents.column("stem_electrons")))
    assert len(set(documents.column("stem_action_id"))) == 3


def test_grid_scan_moves_the_stage_where_it_says(engine: RunEngine, stem: BlueskyMicroscope) -> None:
    documents = Documents()
    plan = grid_scan([stem.frames], stem.axis("y_nm"), -2, 2, 2, stem.axis("x_nm"), -4, 4, 3, snake_axes=False)
    engine(plan, documents)

    assert documents.column("stem_x_nm_setpoint") == [-4, 0, 4] * 2
    for event in documents["event"]:
        stage = json.loads(event["data"]["stem_context"])["requested"]["stage"]
        assert (stage["x_nm"], stage["y_nm"]) == (
            event["data"]["stem_x_nm_setpoint"],
            event["data"]["stem_y_nm_setpoint"],
        )
        assert event["data"]["stem_x_nm"] == pytest.approx(stage["x_nm"], abs=1e-6)


def test_list_scan_over_what_comes_with_each_frame_and_paths_instead_of_counts(
    engine: RunEngine, guarded: GuardedMicroscope, tmp_path: Path
) -> None:
    def keep(frame: Any) -> Path:
        path = tmp_path / f"{frame.action_id}.npz"
        np.savez(path, **frame.counts)
        return path

    stem = BlueskyMicroscope(guarded, TEMPLATE, name="stem", keep=keep)
    documents = Documents()
    engine(list_scan([stem.frames], stem.axis("dwell_time_us"), [4.0, 16.0]), documents)
    stem.close()

    assert "stem_maadf" not in documents["event"][0]["data"]
    means = [float(np.load(path)["maadf"].mean()) for path in documents.column("stem_path")]
    assert means == documents.column("stem_maadf_mean")
    assert 3 < means[1] / means[0] < 5
    doses = documents.column("stem_dose_e_per_a2")
    assert doses[1] / doses[0] == pytest.approx(4, rel=0.05)


def test_the_guard_refuses_a_plan_that_leaves_the_envelope_and_nothing_moves(
    engine: RunEngine, stem: BlueskyMicroscope, guarded: GuardedMicroscope
) -> None:
    before = guarded.read_state().stage
    documents = Documents()
    with pytest.raises(FailedStatus) as refused:
        engine(list_scan([stem.frames], stem.axis("x_nm"), [31.0]), documents)

    assert "30" in str(refused.value.__cause__ or refused.value)
    assert guarded.read_state().stage == before
    assert guarded.ledger.electrons == 0
    assert documents["stop"][0]["exit_status"] == "fail"


def test_a_flyer_takes_its_frames_and_one_beyond_the_envelope_is_refused_before_the_first(
    engine: RunEngine, stem: BlueskyMicroscope, guarded: GuardedMicroscope
) -> None:
    documents = Documents()
    engine(fly([stem.flyer([{"x_nm": 0.0}, {"x_nm": 5.0, "defocus_nm": 2.0}])]), documents)
    requested = [json.loads(text)["requested"] for text in documents.column("stem_context")]
    assert [(one["stage"]["x_nm"], one["optics"]["defocus_nm"]) for one in requested] == [(0.0, 0.0), (5.0, 2.0)]

    spent = guarded.ledger.electrons
    with pytest.raises(FailedStatus):
        engine(fly([stem.flyer([{"x_nm": 0.0}, {"x_nm": 31.0}])]), documents)
    assert guarded.ledger.electrons == spent


def test_a_paused_run_goes_on_without_exposing_again(
    engine: RunEngine, stem: BlueskyMicroscope, guarded: GuardedMicroscope
) -> None:
    documents = Documents()

    def plan() -> Any:
        yield from stubs.open_run()
        yield from stubs.stage(stem.frames)
        yield from stubs.checkpoint()
        yield from stubs.trigger_and_read([stem.frames])
        yield from stubs.pause()
        yield from stubs.trigger_and_read([stem.frames])
        yield from stubs.unstage(stem.frames)
        yield from stubs.close_run()

    with pytest.raises(RunEngineInterrupted):
        engine(plan(), documents)
    engine.resume()

    assert len(documents["event"]) == 2
    assert guarded.ledger.electrons == pytest.approx(sum(documents.column("stem_electrons")))


def test_a_plan_that_ends_during_an_exposure_takes_the_beam_off(engine: RunEngine, image_cache: Path) -> None:
    slow = open_simulated(**twin_config(image_cache, time_scale=10_000.0))  # a frame of 20 ms takes 200 s
    stem = BlueskyMicroscope(GuardedMicroscope(slow, SafetyEnvelope()), TEMPLATE, name="stem")
    stem.axis("subframe_count").set(4).wait(60)

    def plan() -> Any:
        yield from stubs.trigger(stem.frames, group="frame")
        while slow.read_state().beam_blanked:
            yield from stubs.sleep(0.01)
        raise RuntimeError("the plan is wrong")

    with pytest.raises(RuntimeError, match="the plan is wrong"):
        engine(stage_wrapper(plan(), [stem.frames]))
    status = stem.frames.trigger()

    assert isinstance(status.exception(120.0), InstrumentFault)  # it comes when the exposure is over: stopped
    assert slow.read_state().beam_blanked
    stem.close()
