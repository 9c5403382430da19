"""Threads: what they change (time) and what they must not (bits, torch's own setting, an end on errors)."""

import threading

import ase
import numpy as np
import pytest
import torch

from instruments.optics import Optics
from simulation import AnnularDetector, InvalidParameter, PointScan, Simulator
from simulation.backend import backend
from simulation.threads import checked_threads, in_order

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
DETECTORS = {"haadf": AnnularDetector(40, 60), "abf": AnnularDetector(10, 20)}
POINTS = PointScan(np.random.default_rng(0).uniform(0, 1.6, (7, 2)))
CRYSTAL = ase.Atoms("WS", positions=[[0.5, 0.7, 1], [2.1, 2.9, 3]], cell=(4, 4, 4), pbc=True) * (4, 4, 1)


def imaged(method, threads):
    simulator = Simulator(CRYSTAL, method=method, sampling_nm=0.02, threads=threads, accuracy=10)
    images = simulator.image(OPTICS, POINTS, DETECTORS)
    return {name: np.asarray(images[name]).tobytes() for name in DETECTORS}


@pytest.mark.parametrize("method", ["multislice", "prism", "periodic", "windowed"])
def test_any_number_of_threads_gives_the_same_bits(method, monkeypatch):
    monkeypatch.setattr("simulation.backend._CPU_BATCH_BYTES", 40_000)  # several batches
    assert imaged(method, 3) == imaged(method, 1)


def test_torch_has_its_own_number_of_threads_again(monkeypatch):
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        monkeypatch.setattr(
            "simulation.sources.propagate", lambda waves, *_: seen.append(torch.get_num_threads()) or waves
        )
        imaged("multislice", 2)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), backend("cpu").one_thread_each():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_results_come_in_order_and_few_calls_are_ahead():
    taken = []

    def items():
        for item in range(12):
            taken.append(item)
            yield item

    found = in_order(lambda item: item * item, items(), 3)
    assert next(found) == 0
    assert len(taken) <= 5
    assert list(found) == [item * item for item in range(1, 12)]


def test_an_error_ends_the_others():
    begun = threading.active_count()

    def fail(item):
        if item == 2:
            raise ValueError("the third")
        return item

    with pytest.raises(ValueError, match="the third"):
        list(in_order(fail, range(50), 2))
    assert threading.active_count() == begun


def test_how_many_threads_are_taken(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert checked_threads(None) == 3
    assert checked_threads(5) == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    for processors, expected in ((1, 1), (2, 1), (6, 3), (64, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, count=processors: set(range(count)))
        assert checked_threads(None) == expected
    for wrong in (0, 1.5, -1, "two", True):
        with pytest.raises(InvalidParameter, match=r"threads = .* must be a whole number, at least 1"):
            checked_threads(wrong)
