"""What a GPU needs of the simulator, looked at without one: batches that fit, and nothing fetched between slices."""

from dataclasses import replace

import ase
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instruments.optics import Optics
from simulation import AnnularDetector, DeviceUnavailable, PixelatedDetector
from simulation import backend as backend_module
from simulation.backend import backend
from simulation.device_batches import in_batches
from simulation.exposure import Detection
from simulation.method_choice import Candidate
from simulation.potential import PotentialModel
from simulation.sources import Sources
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
RINGS = {"haadf": AnnularDetector(40, 60), "abf": AnnularDetector(10, 20)}
METHODS = {
    "multislice": Candidate("multislice", 1, 0.0),
    "prism": Candidate("prism", 1, 0.0),
    "interpolated prism": Candidate("prism", 2, 0.0),
    "partitioned prism": Candidate("partitioned_prism", 2, 0.0),
    "windowed": Candidate("windowed", 1, 0.0, (20, 20)),
    "periodic": Candidate("periodic", 1, 0.0),
}
POINTS = np.random.default_rng(0).uniform(0, 16, (7, 2))


def imaged(candidate, on, detectors=RINGS, slice_count=2):
    """Signals of some probes through a crystal of 4 x 4 cells."""
    cell = ase.Atoms("WS", positions=[[0.5, 0.7, 1], [2.1, 2.9, 3]], cell=(4, 4, 4), pbc=True)
    specimen = Specimen.of(cell * (4, 4, slice_count // 2))
    grid = WaveGrid((80, 80), (16.0, 16.0))
    sources = Sources([specimen], grid, 0.2, PotentialModel(), on)
    return Detection(sources, grid, on).of_first(candidate, OPTICS, POINTS, detectors)


class TooLarge(Exception):
    """What a device without room for a batch raises here."""


def with_room_for(count):
    """A backend that cannot take more than so many waves at once through a slice, and what it was told to free."""
    on, freed = backend("cpu"), []

    def limited(waves):
        if waves.ndim == 3 and waves.shape[0] > count:
            raise TooLarge
        return on.ifft2_sum(waves)

    return replace(on, ifft2_sum=limited, out_of_memory=(TooLarge,), _free_cached=lambda: freed.append(True)), freed


@pytest.mark.parametrize("name", ["multislice", "prism", "windowed", "periodic", "interpolated prism"])
def test_a_batch_that_does_not_fit_is_done_in_halves(name):
    on, freed = with_room_for(2)
    whole, halved = imaged(METHODS[name], backend("cpu")), imaged(METHODS[name], on)
    for ring in RINGS:
        np.testing.assert_allclose(halved[ring], whole[ring], rtol=1e-5, atol=1e-9)
    assert freed


def test_what_fits_is_remembered_and_results_stay_in_order():
    on, asked = replace(backend("numpy"), out_of_memory=(TooLarge,)), []

    def work(start, stop):
        asked.append(stop - start)
        if stop - start > 3:
            raise TooLarge
        return list(range(start, stop))

    found = list(in_batches(work, range(0, 25, 10), 10, 25, on))
    assert [each for part in found for each in part] == list(range(25))
    assert asked == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1, 3, 2]


@pytest.mark.parametrize("words", ["cuFFT error: CUFFT_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_a_transform_or_product_without_room_is_done_in_halves_on_a_gpu(words):
    def work(start, stop):
        if stop - start > 3:
            raise RuntimeError(words)
        return stop - start

    on_gpu = replace(backend("numpy"), name="cupy")
    assert list(in_batches(work, [0], 8, 8, on_gpu)) == [2, 2, 2, 2]
    with pytest.raises(RuntimeError, match=words[:5]):
        list(in_batches(work, [0], 8, 8, backend("numpy")))


def test_one_wave_that_does_not_fit_ends_with_what_to_do():
    on, _ = with_room_for(0)
    with pytest.raises(DeviceUnavailable, match=r"single wave.*coarser sampling_nm.*device='cpu'"):
        imaged(METHODS["multislice"], on)


class Fetched(TorchDispatchMode):
    """Counts values that torch hands to Python, for which a GPU is waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **kwargs or {})


def crossings(name, slice_count):
    """How often arrays go to the device, come back, or single values are waited for, once potentials are made."""
    on, seen = backend("cpu"), {"there": 0, "back": 0}

    def counted(way, function):
        def crossed(array):
            seen[way] += 1
            return function(array)

        return crossed

    on = replace(on, _asarray=counted("there", on._asarray), _to_numpy=counted("back", on._to_numpy))
    grid = WaveGrid((80, 80), (16.0, 16.0))
    cell = ase.Atoms("WS", positions=[[0.5, 0.7, 1], [2.1, 2.9, 3]], cell=(4, 4, 4), pbc=True)
    specimen = Specimen.of(cell * (4, 4, slice_count // 2))
    sources = Sources([specimen], grid, 0.2, PotentialModel(), on)
    sources.prepared(OPTICS.beam_energy_ev, (0.0, 0.0))
    seen |= {"there": 0, "back": 0}
    with Fetched() as fetched:
        Detection(sources, grid, on).of_first(METHODS[name], OPTICS, POINTS, RINGS)
    return seen | {"fetched": fetched.count}


@pytest.mark.parametrize("name", ["multislice", "prism", "windowed", "partitioned prism"])
def test_nothing_crosses_between_slices(name):
    """Twelve slices ask for no more than four: what crosses is there before the first slice or comes after the last."""
    few, many = crossings(name, 4), crossings(name, 12)
    assert few == many
    assert few["there"] > 0
    assert few["back"] > 0
    assert few["fetched"] == 0


@pytest.mark.parametrize("name", list(METHODS))
def test_every_array_of_a_method_is_on_the_device(name):
    """Torch's meta tensors have shapes, types and a device but no values: to mix them with the CPU's is an error."""
    detectors = (
        RINGS if name in ("windowed", "periodic") else RINGS | {"patterns": PixelatedDetector(max_angle_mrad=30)}
    )
    on = replace(
        backend_module._torch("meta", 2**20, 2**30),
        _asarray=lambda array: torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device="meta"),
        _to_numpy=brought_back,
    )
    assert on.is_gpu
    signals = imaged(METHODS[name], on, detectors)
    assert {each: values.shape[0] for each, values in signals.items()} == dict.fromkeys(detectors, len(POINTS))


def brought_back(tensor):
    """Some numbers of that type, for values that are not there."""
    assert tensor.device.type == "meta"
    return np.ones(tuple(tensor.shape), torch.empty(0, dtype=tensor.dtype).numpy().dtype)
