"""The bound on memory: what every method really takes stays within it, and what cannot is refused."""

import json
import subprocess
import sys
from pathlib import Path

import ase
import numpy as np
import pytest

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan, InvalidParameter, Simulator
from simulation.backend import backend
from simulation.wave_grid import WaveGrid
from simulation.working_set import bounded, passing_bytes

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
SPOT = GridScan(0, 0, 0.4, 0.4, (2, 2))
CASES = {
    "multislice": {},
    "prism": {"interpolation": 4},
    "partitioned_prism": {"interpolation": 4},
    "periodic": {},
    "windowed": {},
    "local_difference": {},
    "auto": {},
    "finite projection": {"method": "multislice", "projection": "finite"},
    "incoherent": {"grid_shape_px": None, "sampling_nm": 0.02},
    "source": {"method": "prism", "interpolation": 4, "coherence": Coherence(source_size_nm=0.05)},
}
SCANS = {
    "incoherent": GridScan(0, 0, 18, 18, (360, 360)),  # many of its largest grids
    "source": GridScan(0, 0, 1.5, 1.5, (3, 3)),  # some hundred probes between
}
MEMORY_GIB = 0.8
CHILD = """
import json, sys
from tests.reference.simulation.test_working_set import peaks_gib
print(json.dumps(peaks_gib()))
"""


def crystal(*, doped=False):
    atoms = ase.Atoms("WS", positions=[[0.5, 0.7, 1], [2.1, 2.9, 3]], cell=(4, 4, 4), pbc=True) * (6, 6, 1)
    if doped:
        atoms.numbers[0] = 42
    return atoms


def status_gib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**20


def peaks_gib():
    """Of an image by each method, above what the process had before; one after another in one process."""
    return {name: peak_gib(name, **settings) for name, settings in CASES.items()}


def peak_gib(name, **settings):
    """Of one."""
    backend("cpu").release_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status_gib("VmRSS")
    atoms = crystal(doped=name in ("local_difference", "auto")) * ((8, 8, 1) if name == "incoherent" else (1, 1, 1))
    shared = {"method": name, "grid_shape_px": (480, 480), "accuracy": 10, "memory_gib": MEMORY_GIB, "threads": 1}
    simulator = Simulator(atoms, **(shared | settings))
    simulator.image(OPTICS, SCANS.get(name, SPOT), {"haadf": AnnularDetector(40, 80)})
    return status_gib("VmHWM") - before


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_every_method_stays_within_the_memory_it_is_given():
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=300, check=True)
    peaks = json.loads(child.stdout)
    assert set(peaks) == set(CASES)
    assert max(peaks.values()) < MEMORY_GIB, peaks
    assert peaks["multislice"] > MEMORY_GIB / 10, peaks  # it was measured


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(InvalidParameter, match=r"memory_gib = 0\.1 is too little: 0\.\d\d GiB pass .* fewer threads"):
        Simulator(crystal(), grid_shape_px=(480, 480), memory_gib=0.1, threads=1)
    for wrong in (0, -1, np.nan, "much"):
        with pytest.raises(InvalidParameter, match=r"memory_gib = .* must be a positive number of GiB"):
            Simulator(crystal(), memory_gib=wrong)


def test_a_method_that_needs_more_is_refused():
    simulator = Simulator(crystal(), method="prism", grid_shape_px=(480, 480), memory_gib=0.5, threads=1)
    wide = OPTICS.model_copy(update={"semi_convergence_angle_mrad": 90})
    with pytest.raises(InvalidParameter, match=r"scattering matrix of PRISM .* needs"):
        simulator.image(wide, GridScan(0, 0, 0.4, 0.4, (2, 2)), {"haadf": AnnularDetector(95, 110)})


def test_the_parts_of_the_bound():
    on, grid = backend("cpu"), WaveGrid((480, 480), (24.0, 24.0))
    assert bounded(on, grid, None) is on
    passing = passing_bytes(grid, on)
    assert bounded(on, grid, 1).working_bytes == 2 * ((2**30 - passing) // 3)
