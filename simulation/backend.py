"""The one door to devices and array libraries: kernels receive a `Backend` and never import torch or CuPy.

numpy (scipy's FFT), torch (CPU and CUDA) and CuPy. FFTs here are deterministic plans only.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from simulation.errors import DeviceUnavailable, InvalidParameter
from simulation.fused import CudaKernels, Fused, InPlace, in_place_of_numpy, in_place_of_torch

DEVICES = ("auto", "cpu", "cuda", "cupy", "numpy")
PRECISIONS = ("single", "double")
Array = Any
"""An array of the backend's library."""

_HOST = ("numpy", "torch-cpu")
_CPU_BATCH_BYTES = 12 * 2**20
MEMORY_SHARE = 0.8
"""Of the memory that can be had: what is larger is refused, whoever asks for it."""
_WORKING_SHARE = 0.4
_LARGEST_HOST_WORKING_BYTES = 2**30
"""A computer's memory is shared with other programs, a GPU's is not."""
_LARGEST_GPU_BATCH_BYTES = 1024 * 2**20
_FAILED_FOR_ROOM = ("CUFFT_ALLOC_FAILED", "CUFFT_INTERNAL_ERROR", "CUBLAS_STATUS_ALLOC_FAILED")
"""What CUDA's libraries say, in errors of no type of their own, where plans or workspaces find no memory."""
_GPU_BATCH_SHARE = 1 / 16
"""Of the free memory: waves, their transforms, workspaces and detector masks come out of the rest."""


