"""Fused kernels: against their formulas on every library here, and the CUDA source compiled twice.

By NVRTC for a GPU's instructions, where it is installed (it needs no GPU), and as C++ for this computer's processor,
where it runs: blocks one after the other, the threads of a block at once.
"""

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from simulation.backend import backend
from simulation.fused import CUDA_SOURCE, CudaKernels, cuda_options

_COMPILER = shutil.which("g++")
_HOST_SOURCE = """
#include <math.h>
#include <pthread.h>
struct Index { int x, y; };
static Index blockIdx, blockDim, gridDim;
static __thread Index threadIdx;
static pthread_barrier_t barrier;
#define __global__
#define __device__ static
#define __shared__ static
#define __align__(count) __attribute__((aligned(count)))
#define __syncthreads() pthread_barrier_wait(&barrier)
%(cuda)s
template <typename Body> struct Work { Body* body; int thread; };
template <typename Body> static void* begin(void* given)
{
    Work<Body>* work = (Work<Body>*)given;
    threadIdx.x = work->thread;
    (*work->body)();
    return 0;
}
template <typename Body> static void launch(int blocks, int lines, int threads, Body body)
{
    gridDim = {blocks, lines};
    blockDim = {threads, 1};
    pthread_barrier_init(&barrier, 0, threads);
    for (int line = 0; line < lines; line++)
        for (int block = 0; block < blocks; block++) {
            blockIdx = {block, line};
            pthread_t running[THREADS];
            Work<Body> work[THREADS];
            for (int thread = 0; thread < threads; thread++) {
                work[thread] = {&body, thread};
                pthread_create(&running[thread], 0, begin<Body>, &work[thread]);
            }
            for (int thread = 0; thread < threads; thread++) pthread_join(running[thread], 0);
        }
}
typedef long long Whole;
#define LAUNCH(name, parameters, arguments) extern "C" void launch_##name parameters \\
    { launch(blocks, lines, threads, [=]() { name arguments; }); }
LAUNCH(phase_wave, (int blocks, int lines, int threads, REAL* phase, Complex* wave, Whole count), (phase, wave, count))
LAUNCH(intensity, (int blocks, int lines, int threads, Complex* waves, REAL* found, Whole count), (waves, found, count))
LAUNCH(multiply_by_windows, (int blocks, int lines, int threads, Complex* waves, Complex* function, Whole* corners,
       Whole height, Whole width, Whole rows, Whole columns, Whole count),
       (waves, function, corners, height, width, rows, columns, count))
LAUNCH(weighted_power, (int blocks, int lines, int threads, Complex* waves, REAL* weights, REAL* partial, Whole pixels,
       Whole part_pixels, int channels, int first_channel, int channel_count),
       (waves, weights, partial, pixels, part_pixels, channels, first_channel, channel_count))
"""
_KERNELS = ("phase_wave", "intensity", "multiply_by_windows", "weighted_power")
_THREADS = 8
"""Of a block, instead of a GPU's: the kernels must not care."""


class HostCuda:
    """What `CudaKernels` needs of CuPy, on numpy's arrays and this computer's processor."""

    ascontiguousarray, empty = staticmethod(np.ascontiguousarray), staticmethod(np.empty)
    int32, int64, complex64 = np.int32, np.int64, np.complex64

    def __init__(self, folder: Path) -> None:
        self._folder, self.launched = folder, []

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> "HostCuda":
        source, made = self._folder / "kernels.cpp", self._folder / f"kernels{len(list(self._folder.iterdir()))}.so"
        source.write_text(_HOST_SOURCE % {"cuda": code}, encoding="utf-8")
        assert _COMPILER is not None
        subprocess.run([_COMPILER, "-O1", "-shared", "-fPIC", "-pthread", *options, str(source), "-o", str(made)],
                       check=True)  # fmt: skip
        self._library = ctypes.CDLL(str(made))
        return self

    def get_function(self, name):
        def run(grid, block, arguments):
            self.launched.append((name, grid, block))
            grid = (*grid, 1)[:2]
            getattr(self._library, f"launch_{name}")(*grid, min(block[0], _THREADS), *map(_as_c, arguments))

        return run


