"""Kernels of a field on a grid: by position, and by position together with what the survey image shows there."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

_SQRT5 = 5**0.5


def matern52(distance: np.ndarray) -> np.ndarray:
    """Matern covariance of smoothness 5/2 at distances in length scales: (1 + a + a^2/3) exp(-a), a = sqrt(5) r.

    >>> float(matern52(np.array(0.0)))
    1.0
    """
    a = _SQRT5 * distance
    return (1 + a + a * a / 3) * np.exp(-a)


@dataclass(frozen=True, slots=True)
class KernelShape:
    """variance * (w M(x; l) + (1 - w) M(x; 4 l) M(features; f)); lengths in fractions of the longer side.

    `position_weight` w = 1 forgets the survey image.
    """

    variance: float
    length_fraction: float
    position_weight: float = 1.0
    feature_scale: float = 1.0

    def to_dict(self) -> dict[str, float]:
        """For reasons."""
        return asdict(self)


class FieldPlaces:
    """Positions (m, 2) in fractions of the longer side and survey features (m, k) of the cells of a grid."""

    def __init__(self, x_nm: np.ndarray, y_nm: np.ndarray, survey: np.ndarray | None) -> None:
        self.shape_px = (len(y_nm), len(x_nm))
        side = max(np.ptp(x_nm), np.ptp(y_nm)) or 1.0
        columns, rows = np.meshgrid(x_nm, y_nm)
        self.positions = np.column_stack([columns.ravel(), rows.ravel()]) / side
        self.features = None if survey is None else survey_features(survey)

    def block(self, shape: KernelShape, cells: np.ndarray, others: np.ndarray | slice) -> np.ndarray:
        """(len(cells), len(others)) prior covariance."""
        distance = _distance(self.positions[cells], self.positions[others])
        near = matern52(distance / shape.length_fraction)
        if self.features is None or shape.position_weight >= 1:
            return shape.variance * near
        alike = matern52(_distance(self.features[cells], self.features[others]) / shape.feature_scale)
        far = matern52(distance / (4 * shape.length_fraction))
        return shape.variance * (shape.position_weight * near + (1 - shape.position_weight) * far * alike)


def survey_features(survey: np.ndarray) -> np.ndarray:
    """(m, 2) survey image smoothed by 1 and 2 cells, each with mean 0 and standard deviation 1."""
    image = np.asarray(survey, dtype=np.float64)
    smooth = [gaussian_filter(image, sigma).ravel() for sigma in (1.0, 2.0)]
    return np.column_stack([(values - values.mean()) / (values.std() or 1.0) for values in smooth])


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = sum((a[:, None, k] - b[None, :, k]) ** 2 for k in range(a.shape[1]))
    return np.sqrt(squared)
