"""Frames' files as pynxtools' and nexusformat's validators see them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import pytest

from instruments import Frame, Optics
from orchestrator.catalogue.nexus import encode, write
from simulation import AnnularDetector
from tests.unit.orchestrator import microscope_frames as microscope
from tests.unit.orchestrator.test_nexus_files import record
from tests.unit.orchestrator.test_pattern_frames import pattern_frame
from workflows.image_simulation import Request, StructureRequest, built, simulated
from workflows.image_simulation.files import nexus_bytes

pytestmark = pytest.mark.slow


@pytest.fixture
def frame() -> Frame:
    return microscope.frame(microscope.command("a1"))


@pytest.fixture
def path(tmp_path: Path, frame: Frame) -> Path:
    written = tmp_path / "frame.nxs"
    written.write_bytes(encode(frame, record()))
    return written


def validator(name: str) -> str:
    command = shutil.which(name, path=f"{Path(sys.executable).parent}")
    if command is None:
        pytest.skip(f"{name} is not installed; `pip install pynxtools nexusformat`")
    return command


def pynx_says(path: Path) -> str:
    done = subprocess.run([validator("pynx"), "validate", path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def nxvalidate_says(path: Path) -> str:
    done = subprocess.run([validator("nxvalidate"), "-e", path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_pynxtools_finds_it_valid_and_finds_what_we_break(path: Path) -> None:
    assert "is valid according to the `NXem` application definition" in pynx_says(path)
    with h5py.File(path, "a") as file:
        del file["entry1/start_time"]
    assert "is NOT valid according to the `NXem` application definition" in pynx_says(path)


def test_nxvalidate_finds_no_error_and_finds_what_we_break(path: Path) -> None:
    assert "Total number of errors: 0" in nxvalidate_says(path)
    with h5py.File(path, "a") as file:
        del file["entry1/start_time"]
    assert "Total number of errors: 0" not in nxvalidate_says(path)


def test_a_frame_with_nothing_known_is_valid_too(tmp_path: Path, frame: Frame) -> None:
    bare = replace(
        frame, context={}, state=frame.state.model_copy(update={"coherence": None, "measured_current_pa": None})
    )
    written = tmp_path / "bare.nxs"
    written.write_bytes(encode(bare, record(context={}, decision={})))
    assert "is valid according to the `NXem` application definition" in pynx_says(written)
    assert "Total number of errors: 0" in nxvalidate_says(written)
    with h5py.File(written) as file:
        assert file["entry1/sampleID/atom_types"].asstr()[()] == "unknown"
        assert "stands in its place" in file["entry1/sampleID/preparation_note/description"].asstr()[()]


@pytest.mark.parametrize("shape_px", [(3, 4), (1, 1)], ids=["scanned", "one point"])
def test_patterns_are_valid_too(tmp_path: Path, shape_px: tuple[int, int]) -> None:
    written = tmp_path / "patterns.nxs"
    software = {"an-engine": "1.0", "an_engine": "2.0"}  # NeXus has no hyphen in a name
    write(written, replace(pattern_frame(shape_px), context={"software": software}), record())
    assert "is valid according to the `NXem` application definition" in pynx_says(written)
    assert "Total number of errors: 0" in nxvalidate_says(written)


def test_a_simulated_image_is_valid_too(tmp_path: Path) -> None:
    written = tmp_path / "simulated.nxs"
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25)
    settings = {"method": "incoherent", "sampling_nm": 0.02}
    request = Request(optics=optics, shape_px=(4, 5), dose_e_per_px=100, settings=settings,
                      detectors={"haadf": AnnularDetector(60, 80)})  # fmt: skip
    layer = built(StructureRequest(name="graphene"))
    written.write_bytes(nexus_bytes(layer, simulated(layer, request), datetime.now(UTC), {}))
    assert "is valid according to the `NXem` application definition" in pynx_says(written)
    assert "Total number of errors: 0" in nxvalidate_says(written)
