"""A library of fingerprints whose builder is killed keeps its whole entries, and the next build finishes it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms

from instruments import Optics
from simulation.fingerprints import Candidate, FingerprintLibrary, LibrarySettings, PatternFingerprint
from tests.waiting import until

pytestmark = pytest.mark.faults
SETTINGS = LibrarySettings(
    optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=15),
    sampling_nm=0.02,
    pattern=PatternFingerprint(step_mrad=2.0, shape_px=(20, 20)),
    tilts_mrad=tuple((float(tilt), 0.0) for tilt in range(12)),
)
ATOMS = Atoms("TiSr", [(0.4, 0.5, 1.0), (2.2, 2.4, 2.9)], cell=[3.9] * 3, pbc=True)
CANDIDATE = Candidate("SrTi", ATOMS, (0.39, 0.78))
BUILD = """
import sys, time
from ase import Atoms
from simulation.fingerprints import Candidate, FingerprintLibrary, LibrarySettings
atoms = Atoms("TiSr", [(0.4, 0.5, 1.0), (2.2, 2.4, 2.9)], cell=[3.9] * 3, pbc=True)
library = FingerprintLibrary.open(sys.argv[1], LibrarySettings.model_validate_json(sys.argv[2]))
told = []
def on_entry(entry):
    told.append(entry)
    if len(told) == 3:
        time.sleep(3600)  # it is killed here
library.build([Candidate("SrTi", atoms, (0.39, 0.78))], on_entry=on_entry)
"""


def test_killed_build_is_finished_by_the_next_one(tmp_path):
    folder = tmp_path / "library"
    builder = subprocess.Popen([sys.executable, "-c", BUILD, str(folder), SETTINGS.model_dump_json()])
    try:
        until(lambda: len(list(folder.glob("entry-*.npz"))) == 3 or builder.poll() is not None, "three entries")
        assert builder.poll() is None
    finally:
        builder.kill()
        builder.wait()
    whole = len(FingerprintLibrary.open(folder).entries)
    assert whole == 3
    report = FingerprintLibrary.open(folder, SETTINGS).build([CANDIDATE])
    assert (report.reused_count, report.computed_count) == (whole, 24 - whole)
    undisturbed = FingerprintLibrary.open(tmp_path / "other", SETTINGS)
    undisturbed.build([CANDIDATE])
    found = FingerprintLibrary.open(folder)
    assert [entry.label for entry in found.entries] == [entry.label for entry in undisturbed.entries]
    assert np.array_equal(found.arrays()["pattern"], undisturbed.arrays()["pattern"])
