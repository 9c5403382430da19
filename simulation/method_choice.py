"""Which method images a specimen most cheaply: the predicted work of each method that could.

Work counts as operations of Fourier transforms of waves, of which a processor's thread does about 15e9 a second. It
holds all that a method does for an image: potentials, what it makes once, its probes, its check against multislice.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt

from instruments.optics import Optics
from simulation.arguments import positive, whole
from simulation.bloch_matrix import bloch_matrix_bytes, matrix_counts
from simulation.check_probes import CHECK_POINT_COUNT
from simulation.crystal_symmetry import Crystal
from simulation.defective_crystal import DefectiveCrystal
from simulation.difference_check import COMPARED_POINT_COUNT
from simulation.difference_cost import difference_bytes, difference_flops
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.partitioned_prism import partitioned_counts, points_at_once
from simulation.prism import Layout, scattering_matrix_bytes
from simulation.wave_grid import WaveGrid

METHODS = ("auto", "multislice", "prism", "partitioned_prism", "periodic", "local_difference", "windowed", "incoherent")
INTERPOLATING = ("prism", "partitioned_prism")
"""Methods that take an interpolation."""
INTERPOLATIONS = (1, 2, 4)
"""Interpolations of PRISM that `auto` considers."""
PARENT_DISTANCES = (2, 4)
"""Interpolations of partitioned PRISM that `auto` considers."""

_SMALLEST_WINDOW_PER_PROBE = 4.0
_MEMORY_SHARE = 0.75
"""Of the working memory, for a matrix: transmission functions are kept beside it."""
_WORTH_APPROXIMATING = 0.5
_ELEMENTWISE_FLOPS = 30.0
_MATRIX_PRODUCT_GAIN = 3.0
_WINDOW_SIDE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_WINDOW_SIDES_PX = tuple(quarters * 2**power for power in range(2, 9) for quarters in (4, 5, 6))
"""The sides that Fourier transforms of small arrays take least time a pixel for: 16, 20, 24, 32, 40, 48 and so on."""
_TAIL_TRANSFORMS = 20
_CROSSING_IN_WINDOWS, _DETECTING_IN_WINDOWS = 0.6, 2.0
"""Times as long as these operations take on whole grids: windows fit into caches, but are padded, cut and summed."""
MANY_PROBES = 256
"""Probes on which a window is compared with one twice as wide."""
_POTENTIAL_FLOPS_PER_PIXEL = 5500.0
"""Of the wave's grid, for a slice unlike others; and for each atom in it."""
_POTENTIAL_FLOPS_PER_ATOM = 3e6
_PARENT_PRODUCT_GAIN = 5.0
_FEWEST_PARENTS = 12
_TOLERANCE_PER_ACCURACY = 2.0
_TOLERANCE_PER_ROOT = 0.2
_FINER_STEP = 4.0
_CHANNELS_COUNT = 2
"""Detector channels that `auto` reckons with."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be imaged, as far as cost is concerned; `probe_count` counts every defocus of a focal spread."""

    grid: WaveGrid
    optics: Optics
    step_count: int
    probe_count: int
    memory_bytes: int
    crystal: Crystal | None = None
    smallest_window_nm: float | None = None
    """None where windows will not do, because a detector has pixels."""
    defective: DefectiveCrystal | None = None
    accuracy: float = 0.01
    has_bloch_matrix: bool = False
    """Made for an earlier image: method `periodic` propagates nothing."""
    unlike_slices: tuple[int, int] = (0, 0)
    """Slices whose potential is to be made, and the atoms in them; none where that is known from an earlier image."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method and its predicted work in floating-point operations."""

    method: str
    interpolation: int
    work_flops: float
    window_px: tuple[int, int] | None = None
    tolerance: float | None = None
    """Of local differences: the amplitude left out of what changed sites scatter."""

    @property
    def is_exact(self) -> bool:
        """Whether the result is that of multislice up to rounding."""
        is_prism = self.method in ("prism", "partitioned_prism")
        return self.method in ("multislice", "periodic") or (is_prism and self.interpolation == 1)

    @property
    def fineness(self) -> float:
        """What errors fall with, in steps of the method's own; 0 where a few probes do not cost much less than all."""
        if self.window_px is not None:
            return float(self.window_px[0])
        return 0.0 if self.is_exact or self.tolerance is not None else 1.0 / self.interpolation


