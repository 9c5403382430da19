"""Elementwise work of slice loops and detectors, each piece in one pass over memory where the library can.

numpy and torch write into their results, so that no temporary of the size of a wave is made; CuPy compiles the CUDA
kernels below for its GPU when they are first called. `backend` chooses; kernels of the simulator see `Backend.fused`.
"""

from __future__ import annotations

from typing import Any, Protocol

Array = Any


class Fused(Protocol):
    """What every array library does in as few passes as it can."""

    def phase_wave(self, phase: Array, wave: Array) -> None:
        """Fills the complex `wave` with exp(i phase)."""
        ...

    def intensity(self, waves: Array) -> Array:
        """|waves|^2, real."""
        ...

    def weighted_power(self, waves: Array, weights: Array) -> Array:
        """Sum of |waves|^2 times weights: (n, pixels) and (pixels, channels) give (n, channels)."""
        ...

    def multiply_by_windows(self, waves: Array, function: Array, corners: Array) -> None:
        """Multiply each of `waves` (n, rows, columns) by the window of a periodic `function` from its corner (n, 2).

        Corners (row, column) lie on the function, and windows are no larger than it.
        """
        ...


class InPlace:
    """With the operations of an array library; `add_product(sum, factor, factor)` adds in place."""

    def __init__(self, xp: Any, add_product: Any) -> None:
        """`xp` is array-API like."""
        self._xp, self._add_product = xp, add_product

    def phase_wave(self, phase: Array, wave: Array) -> None:
        """Fills the complex `wave` with exp(i phase)."""
        self._xp.cos(phase, out=self._xp.real(wave))
        self._xp.sin(phase, out=self._xp.imag(wave))

    def intensity(self, waves: Array) -> Array:
        """|waves|^2, real."""
        real, imaginary = self._xp.real(waves), self._xp.imag(waves)
        found = real * real
        self._add_product(found, imaginary, imaginary)
        return found

    def weighted_power(self, waves: Array, weights: Array) -> Array:
        """Sum of |waves|^2 times weights: (n, pixels) and (pixels, channels) give (n, channels)."""
        return self._xp.matmul(self.intensity(waves), weights)

    def multiply_by_windows(self, waves: Array, function: Array, corners: Array) -> None:
        """Multiply each of `waves` by the window of a periodic `function` from its corner, all windows at once."""
        xp, (_, height, width) = self._xp, waves.shape
        rows, columns = (
            (corners[:, axis, None] + xp.arange(count, device=corners.device)) % function.shape[axis]
            for axis, count in ((0, height), (1, width))
        )
        waves *= function[rows[:, :, None], columns[:, None, :]]


def in_place_of_numpy(total: Array, first: Array, second: Array) -> None:
    """Adds the product, through one temporary of the size of the sum."""
    total += first * second


def in_place_of_torch(total: Array, first: Array, second: Array) -> None:
    """Adds the product in one pass."""
    total.addcmul_(first, second)


THREADS_PER_BLOCK = 256
_LARGEST_BLOCK_COUNT = 65535
_PIXELS_PER_PART = 16384
"""Of a wave, summed by one block; parts are added afterwards, always in the same order."""
LARGEST_CHANNELS_AT_ONCE = 8

CUDA_SOURCE = """
struct __align__(2 * sizeof(REAL)) Complex { REAL x, y; };

__device__ long long first_item() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ long long stride() { return (long long)gridDim.x * blockDim.x; }

extern "C" __global__ void phase_wave(const REAL* phase, Complex* wave, long long count)
{
    for (long long i = first_item(); i < count; i += stride()) {
        REAL sine, cosine;
        SINCOS(phase[i], &sine, &cosine);
        wave[i].x = cosine;
        wave[i].y = sine;
    }
}

extern "C" __global__ void intensity(const Complex* waves, REAL* found, long long count)
{
    for (long long i = first_item(); i < count; i += stride()) {
        Complex wave = waves[i];
        found[i] = wave.x * wave.x + wave.y * wave.y;
    }
}

extern "C" __global__ void multiply_by_windows(Complex* waves, const Complex* function, const long long* corners,
                                               long long height, long long width, long long rows, long long columns,
                                               long long count)
{
    for (long long i = first_item(); i < count; i += stride()) {
        long long wave = i / (height * width), place = i % (height * width);
        long long row = corners[2 * wave] + place / width, column = corners[2 * wave + 1] + place % width;
        if (row >= rows) row -= rows;
        if (column >= columns) column -= columns;
        Complex own = waves[i], factor = function[row * columns + column];
        waves[i].x = own.x * factor.x - own.y * factor.y;
        waves[i].y = own.x * factor.y + own.y * factor.x;
    }
}

/* One block for each wave (y) and part of its pixels (x); partial: (waves, parts, channels). */
extern "C" __global__ void weighted_power(const Complex* waves, const REAL* weights, REAL* partial,
                                          long long pixels, long long part_pixels, int channels, int first_channel,
                                          int channel_count)
{
    __shared__ REAL shared[THREADS];
    long long wave = blockIdx.y, start = (long long)blockIdx.x * part_pixels;
    long long stop = start + part_pixels < pixels ? start + part_pixels : pixels;
    REAL sums[CHANNELS];
    for (int channel = 0; channel < CHANNELS; channel++) sums[channel] = 0;
    for (long long pixel = start + threadIdx.x; pixel < stop; pixel += blockDim.x) {
        Complex own = waves[wave * pixels + pixel];
        REAL power = own.x * own.x + own.y * own.y;
        for (int channel = 0; channel < CHANNELS; channel++)
            if (channel < channel_count)
                sums[channel] += power * weights[pixel * channels + first_channel + channel];
    }
    for (int channel = 0; channel < channel_count; channel++) {
        shared[threadIdx.x] = sums[channel];
        __syncthreads();
        for (int half = blockDim.x / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
            __syncthreads();
        }
        if (threadIdx.x == 0)
            partial[(wave * gridDim.x + blockIdx.x) * channels + first_channel + channel] = shared[0];
        __syncthreads();
    }
}
"""


