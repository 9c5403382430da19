"""Dark-field images without waves: every atom scatters on its own, in proportion to the intensity that meets it.

I(r) = sum over atoms of sigma_Z,D P(r_atom - r; z_atom), with P the probe's intensity at the atom's depth in vacuum and
sigma the cross-section of one atom for scattering from anywhere in the aperture onto the detector D. The cross-section
is exact in the phase-object approximation: the sum of a one-atom multislice image over the plane. The sums are made in
tiles or atom by atom (`probe_sums`), and no grid spans the field: for surveys of micrometres.

Right for thin specimens and detectors outside the aperture, the better the further out; wrong by channelling in thick
crystals. It knows of no error of its own. Detectors inside the aperture see interference and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0

from instruments.optics import Optics
from simulation.detectors import Detector, PixelatedDetector, detector_shape
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.probe import probe_spectrum
from simulation.probe_sums import Layer, ProbeIntensity, probe_sums
from simulation.scattering_factors import projected_potential_v_angstrom
from simulation.specimens import Specimen
from simulation.wave_grid import WaveGrid, fft_friendly

_DEPTH_STEP_ANGSTROM = 15.0
_SMALLEST_BOX_ANGSTROM = 40.0
_BOX_PER_SPREAD = 3.0
_SOURCE_PER_SIGMA = 4.0
_LARGEST_BOX_PX = 2048
_PROBES_BYTES = 64 * 2**20
_RADII = np.exp(np.linspace(np.log(1e-5), np.log(12.0), 5000))
_ANGLE_COUNT, _RING_COUNT, _FREQUENCY_COUNT = 48, 24, 600


class IncoherentSource:
    """Signals of a specimen whose atoms scatter independently."""

    def __init__(
        self, specimen: Specimen, parametrization: str, sampling_nm: float, aperture_edge: str = "soft"
    ) -> None:
        """`sampling_nm`: pixels of the probe's wave; its intensity is a Fourier series, and known between them."""
        self._specimen = specimen
        self._parametrization = parametrization
        self._sampling_nm = sampling_nm
        self._edge = aperture_edge

    def signals(
        self,
        optics: Optics,
        points_angstrom: NDArray[np.float64],
        detectors: Mapping[str, Detector],
        source_sigma_angstrom: float = 0.0,
    ) -> dict[str, NDArray[np.float64]]:
        """Signals (points, *detector shape), fractions of the incident beam; segments share their ring equally."""
        for name, detector in detectors.items():
            _check(name, detector, optics)
        rings = {
            name: (each.inner_mrad, each.outer_mrad)
            for name, each in detectors.items()
            if not isinstance(each, PixelatedDetector)
        }
        cell = np.asarray(self._specimen.cell_angstrom[:2])
        totals = np.zeros((len(points_angstrom), len(rings)))
        for layers in _together(self._layers(optics, list(rings.values()), source_sigma_angstrom)):
            totals += probe_sums(layers, cell, points_angstrom)
        found: dict[str, NDArray[np.float64]] = {}
        for name, total in zip(rings, totals.T, strict=True):
            shape = detector_shape(detectors[name])
            share = total / np.prod(shape) if shape else total
            found[name] = np.broadcast_to(share.reshape(-1, *(1 for _ in shape)), (len(total), *shape)).copy()
        return found

    def _layers(self, optics: Optics, rings_mrad: list[tuple[float, float]], sigma_angstrom: float) -> Iterator[Layer]:
        """Atoms of each element and range of depths, where the beam meets them."""
        beam = np.tan(np.array([optics.tilt_x_mrad, optics.tilt_y_mrad]) * 1e-3)
        positions = self._specimen.positions_angstrom
        depths = np.floor(positions[:, 2] / _DEPTH_STEP_ANGSTROM).astype(int)
        kinds = [(number, self._specimen.numbers == number) for number in np.unique(self._specimen.numbers).tolist()]
        groups = [(number, own & (depths == depth)) for number, own in kinds for depth in np.unique(depths[own])]
        means = [float(positions[own, 2].mean()) for _, own in groups]
        box = _box_angstrom(optics, means, sigma_angstrom) if means else 0.0
        sections = {
            number: np.array(
                [cross_section_angstrom2(number, optics, ring, self._parametrization) for ring in rings_mrad]
            )
            for number, _ in kinds
        }
        for (number, own), depth in zip(groups, means, strict=True):
            atoms = positions[own]
            intensity = probe_intensity(optics, depth, box, self._sampling_nm, self._edge).blurred(sigma_angstrom)
            yield Layer(atoms[:, :2] - atoms[:, 2, None] * beam, sections[number], intensity)


def _together(layers: Iterator[Layer]) -> Iterator[list[Layer]]:
    """As many at once as their probes leave memory for."""
    held: list[Layer] = []
    for layer in layers:
        held.append(layer)
        if len(held) * layer.probe.harmonics.nbytes > _PROBES_BYTES:
            yield held
            held = []
    if held:
        yield held


def _box_angstrom(optics: Optics, depths_angstrom: list[float], sigma_angstrom: float) -> float:
    """Side of a box that holds the geometrical shadow of the aperture several times over, at every depth."""
    angle, astigmatism = optics.semi_convergence_angle_mrad * 1e-3, abs(optics.aberrations.c12_nm) * 10
    focus = max(abs(optics.defocus_nm * 10 - depth) for depth in depths_angstrom)
    spread = 2 * (focus + astigmatism) * angle + _SOURCE_PER_SIGMA * sigma_angstrom
    return max(_SMALLEST_BOX_ANGSTROM, _BOX_PER_SPREAD * spread)


def probe_intensity(
    optics: Optics, depth_angstrom: float, box_angstrom: float, sampling_nm: float, aperture_edge: str = "soft"
) -> ProbeIntensity:
    """The probe's intensity after some depth of vacuum, in a box of at least this side."""
    wavelength, pixel = wavelength_angstrom(optics.beam_energy_ev), sampling_nm * 10
    count = fft_friendly(int(np.ceil(box_angstrom / pixel)))
    if count > _LARGEST_BOX_PX:
        raise InvalidParameter(
            f"the probe is {box_angstrom / _BOX_PER_SPREAD / 10:.1f} nm wide: a box of {count} pixels of"
            f" {sampling_nm:g} nm is above {_LARGEST_BOX_PX}; use a coarser sampling_nm or less defocus"
        )
    side = count * pixel
    grid = WaveGrid((count, count), (side, side), None, aperture_edge)
    phase = -np.pi * wavelength * depth_angstrom * grid.squared_frequencies()
    wave = np.fft.ifft2(probe_spectrum(optics, grid) * np.exp(1j * phase))
    power = np.abs(wave) ** 2
    highest = 2e-3 * optics.semi_convergence_angle_mrad / wavelength
    orders = int(np.ceil(highest * side)) + 1
    return ProbeIntensity.of(power / (power.sum() * pixel**2), side, (count // 2 - 1) * pixel, orders)


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
