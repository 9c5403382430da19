"""Spectra of makers' files as an instrument: one point or many, counts given once, what nobody said asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import AcquireFrame, CommandRefused, ConfigurationError, Frame, Optics, ScanPattern, registry
from instruments.adapters.replay_images import ReplayedImages
from instruments.readers.recorded_images import read_images
from tests.unit.instruments.image_files import (
    dm_file,
    dm_spectra,
    hyperspy_spectra_file,
    velox_spectra_file,
)
from tests.unit.instruments.test_replay_images import kept

PEAK = np.exp(-(((np.arange(64) - 20) / 4) ** 2))
COUNTS = np.random.default_rng(2).poisson(300 * PEAK, (4, 6, 64)).astype("u2")
MICROSCOPE = {"Microscope Info": {"Voltage": np.float32(200e3), "Probe Current (nA)": np.float32(0.03)}}


def opened(**config: Any) -> ReplayedImages:
    microscope = registry.open("replay", **config)
    assert isinstance(microscope, ReplayedImages)
    return microscope


def taken(replay: ReplayedImages, action_id: str, dwell_time_us: float, shape_px: tuple[int, int] = (1, 1)) -> Frame:
    state, pixel_nm = replay.read_state(), 50.0 if shape_px == (1, 1) else 0.5
    scan = ScanPattern(field_of_view_nm=shape_px[1] * pixel_nm, shape_px=shape_px, dwell_time_us=dwell_time_us)
    optics = Optics(
        beam_energy_ev=200e3, semi_convergence_angle_mrad=20, probe_current_pa=state.optics.probe_current_pa
    )
    command = AcquireFrame(
        action_id=action_id, deadline_s=600, stage=state.stage, optics=optics, scan=scan, mode="recorded"
    )
    return replay.acquire(command)


def test_an_energy_loss_spectrum_is_one_point_at_its_own_dwell(tmp_path: Path) -> None:
    loss = (1e6 * PEAK - 3.5).astype("f4")
    tags = MICROSCOPE | {"EELS": {"Acquisition": {"Integration time (s)": np.float32(10.0)}}}
    path = dm_spectra(tmp_path / "loss.dm3", loss, (20.0, 0.5, "eV"), (0.0, ""), tags)
    with pytest.raises(ConfigurationError, match=r"does not say pixel_size_nm \(the side of the square that was lit\)"):
        opened(file=path)
    replay = opened(file=path, pixel_size_nm=50.0, gain_counts_per_electron=10.0)
    (mode,) = replay.capabilities().modes
    (detector,) = mode.detectors
    assert (mode.kind, detector.shape_px, detector.raw_counts) == ("eels", (1, 64), False)
    frame = taken(replay, "a", 10e6)
    assert frame.counts["spectrum"].shape == (1, 1, 1, 1, 64)
    assert frame.context["energies_ev"] == {"first": -10.0, "step": 0.5}
    assert detector.gain_counts_per_electron is not None
    electrons = (frame.counts["spectrum"][0, 0, 0, 0] - detector.offset_counts) / detector.gain_counts_per_electron
    assert electrons == pytest.approx(loss.astype(float) / 10.0, abs=1e-3)
    assert frame.electrons == pytest.approx(30e-12 * 10 / 1.602e-19, rel=1e-3)
    assert frame.dose_e_per_a2 == pytest.approx(frame.electrons / 500.0**2)
    with pytest.raises(CommandRefused, match="no counts of electrons, so it has no noise of a shorter dwell"):
        taken(replay, "b", 5e6)


def test_x_ray_spectra_are_thinned_and_given_once(tmp_path: Path) -> None:
    one, other = COUNTS[0, 0].astype("u4"), COUNTS[1, 1].astype("u4")
    said = {
        "Optics": {"AccelerationVoltage": "200000", "LastMeasuredScreenCurrent": "3.2e-10"},
        "Detectors": {
            "Detector-0": {"RealTime": "2.0", "Dispersion": "5", "OffsetEnergy": "-250"},
            "Detector-1": {"RealTime": "1.9", "Dispersion": "5", "OffsetEnergy": "-250"},
        },
    }
    path = velox_spectra_file(tmp_path / "x.emd", {"X2": other, "X1": one, "X": one + other}, said)
    with pytest.raises(ConfigurationError, match=r"current_pa; .* screen was last measured as 320 pA"):
        opened(file=path)
    replay = opened(file=path, pixel_size_nm=50.0, current_pa=320.0)
    halves = [taken(replay, f"half {part}", 1e6) for part in range(2)]
    assert halves[0].mode.kind == "eds"
    assert halves[0].context["energies_ev"] == {"first": -250.0, "step": 5.0}
    assert halves[0].counts.keys() == {"x1", "x2"}, "their sum would give each count twice"
    for name, recorded in (("x1", one), ("x2", other)):
        parts = [half.counts[name][0, 0, 0, 0] for half in halves]
        assert np.array_equal(parts[0] + parts[1], recorded)
        assert parts[0].sum() == pytest.approx(recorded.sum() / 2, abs=5 * np.sqrt(recorded.sum()) / 2)
    with pytest.raises(CommandRefused, match="has 0 us of recorded exposure left"):
        taken(replay, "more", 1e5)


def test_spectra_that_were_catalogued_are_replayed(tmp_path: Path) -> None:
    path = dm_spectra(tmp_path / "map.dm4", COUNTS, (2.0, 0.1, "keV"), (0.5, "nm"), MICROSCOPE)
    source = taken(opened(file=path, counted=True, dwell_time_us=100.0), "a", 100.0, (4, 6))
    kept(tmp_path / "data", source, "a")
    again = taken(opened(folder=tmp_path / "data", experiment="one"), "b", 100.0, (4, 6))
    assert np.array_equal(again.counts["spectrum"], source.counts["spectrum"])
    assert again.context["energies_ev"] == source.context["energies_ev"]


def test_spectrum_images_are_cut_out_as_images_are(tmp_path: Path) -> None:
    tags = MICROSCOPE | {"SI": {"Acquisition": {"Pixel time (s)": np.float64(0.1)}}}
    dm = dm_spectra(tmp_path / "map.dm4", COUNTS, (2.0, 0.1, "keV"), (0.5, "nm"), tags)
    detector = {"EDS": {"real_time": 0.1}}
    hspy = hyperspy_spectra_file(tmp_path / "map.hspy", COUNTS, detector, {"beam_energy": 200.0, "beam_current": 0.03})
    for path, kind in ((dm, "eels"), (hspy, "eds")):
        replay = opened(file=path, counted=True)
        frame = taken(replay, "a", 0.1e6, (2, 4))
        assert np.array_equal(frame.counts["spectrum"][0, :, :, 0], COUNTS[1:3, 1:5]), path.suffix
        assert frame.mode.kind == kind
        assert frame.context["energies_ev"] == pytest.approx({"first": -200.0, "step": 100.0})


def test_what_is_neither_image_nor_spectrum_is_said(tmp_path: Path) -> None:
    stack = hyperspy_spectra_file(tmp_path / "stack.hspy", COUNTS[None], {}, {})
    with pytest.raises(ConfigurationError, match=r"neither image nor spectrum .* or streams of X-ray events"):
        read_images(stack)
    holed = COUNTS.astype("f4")
    holed[1, 2, 3] = -1
    path = dm_spectra(tmp_path / "holed.dm4", holed, (0.0, 1.0, "eV"), (0.5, "nm"), MICROSCOPE)
    with pytest.raises(ConfigurationError, match=r"spectrum is -1\.0 at row 1, column 2, channel 3: no number of"):
        opened(file=path, counted=True, dwell_time_us=10.0)
    images = [dm_file(tmp_path / f"{side}.dm4", np.ones((side, side), "u2"), (0.5, "nm")) for side in (5, 7)]
    assert [read_images(path)[0].has_spectra for path in images] == [False, False]


@pytest.mark.real_data
def test_measured_spectra_replay(real_data: Path) -> None:
    loss = opened(file=real_data / "real/spectra/AL-DFoffset0.00.dm3", pixel_size_nm=50.0, current_pa=1000.0)
    frame = taken(loss, "a", 10e6)
    (spectrum,), energies = frame.counts["spectrum"][0, 0, 0], frame.context["energies_ev"]
    assert abs(energies["first"] + energies["step"] * spectrum.argmax()) < 0.2, "the zero-loss peak lies at 0 eV"
    x_rays = opened(file=real_data / "real/spectra/EDS-STO.emd", pixel_size_nm=50.0, current_pa=320.0)
    frame = taken(x_rays, "b", 13e6)
    found = sum(int(counts.sum()) for counts in frame.counts.values())
    share = 13 / 26.2523776
    assert found == pytest.approx(190_830 * share, abs=5 * np.sqrt(190_830 * share * (1 - share)))
