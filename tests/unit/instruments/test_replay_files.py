"""Bad files and bad configurations are refused before anything is opened, with what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instruments import ConfigurationError
from instruments.adapters.replay import open_replay
from instruments.readers import read_spectrum_maps
from tests.unit.instruments.replay_files import LINES, PIXEL_NM, config, rates, write_record


def test_a_good_file_is_read(tmp_path: Path) -> None:
    maps = read_spectrum_maps(write_record(tmp_path / "a.npz", 16), ["Mg_Ka"])
    assert maps.shape_px == (16, 16)
    assert list(maps.counts) == ["Mg_Ka"]
    assert maps.pixel_size_nm == PIXEL_NM
    assert len(maps.sha256) == 64
    assert sorted(read_spectrum_maps(tmp_path / "a.npz").counts) == sorted(LINES)


def test_whole_floats_are_counts_too(tmp_path: Path) -> None:
    path = write_record(tmp_path / "a.npz", 16, counts_Fe_Ka=np.full((16, 16), 3.0))
    assert read_spectrum_maps(path).counts["Fe_Ka"].sum() == 3 * 256


def _spoiled(value: float) -> np.ndarray:
    counts = np.ones((16, 16))
    counts[3, 5] = value
    return counts


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"counts_Fe_Ka": _spoiled(np.nan)}, r"counts_Fe_Ka is nan at row 3, column 5"),
        ({"counts_Fe_Ka": _spoiled(-1)}, r"is -1.0 at row 3, column 5"),
        ({"counts_Fe_Ka": _spoiled(0.5)}, r"must be whole"),
        ({"survey": _spoiled(np.inf)}, r"survey is inf"),
        ({"counts_Fe_Ka": np.ones((8, 16))}, r"counts_Fe_Ka has shape \(8, 16\), survey \(16, 16\)"),
        ({"counts_Fe_Ka": np.ones(16)}, r"must be \(rows, columns\)"),
        ({"counts_Fe_Ka": np.full((16, 16), "a")}, r"must hold numbers"),
        ({"pixel_size_nm": 0.0}, r"above 0 nm"),
        ({"pixel_size_nm": np.nan}, r"above 0 nm"),
        ({"pixel_size_nm": np.ones(2)}, r"one number"),
        ({"survey_dwell_time_us": 0.0}, r"survey_dwell_time_us is 0.0; it must be one number above 0 us"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, changed: dict[str, np.ndarray | float], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_replay(**config(write_record(tmp_path / "bad.npz", 16, **changed)))


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "no_survey.npz", counts_Fe_Ka=np.ones((4, 4)), pixel_size_nm=1.0)
    with pytest.raises(ConfigurationError, match=r"no survey; it holds counts_Fe_Ka, pixel_size_nm"):
        read_spectrum_maps(tmp_path / "no_survey.npz")
    np.savez(tmp_path / "no_counts.npz", survey=np.ones((4, 4)), pixel_size_nm=1.0)
    with pytest.raises(ConfigurationError, match="no counts_<line> array"):
        read_spectrum_maps(tmp_path / "no_counts.npz")


def test_files_that_are_not_npz(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        open_replay(**config(tmp_path / "nowhere.npz"))
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(ConfigurationError, match=r"text.npz is not a readable .npz"):
        open_replay(**config(tmp_path / "text.npz"))
    whole = write_record(tmp_path / "whole.npz", 16).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match=r"cut.npz is not a readable .npz"):
        open_replay(**config(tmp_path / "cut.npz"))
    damaged = bytearray(whole)
    damaged[200:400] = bytes(200)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(ConfigurationError, match=r"damaged.npz is not a readable .npz"):
        open_replay(**config(tmp_path / "damaged.npz"))


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", survey=np.array([{"a": 1}], dtype=object), pixel_size_nm=1.0)
    with pytest.raises(ConfigurationError, match="not a readable"):
        read_spectrum_maps(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lines": ["Fe_Ka", "Ni_Ka"]}, "no line 'Ni_Ka'; available: Fe_Ka, Mg_Ka"),
        ({"lines": ["Fe_Ka", "Fe_Ka"]}, "named twice: Fe_Ka"),
        ({"bin_px": 3}, "bin_px 3 px does not divide the 16 x 16 points"),
        ({"bin_px": 0}, "bin_px = 0"),
        ({"full_dwell_time_us": 0.0}, "full_dwell_time_us = 0.0"),
        ({"nominal_current_pa": float("nan")}, "nominal_current_pa = nan"),
        ({"measured_fraction": 1.0}, "measured_fraction = 1.0"),
        ({"seed": -1}, "seed = -1"),
        ({"dwell": 3}, "dwell = 3: Extra inputs"),
    ],
)
def test_bad_configurations_are_named(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_replay(**config(write_record(tmp_path / "a.npz", 16), **changed))


def test_every_fault_of_a_configuration_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"file is required; full_dwell.* is required; nominal.* is required"):
        open_replay()


def test_the_synthetic_record_follows_its_rates(tmp_path: Path) -> None:
    counts = read_spectrum_maps(write_record(tmp_path / "a.npz", 64)).counts
    for line, rate in rates(64).items():
        assert abs(counts[line].sum() - rate.sum()) < 4 * np.sqrt(rate.sum())
