"""Frames of a camera that is read at scan points: stored, read back to the bit, seen, and their room forecast."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import orchestrator.catalogue.catalogue as catalogue_module
from instruments import Detector, Frame, Mode, Unsupported
from orchestrator.api.frame_png import picture_of
from orchestrator.catalogue import Catalogue
from orchestrator.decisions import Decision
from orchestrator.errors import DiskFull
from orchestrator.features.brightness import Brightness
from tests.unit.orchestrator import microscope_frames as microscope

NOW = datetime(2024, 5, 2, 10, 0, 0, tzinfo=UTC)
CAMERA = Detector(name="camera", offset_counts=2.0, shape_px=(6, 8))
BESIDE = Detector(name="adf", inner_mrad=40.0, outer_mrad=100.0)


def pattern_frame(shape_px: tuple[int, int] = (3, 4), action_id: str = "a1") -> Frame:
    """Patterns of `CAMERA` and a dark field at the same points."""
    rng = np.random.default_rng(7)
    plain = microscope.frame(microscope.command(action_id, shape_px=shape_px, subframe_count=2))
    shape = (2, *shape_px)
    counts = {
        "camera": rng.integers(0, 60_000, (*shape, *(6, 8)), dtype=np.uint16),
        "adf": rng.integers(0, 9, shape, dtype=np.uint32),
    }
    return replace(plain, mode=Mode(name="4d", kind="4d_stem", detectors=(CAMERA, BESIDE)), counts=counts)


@pytest.mark.parametrize("in_memory_bytes", [1 << 20, 0], ids=["in memory", "straight to disk"])
@pytest.mark.parametrize("shape_px", [(3, 4), (1, 1)])
def test_patterns_are_read_back_to_the_bit(
    catalogue_folder: Path, monkeypatch: pytest.MonkeyPatch, shape_px: tuple[int, int], in_memory_bytes: int
) -> None:
    monkeypatch.setattr(catalogue_module, "IN_MEMORY_BYTES", in_memory_bytes)
    with Catalogue.open(catalogue_folder, now=lambda: NOW) as catalogue:
        own = catalogue.create_experiment(name="4D", spec={}, seed=1, engine="direct", options={})
        decision = Decision.of(microscope.suggestion(1), own, 1)
        intent = catalogue.intend(own, decision, microscope.command("a1", shape_px=shape_px, subframe_count=2))
        frame = pattern_frame(shape_px, intent.action_id)
        stored = catalogue.keep(intent, frame)
        again = catalogue.load_frame(stored.id)
        assert again.counts.keys() == frame.counts.keys()
        for name, counts in frame.counts.items():
            assert again.counts[name].dtype == counts.dtype
            np.testing.assert_array_equal(again.counts[name], counts)
        assert (again.mode, again.requested, again.state) == (frame.mode, frame.requested, frame.state)
        path = catalogue_folder / stored.path
        assert stored.size_bytes == path.stat().st_size
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with h5py.File(path) as file:
        shown = file
        while "default" in shown.attrs:
            shown = shown[shown.attrs["default"]]
        np.testing.assert_array_equal(shown["real"][()], frame.picture("camera"))
        patterns = shown.parent["patterns"]
        assert (patterns["real"].compression, patterns["real"].chunks) == ("gzip", (1, 1, shape_px[1], 6, 8))
        assert [len(patterns[name]) for name in patterns.attrs["axes"]] == list(frame.counts["camera"].shape)
        assert patterns["detector_i"].attrs["units"] == "pixel"


def test_a_crash_after_the_file_loses_no_patterns(catalogue_folder: Path) -> None:
    with Catalogue.open(catalogue_folder, now=lambda: NOW) as catalogue:
        own = catalogue.create_experiment(name="4D", spec={}, seed=1, engine="direct", options={})
        decision = Decision.of(microscope.suggestion(1), own, 1)
        command = microscope.command("a1", shape_px=(3, 4), subframe_count=2)
        intent = catalogue.intend(own, decision, command)
        frame = replace(pattern_frame((3, 4), intent.action_id), requested=intent.command)
        temporary, checksum = catalogue_module._written(
            catalogue_folder / intent.path, frame, catalogue._frame_record(intent, NOW)
        )
        temporary.replace(catalogue_folder / intent.path)
        (adopted,) = catalogue.recover(own).adopted
        assert adopted.sha256 == checksum.sha256
        np.testing.assert_array_equal(catalogue.load_frame(adopted.id).counts["camera"], frame.counts["camera"])


def test_too_little_room_leaves_nothing(catalogue_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(catalogue_module, "_FILE_OVERHEAD_BYTES", 10**18)
    with Catalogue.open(catalogue_folder, now=lambda: NOW) as catalogue:
        own = catalogue.create_experiment(name="4D", spec={}, seed=1, engine="direct", options={})
        intent = catalogue.intend(own, Decision.of(microscope.suggestion(1), own, 1), microscope.command("a1"))
        with pytest.raises(DiskFull, match="bytes are needed"):
            catalogue.keep(intent, pattern_frame(action_id=intent.action_id))
        assert not list((catalogue_folder / intent.path).parent.iterdir())


def test_sums_say_what_they_are_over() -> None:
    frame = pattern_frame()
    counts = frame.counts["camera"].astype(np.int64)
    np.testing.assert_array_equal(frame.total("camera"), counts.sum(axis=(0, 3, 4)))
    np.testing.assert_array_equal(frame.pattern("camera"), counts.sum(axis=(0, 1, 2)))
    np.testing.assert_array_equal(frame.picture("camera"), frame.total("camera"))
    still = pattern_frame((1, 1))
    np.testing.assert_array_equal(still.picture("camera"), still.counts["camera"].sum(axis=0)[0, 0])
    with pytest.raises(Unsupported, match="has no patterns"):
        frame.pattern("adf")


@pytest.mark.parametrize(("shape_px", "size"), [((3, 4), (4, 3)), ((1, 1), (8, 6))])
def test_it_is_seen(shape_px: tuple[int, int], size: tuple[int, int]) -> None:
    frame = pattern_frame(shape_px)
    assert Image.open(io.BytesIO(picture_of(frame, "camera").png)).size == size
    (shown,) = frame.plot("camera").get_images()
    np.testing.assert_array_equal(shown.get_array(), frame.picture("camera"))
    assert "<img" in frame._repr_html_()
    dataset = frame.to_xarray()
    assert dataset["camera"].dims == ("subframe", "y", "x", "camera_row", "camera_column")
    assert dataset["adf"].dims == ("subframe", "y", "x")


def test_brightness_is_of_a_pixel_of_the_camera() -> None:
    for shape_px in ((3, 4), (1, 1)):
        frame = pattern_frame(shape_px)
        bright = Brightness().extract(frame).values["counts_per_px"]
        assert bright.value == pytest.approx(frame.counts["camera"].mean() - 2.0)
        assert bright.std is not None
        assert bright.std > 0