@dataclass(frozen=True, slots=True)
class Backend:
    """An array-API namespace with a device, its FFTs, the precision of waves, and how much to batch.

    `fft(array, count, axis)` pads with zeros to `count` along the axis. `ifft2_sum` is `ifft2` times the number of
    pixels: on a GPU the division would be a pass over memory of its own, so that it goes into a factor.
    """

    name: str
    xp: Any
    device: Any
    batch_bytes: int
    memory_bytes: int
    fft2: Callable[[Array], Array]
    ifft2: Callable[[Array], Array]
    ifft2_sum: Callable[[Array], Array]
    rfft2: Callable[[Array], Array]
    irfft2: Callable[[Array, tuple[int, int]], Array]
    fft: Callable[[Array, int, int], Array]
    fused: Fused
    _asarray: Callable[[NDArray[Any]], Array]
    _to_numpy: Callable[[Array], NDArray[Any]]
    _free_cached: Callable[[], None] = lambda: None
    out_of_memory: tuple[type[Exception], ...] = ()
    """What the device raises where a batch does not fit; a computer's memory ends otherwise."""
    precision: str = "single"
    threads: int = 1
    """Batches treated at once on a CPU, each by one thread."""
    asked_bytes: int | None = None
    """What a person allows to be kept (`working_set`)."""

    @property
    def real_type(self) -> type[np.floating[Any]]:
        """What intensities, potentials and masks are kept in."""
        return np.float32 if self.precision == "single" else np.float64

    @property
    def complex_type(self) -> type[np.complexfloating[Any, Any]]:
        """What waves are kept in."""
        return np.complex64 if self.precision == "single" else np.complex128

    @property
    def complex_bytes(self) -> int:
        """Of one pixel of a wave."""
        return 8 if self.precision == "single" else 16

    def empty_waves(self, shape: tuple[int, ...]) -> Array:
        """Uninitialised complex numbers."""
        kind = self.xp.complex64 if self.precision == "single" else self.xp.complex128
        return self.xp.empty(shape, dtype=kind, device=self.device)

    @property
    def working_bytes(self) -> int:
        """What may be kept between images, and what a method that is chosen for cost may take."""
        if self.asked_bytes is not None:
            return self.asked_bytes
        share = int(_WORKING_SHARE * self.memory_bytes)
        return min(share, _LARGEST_HOST_WORKING_BYTES) if self.name in _HOST else share

    def asarray(self, array: NDArray[Any]) -> Array:
        """The numpy array on this device; float64 and complex128 keep their precision."""
        return self._asarray(np.ascontiguousarray(array))

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """The array back in host memory."""
        return self._to_numpy(array)

    @contextmanager
    def one_thread_each(self) -> Iterator[None]:
        """Inside, torch computes every operation on the thread that asks for it; then as before."""
        if self.name != "torch-cpu":
            yield
            return
        torch = _import("torch", "install torch")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def is_gpu(self) -> bool:
        """Whether arrays lie in a memory of their own, where small steps cost more than large ones."""
        return self.name not in _HOST

    def release_memory(self) -> None:
        """Hand back to the system what was freed between arrays that are kept; the allocator would hold it."""
        if self.name in _HOST:
            _trim_heap()

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether less at once may do: `out_of_memory`, or a transform or matrix product that found no room."""
        if isinstance(error, self.out_of_memory):
            return True
        return self.is_gpu and any(each in str(error) for each in _FAILED_FOR_ROOM)

    def free_cached(self) -> None:
        """Give the device what its library holds for later: a smaller batch needs other pieces."""
        self._free_cached()

    def batch_count(self, bytes_each: int) -> int:
        """How many items of that size to treat at once, at least one."""
        return max(1, self.batch_bytes // max(1, bytes_each))


def backend(device: str = "auto", precision: str = "single", threads: int = 1) -> Backend:
    """A backend by name: `auto` (CUDA if torch has it, then CuPy, else CPU), `cpu`, `cuda`, `cupy`, `numpy`.

    `precision`: `single` (float32, complex64) or `double` (float64, complex128: twice the memory). A GPU takes one
    batch at a time, whatever `threads`.
    """
    if precision not in PRECISIONS:
        raise InvalidParameter(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    found = _by_name(device)
    return replace(found, precision=precision, threads=threads if found.name in _HOST else 1)


def _by_name(device: str) -> Backend:
    if device not in DEVICES:
        raise InvalidParameter(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    if device == "auto":
        return _best()
    return {"cpu": _cpu, "cuda": _torch_cuda, "cupy": _cupy, "numpy": _numpy}[device]()


def _best() -> Backend:
    for build in (_torch_cuda, _cupy):
        try:
            return build()
        except DeviceUnavailable:
            continue
    return _cpu()


def _cpu() -> Backend:
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large arrays in pages of 2 MiB, as numpy's are
    try:
        return _torch("cpu", _CPU_BATCH_BYTES, host_memory_bytes())
    except DeviceUnavailable:
        return _numpy()


def _torch_cuda() -> Backend:
    torch = _import("torch", "install the torch build for your GPU")
    if not torch.cuda.is_available():
        raise DeviceUnavailable("torch sees no CUDA device; choose device='cpu' or 'auto'")
    free_bytes, _ = torch.cuda.mem_get_info()
    free_bytes += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # held by torch for what comes next
    found = _torch("cuda", _gpu_batch_bytes(free_bytes), free_bytes)
    return replace(found, out_of_memory=(torch.cuda.OutOfMemoryError,), _free_cached=torch.cuda.empty_cache)


def _gpu_batch_bytes(free_bytes: int) -> int:
    return min(_LARGEST_GPU_BATCH_BYTES, int(_GPU_BATCH_SHARE * free_bytes))


def _torch(device_name: str, batch_bytes: int, memory_bytes: int) -> Backend:
    torch = _import("torch", "install torch")
    namespace = _import("array_api_compat.torch", "install array-api-compat")
    device = torch.device(device_name)
    return Backend(
        name=f"torch-{device_name}",
        xp=namespace,
        device=device,
        batch_bytes=batch_bytes,
        memory_bytes=memory_bytes,
        fft2=torch.fft.fft2,
        ifft2=torch.fft.ifft2,
        ifft2_sum=lambda array: torch.fft.ifft2(array, norm="forward"),
        rfft2=torch.fft.rfft2,
        irfft2=lambda array, shape: torch.fft.irfft2(array, s=shape),
        fft=lambda array, count, axis: torch.fft.fft(array, n=count, dim=axis),
        fused=InPlace(namespace, in_place_of_torch),
        _asarray=lambda array: torch.tensor(array, device=device),
        _to_numpy=lambda array: array.detach().cpu().numpy(),
    )


def _numpy() -> Backend:
    return Backend(
        name="numpy",
        xp=numpy_namespace,
        device="cpu",
        batch_bytes=_CPU_BATCH_BYTES,
        memory_bytes=host_memory_bytes(),
        fft2=lambda array: scipy.fft.fft2(array),
        ifft2=lambda array: scipy.fft.ifft2(array),
        ifft2_sum=lambda array: scipy.fft.ifft2(array, norm="forward"),
        rfft2=lambda array: scipy.fft.rfft2(array),
        irfft2=lambda array, shape: scipy.fft.irfft2(array, s=shape),
        fft=lambda array, count, axis: scipy.fft.fft(array, n=count, axis=axis),
        fused=InPlace(numpy_namespace, in_place_of_numpy),
        _asarray=lambda array: np.array(array),
        _to_numpy=lambda array: np.asarray(array),
    )


def _cupy() -> Backend:
    cupy = _import("cupy", "install the extra 'gpu'")
    try:
        free_bytes, _ = cupy.cuda.runtime.memGetInfo()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceUnavailable(f"CuPy sees no CUDA device ({error}); choose device='cpu' or 'auto'") from error
    pool = cupy.get_default_memory_pool()
    free_bytes += pool.free_bytes()  # held by CuPy for what comes next
    return Backend(
        name="cupy",
        xp=_import("array_api_compat.cupy", "install array-api-compat"),
        device=cupy.cuda.Device(),
        batch_bytes=_gpu_batch_bytes(free_bytes),
        memory_bytes=free_bytes,
        fft2=cupy.fft.fft2,
        ifft2=cupy.fft.ifft2,
        ifft2_sum=lambda array: cupy.fft.ifft2(array, norm="forward"),
        rfft2=cupy.fft.rfft2,
        irfft2=lambda array, shape: cupy.fft.irfft2(array, s=shape),
        fft=lambda array, count, axis: cupy.fft.fft(array, n=count, axis=axis),
        fused=CudaKernels(cupy),
        _asarray=cupy.asarray,
        _to_numpy=cupy.asnumpy,
        _free_cached=pool.free_all_blocks,
        out_of_memory=(cupy.cuda.memory.OutOfMemoryError,),
    )


def _import(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceUnavailable(f"{name} cannot be imported ({error}); {remedy}, or choose another device") from error


def _trim_heap() -> None:
    """glibc keeps what lies between living arrays: as much again as is used, when slices of a potential are made."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # another C library, which has no such call
        return


def host_memory_bytes() -> int:
    """Memory that can be had without swapping, where the system says; else 4 GiB."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 4 * 2**30
    return 4 * 2**30