def cuda_options(precision: str) -> tuple[str, ...]:
    """Definitions that the CUDA source is compiled with, for waves in `single` or `double` precision."""
    kind, sincos = ("float", "sincosf") if precision == "single" else ("double", "sincos")
    sizes = (f"-DTHREADS={THREADS_PER_BLOCK}", f"-DCHANNELS={LARGEST_CHANNELS_AT_ONCE}")
    return ("--std=c++17", f"-DREAL={kind}", f"-DSINCOS={sincos}", *sizes)


class CudaKernels:
    """The CUDA source, on CuPy's arrays; each kernel reads and writes every wave once."""

    def __init__(self, cupy: Any) -> None:
        """Nothing is compiled yet."""
        self._cupy, self._modules = cupy, {}

    def phase_wave(self, phase: Array, wave: Array) -> None:
        """Fills the complex `wave` with exp(i phase)."""
        made = wave if wave.flags.c_contiguous else self._cupy.empty(wave.shape, wave.dtype)
        self._each("phase_wave", made, self._cupy.ascontiguousarray(phase), made)
        if made is not wave:
            wave[...] = made

    def intensity(self, waves: Array) -> Array:
        """|waves|^2, real."""
        waves = self._cupy.ascontiguousarray(waves)
        found = self._cupy.empty(waves.shape, waves.real.dtype)
        self._each("intensity", waves, waves, found)
        return found

    def multiply_by_windows(self, waves: Array, function: Array, corners: Array) -> None:
        """Multiply each of `waves` by the window of a periodic `function` from its corner."""
        if not waves.flags.c_contiguous:
            raise ValueError("waves are multiplied by windows in place: they must be contiguous")
        _, height, width = waves.shape
        whole, places = (self._cupy.ascontiguousarray(each) for each in (function, corners))
        self._each("multiply_by_windows", waves, waves, whole, places, height, width, *whole.shape)

    def weighted_power(self, waves: Array, weights: Array) -> Array:
        """Sum of |waves|^2 times weights: (n, pixels) and (pixels, channels) give (n, channels)."""
        waves, weights = (self._cupy.ascontiguousarray(each) for each in (waves, weights))
        (count, pixels), channels = waves.shape, weights.shape[1]
        parts = -(-pixels // _PIXELS_PER_PART)
        partial = self._cupy.empty((count, parts, channels), weights.dtype)
        kernel = self._kernel("weighted_power", waves.dtype)
        for wave in range(0, count, _LARGEST_BLOCK_COUNT):
            some, found = waves[wave : wave + _LARGEST_BLOCK_COUNT], partial[wave : wave + _LARGEST_BLOCK_COUNT]
            for first in range(0, channels, LARGEST_CHANNELS_AT_ONCE):
                own = min(LARGEST_CHANNELS_AT_ONCE, channels - first)
                sizes = [self._cupy.int64(each) for each in (pixels, _PIXELS_PER_PART)]
                numbers = [self._cupy.int32(each) for each in (channels, first, own)]
                kernel((parts, len(some)), (THREADS_PER_BLOCK,), (some, weights, found, *sizes, *numbers))
        return partial.sum(axis=1)

    def _each(self, name: str, waves: Array, *arguments: Any) -> None:
        """One thread an item of `waves`; whole numbers among the arguments are sent as 64 bits."""
        blocks = min(_LARGEST_BLOCK_COUNT, -(-waves.size // THREADS_PER_BLOCK))
        sent = [self._cupy.int64(each) if isinstance(each, int) else each for each in (*arguments, waves.size)]
        if blocks:
            self._kernel(name, waves.dtype)((blocks,), (THREADS_PER_BLOCK,), tuple(sent))

    def _kernel(self, name: str, kind: Any) -> Any:
        precision = "single" if kind == self._cupy.complex64 else "double"
        if precision not in self._modules:
            self._modules[precision] = self._cupy.RawModule(code=CUDA_SOURCE, options=cuda_options(precision))
        return self._modules[precision].get_function(name)
