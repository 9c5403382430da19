"""Recorded images as an instrument: cut out where they were taken, counts given once, nothing made up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    CommandRefused,
    ConfigurationError,
    Frame,
    Optics,
    ScanPattern,
    SetAxes,
    StagePosition,
    registry,
)
from instruments.adapters.replay_images import ReplayedImages
from orchestrator.catalogue.nexus import FrameRecord, encode
from tests.unit.instruments.image_files import dm_file

SIDE_PX = 40
IMAGE = np.random.default_rng(11).poisson(400, (SIDE_PX, SIDE_PX)).astype("u2")
CONFIG = {"dwell_time_us": 100.0, "current_pa": 30.0, "counted": True, "seed": 4}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return dm_file(tmp_path / "one.dm4", IMAGE, (0.5, "nm"))


def opened(**config: Any) -> ReplayedImages:
    microscope = registry.open("replay", **config)
    assert isinstance(microscope, ReplayedImages)
    return microscope


def command(
    action_id: str, x_nm: float = 0.0, y_nm: float = 0.0, side_px: int = 8, dwell_time_us: float = 100.0, **more: Any
) -> AcquireFrame:
    optics = {"beam_energy_ev": 200e3, "semi_convergence_angle_mrad": 20.0, "probe_current_pa": 30.0}
    scan = {"field_of_view_nm": side_px * 0.5, "shape_px": (side_px, side_px), "dwell_time_us": dwell_time_us}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        stage=StagePosition(x_nm=x_nm, y_nm=y_nm, alpha_deg=more.pop("alpha_deg", 0.0)),
        optics=Optics(
            **{**optics, **{name: more.pop(name) for name in optics.keys() | {"defocus_nm"} if name in more}}
        ),
        scan=ScanPattern(**{**scan, **{name: more.pop(name) for name in ScanPattern.model_fields if name in more}}),
        mode=more.pop("mode", "recorded"),
        **more,
    )


def test_a_frame_is_cut_out_where_it_was_taken(path: Path) -> None:
    replay = opened(file=path, **CONFIG)
    frame = replay.acquire(command("a", x_nm=3.0, y_nm=-2.1))
    assert np.array_equal(frame.counts["recorded"][0], IMAGE[12:20, 22:30])  # 16 + 6 columns, 16 - 4 rows
    assert (frame.state.stage.x_nm, frame.state.stage.y_nm) == (3.0, -2.0), "where the pixels lie is read back"
    shifted = replay.acquire(command("b", x_nm=-6.0, beam_shift_x_nm=2.0))
    assert np.array_equal(shifted.counts["recorded"][0], IMAGE[16:24, 8:16])


def test_counts_are_thinned_and_given_once(path: Path) -> None:
    replay = opened(file=path, **CONFIG)
    parts = [replay.acquire(command(f"part {n}", side_px=SIDE_PX, dwell_time_us=25.0)) for n in range(2)]
    split = replay.acquire(command("rest", side_px=SIDE_PX, dwell_time_us=25.0, subframe_count=2))
    quarters = np.concatenate([*(part.counts["recorded"] for part in parts), split.counts["recorded"]])
    assert np.array_equal(quarters.sum(axis=0), IMAGE), "all of it, and nothing twice"
    for quarter in quarters:  # a binomial share: mean np, variance np(1-p), here to 5 standard errors
        residual = (quarter - IMAGE / 4) / np.sqrt(IMAGE * 3 / 16)
        assert abs(residual.mean()) < 5 / SIDE_PX
        assert abs(residual.var() - 1) < 5 * np.sqrt(2) / SIDE_PX
    with pytest.raises(CommandRefused, match="has 0 us of recorded exposure left"):
        replay.acquire(command("more", dwell_time_us=1.0))


def test_more_counts_than_electrons_are_no_counts(tmp_path: Path) -> None:
    few = {**CONFIG, "dwell_time_us": 0.1}
    dark_but_for_a_tenth = np.zeros_like(IMAGE)
    dark_but_for_a_tenth[:, : SIDE_PX // 10] = 60
    for image, says in (
        (
            IMAGE,
            r"counted = true, but recorded has 399\.\d counts a pixel on average, and 18\.7 electrons arrived there",
        ),
        (dark_but_for_a_tenth, r"60\.0 counts a pixel at the 1% brightest pixels, and 18\.7 electrons"),
    ):
        path = dm_file(tmp_path / "bright.dm4", image, (0.5, "nm"))
        with pytest.raises(ConfigurationError, match=says):
            opened(file=path, **few)
        opened(file=path, **{**few, "counted": None})
    opened(file=dm_file(tmp_path / "dark.dm4", IMAGE // 25, (0.5, "nm")), **few)


def test_what_the_file_says_otherwise_is_no_configuration(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pixel_size_nm = 0\.02 is configured, .* says 0\.5; leave it out"):
        opened(file=path, **CONFIG, pixel_size_nm=0.02)
    opened(file=path, **CONFIG, pixel_size_nm=0.5)


def test_the_same_commands_give_the_same_frames(path: Path) -> None:
    commands = [command("a", dwell_time_us=30.0), command("b", x_nm=1.0, dwell_time_us=30.0)]
    one, other = opened(file=path, **CONFIG), opened(file=path, **CONFIG)
    frames = [one.acquire(each) for each in commands]
    other.rebuild(commands[:1])
    assert np.array_equal(other.acquire(commands[1]).counts["recorded"], frames[1].counts["recorded"])
    assert other.acquire(commands[0]).counts["recorded"].sum() == frames[0].counts["recorded"].sum(), "not drawn again"
    assert (other.outcome("a"), other.outcome("never")) == ("delivered", "not_started")
    assert other.read_state() == one.read_state()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"x_nm": 9.0}, r"nothing was recorded at \(9, 0\) nm with 8 x 8 px around it; .* 40 x 40 px of 0.5 nm"),
        ({"field_of_view_nm": 8.0}, "pixel_size_nm 1 was not recorded here; there is 0.5"),
        ({"defocus_nm": 10.0}, "defocus_nm 10 was not recorded"),
        ({"alpha_deg": 5.0}, "alpha_deg 5 was not recorded"),
        ({"rotation_deg": 90.0}, "rotation_deg 90 was not recorded"),
        ({"probe_current_pa": 31.0}, "probe_current_pa 31 was not recorded"),
        ({"mode": "haadf"}, "mode 'haadf' was not recorded: recorded"),
        ({"dwell_time_us": 100.1}, "100 us of recorded exposure left there, 100.1 us were asked for"),
    ],
)
def test_what_was_not_recorded_is_refused_and_costs_nothing(path: Path, asked: dict[str, Any], says: str) -> None:
    replay = opened(file=path, **CONFIG)
    before = replay.read_state()
    with pytest.raises(CommandRefused, match=says):
        replay.acquire(command("a", **asked))
    assert replay.read_state() == before
    assert replay.acquire(command("a")).counts["recorded"].sum() == IMAGE[16:24, 16:24].sum()


def test_values_that_are_no_counts_come_as_recorded_or_not_at_all(path: Path) -> None:
    replay = opened(file=path, **{**CONFIG, "counted": None})
    with pytest.raises(CommandRefused, match=r"recorded holds no counts of electrons, .* one sub-frame of 100 us"):
        replay.acquire(command("a", dwell_time_us=50.0))
    frame = replay.acquire(command("b"))
    assert not frame.mode.detectors[0].raw_counts
    assert np.array_equal(frame.counts["recorded"][0], IMAGE[16:24, 16:24])


def test_measured_numbers_that_are_not_whole_are_scaled_and_say_so(tmp_path: Path) -> None:
    image = (IMAGE - 500.5).astype("f4")
    replay = opened(file=dm_file(tmp_path / "float.dm4", image, (0.5, "nm")), **{**CONFIG, "counted": None})
    frame = replay.acquire(command("a", side_px=SIDE_PX))
    zero, step = frame.context["values_zero_and_step"]["recorded"]
    assert frame.counts["recorded"].dtype.kind == "u"
    assert np.allclose(frame.counts["recorded"][0] * step + zero, image, atol=step)


def test_the_stage_moves_as_far_as_the_record_reaches(path: Path) -> None:
    replay = opened(file=path, **CONFIG)
    state = replay.execute(SetAxes(action_id="go", values={"x_nm": 9.0}))
    assert state.axes["x_nm"].is_reached
    with pytest.raises(CommandRefused, match="x_nm 11 is outside -10 to 10 nm"):
        replay.execute(SetAxes(action_id="far", values={"x_nm": 11.0}))


def kept(folder: Path, frame: Frame, name: str) -> None:
    frames = folder / "experiments" / "one" / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    record = FrameRecord(
        frame_id=name,
        experiment_id="one",
        decision_id=name,
        suggestion_id=name,
        ordinal=1,
        intended_at=now,
        acquired_at=now,
    )
    (frames / f"{name}.nxs").write_bytes(encode(frame, record))


def test_an_experiment_of_a_data_folder(path: Path, tmp_path: Path) -> None:
    """Two frames that were catalogued are found where they were taken, cut out or whole, with their noise."""
    source = opened(file=path, **CONFIG)
    for name, x_nm in (("left", -5.0), ("right", 5.0)):
        kept(tmp_path / "data", source.acquire(command(name, x_nm=x_nm, side_px=16, dwell_time_us=40.0)), name)
    again = {"folder": tmp_path / "data", "experiment": "one"}
    within = opened(**again, counted=True)
    cut = within.acquire(command("a", x_nm=6.0, side_px=8, dwell_time_us=40.0))
    right = source.acquire(command("right", x_nm=5.0, side_px=16, dwell_time_us=40.0)).counts["recorded"][0]
    assert np.array_equal(cut.counts["recorded"][0], right[4:12, 6:14])
    nearest = opened(**again, placing="nearest", reach_nm=3.0)
    whole = nearest.acquire(command("a", x_nm=7.0, y_nm=1.0, side_px=16, dwell_time_us=40.0))
    assert np.array_equal(whole.counts["recorded"][0], right)
    assert (whole.state.stage.x_nm, whole.state.stage.y_nm) == (5.0, 0.0)
    with pytest.raises(CommandRefused, match=r"nothing was recorded at \(0, 0\) nm within 3 nm"):
        nearest.acquire(command("b", side_px=16, dwell_time_us=40.0))
    with pytest.raises(ConfigurationError, match="no frame of experiment 'two'; experiments there: one"):
        registry.open("replay", folder=tmp_path / "data", experiment="two")
