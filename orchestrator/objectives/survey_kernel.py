"""Covariances of a log-rate over a map: by position alone, or by position and by what the survey image shows there.

K = s2 * (w * M(x; l) + (1 - w) * M(x; 4 l) * M(z; q)) with Matern-5/2 covariances M, z features of the survey image.
With w = 1 the survey counts for nothing: the evidence may always fall back on position. `field_posterior` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy

_SMOOTHINGS_PX = (0.5, 1.5)


@dataclass(frozen=True, slots=True, order=True)
class KernelChoice:
    """Variance of the log-rate, length scale in fractions of the longer side, weight w, scale in the features."""

    variance: float
    length_fraction: float
    position_weight: float
    feature_scale: float

    @property
    def uses_survey(self) -> bool:
        """Whether the survey image matters at all."""
        return self.position_weight < 1


@dataclass(frozen=True)
class MapPositions:
    """Positions (m, 2) in fractions of the field's longer side, features (m, k) of unit variance or None."""

    places: np.ndarray
    features: np.ndarray | None

    def __getitem__(self, indices: np.ndarray) -> MapPositions:
        return MapPositions(self.places[indices], None if self.features is None else self.features[indices])


@dataclass(frozen=True)
class Separations:
    """Distances between two sets of positions, in place and in features; made once, used for every choice."""

    first: MapPositions
    second: MapPositions

    @cached_property
    def places(self) -> np.ndarray:
        """(n, m), fractions of the field."""
        return scipy.spatial.distance.cdist(self.first.places, self.second.places)

    @cached_property
    def features(self) -> np.ndarray:
        """(n, m), in standard deviations."""
        if self.first.features is None or self.second.features is None:
            raise ValueError("there is no survey image: choose a kernel with position_weight 1")
        return scipy.spatial.distance.cdist(self.first.features, self.second.features)

    def covariance(self, choice: KernelChoice) -> np.ndarray:
        """K of `choice`, (n, m)."""
        total = np.zeros(self.places.shape)
        if choice.position_weight > 0:
            total += choice.position_weight * matern52(self.places / choice.length_fraction)
        if choice.uses_survey:
            far = matern52(self.places / (4 * choice.length_fraction))
            total += (1 - choice.position_weight) * far * matern52(self.features / choice.feature_scale)
        return choice.variance * total


def matern52(distance: np.ndarray) -> np.ndarray:
    """Matern covariance of smoothness 5/2, unit variance and unit length scale."""
    scaled = np.sqrt(5.0) * distance
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


def map_positions(shape_px: tuple[int, int], survey: np.ndarray | None) -> MapPositions:
    """Positions of every pixel in row order; features are normal scores of the survey smoothed by 0.5 and 1.5 px.

    Normal scores (ranks spread as a normal distribution) take neither the unit nor the contrast of the survey image
    seriously, and still tell the brightest from the bright.
    """
    rows, columns = np.indices(shape_px)
    places = np.stack([columns.ravel(), rows.ravel()], axis=1) / max(shape_px)
    if survey is None:
        return MapPositions(places, None)
    images = [scipy.ndimage.gaussian_filter(survey.astype(float), smoothing) for smoothing in _SMOOTHINGS_PX]
    ranks = np.stack([_ranks(image.ravel()) for image in images], axis=1)
    return MapPositions(places, scipy.special.ndtri((ranks - 0.5) / len(ranks)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1 upwards; equal values share the mean of theirs.

    >>> _ranks(np.array([3.0, 1.0, 3.0, 7.0]))
    array([2.5, 1. , 2.5, 4. ])
    """
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
