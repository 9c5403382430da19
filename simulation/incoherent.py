"""Dark-field images without waves: every atom scatters on its own, in proportion to the intensity that meets it.

I(r) = sum over atoms of sigma_Z,D P(r_atom - r; z_atom), with P the probe's intensity at the atom's depth in vacuum and
sigma the cross-section of one atom for scattering from anywhere in the aperture onto the detector D. The cross-section
is exact in the phase-object approximation: the sum of a one-atom multislice image over the plane. Atoms are met one by
one, so the cost grows with the atoms seen and no grid spans the field: for surveys of micrometres.

Right for thin specimens and detectors outside the aperture, the better the further out; wrong by channelling in thick
crystals. It knows of no error of its own. Detectors inside the aperture see interference and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import KDTree
from scipy.special import j0

from instruments.optics import Optics
from simulation.detectors import Detector, PixelatedDetector, detector_shape
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.probe import probe_spectrum
from simulation.progress import batches
from simulation.scattering_factors import projected_potential_v_angstrom
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid, fft_friendly

_DEPTH_STEP_ANGSTROM = 15.0
_POINTS_PER_BLOCK = 2048
_SMALLEST_BOX_ANGSTROM = 40.0
_BOX_PER_SPREAD = 3.0
_LARGEST_BOX_PX = 2048
_RADII = np.exp(np.linspace(np.log(1e-5), np.log(12.0), 5000))
_ANGLE_COUNT, _RING_COUNT, _FREQUENCY_COUNT = 48, 24, 600


class IncoherentSource:
    """Signals of a specimen whose atoms scatter independently."""

    def __init__(
        self, specimen: Specimen, parametrization: str, sampling_nm: float, aperture_edge: str = "soft"
    ) -> None:
        """`sampling_nm`: pixels of the probe's intensity, interpolated between."""
        self._specimen = specimen
        self._parametrization = parametrization
        self._sampling_nm = sampling_nm
        self._edge = aperture_edge

    def signals(
        self, optics: Optics, points_angstrom: NDArray[np.float64], detectors: Mapping[str, Detector]
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape), fractions of the incident beam; segments share their ring equally."""
        for name, detector in detectors.items():
            _check(name, detector, optics)
        numbers = np.unique(self._specimen.numbers).tolist()
        exposures = {number: self._exposures(number, optics, points_angstrom) for number in numbers}
        found: dict[str, NDArray[np.float64]] = {}
        for name, detector in detectors.items():
            assert not isinstance(detector, PixelatedDetector)
            ring = (detector.inner_mrad, detector.outer_mrad)
            total = np.zeros(len(points_angstrom))
            for number, exposure in exposures.items():
                total += exposure * cross_section_angstrom2(number, optics, ring, self._parametrization)
            shape = detector_shape(detector)
            share = total / np.prod(shape) if shape else total
            found[name] = np.broadcast_to(share.reshape(-1, *(1 for _ in shape)), (len(total), *shape)).copy()
        return found

    def _exposures(self, number: int, optics: Optics, points_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each point the probe's intensity at the atoms of an element, summed, per square angstrom."""
        own = self._specimen.positions_angstrom[self._specimen.numbers == number]
        beam = np.tan(np.array([optics.tilt_x_mrad, optics.tilt_y_mrad]) * 1e-3)
        layers = np.floor(own[:, 2] / _DEPTH_STEP_ANGSTROM).astype(int)
        total = np.zeros(len(points_angstrom))
        for layer in np.unique(layers).tolist():
            atoms = own[layers == layer]
            intensity, pixel = probe_intensity(optics, float(atoms[:, 2].mean()), self._sampling_nm, self._edge)
            met = atoms[:, :2] - atoms[:, 2, None] * beam
            total += self._seen(met, intensity, pixel, points_angstrom)
        return total

    def _seen(
        self,
        atoms: NDArray[np.float64],
        intensity: NDArray[np.float32],
        pixel_angstrom: float,
        points_angstrom: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        cell = np.asarray(self._specimen.cell_angstrom[:2])
        reach = (len(intensity) // 2 - 1) * pixel_angstrom
        atoms = _repeated(np.mod(atoms, cell), cell, reach)
        tree, middle = KDTree(atoms), len(intensity) // 2
        found = np.empty(len(points_angstrom))
        for start in batches(len(points_angstrom), _POINTS_PER_BLOCK, "probes"):
            points = np.mod(points_angstrom[start : start + _POINTS_PER_BLOCK], cell)
            near = tree.query_ball_point(points, reach)
            counts = np.array([len(each) for each in near])
            owner = np.repeat(np.arange(len(points)), counts)
            steps = (atoms[np.concatenate(near).astype(int)] - points[owner]) / pixel_angstrom + middle
            values = map_coordinates(intensity, steps[:, ::-1].T, order=1)
            found[start : start + len(points)] = np.bincount(owner, values, len(points))
        return found


def probe_intensity(
    optics: Optics, depth_angstrom: float, sampling_nm: float, aperture_edge: str = "soft"
) -> tuple[NDArray[np.float32], float]:
    """The probe's intensity per square angstrom after some depth of vacuum, (n, n) centred on n // 2; and its pixel.

    The box holds the geometrical shadow of the aperture several times over.
    """
    wavelength, pixel = wavelength_angstrom(optics.beam_energy_ev), sampling_nm * 10
    focus = abs(optics.defocus_nm * 10 - depth_angstrom) + abs(optics.aberrations.c12_nm) * 10
    spread = 2 * focus * optics.semi_convergence_angle_mrad * 1e-3
    side = max(_SMALLEST_BOX_ANGSTROM, _BOX_PER_SPREAD * spread)
    count = fft_friendly(int(np.ceil(side / pixel)))
    if count > _LARGEST_BOX_PX:
        raise InvalidParameter(
            f"the probe is {spread / 10:.1f} nm wide: a box of {count} pixels of {sampling_nm} nm is above"
            f" {_LARGEST_BOX_PX}; use a coarser sampling_nm or less defocus"
        )
    grid = WaveGrid((count, count), (count * pixel, count * pixel), None, aperture_edge)
    phase = -np.pi * wavelength * depth_angstrom * grid.squared_frequencies()
    wave = np.fft.ifft2(probe_spectrum(optics, grid) * np.exp(1j * phase))
    power = np.abs(np.fft.fftshift(wave)) ** 2
    return (power / (power.sum() * pixel**2)).astype(np.float32), pixel


def cross_section_angstrom2(
    number: int, optics: Optics, ring_mrad: tuple[float, float], parametrization: str = "lobato"
) -> float:
    """Cross-section of an atom for scattering electrons of the aperture onto a ring, square angstrom.

    |F(q)|^2 d^2q over scattering vectors q, F the Fourier transform of exp(i sigma V) - 1, times the share of the
    aperture that q brings onto the ring.
    """
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    aperture, inner, outer = (value * 1e-3 / wavelength for value in (optics.semi_convergence_angle_mrad, *ring_mrad))
    q = np.linspace(max(inner - aperture, 0.0), outer + aperture, _FREQUENCY_COUNT)
    strength = _scattered_strength(number, parametrization, interaction_parameter(optics.beam_energy_ev), q.tobytes())
    nodes, weights = np.polynomial.legendre.leggauss(_RING_COUNT)
    k = aperture * np.sqrt((nodes + 1) / 2)  # equal areas of the disc
    angles = (np.arange(_ANGLE_COUNT) + 0.5) * np.pi / _ANGLE_COUNT
    reached = np.sqrt(q[:, None, None] ** 2 + k[:, None] ** 2 + 2 * q[:, None, None] * k[:, None] * np.cos(angles))
    share = ((reached >= inner) & (reached < outer)).mean(axis=2) @ (weights / 2)
    return float(np.trapezoid(strength * share * 2 * np.pi * q, q))


@lru_cache(maxsize=256)
def _scattered_strength(number: int, parametrization: str, interaction: float, q: bytes) -> NDArray[np.float64]:
    """|F(q)|^2 at frequencies per angstrom, angstrom^4."""
    frequencies = np.frombuffer(q)
    phase = interaction * projected_potential_v_angstrom(number, _RADII, parametrization)
    step = np.log(_RADII[1] / _RADII[0])
    kernel = 2 * np.pi * j0(2 * np.pi * frequencies[:, None] * _RADII) * _RADII**2 * step
    return np.abs(kernel @ np.expm1(1j * phase)) ** 2


def _check(name: str, detector: Detector, optics: Optics) -> None:
    if isinstance(detector, PixelatedDetector):
        raise MethodUnavailable(f"detector {name!r} has pixels, and method 'incoherent' knows no patterns")
    if detector.inner_mrad < optics.semi_convergence_angle_mrad:
        raise MethodUnavailable(
            f"detector {name!r} starts at {detector.inner_mrad:g} mrad, within the aperture of"
            f" {optics.semi_convergence_angle_mrad:g} mrad, where waves interfere; method 'incoherent' needs dark"
            " field: use a larger inner_mrad or another method"
        )


def _repeated(places: NDArray[np.float64], cell: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Places in the cell, and their periodic images within `reach` of it."""
    for axis in (0, 1):
        turns = np.arange(-int(np.ceil(reach / cell[axis])), int(np.ceil(reach / cell[axis])) + 1)
        shift = np.zeros((len(turns), 2))
        shift[:, axis] = turns * cell[axis]
        places = (places[None, :, :] + shift[:, None, :]).reshape(-1, 2)
        places = places[(places[:, axis] >= -reach) & (places[:, axis] < cell[axis] + reach)]
    return places
