"""From a gradient back to what it is the gradient of: iDPC and iCOM."""

from __future__ import annotations

from math import inf, pi

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from simulation.argument_kinds import kinds_checked
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter
from simulation.phase_contrast.fields import Array, VectorField

BOUNDARIES = ("periodic", "free")


@kinds_checked
def phase_from_field(
    field: VectorField,
    pixel_nm: tuple[float, float],
    beam_energy_ev: float,
    *,
    boundary: str = "periodic",
    longest_period_nm: float | None = None,
) -> Array:
    """Phase in rad whose gradient bends the beam by `field` (rows, columns); mean 0, pixels (y, x) in nm.

    theta = lambda / (2 pi) grad phi. From a centre of mass (iCOM) it is the specimen's phase convolved with the
    probe's intensity (Lazic, Bosch, Lazar, Ultramicroscopy 160 (2016) 265); from segments (iDPC) an approximation.
    """
    per_nm = 2 * pi / (0.1 * wavelength_angstrom(beam_energy_ev)) * 1e-3
    return integrate(
        field.x_mrad * per_nm, field.y_mrad * per_nm, pixel_nm, boundary=boundary, longest_period_nm=longest_period_nm
    )


@kinds_checked
def integrate(
    gradient_x_per_nm: Array,
    gradient_y_per_nm: Array,
    pixel_nm: tuple[float, float],
    *,
    boundary: str = "periodic",
    longest_period_nm: float | None = None,
) -> Array:
    """The function of mean 0 whose gradient is nearest, in least squares, to the one given, (rows, columns).

    `periodic`: k . G / (2 pi i (k^2 + 1/L^2)), exact for band-limited periodic fields. `free`: differences between
    neighbours equal the mean of their gradients (Southwell, J. Opt. Soc. Am. 70 (1980) 998), solved by cosine
    transforms; exact for quadratic functions. L = `longest_period_nm` (None: infinite) damps what is longer,
    where a gradient says least about noise.
    """
    xp = array_namespace(gradient_x_per_nm, gradient_y_per_nm)
    if gradient_x_per_nm.ndim != 2 or gradient_x_per_nm.shape != gradient_y_per_nm.shape:
        raise InvalidParameter(
            f"gradients of shapes {tuple(gradient_x_per_nm.shape)} and {tuple(gradient_y_per_nm.shape)} must be equal"
            " and (rows, columns)"
        )
    if not all(0 < side < inf for side in pixel_nm):
        raise InvalidParameter(f"pixel_nm = {pixel_nm} must be positive and finite, (y, x) in nm")
    if longest_period_nm is not None and not longest_period_nm > 0:
        raise InvalidParameter(f"longest_period_nm = {longest_period_nm} must be positive, in nm")
    damping = 0.0 if longest_period_nm is None else longest_period_nm**-2
    if boundary == "periodic":
        return _periodic(xp, gradient_x_per_nm, gradient_y_per_nm, pixel_nm, damping)
    if boundary == "free":
        return _free(xp, gradient_x_per_nm, gradient_y_per_nm, pixel_nm, damping)
    raise InvalidParameter(f"unknown boundary {boundary!r}; choose one of {', '.join(BOUNDARIES)}")


def _periodic(xp: Array, gx: Array, gy: Array, pixel_nm: tuple[float, float], damping: float) -> Array:
    rows, columns = gx.shape
    ky = _derivative_frequencies(rows, pixel_nm[0])[:, None]
    kx = _derivative_frequencies(columns, pixel_nm[1])[None, :]
    denominator = 2 * pi * (ky**2 + kx**2 + damping)
    inverse = np.divide(1.0, denominator, out=np.zeros_like(denominator), where=ky**2 + kx**2 > 0)
    at = device(gx)
    weight_x = xp.asarray((-1j * kx * inverse).astype(np.complex128), device=at)
    weight_y = xp.asarray((-1j * ky * inverse).astype(np.complex128), device=at)
    return xp.real(xp.fft.ifftn(weight_x * xp.fft.fftn(gx) + weight_y * xp.fft.fftn(gy)))


def _derivative_frequencies(count: int, pixel_nm: float) -> NDArray[np.float64]:
    """Cycles per nm; 0 at the Nyquist frequency of an even count, whose derivative vanishes on the pixels."""
    frequencies = np.asarray(np.fft.fftfreq(count, pixel_nm), dtype=np.float64)
    if count % 2 == 0:
        frequencies[count // 2] = 0.0
    return frequencies


def _free(xp: Array, gx: Array, gy: Array, pixel_nm: tuple[float, float], damping: float) -> Array:
    """Least squares: the Laplacian with reflecting edges of the result equals the divergence of the differences."""
    dy, dx = pixel_nm
    steps_x, steps_y = (gx[:, 1:] + gx[:, :-1]) / (2 * dx), (gy[1:, :] + gy[:-1, :]) / (2 * dy)
    none_x, none_y = xp.zeros_like(gx[:, :1]), xp.zeros_like(gy[:1, :])
    divergence = xp.concat([steps_x, none_x], axis=1) - xp.concat([none_x, steps_x], axis=1)
    divergence = divergence + xp.concat([steps_y, none_y], axis=0) - xp.concat([none_y, steps_y], axis=0)
    doubled = xp.concat([divergence, xp.flip(divergence, axis=0)], axis=0)
    doubled = xp.concat([doubled, xp.flip(doubled, axis=1)], axis=1)
    rows, columns = doubled.shape
    along_y = (2 * np.sin(np.pi * np.arange(rows) / rows) / dy)[:, None]
    along_x = (2 * np.sin(np.pi * np.arange(columns) / columns) / dx)[None, :]
    laplacian = along_y**2 + along_x**2
    damped = laplacian + (2 * np.pi) ** 2 * damping
    inverse = np.divide(-1.0, damped, out=np.zeros_like(damped), where=laplacian > 0)
    weights = xp.asarray(inverse, device=device(gx))
    return xp.real(xp.fft.ifftn(xp.fft.fftn(doubled) * weights))[: gx.shape[0], : gx.shape[1]]
