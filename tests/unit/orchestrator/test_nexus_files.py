"""A frame's file: a unit on every number, readable without stempilot; validators are in `tests/integration`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest

from instruments import Aberrations, Frame
from orchestrator.catalogue.nexus import FrameRecord, atom_types, encode
from orchestrator.catalogue.nexus_reader import decode
from orchestrator.errors import FrameDamaged
from tests.unit.orchestrator import microscope_frames as microscope

UNITS = {
    "nm", "nm^2", "mm", "mrad", "deg", "eV", "pA", "us", "s", "1/angstrom^2", "1/(angstrom^2*s)", "pixel", "V",
    "electron", "count", "count/electron",
}  # fmt: skip
WITHOUT_DIMENSION = ("relative_error", "subframe_count", "ordinal", "gain", "score", "real", "indices_image", "seq")


def record(**changes: object) -> FrameRecord:
    values = {
        "frame_id": "f1", "experiment_id": "e1", "decision_id": "d1", "suggestion_id": "s1", "ordinal": 4,
        "intended_at": datetime(2024, 5, 2, 10, 0, 0, 250_000, tzinfo=UTC),
        "acquired_at": datetime(2024, 5, 2, 10, 0, 3, tzinfo=UTC),
        "context": {"experiment": "census", "specimen": {"material": "WSe2 monolayer", "preparation_date": "2024-05-01",
                    "thickness_nm": 0.7}, "versions": {"simulation": "0.1"}},
        "decision": {"seq": 4, "point": {"x_nm": 1.5, "mode": "maadf"}, "prediction": {"score": [1.0, None]}},
    }  # fmt: skip
    return FrameRecord(**{**values, **changes})


@pytest.fixture
def frame() -> Frame:
    return microscope.frame(microscope.command("a1"))


@pytest.fixture
def path(tmp_path: Path, frame: Frame) -> Path:
    written = tmp_path / "frame.nxs"
    written.write_bytes(encode(frame, record()))
    return written


def datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    yield from found


def test_every_number_says_its_unit(path: Path) -> None:
    with h5py.File(path) as file:
        numbers = [item for item in datasets(file) if item.dtype.kind in "iuf" and "identifier_event" not in item.name]
        assert len(numbers) > 150
        without = [item.name for item in numbers if "units" not in item.attrs]
        assert not without
        for item in numbers:
            name, unit = item.name.rsplit("/", 1)[-1], item.attrs["units"]
            if unit:
                assert unit in UNITS, f"{item.name} in {unit!r}"
            else:
                known = name in WITHOUT_DIMENSION or item.name.startswith("/entry1/stempilot/decision/prediction")
                assert known, f"{item.name} has no unit"
        for name, unit in (
            ("dwell_time_us", "us"),
            ("c30_nm", "nm"),
            ("dose_e_per_a2", "1/angstrom^2"),
            ("electrons", "electron"),
        ):
            assert {item.attrs["units"] for item in numbers if item.name.endswith(f"/{name}")} == {unit}


def test_plain_h5py_shows_the_image_on_axes_in_nanometres(path: Path, frame: Frame) -> None:
    with h5py.File(path) as file:
        shown = file
        while "default" in shown.attrs:
            shown = shown[shown.attrs["default"]]
        assert shown.attrs["NX_class"] == "NXdata"
        np.testing.assert_array_equal(shown[shown.attrs["signal"]][()], frame.total("maadf"))
        assert list(shown.attrs["axes"]) == ["axis_j", "axis_i"]
        for name, count, index in (("axis_j", 24, 0), ("axis_i", 32, 1)):
            axis = shown[name]
            assert (axis.attrs["units"], shown.attrs[f"{name}_indices"]) == ("nm", index)
            assert axis.attrs["long_name"]
            np.testing.assert_allclose(axis[()], (np.arange(count) - (count - 1) / 2) * 0.2, rtol=0, atol=1e-12)
        counts = file["entry1/measurement/event1/image_bf/stack_2d/real"]
        assert (counts.dtype, counts.compression, counts.shuffle, counts.chunks) == ("u4", "gzip", True, (1, 24, 32))
        np.testing.assert_array_equal(counts[1], frame.counts["bf"][1])


def test_requested_and_read_back_are_both_there(path: Path, frame: Frame) -> None:
    with h5py.File(path) as file:
        ours = file["entry1/stempilot"]
        assert ours["requested/optics/defocus_nm"][()] == 2.0
        assert ours["read_back/optics/defocus_nm"][()] == 2.1
        assert json.loads(ours["documents/requested"].asstr()[()]) == frame.requested.model_dump(mode="json")
        assert json.loads(ours["documents/read_back"].asstr()[()]) == frame.state.model_dump(mode="json")
        assert ours["read_back/coherence/focal_spread_nm"][()] == 1.1
        assert ours["detectors/maadf/outer_mrad"][()] == 100.0
        for name in Aberrations.model_fields:
            assert ours[f"requested/optics/aberrations/{name}"][()] == getattr(frame.requested.optics.aberrations, name)
        ids = {name: item.asstr()[()] for name, item in ours["ids"].items()}
        assert ids == {
            "action_id": "a1",
            "frame_id": "f1",
            "decision_id": "d1",
            "suggestion_id": "s1",
            "experiment_id": "e1",
        }
        versions = {
            group["program"].asstr()[()]: group["program"].attrs["version"]
            for group in file["entry1/profiling"].values()
        }
        assert {"stempilot", "numpy", "h5py", "simulation", "engine"} <= set(versions)
        event = file["entry1/measurement/event1"]
        assert event["start_time"].asstr()[()] == "2024-05-02T10:00:00.250000+00:00"
        tableau = event["instrument/ebeam_column/corrector_cs/tableau1"]
        assert (tableau["c_1_2_a/magnitude"][()], tableau["c_1_2_a/angle"][()]) == (1.5, 30.0)
        assert tableau["c_1_0/magnitude"][()] == -2.1


def test_what_is_not_known_is_not_zero(path: Path) -> None:
    with h5py.File(path) as file:
        gain = file["entry1/stempilot/detectors/bf/gain_counts_per_electron"]
        assert gain.shape is None
        assert gain.attrs["missing"] == "not known"


@pytest.mark.parametrize(
    "counts", [np.zeros((1, 4, 4), np.int16), np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.uint16)]
)
def test_what_are_no_raw_counts_is_refused(frame: Frame, counts: np.ndarray) -> None:
    with pytest.raises(TypeError, match="give unsigned integers"):
        encode(replace(frame, counts={"maadf": counts}), record())


def test_damage_is_said(path: Path) -> None:
    whole = path.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        with pytest.raises(FrameDamaged, match=r"frame\.nxs is not a whole frame"):
            decode(data, "frame.nxs")
    with h5py.File(path, "a") as file:
        del file["entry1/stempilot/documents/requested"]
    with pytest.raises(FrameDamaged, match="requested"):
        decode(path.read_bytes(), "frame.nxs")


@pytest.mark.parametrize(
    ("specimen", "expected"),
    [
        ({"material": "SrTiO3"}, "O, Sr, Ti"), ({"material": "unknown"}, "unknown"), ({"material": "Xx2"}, "unknown"),
        ({"material": "film", "atom_types": "Mo, S"}, "Mo, S"), ({"material": "Mo0.9W0.1Se2"}, "Mo, Se, W"),
    ],
)  # fmt: skip
def test_atom_types_are_read_from_the_formula(specimen: dict[str, str], expected: str) -> None:
    assert atom_types(specimen) == expected


def test_a_detector_of_any_name_has_a_group_that_nexus_permits(frame: Frame) -> None:
    """Its own name is an attribute, and what is read back; two that differ in what is not permitted stay two."""
    counts = next(iter(frame.counts.values()))
    named = {"eels-ccd": counts, "eels_ccd": counts + 1, "haadf": counts + 2}
    data = encode(replace(frame, counts=named), record())
    with h5py.File(io.BytesIO(data), "r") as file:
        event = file["entry1/measurement/event1"]
        images = [name for name in event if name.startswith("image_")]
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in images)
        assert [event[name].attrs.get("detector") for name in images].count("eels-ccd") == 1
    back = decode(data, "a").counts
    assert list(back) == list(named)
    assert all(np.array_equal(back[name], counts) for name, counts in named.items())
