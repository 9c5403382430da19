"""What can be said of a point without drawing atoms: bar, hole, tear, thickness of film and contamination."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulation.builders.landscape.config import LandscapeConfig
from simulation.builders.landscape.places import Purpose, generator_at

_WAVE_COUNT = 48
_HARMONICS, _ROUGHNESS = 5, 0.15

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Square:
    """One square of the grid: its state, and the tear in its film if it is broken (relative to its middle)."""

    state: str  # "intact", "broken" or "dirty"
    tear_x_nm: float
    tear_y_nm: float
    tear_radius_nm: float
    tear_shape: NDArray[np.float64]

    def torn(self, x_nm: Points, y_nm: Points) -> NDArray[np.bool_]:
        """Whether points, relative to the middle of the square, lie in the tear: a star of a few harmonics."""
        if self.state != "broken":
            return np.zeros(np.shape(x_nm), dtype=bool)
        u, v = x_nm - self.tear_x_nm, y_nm - self.tear_y_nm
        angle = np.arctan2(v, u)
        radius = np.ones_like(angle)
        for order, (cosine, sine) in enumerate(self.tear_shape, start=2):
            radius += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
        return np.hypot(u, v) < self.tear_radius_nm * np.maximum(radius, 0.2)


class Terrain:
    """The support of a landscape; every method takes arrays of x and y in nm of one shape."""

    def __init__(self, config: LandscapeConfig) -> None:
        self.config = config
        rng = generator_at(config.seed, Purpose.CONTAMINATION)
        self._waves = rng.normal(0.0, 1.0 / config.contamination_length_nm, (_WAVE_COUNT, 2))
        parts = rng.standard_normal((2, _WAVE_COUNT)) / np.sqrt(_WAVE_COUNT)
        self._amplitudes, self._phases = np.hypot(*parts), np.arctan2(parts[1], parts[0])
        self._square = lru_cache(maxsize=4096)(self._draw_square)

    def square(self, column: int, row: int) -> Square:
        """The square with that index; (0, 0) is centred on the origin."""
        return self._square(column, row)

    def is_bar(self, x_nm: Points, y_nm: Points) -> NDArray[np.bool_]:
        """Whether the points lie on a bar of the grid."""
        pitch = self.config.square_pitch_nm
        open_half = (pitch - self.config.bar_width_nm) / 2
        u, v = x_nm - np.rint(x_nm / pitch) * pitch, y_nm - np.rint(y_nm / pitch) * pitch
        return (np.abs(u) > open_half) | (np.abs(v) > open_half)

    def has_film(self, x_nm: Points, y_nm: Points) -> NDArray[np.bool_]:
        """Whether there is carbon film: neither hole nor tear."""
        pitch = self.config.hole_pitch_nm
        u, v = x_nm - np.rint(x_nm / pitch) * pitch, y_nm - np.rint(y_nm / pitch) * pitch
        whole = np.hypot(u, v) >= self.config.hole_diameter_nm / 2
        return whole & ~self._by_square(x_nm, y_nm, "torn").astype(bool)

    def contamination_nm(self, x_nm: Points, y_nm: Points) -> Points:
        """Thickness of contamination where there is anything to carry it: log-normal, correlated, larger if dirty.

        ln(thickness) is a Gaussian field, here a sum of 48 random waves, of covariance exp(-r^2 / (2 length^2)).
        """
        mean = self._by_square(x_nm, y_nm, "mean")
        field = np.zeros(np.shape(x_nm))
        for (wave_x, wave_y), amplitude, phase in zip(self._waves, self._amplitudes, self._phases, strict=True):
            field += amplitude * np.cos(wave_x * x_nm + wave_y * y_nm - phase)
        sigma = self.config.contamination_sigma
        return np.minimum(mean * np.exp(sigma * field - sigma**2 / 2), self.config.contamination_limit_nm)

    def _by_square(self, x_nm: Points, y_nm: Points, what: str) -> Points:
        pitch = self.config.square_pitch_nm
        column, row = np.rint(x_nm / pitch).astype(int), np.rint(y_nm / pitch).astype(int)
        found = np.zeros(np.shape(x_nm))
        for i, j in sorted(set(zip(column.ravel().tolist(), row.ravel().tolist(), strict=True))):
            here = (column == i) & (row == j)
            square = self.square(i, j)
            if what == "torn":
                found[here] = square.torn(x_nm[here] - i * pitch, y_nm[here] - j * pitch)
            else:
                is_dirty = square.state == "dirty"
                found[here] = self.config.dirty_contamination_nm if is_dirty else self.config.contamination_nm
        return found

    def _draw_square(self, column: int, row: int) -> Square:
        config = self.config
        rng = generator_at(config.seed, Purpose.SQUARE, column, row)
        chance, open_nm = rng.random(), config.square_pitch_nm - config.bar_width_nm
        state = "intact"
        if chance < config.broken_fraction:
            state = "broken"
        elif chance < config.broken_fraction + (1 - config.broken_fraction) * config.dirty_fraction:
            state = "dirty"
        x_nm, y_nm = rng.uniform(-0.3, 0.3, 2) * open_nm
        radius_nm = rng.uniform(0.15, 0.45) * open_nm
        return Square(state, x_nm, y_nm, radius_nm, rng.normal(0, _ROUGHNESS, (_HARMONICS, 2)))
