"""What a Simulator keeps between images: within its working memory, and what is in use beyond it."""

from dataclasses import replace

import ase
import numpy as np

from instruments.optics import Optics
from simulation import backend as backend_module
from simulation import sources as sources_module
from simulation.backend import backend
from simulation.method_choice import Candidate, Workload, candidates
from simulation.potential import PotentialModel
from simulation.sources import Sources
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=20)
WINDOW = Candidate("windowed", 1, 0.0, (16, 16))
MULTISLICE = Candidate("multislice", 1, 0.0)


def specimen(seed):
    places = np.random.default_rng(seed).uniform(0, 1, (9, 3)) * (16, 16, 6)
    return Specimen.of(ase.Atoms("C9", positions=places, cell=(16, 16, 6)))


def test_what_is_larger_than_the_working_memory_is_made_once_while_it_is_in_use(monkeypatch):
    """Windows, the multislice they are compared with and another focus share transmission functions."""
    made = []

    def counted(*arguments):
        made.append(arguments[0])
        return original(*arguments)

    original = sources_module.transmissions
    monkeypatch.setattr(sources_module, "transmissions", counted)
    monkeypatch.setattr(backend_module, "_LARGEST_HOST_WORKING_BYTES", 1000)
    on = backend("numpy")
    grid = WaveGrid((64, 64), (16.0, 16.0))
    sources = Sources([specimen(0), specimen(1)], grid, 0.2, PotentialModel(), on)
    first = sources.signal_source(WINDOW, 0, OPTICS)
    sources.source(MULTISLICE, 0, OPTICS)
    assert sources.signal_source(WINDOW, 0, OPTICS) is first
    matrix = sources.source(Candidate("prism", 1, 0.0), 0, OPTICS.model_copy(update={"semi_convergence_angle_mrad": 2}))
    sources.source(MULTISLICE, 0, OPTICS)
    assert made == [sources.specimens[0]]
    assert matrix.bytes_count > on.working_bytes
    sources.source(MULTISLICE, 1, OPTICS)
    assert made == sources.specimens
    assert all("transmissions" in key for key in sources._kept)


def test_auto_prefers_the_matrix_it_has():
    grid = WaveGrid((256, 256), (25.6, 25.6))
    crystal = Sources(
        [Specimen.of(ase.Atoms("Cu", positions=[(1, 1, 1)], cell=(3.2, 3.2, 2), pbc=True) * (8, 8, 1))],
        grid, 0.2, PotentialModel(), backend("numpy"),
    ).crystal(0)  # fmt: skip
    workload = Workload(grid, OPTICS, 1, 1, 2**40, crystal)
    without, having = (
        next(each for each in candidates(replace(workload, has_bloch_matrix=known), frozenset())
             if each.method == "periodic").work_flops
        for known in (False, True)
    )  # fmt: skip
    assert having < 0.5 * without