def _as_c(argument):
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_longlong(argument) if isinstance(argument, np.int64) else ctypes.c_int(argument)


@pytest.fixture(params=["numpy", "cpu", "cuda source"])
def kernels(request, tmp_path):
    """Kernels, and how arrays go to them and come back."""
    if request.param != "cuda source":
        on = backend(request.param)
        return on.fused, on.asarray, on.to_numpy
    if _COMPILER is None:
        pytest.skip("no g++")
    return CudaKernels(HostCuda(tmp_path)), np.array, np.asarray


def complex_numbers(rng, *shape, kind=np.complex64):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fused_kernels_do_what_their_formulas_say(kernels, kind):
    fused, there, back = kernels
    rng, close = np.random.default_rng(0), {"rtol": 30 * np.finfo(kind).eps, "atol": 30 * np.finfo(kind).eps}
    phase = rng.normal(size=(7, 33)).astype(kind)
    wave = there(np.zeros((7, 33), np.result_type(kind, np.complex64)))
    fused.phase_wave(there(phase), wave)
    np.testing.assert_allclose(back(wave), np.exp(1j * phase.astype(float)), **close)
    waves = complex_numbers(rng, 5, 18, kind=back(wave).dtype)
    np.testing.assert_allclose(back(fused.intensity(there(waves))), np.abs(waves) ** 2, **close)
    weights = rng.uniform(size=(18, 11)).astype(kind)  # more channels than a kernel takes at once
    seen = back(fused.weighted_power(there(waves), there(weights)))
    np.testing.assert_allclose(seen, np.abs(waves) ** 2 @ weights, **close)
    assert seen.dtype == kind
    function, stack = complex_numbers(rng, 10, 12, kind=waves.dtype), complex_numbers(rng, 4, 6, 3, kind=waves.dtype)
    corners = np.array([[0, 0], [9, 11], [3, 10], [8, 2]])
    cut = [np.roll(function, tuple(-corner), (0, 1))[:6, :3] for corner in corners]
    met = there(stack)
    fused.multiply_by_windows(met, there(function), there(corners))
    np.testing.assert_allclose(back(met), stack * np.array(cut), **close)


def test_sums_over_many_pixels_are_put_together_from_parts(tmp_path):
    """More pixels than one block sums, and waves that do not lie in memory in order."""
    if _COMPILER is None:
        pytest.skip("no g++")
    host = HostCuda(tmp_path)
    rng = np.random.default_rng(1)
    waves, weights = complex_numbers(rng, 40_000, 2).T, rng.uniform(size=(40_000, 1)).astype(np.float32)
    seen = CudaKernels(host).weighted_power(waves, weights)
    np.testing.assert_allclose(seen, np.abs(waves) ** 2 @ weights, rtol=1e-5)
    assert host.launched == [("weighted_power", (3, 2), (256,))]


@pytest.mark.parametrize("precision", ["single", "double"])
def test_cuda_source_compiles_for_a_hopper_gpu(precision):
    """To machine code for compute capability 9.0."""
    found = importlib.util.find_spec("nvidia.cuda_nvrtc") if importlib.util.find_spec("nvidia") else None
    libraries = sorted(Path(found.submodule_search_locations[0]).glob("lib/libnvrtc.so.*")) if found else []
    if not libraries:
        pytest.skip("no NVRTC: install nvidia-cuda-nvrtc-cu12, which needs no GPU")
    nvrtc, program, count = ctypes.CDLL(str(libraries[0])), ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), CUDA_SOURCE.encode(), b"fused.cu", 0, None, None) == 0
    options = [option.encode() for option in (*cuda_options(precision), "--gpu-architecture=sm_90")]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(count))
    log = ctypes.create_string_buffer(count.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert failed == 0, log.value.decode()
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(count))
    code = ctypes.create_string_buffer(count.value)
    assert nvrtc.nvrtcGetCUBIN(program, code) == 0
    assert all(
        name.encode() in code.raw for name in ("phase_wave", "intensity", "multiply_by_windows", "weighted_power")
    )
