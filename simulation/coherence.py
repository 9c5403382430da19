"""Partial coherence: focal spread as an average over defocus, source size as a blur over the scan."""

from __future__ import annotations

import warnings
from math import ceil, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from scipy.spatial import KDTree

from instruments.optics import Optics
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, SourceUnresolved
from simulation.scans import GridScan
from simulation.specimens import Specimen

_FEWEST_FOCAL_NODES, _MOST_FOCAL_NODES = 7, 151
_LEAST_WEIGHT = 2e-6
_TRUNCATE_SIGMAS = 4.0
SAMPLED_KERNEL_FROM_PX = 0.5
"""Standard deviation from which on a Gaussian is sampled at the pixels."""
_SAME_LENGTH_ANGSTROM = 1e-3
_STEPS_BORNE = 1.3
FWHM_PER_SIGMA = 2 * sqrt(2 * log(2))


def focal_quadrature(
    beam_energy_ev: float, semi_convergence_angle_mrad: float, focal_spread_nm: float
) -> list[tuple[float, float]]:
    """Nodes in units of sqrt(2) standard deviations, and weights, that average over a Gaussian (Gauss-Hermite).

    One standard deviation of defocus turns the phase at the edge of the aperture by pi alpha^2 / lambda times itself.
    There are as many nodes as it takes to average waves of that phase to 1e-4, an odd number: the middle one is 0.
    Far ones of no weight are left out, whose probes would be wide.
    """
    wavelength_nm = wavelength_angstrom(beam_energy_ev) / 10
    turn = pi * (semi_convergence_angle_mrad * 1e-3) ** 2 / wavelength_nm * focal_spread_nm
    count = max(_FEWEST_FOCAL_NODES, ceil(1 + 3.2 * turn + 0.2 * turn**2)) | 1
    if count > _MOST_FOCAL_NODES:
        raise InvalidParameter(
            f"a focal_spread_nm of {focal_spread_nm:g} turns the phase at the edge of an aperture of"
            f" {semi_convergence_angle_mrad:g} mrad by {turn:.0f} rad and would take {count} defoci, more than"
            f" {_MOST_FOCAL_NODES}; it is a standard deviation in nm: give a smaller one, or a smaller aperture"
        )
    nodes, weights = np.polynomial.hermite.hermgauss(count)
    kept = weights > _LEAST_WEIGHT * weights.sum()
    return list(zip(nodes[kept].tolist(), (weights[kept] / weights[kept].sum()).tolist(), strict=True))


def focal_nodes(optics: Optics, focal_spread_nm: float) -> list[tuple[Optics, float]]:
    """Optics and weights whose average is that over a Gaussian of defocus (Gauss-Hermite)."""
    if focal_spread_nm == 0:
        return [(optics, 1.0)]
    return [
        (optics.model_copy(update={"defocus_nm": optics.defocus_nm + sqrt(2) * focal_spread_nm * node}), weight)
        for node, weight in focal_quadrature(optics.beam_energy_ev, optics.semi_convergence_angle_mrad, focal_spread_nm)
    ]


def gaussian_kernel(sigma_px: float) -> NDArray[np.float64]:
    """A normalised kernel of odd length: the Gaussian sampled at the pixels and cut at 4 sigma.

    Below half a pixel, where sampling would lose most of its width, three weights of the same variance.
    """
    if sigma_px < SAMPLED_KERNEL_FROM_PX:
        variance = sigma_px**2
        return np.array([variance / 2, 1 - variance, variance / 2])
    reach = int(_TRUNCATE_SIGMAS * sigma_px + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    return kernel / kernel.sum()


class SourceBlur:
    """The blur of a scan by a Gaussian source: which pixels it needs beyond the scan, and its application.

    Along an axis where the scan spans a period of the specimen it wraps round; else the scan is widened and cropped.
    """

    def __init__(self, scan: GridScan, source_size_nm: float, specimen: Specimen) -> None:
        """`source_size_nm` is a full width at half maximum at the specimen."""
        sigma_nm = source_size_nm / FWHM_PER_SIGMA
        dy, dx = scan.pixel_nm
        self._kernels = gaussian_kernel(sigma_nm / dy), gaussian_kernel(sigma_nm / dx)
        periods = is_period(specimen, 1, scan.height_nm * 10), is_period(specimen, 0, scan.width_nm * 10)
        self.modes = ["wrap" if periodic else "nearest" for periodic in periods]
        rows, columns = (
            0 if periodic else len(kernel) // 2 for periodic, kernel in zip(periods, self._kernels, strict=True)
        )
        self.margin_px = rows, columns
        self.kernel_lengths = len(self._kernels[0]), len(self._kernels[1])
        self.scan = scan.widened(self.margin_px)

    def apply(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        """Blur (rows, columns, ...) of the widened scan and crop to the scan."""
        for axis, (kernel, mode) in enumerate(zip(self._kernels, self.modes, strict=True)):
            image = convolve1d(image, kernel, axis=axis, mode=mode)
        top, left = self.margin_px
        return image[top : image.shape[0] - top, left : image.shape[1] - left]


def warn_of_wide_steps(scan: GridScan, source_size_nm: float, optics: Optics) -> None:
    """Images hold nothing finer than lambda / (4 alpha); on wider steps their blur is not what the pixels' blur is."""
    finest_nm = wavelength_angstrom(optics.beam_energy_ev) / 10 / (4e-3 * optics.semi_convergence_angle_mrad)
    step_nm = max(scan.pixel_nm)
    if step_nm > _STEPS_BORNE * finest_nm:
        every = ceil(step_nm / finest_nm)
        warnings.warn(
            f"steps of {step_nm:.3g} nm are too wide to blur by a source of {source_size_nm:g} nm, which wants at most"
            f" {finest_nm:.2g} nm, lambda / (4 alpha): the contrast can be tens of percent wrong; scan {every} times as"
            f" finely and keep one pixel in {every} each way",
            SourceUnresolved,
            stacklevel=4,
        )


def is_period(specimen: Specimen, axis: int, length_angstrom: float) -> bool:
    """Whether the specimen looks the same when moved by a length along an axis (0: x, 1: y)."""
    period = specimen.cell_angstrom[axis]
    turns = length_angstrom / period
    if abs(turns - round(turns)) * period < _SAME_LENGTH_ANGSTROM and ceil(turns) >= 1:
        return True
    if length_angstrom > period or len(specimen.numbers) == 0:
        return len(specimen.numbers) == 0
    moved = specimen.positions_angstrom.copy()
    moved[:, axis] += length_angstrom
    box = np.asarray(specimen.cell_angstrom)
    for number in np.unique(specimen.numbers):
        own = specimen.numbers == number
        tree = KDTree(np.mod(specimen.positions_angstrom[own], box), boxsize=box)
        distances, _ = tree.query(np.mod(moved[own], box), distance_upper_bound=_SAME_LENGTH_ANGSTROM)
        if not np.isfinite(distances).all():
            return False
    return True
