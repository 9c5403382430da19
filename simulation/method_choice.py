"""Which method images a specimen most cheaply: predicted work of multislice and of PRISM at each interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from instruments.optics import Optics
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.prism import Layout, scattering_matrix_bytes
from simulation.wave_grid import WaveGrid

METHODS = ("auto", "multislice", "prism")
LATER_METHODS = ("windowed", "periodic", "incoherent")
INTERPOLATIONS = (1, 2, 4)
"""Interpolations of PRISM that `auto` considers."""
CHECK_POINT_COUNT = 12
"""Probes on which an approximate method is compared with multislice before `auto` accepts it."""

_SMALLEST_WINDOW_PER_PROBE = 4.0
_MEMORY_SHARE = 0.3
_WORTH_APPROXIMATING = 0.6
_ELEMENTWISE_FLOPS = 30.0
_MATRIX_PRODUCT_GAIN = 3.0


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be imaged, as far as cost is concerned; `probe_count` counts every defocus of a focal spread."""

    grid: WaveGrid
    optics: Optics
    step_count: int
    probe_count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method and its predicted work in floating-point operations."""

    method: str
    interpolation: int
    work_flops: float

    @property
    def is_exact(self) -> bool:
        """Whether the result is that of multislice up to rounding."""
        return self.method == "multislice" or self.interpolation == 1


def check_method(method: str, interpolation: int, accuracy: float) -> None:
    """Refuse what this package does not know, or does not offer yet."""
    if method in LATER_METHODS:
        raise MethodUnavailable(f"method {method!r} is not available; choose one of {', '.join(METHODS)}")
    if method not in METHODS:
        raise MethodUnavailable(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if interpolation < 1 or interpolation != int(interpolation):
        raise InvalidParameter(f"interpolation = {interpolation} must be a whole number, at least 1")
    if not accuracy > 0:
        raise InvalidParameter(f"accuracy = {accuracy} must be positive (rms error over standard deviation)")


def candidates(workload: Workload, kept_interpolations: frozenset[int]) -> list[Candidate]:
    """Methods worth trying, cheapest first; `kept_interpolations` have their scattering matrix already.

    Approximate ones appear only where they would save a good part of the work, their check included.
    """
    exact = [Candidate("multislice", 1, workload.probe_count * _propagation_flops(workload))]
    approximate: list[Candidate] = []
    for interpolation in INTERPOLATIONS:
        if not _fits(workload, interpolation) and interpolation not in kept_interpolations:
            continue
        candidate = Candidate("prism", interpolation, _prism_flops(workload, interpolation, kept_interpolations))
        (exact if interpolation == 1 else approximate).append(candidate)
    exact.sort(key=lambda candidate: candidate.work_flops)
    limit = _WORTH_APPROXIMATING * exact[0].work_flops - CHECK_POINT_COUNT * _propagation_flops(workload)
    worth = [candidate for candidate in approximate if candidate.work_flops < limit]
    return [*sorted(worth, key=lambda candidate: candidate.work_flops), *exact]


def _fits(workload: Workload, interpolation: int) -> bool:
    """Enough memory, and windows of several beams across the aperture."""
    if interpolation > 1:
        radius_px = Layout.of(workload.grid, interpolation).beams(workload.optics).size ** 0.5 / 2
        if radius_px < _SMALLEST_WINDOW_PER_PROBE:
            return False
    needed = scattering_matrix_bytes(workload.grid, workload.optics, interpolation)
    return needed < _MEMORY_SHARE * workload.memory_bytes


def _propagation_flops(workload: Workload) -> float:
    """One wave through the specimen: two Fourier transforms a step, and the last."""
    pixels = workload.grid.shape_px[0] * workload.grid.shape_px[1]
    return workload.step_count * pixels * (2 * 5 * log2(pixels) + _ELEMENTWISE_FLOPS)


def _prism_flops(workload: Workload, interpolation: int, kept: frozenset[int]) -> float:
    layout = Layout.of(workload.grid, interpolation)
    beam_count = len(layout.beams(workload.optics))
    pixels = layout.window.shape_px[0] * layout.window.shape_px[1]
    build = 0.0 if interpolation in kept else beam_count * _propagation_flops(workload)
    summing = 8.0 * beam_count * pixels
    if interpolation == 1:
        summing /= _MATRIX_PRODUCT_GAIN
    return build + workload.probe_count * (summing + 5 * pixels * log2(pixels))
