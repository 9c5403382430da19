"""Ronchigrams: the shadow image of a thin amorphous film in the diffraction plane of a resting probe."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from instruments.optics import Optics
from simulation.aberrations import chi
from simulation.argument_kinds import kinds_checked
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.probe import check_aperture, probe_spectrum
from simulation.scattering_factors import projected_scattering_factor
from simulation.wave_grid import WaveGrid

if TYPE_CHECKING:
    from simulation.images import Image

_MOST_ATOMS = 1e12
_CARBON_PER_NM3 = 90.0  # amorphous carbon, 1.8 g/cm3
_STEP_MRAD = 1e-3


@kinds_checked
def amorphous_phase(
    shape_px: tuple[int, int],
    pixel_nm: float,
    *,
    beam_energy_ev: float,
    thickness_nm: float,
    rng: np.random.Generator,
    element: str = "C",
    atoms_per_nm3: float = _CARBON_PER_NM3,
) -> NDArray[np.float64]:
    """Phase shift in rad, mean 0, of atoms strewn independently over a periodic square of film, (rows, columns).

    sigma times the sum of the atoms' projected potentials (Lobato), each atom at the nearest pixel; a Poisson number
    of them. Real films have atoms that keep apart, so slow variations are somewhat weaker than here; propagation
    inside the film is left out, good below about 10 nm.
    """
    if not (pixel_nm > 0 and thickness_nm > 0 and atoms_per_nm3 > 0):
        raise InvalidParameter(
            f"pixel_nm = {pixel_nm}, thickness_nm = {thickness_nm}, atoms_per_nm3 = {atoms_per_nm3} must be positive"
        )
    grid = _grid(shape_px, pixel_nm)
    if atoms_per_nm3 * thickness_nm * pixel_nm**2 > _MOST_ATOMS:
        raise InvalidParameter(
            f"{atoms_per_nm3 * thickness_nm * pixel_nm**2:.3g} atoms stand on a pixel of {pixel_nm:g} nm, more than"
            f" {_MOST_ATOMS:g}; give lengths in nm"
        )
    counts = rng.poisson(atoms_per_nm3 * thickness_nm * pixel_nm**2, shape_px)
    k = np.sqrt(grid.squared_frequencies())
    factor = projected_scattering_factor(element, k) / (pixel_nm * 10) ** 2
    phase = interaction_parameter(beam_energy_ev) * np.fft.ifft2(np.fft.fft2(counts) * factor).real
    return np.asarray(phase - phase.mean(), dtype=np.float64)


@kinds_checked
def ronchigram(optics: Optics, phase_rad: NDArray[np.float64], pixel_nm: float) -> Image:
    """Intensity (detector_y, detector_x) in fractions of the beam per pixel, axes in mrad, the disc in the middle.

    |FT(psi exp(i phase))|^2 with the probe psi on the middle of the object. The object has to be wider than the
    illuminated patch, else the beam wraps round: an error says how wide (`shadow_nm` at the edge of the aperture).
    """
    from simulation.images import Image

    if phase_rad.ndim != 2 or not np.isfinite(phase_rad).all():
        raise InvalidParameter(f"phase_rad of shape {phase_rad.shape} must be (rows, columns) of finite phases")
    grid = _grid((phase_rad.shape[0], phase_rad.shape[1]), pixel_nm)
    check_aperture(optics, 0.5 / max(grid.sampling_angstrom))
    _check_width(optics, grid)
    spectrum = probe_spectrum(optics, grid)
    wave = np.fft.fftshift(np.fft.ifft2(spectrum))
    exit_wave = np.fft.fft2(wave * np.exp(1j * phase_rad))
    scale = 1e3 * wavelength_angstrom(optics.beam_energy_ev)
    ky, kx = grid.frequencies_per_angstrom()
    reach = 1.05 * optics.semi_convergence_angle_mrad
    y, x = np.fft.fftshift(ky.ravel()) * scale, np.fft.fftshift(kx.ravel()) * scale
    keep_y, keep_x = np.abs(y) <= reach, np.abs(x) <= reach
    intensity = np.fft.fftshift(np.abs(exit_wave) ** 2)[np.ix_(keep_y, keep_x)]
    return Image(
        intensity.astype(np.float32),
        dims=("detector_y", "detector_x"),
        coords={
            "detector_y": ("detector_y", y[keep_y], {"units": "mrad"}),
            "detector_x": ("detector_x", x[keep_x], {"units": "mrad"}),
        },
        name="ronchigram",
        attrs={"units": "fraction of the incident beam", "optics": optics.model_dump_json(), "pixel_nm": pixel_nm},
    )


@kinds_checked
def shadow_nm(optics: Optics, y_mrad: ArrayLike, x_mrad: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where (y, x) on the specimen the ray seen at these angles passed, relative to the probe; geometrical optics.

    r = grad_k chi / (2 pi) = grad_theta (lambda chi / 2 pi): the path that stays stationary in the probe's integral.
    With defocus alone r = -defocus * theta, so that the shadow is magnified by 1 / defocus and upside down for
    underfocus.
    """
    y, x = np.broadcast_arrays(np.asarray(y_mrad, np.float64), np.asarray(x_mrad, np.float64))
    per_mrad = 1e-3 / wavelength_angstrom(optics.beam_energy_ev)

    def phase(at_y: NDArray[np.float64], at_x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(chi(optics, at_x * per_mrad, at_y * per_mrad), dtype=np.float64)

    step = _STEP_MRAD
    to_nm = 0.1 / (2 * np.pi) / (2 * step * per_mrad)  # of a central difference
    along_y = (phase(y + step, x) - phase(y - step, x)) * to_nm
    along_x = (phase(y, x + step) - phase(y, x - step)) * to_nm
    return along_y, along_x


def _grid(shape_px: tuple[int, int], pixel_nm: float) -> WaveGrid:
    if not 0 < pixel_nm < inf:
        raise InvalidParameter(f"pixel_nm = {pixel_nm} must be positive and finite")
    return WaveGrid(shape_px, (shape_px[0] * pixel_nm * 10, shape_px[1] * pixel_nm * 10))


def _check_width(optics: Optics, grid: WaveGrid) -> None:
    azimuth = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    polar = np.linspace(0, optics.semi_convergence_angle_mrad, 20)[:, None]
    y, x = shadow_nm(optics, polar * np.sin(azimuth), polar * np.cos(azimuth))
    needed = 2 * float(np.max(np.abs(y))), 2 * float(np.max(np.abs(x)))
    given = grid.extent_angstrom[0] / 10, grid.extent_angstrom[1] / 10
    if needed[0] > given[0] or needed[1] > given[1]:
        raise InvalidParameter(
            f"the beam illuminates {needed[0]:.1f} by {needed[1]:.1f} nm (y, x), more than the {given[0]:.1f} by"
            f" {given[1]:.1f} nm of the object; give a wider one or less defocus and aberration"
        )
