"""The incident wave: an aperture filled with an aberrated phase."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.aberrations import chi
from simulation.argument_kinds import kinds_checked
from simulation.arguments import checked_optics, finite, positive, whole_pair
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.wave_grid import WaveGrid

APERTURES = ("soft", "hard")


@kinds_checked
def probe(
    optics: Optics,
    *,
    shape_px: tuple[int, int],
    sampling_nm: float | tuple[float, float],
    x_nm: float = 0.0,
    y_nm: float = 0.0,
    aperture: str = "soft",
) -> NDArray[np.complex64]:
    """The probe on a periodic grid, complex (rows, columns); sampling is one number or (y, x).

    psi = ifft2(N A(k) exp(-i chi(k)) exp(-2 pi i k.r0)) with sum |fft2(psi)|^2 = 1, so that
    sum |psi|^2 = 1 / (rows * columns). The centre (x_nm, y_nm) need not lie on a pixel.
    """
    checked_optics(optics)
    steps_nm = sampling_nm if isinstance(sampling_nm, tuple) and len(sampling_nm) == 2 else (sampling_nm, sampling_nm)
    dy, dx = (positive("sampling_nm", step, "nm") for step in steps_nm)
    rows, columns = whole_pair("shape_px", shape_px)
    x_nm, y_nm = finite("x_nm", x_nm, "nm"), finite("y_nm", y_nm, "nm")
    check_aperture_edge(aperture)
    grid = WaveGrid((rows, columns), (rows * dy * 10, columns * dx * 10), None, aperture)
    check_aperture(optics, 0.5 / max(grid.sampling_angstrom))
    spectrum = probe_spectrum(optics, grid)
    along_y, along_x = position_phases(grid, np.array([[x_nm * 10, y_nm * 10]]))
    return np.fft.ifft2(spectrum * along_y[0, :, None] * along_x[0, None, :]).astype(np.complex64)


def probe_spectrum(optics: Optics, grid: WaveGrid) -> NDArray[np.complex128]:
    """The probe centred on the origin in Fourier space, (rows, columns) in FFT order; sum |.|^2 = 1."""
    rows, columns, amplitude = _within_aperture(optics, grid)
    ky, kx = grid.frequencies_per_angstrom()
    waves = amplitude * np.exp(-1j * chi(optics, kx[:, columns], ky[rows]))
    spectrum = np.zeros(grid.shape_px, dtype=np.complex128)
    spectrum[np.ix_(rows, columns)] = waves / np.sqrt(np.sum(amplitude**2))
    return spectrum


def aperture_function(optics: Optics, grid: WaveGrid) -> NDArray[np.float64]:
    """Transmission of the aperture, (rows, columns) in FFT order, with the edge that the grid names.

    `soft`: the edge is a ramp one reciprocal pixel wide, A = clip((alpha_c - alpha) / d + 1/2, 0, 1);
    `hard`: 1 where alpha <= alpha_c.
    """
    rows, columns, within = _within_aperture(optics, grid)
    amplitude = np.zeros(grid.shape_px)
    amplitude[np.ix_(rows, columns)] = within
    return amplitude


def _within_aperture(
    optics: Optics, grid: WaveGrid
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows and columns of the grid that the aperture reaches, and its transmission there."""
    wavelength = wavelength_angstrom(optics.beam_energy_ev)
    limit = optics.semi_convergence_angle_mrad * 1e-3
    ky, kx = grid.frequencies_per_angstrom()
    step_y, step_x = wavelength / grid.extent_angstrom[0], wavelength / grid.extent_angstrom[1]
    reach = limit + step_y + step_x
    rows, columns = (np.flatnonzero(wavelength * np.abs(k.ravel()) <= reach) for k in (ky, kx))
    ky, kx = ky[rows], kx[:, columns]
    alpha = wavelength * np.hypot(ky, kx)
    if grid.aperture_edge == "hard":
        return rows, columns, (alpha <= limit).astype(np.float64)
    azimuth = np.arctan2(ky, kx)
    edge = np.hypot(np.cos(azimuth) * step_x, np.sin(azimuth) * step_y)
    amplitude = np.clip((limit - alpha) / edge + 0.5, 0, 1)
    amplitude[0, 0] = 1.0
    return rows, columns, amplitude


def check_aperture_edge(aperture: str) -> None:
    """Refuse an edge that this package does not know."""
    if not isinstance(aperture, str) or aperture not in APERTURES:
        raise InvalidParameter(f"unknown aperture {aperture!r}; choose one of {', '.join(APERTURES)}")


def check_aperture(optics: Optics, cutoff_per_angstrom: float) -> None:
    """Refuse an aperture that reaches beyond a spatial frequency."""
    cutoff_mrad = cutoff_per_angstrom * wavelength_angstrom(optics.beam_energy_ev) * 1e3
    if optics.semi_convergence_angle_mrad > cutoff_mrad:
        raise InvalidParameter(
            f"semi-convergence angle {optics.semi_convergence_angle_mrad:g} mrad is beyond {cutoff_mrad:.1f} mrad,"
            " the largest angle this grid holds; use a finer sampling_nm"
        )


def position_phases(
    grid: WaveGrid, positions_angstrom: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """exp(-2 pi i k.r0) for n probe positions (x, y), as factors (n, rows) along y and (n, columns) along x."""
    ky, kx = grid.frequencies_per_angstrom()
    along_x = np.exp(-2j * np.pi * positions_angstrom[:, 0, None] * kx[0][None, :])
    along_y = np.exp(-2j * np.pi * positions_angstrom[:, 1, None] * ky[:, 0][None, :])
    return along_y, along_x
