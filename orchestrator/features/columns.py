"""Column positions and intensities by separable Gauss-Newton: all columns of a frame at once, no Jacobian formed.

Model A exp(-((x-x0)^2 + (y-y0)^2) / 2 s^2) + b under a separable Gaussian weight: every entry of J'WJ is a product of
one-dimensional moments, and J'WD needs only products of three weight vectors with the patch. Neighbour: `normalised`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROUNDS = 6
_DAMPING = 1e-3
_WEIGHT_WIDTHS = 1.2
_REACH_WIDTHS = 3.0


@dataclass(frozen=True, slots=True)
class ColumnFits:
    """Fits of n columns, pixels and the image's own intensity; `std` columns are A, x, y, s, b.

    `amplitude` is the height over `background`; `integral` 2 pi A s^2 the intensity of the whole column.
    `std` (n, 5) is the sandwich H^-1 (J'W V W J) H^-1 with V the variance of each pixel.
    """

    amplitude: np.ndarray
    x_px: np.ndarray
    y_px: np.ndarray
    sigma_px: np.ndarray
    background: np.ndarray
    std: np.ndarray

    @property
    def integral(self) -> np.ndarray:
        """(n,) intensity of the whole column, pixel values summed."""
        return 2 * np.pi * self.amplitude * self.sigma_px**2


def fit_columns(
    image: np.ndarray, x_px: np.ndarray, y_px: np.ndarray, start_sigma_px: float, *, pixel_std: float | None = None
) -> ColumnFits:
    """Fit columns near (x_px, y_px) (column and row numbers, fractional) of an image (rows, columns).

    `pixel_std` is the noise of a pixel; None means counts, whose variance is the model itself. Columns nearer to the
    border than three starting widths must be left out by the caller: ValueError names the first.
    """
    half = int(np.ceil(_REACH_WIDTHS * start_sigma_px))
    column, row = np.round(x_px).astype(int), np.round(y_px).astype(int)
    outside = (column < half) | (row < half) | (column >= image.shape[1] - half) | (row >= image.shape[0] - half)
    if outside.any():
        first = int(np.argmax(outside))
        raise ValueError(
            f"column {first} at ({x_px[first]:.1f}, {y_px[first]:.1f}) px is nearer than {half} px to the border; "
            "leave it out"
        )
    window = np.lib.stride_tricks.sliding_window_view(image, (2 * half + 1, 2 * half + 1))
    patches = window[row - half, column - half].astype(float)
    axis = np.arange(-half, half + 1, dtype=float)
    fit = _Fit(patches, axis, x_px - column, y_px - row, start_sigma_px)
    for _ in range(_ROUNDS):
        fit.step()
    std = fit.std(pixel_std)
    return ColumnFits(fit.amplitude, column + fit.x, row + fit.y, fit.sigma, fit.background, std)


class _Fit:
    """The parameters of all columns, improved step by step."""

    def __init__(self, patches: np.ndarray, axis: np.ndarray, x: np.ndarray, y: np.ndarray, sigma: float) -> None:
        self._patches, self._axis, self._start_sigma = patches, axis, sigma
        self._weight_x = np.exp(-((axis - x[:, None]) ** 2) / (2 * (_WEIGHT_WIDTHS * sigma) ** 2))
        self._weight_y = np.exp(-((axis - y[:, None]) ** 2) / (2 * (_WEIGHT_WIDTHS * sigma) ** 2))
        self._start_x, self._start_y = x, y
        self.x, self.y = x.astype(float), y.astype(float)
        self.sigma = np.full(len(x), float(sigma))
        self.background = np.quantile(patches.reshape(len(x), -1), 0.1, axis=1)
        centre = len(axis) // 2
        near = patches[:, centre - 1 : centre + 2, centre - 1 : centre + 2].mean(axis=(1, 2))
        self.amplitude = np.where(near > self.background, near - self.background, 1e-3 * np.abs(near) + 1e-9)

    def step(self) -> None:
        """One damped Gauss-Newton step; a position moves at most half a starting width, and stays within one."""
        normal, projected = self._normal()
        gradient = projected - normal[:, :, 0] * self.amplitude[:, None] - normal[:, :, 4] * self.background[:, None]
        diagonal = np.arange(5)
        normal[:, diagonal, diagonal] *= 1 + _DAMPING
        normal[:, diagonal, diagonal] += 1e-12
        change = np.linalg.solve(normal, gradient[..., None])[..., 0]
        limit = 0.5 * self._start_sigma
        self.amplitude = self.amplitude + change[:, 0]
        self.x = self._start_x + np.clip(self.x + np.clip(change[:, 1], -limit, limit) - self._start_x, -1, 1)
        self.y = self._start_y + np.clip(self.y + np.clip(change[:, 2], -limit, limit) - self._start_y, -1, 1)
        widths = self.sigma + np.clip(change[:, 3], -0.4 * limit, 0.4 * limit)
        self.sigma = np.clip(widths, 0.4 * self._start_sigma, 2.0 * self._start_sigma)
        self.background = self.background + change[:, 4]

    def _moments(self, weight: np.ndarray, place: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Vectors [w, we, we d, we d^2] stacked (n, 4, P), and moments: [sum w e d^k (0..2), sum w e^2 d^k (0..4)]."""
        d = self._axis - place[:, None]
        e = np.exp(-(d**2) / (2 * self.sigma[:, None] ** 2))
        we, we2 = weight * e, weight * e**2
        powers = [np.ones_like(d), d, d**2, d**3, d**4]
        moments = [(we * powers[k]).sum(axis=1) for k in range(3)] + [(we2 * power).sum(axis=1) for power in powers]
        return moments, np.stack([weight, we, we * d, we * d**2], axis=1)

    def _normal(self) -> tuple[np.ndarray, np.ndarray]:
        """J'WJ (n, 5, 5) and J'WD (n, 5) from products of one-dimensional moments."""
        (x10, x11, x12, *x2), u_x = self._moments(self._weight_x, self.x)
        (y10, y11, y12, *y2), u_y = self._moments(self._weight_y, self.y)
        p = self.amplitude / self.sigma**2
        q = self.amplitude / self.sigma**3
        h = np.empty((len(p), 5, 5))
        h[:, 0, 0] = x2[0] * y2[0]
        h[:, 0, 1], h[:, 0, 2] = p * x2[1] * y2[0], p * x2[0] * y2[1]
        h[:, 0, 3], h[:, 0, 4] = q * (x2[2] * y2[0] + x2[0] * y2[2]), x10 * y10
        h[:, 1, 1], h[:, 1, 2], h[:, 2, 2] = p**2 * x2[2] * y2[0], p**2 * x2[1] * y2[1], p**2 * x2[0] * y2[2]
        h[:, 1, 3] = p * q * (x2[3] * y2[0] + x2[1] * y2[2])
        h[:, 2, 3] = p * q * (x2[2] * y2[1] + x2[0] * y2[3])
        h[:, 1, 4], h[:, 2, 4] = p * x11 * y10, p * x10 * y11
        h[:, 3, 3] = q**2 * (x2[4] * y2[0] + 2 * x2[2] * y2[2] + x2[0] * y2[4])
        h[:, 3, 4] = q * (x12 * y10 + x10 * y12)
        h[:, 4, 4] = self._weight_x.sum(axis=1) * self._weight_y.sum(axis=1)
        lower = np.tril_indices(5, -1)
        h[:, lower[0], lower[1]] = h[:, lower[1], lower[0]]
        t = u_y @ self._patches @ u_x.transpose(0, 2, 1)
        projected = np.stack(
            [t[:, 1, 1], p * t[:, 1, 2], p * t[:, 2, 1], q * (t[:, 1, 3] + t[:, 3, 1]), t[:, 0, 0]], axis=1
        )
        return h, projected

    def std(self, pixel_std: float | None) -> np.ndarray:
        """(n, 5) standard errors: the weights are not inverse variances, so H^-1 alone would be wrong."""
        normal, _ = self._normal()
        d_x, d_y = self._axis - self.x[:, None], self._axis - self.y[:, None]
        bell = np.exp(-(d_x**2)[:, None] / (2 * self.sigma**2)[:, None, None])
        bell = bell * np.exp(-(d_y**2)[:, :, None] / (2 * self.sigma**2)[:, None, None])
        weight = self._weight_y[:, :, None] * self._weight_x[:, None]
        p, q = (self.amplitude / self.sigma**2)[:, None, None], (self.amplitude / self.sigma**3)[:, None, None]
        squared = (d_x**2)[:, None] + (d_y**2)[:, :, None]
        parts = [bell, p * d_x[:, None] * bell, p * d_y[:, :, None] * bell, q * squared * bell, np.ones_like(bell)]
        jacobian = np.stack(parts, axis=1).reshape(len(bell), 5, -1)
        model = self.amplitude[:, None, None] * bell + self.background[:, None, None]
        variance = np.maximum(model, 0.0) if pixel_std is None else np.full_like(model, pixel_std**2)
        spread = (weight**2 * variance).reshape(len(bell), 1, -1)
        middle = (jacobian * spread) @ jacobian.transpose(0, 2, 1)
        inverse = np.linalg.inv(normal + 1e-12 * np.eye(5))
        covariance = inverse @ middle @ inverse
        return np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
