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


VALID = "is valid according to the `NXem` application definition"
INVALID = "is NOT valid according to the `NXem` application definition"
# What the command `pynx validate` does, for many files by one process; a line before each says which comes.
PYNX_VALIDATE = """
import sys
from pynxtools.cli import pynx
for path in sys.argv[1:]:
    print("NEXT", path, file=sys.stderr, flush=True)
    try:
        pynx(["validate", path])
    except SystemExit:
        sys.stdout.flush()
"""


def validator(name: str) -> str:
    command = shutil.which(name, path=f"{Path(sys.executable).parent}")
    if command is None:
        pytest.skip(f"{name} is not installed; `pip install pynxtools nexusformat`")
    return command


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, and the first without what the definition requires."""
    folder = tmp_path_factory.mktemp("nexus")
    frame = microscope.frame(microscope.command("a1"))
    names = ("frame", "broken", "bare", "scanned", "one point", "simulated")
    paths = {name: folder / f"{name.replace(' ', '_')}.nxs" for name in names}
    for name in ("frame", "broken"):
        paths[name].write_bytes(encode(frame, record()))
    with h5py.File(paths["broken"], "a") as file:
        del file["entry1/start_time"]
    paths["bare"].write_bytes(encode(_bare(frame), record(context={}, decision={})))
    software = {"an-engine": "1.0", "an_engine": "2.0"}  # NeXus has no hyphen in a name
    for name, shape_px in (("scanned", (3, 4)), ("one point", (1, 1))):
        write(paths[name], replace(pattern_frame(shape_px), context={"software": software}), record())
    paths["simulated"].write_bytes(_simulated())
    return paths


def _bare(frame: Frame) -> Frame:
    state = frame.state.model_copy(update={"coherence": None, "measured_current_pa": None})
    return replace(frame, context={}, state=state)


def _simulated() -> bytes:
    request = Request(
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25),
        shape_px=(4, 5),
        dose_e_per_px=100,
        settings={"method": "incoherent", "sampling_nm": 0.02},
        detectors={"haadf": AnnularDetector(60, 80)},
    )
    layer = built(StructureRequest(name="graphene"))
    return nexus_bytes(layer, simulated(layer, request), datetime.now(UTC), {})


def test_pynxtools_finds_each_valid_and_finds_what_we_break(files: dict[str, Path]) -> None:
    validator("pynx")
    command = [sys.executable, "-c", PYNX_VALIDATE, *map(str, files.values())]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    said = done.stdout.split("NEXT ")[1:]
    for (name, path), words in zip(files.items(), said, strict=True):
        assert words.startswith(str(path))
        assert (INVALID if name == "broken" else VALID) in words, f"{name}: {words}"


def test_nxvalidate_finds_no_error_and_finds_what_we_break(files: dict[str, Path]) -> None:
    for name, path in files.items():
        done = subprocess.run([validator("nxvalidate"), "-e", path], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert ("Total number of errors: 0" in said) is (name != "broken"), f"{name}: {said}"


def test_a_frame_with_nothing_known_says_so(files: dict[str, Path]) -> None:
    with h5py.File(files["bare"]) as file:
        assert file["entry1/sampleID/atom_types"].asstr()[()] == "unknown"
        assert "stands in its place" in file["entry1/sampleID/preparation_note/description"].asstr()[()]
