"""Image files of microscope programs: what they say is read, what they do not say is asked for, in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instruments import ConfigurationError, registry
from instruments.readers.recorded_images import read_images
from tests.unit.instruments.image_files import berkeley_file, dm_file, hyperspy_file, velox_file

IMAGE = np.arange(48, dtype="u2").reshape(6, 8)
VELOX = {
    "BinaryResult": {"PixelSize": {"width": "2e-10", "height": "2e-10"}, "PixelUnitX": "m", "Detector": "HAADF"},
    "Scan": {"DwellTime": "2e-06"},
    "Optics": {"AccelerationVoltage": "200000"},
}
REAL = {"bto/BTO_crystal_1.dm4": ((413, 469), 0.02966), "moire/STEM Moire Hologram.dm3": ((512, 512), 0.46594)}


@pytest.mark.parametrize("suffix", [".dm3", ".dm4"])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "f4"])
def test_digital_micrograph(tmp_path: Path, suffix: str, kind: str) -> None:
    tags = {
        "Microscope Info": {"Voltage": np.float32(80e3), "Probe Current (nA)": np.float32(0.03)},
        "DigiScan": {"Sample Time": np.float64(12.0)},
    }
    (image,) = read_images(dm_file(tmp_path / f"one{suffix}", IMAGE.astype(kind), (0.5, "nm"), tags))
    assert np.array_equal(image.detectors["recorded"], IMAGE)
    assert (image.pixel_size_nm, image.dwell_time_us, image.beam_energy_ev) == (0.5, 12.0, 80e3)
    assert image.current_pa == pytest.approx(30.0)
    assert not image.counted, "nobody said that these are electrons"


def test_velox_sums_its_passes(tmp_path: Path) -> None:
    frames = np.stack([IMAGE, IMAGE], axis=2)
    (image,) = read_images(velox_file(tmp_path / "one.emd", frames, VELOX))
    assert np.array_equal(image.detectors["haadf"], 2 * IMAGE.astype(int))
    assert image.pixel_size_nm == pytest.approx(0.2)
    assert (image.dwell_time_us, image.beam_energy_ev) == (pytest.approx(4.0), 200e3)


def test_berkeley_and_hyperspy(tmp_path: Path) -> None:
    (emd,) = read_images(berkeley_file(tmp_path / "one.emd", IMAGE, (3.0, "n_m")))
    (hspy,) = read_images(hyperspy_file(tmp_path / "one.hspy", IMAGE, (30.0, "Å")))
    for image in (emd, hspy):
        assert np.array_equal(image.detectors["recorded"], IMAGE)
        assert image.pixel_size_nm == pytest.approx(3.0)
    assert hspy.beam_energy_ev == 200e3


@pytest.mark.parametrize("name", ["one.dm3", "one.dm4", "one.emd", "one.hspy", "one.tif"])
def test_a_file_of_noise_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    for content in (b"", rng.bytes(4000), b"\x00\x00\x00\x03" + rng.bytes(300), b"\x00\x00\x00\x04" + bytes(300)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"one\."):
            read_images(tmp_path / name)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = dm_file(tmp_path / "one.dm4", IMAGE, (0.5, "nm")).read_bytes()
    for end in range(0, len(whole) - 120, 11):
        (tmp_path / "cut.dm4").write_bytes(whole[:end])
        with pytest.raises(ConfigurationError, match=r"cut\.dm4"):
            read_images(tmp_path / "cut.dm4")


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = dm_file(tmp_path / "one.dm3", IMAGE, (1.0, "1/nm"))
    with pytest.raises(ConfigurationError, match="does not say pixel_size_nm, dwell_time_us, current_pa"):
        registry.open("replay", file=path)
    said = {"pixel_size_nm": 0.5, "dwell_time_us": 10.0, "current_pa": 30.0}
    assert registry.open("replay", file=path, **said).capabilities().modes[0].name == "recorded"
    half = dm_file(tmp_path / "half.dm3", IMAGE.astype("f4") + 0.5, (0.5, "nm"))
    with pytest.raises(ConfigurationError, match=r"is 0\.5 at row 0, column 0: no number of electrons"):
        registry.open("replay", file=half, counted=True, **said)
    with pytest.raises(ConfigurationError, match="either `file`, or `folder`"):
        registry.open("replay", file=path, folder=tmp_path, experiment="x")
    stretched = {**VELOX, "BinaryResult": {"PixelSize": {"width": "2", "height": "1"}, "PixelUnitX": "m"}}
    oblong = velox_file(tmp_path / "oblong.emd", IMAGE[:, :, None], stretched)
    with pytest.raises(ConfigurationError, match="only square ones"):
        registry.open("replay", file=oblong, **said)


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_files_of_real_microscopes(real_data: Path, name: str) -> None:
    path = real_data / "real" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    (image,) = read_images(path)
    assert image.shape_px == REAL[name][0]
    assert image.pixel_size_nm == pytest.approx(REAL[name][1], abs=1e-5)
    opened = registry.open("replay", file=path, dwell_time_us=10.0, current_pa=30.0)
    assert not opened.capabilities().modes[0].detectors[0].raw_counts