def check_method(method: str, interpolation: int, accuracy: float) -> None:
    """Refuse what this package does not know."""
    if not isinstance(method, str) or method not in METHODS:
        raise MethodUnavailable(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if whole("interpolation", interpolation, 1) > 1 and method not in INTERPOLATING:
        raise InvalidParameter(
            f"interpolation = {interpolation} means nothing to method {method!r}; leave it at 1, or take one of"
            f" {', '.join(INTERPOLATING)}"
        )
    positive("accuracy", accuracy)  # rms error over the standard deviation


def candidates(workload: Workload, kept_interpolations: frozenset[int]) -> list[Candidate]:
    """Methods worth trying, cheapest first; `kept_interpolations` have their scattering matrix already.

    Approximate ones appear only where they would save a good part of the work, their check included.
    """
    work = _potential_flops(workload) + workload.probe_count * _propagation_flops(workload)
    exact = [Candidate("multislice", 1, work)]
    approximate: list[Candidate] = []
    for interpolation in INTERPOLATIONS:
        if not _fits(workload, interpolation) and interpolation not in kept_interpolations:
            continue
        candidate = Candidate("prism", interpolation, _prism_flops(workload, interpolation, kept_interpolations))
        (exact if interpolation == 1 else approximate).append(candidate)
    if workload.crystal is not None and (workload.has_bloch_matrix or _bloch_fits(workload, workload.crystal)):
        exact.append(Candidate("periodic", 1, _periodic_flops(workload, workload.crystal)))
    approximate += windows(workload) + local_differences(workload) + partitions(workload)
    exact.sort(key=lambda candidate: candidate.work_flops)
    limit = _WORTH_APPROXIMATING * exact[0].work_flops
    worth = [candidate for candidate in approximate if candidate.work_flops < limit]
    return [*sorted(worth, key=lambda candidate: candidate.work_flops), *exact]


def windows(workload: Workload) -> list[Candidate]:
    """Windows that go into the grid, smallest first."""
    if workload.smallest_window_nm is None:
        return []
    shapes = [window_shape(workload.grid, step * workload.smallest_window_nm) for step in _WINDOW_SIDE_STEPS]
    return [
        Candidate("windowed", 1, _windowed_flops(workload, shape), shape)
        for shape in dict.fromkeys(shapes)
        if fits(workload.grid, shape)
    ]


def partitions(workload: Workload) -> list[Candidate]:
    """Partitioned PRISM with parents near to far that fit into memory."""
    found: list[Candidate] = []
    for distance in PARENT_DISTANCES:
        beams, parents, pixels = partitioned_counts(workload.grid, workload.optics, distance)
        if parents < _FEWEST_PARENTS or 8 * parents * pixels > _MEMORY_SHARE * workload.memory_bytes:
            continue
        each = pixels * (8.0 * beams / _MATRIX_PRODUCT_GAIN + 5 * log2(pixels) + _ELEMENTWISE_FLOPS)
        together = ceil(workload.probe_count / points_at_once(pixels, 8))
        joined = pixels * beams * (8.0 * parents / _PARENT_PRODUCT_GAIN + _ELEMENTWISE_FLOPS)
        checks = CHECK_POINT_COUNT * (each + _propagation_flops(workload)) + joined
        build = _potential_flops(workload) + parents * _propagation_flops(workload)
        work = build + workload.probe_count * each + together * joined + checks
        found.append(Candidate("partitioned_prism", distance, work))
    return found


def local_differences(workload: Workload) -> list[Candidate]:
    """Coarse to fine; none where the specimen is no crystal with changed sites or its matrix would not fit."""
    defective = workload.defective
    if defective is None or not _bloch_fits(workload, defective.crystal):
        return []
    changed = 2 * len(defective.slices) / max(1, workload.unlike_slices[0])
    perfect = _periodic_flops(workload, defective.crystal) + (1 + changed) * _potential_flops(workload)
    perfect += COMPARED_POINT_COUNT * _propagation_flops(workload)
    return [
        Candidate(
            "local_difference",
            1,
            perfect + difference_flops(defective, workload.grid, workload.optics, workload.step_count, tolerance),
            tolerance=tolerance,
        )
        for tolerance in tolerances(workload.accuracy)
        if difference_bytes(defective, workload.grid, workload.optics, tolerance)
        < _MEMORY_SHARE * workload.memory_bytes
    ]


def tolerances(accuracy: float, count: int = 2) -> list[float]:
    """Amplitudes left out of local differences that are tried, coarse to fine; errors fall faster than these."""
    first = max(_TOLERANCE_PER_ACCURACY * accuracy, _TOLERANCE_PER_ROOT * sqrt(accuracy))
    return [first / _FINER_STEP**index for index in range(count)]


def window_shape(grid: WaveGrid, side_nm: float) -> tuple[int, int]:
    """Pixel counts of a window of about this side, by a quarter more or less at most, from a few sides.

    A cell that differs a little then has the same windows.
    """
    rows, columns = (_nearest_side_px(side_nm * 10 / sampling) for sampling in grid.sampling_angstrom)
    return rows, columns


def _nearest_side_px(length_px: float) -> int:
    return min(_WINDOW_SIDES_PX, key=lambda side_px: max(side_px / length_px, length_px / side_px))


def fits(grid: WaveGrid, shape_px: tuple[int, int]) -> bool:
    """Whether two windows side by side go into the grid, so that distances in one are not ambiguous."""
    return all(2 * own <= whole for own, whole in zip(shape_px, grid.shape_px, strict=True))


def _fits(workload: Workload, interpolation: int) -> bool:
    """Enough memory, and windows of several beams across the aperture."""
    if interpolation > 1:
        radius_px = Layout.of(workload.grid, interpolation).beams(workload.optics).size ** 0.5 / 2
        if radius_px < _SMALLEST_WINDOW_PER_PROBE:
            return False
    needed = scattering_matrix_bytes(workload.grid, workload.optics, interpolation)
    return needed < _MEMORY_SHARE * workload.memory_bytes


def _potential_flops(workload: Workload) -> float:
    """Transmission functions on the whole grid."""
    slice_count, atom_count = workload.unlike_slices
    pixels = workload.grid.shape_px[0] * workload.grid.shape_px[1]
    return slice_count * pixels * _POTENTIAL_FLOPS_PER_PIXEL + atom_count * _POTENTIAL_FLOPS_PER_ATOM


def _propagation_flops(workload: Workload) -> float:
    """One wave through the specimen: two Fourier transforms a step, and the last."""
    pixels = workload.grid.shape_px[0] * workload.grid.shape_px[1]
    return workload.step_count * pixels * (2 * 5 * log2(pixels) + _ELEMENTWISE_FLOPS)


def _bloch_fits(workload: Workload, crystal: Crystal) -> bool:
    return bloch_matrix_bytes(workload.grid, workload.optics, crystal) < _MEMORY_SHARE * workload.memory_bytes


def _periodic_flops(workload: Workload, crystal: Crystal) -> float:
    """The plane waves of the aperture on one unit cell, then products of their rows, or patterns of every probe.

    Symmetry saves about as much of the propagation as it has operations.
    """
    beams, waves_each, beams_each = matrix_counts(workload.grid, workload.optics, crystal)
    rows, columns = crystal.unit_grid.shape_px
    each = workload.step_count * rows * columns * (10 * log2(rows * columns) + _ELEMENTWISE_FLOPS)
    needs_patterns = workload.smallest_window_nm is None
    products = 8.0 * beams * waves_each / _MATRIX_PRODUCT_GAIN
    products *= workload.probe_count if needs_patterns else _CHANNELS_COUNT * beams_each
    if workload.has_bloch_matrix:
        return products + workload.probe_count * 8e3
    once = _potential_flops(workload) / (crystal.repeats[0] * crystal.repeats[1])
    return once + beams / len(crystal.operations) * each + products + workload.probe_count * 8e3


def _windowed_flops(workload: Workload, shape_px: tuple[int, int]) -> float:
    """Windows of every probe, and the maps of what they leave out; the same of wider ones on some, and multislice."""
    own, whole = shape_px[0] * shape_px[1], workload.grid.shape_px[0] * workload.grid.shape_px[1]
    maps = 2 * _TAIL_TRANSFORMS * workload.step_count * whole * 5 * log2(whole)
    compared = CHECK_POINT_COUNT + min(MANY_PROBES, workload.probe_count)
    checks = compared * (_window_flops(workload, own) + _window_flops(workload, 4 * own))
    checks += min(CHECK_POINT_COUNT, workload.probe_count) * _propagation_flops(workload)
    return _potential_flops(workload) + maps + checks + workload.probe_count * _window_flops(workload, own)


def _window_flops(workload: Workload, own: int) -> float:
    """One probe in a window of so many pixels."""
    steps = max(1, workload.step_count - 1) * own * (2 * 5 * log2(own) + _ELEMENTWISE_FLOPS)
    return _CROSSING_IN_WINDOWS * steps + _DETECTING_IN_WINDOWS * 4 * own * (5 * log2(4 * own) + _ELEMENTWISE_FLOPS)


def _prism_flops(workload: Workload, interpolation: int, kept: frozenset[int]) -> float:
    layout = Layout.of(workload.grid, interpolation)
    beam_count = len(layout.beams(workload.optics))
    pixels = layout.window.shape_px[0] * layout.window.shape_px[1]
    build = 0.0 if interpolation in kept else _potential_flops(workload) + beam_count * _propagation_flops(workload)
    summing = 8.0 * beam_count * pixels
    if interpolation == 1:
        return build + workload.probe_count * (summing / _MATRIX_PRODUCT_GAIN + 5 * pixels * log2(pixels))
    each = summing + 5 * pixels * log2(pixels)
    checks = 0.0 if interpolation in kept else CHECK_POINT_COUNT * (each + _propagation_flops(workload))
    return build + workload.probe_count * each + checks
