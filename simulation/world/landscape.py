"""What covers the specimen: contamination with clean windows; its neighbour `defect_field` says what lies below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from simulation.world.config import SimulatedConfig
from simulation.world.randomness import Purpose, generator

STEP_NM = 0.5
_PAD_NM = 40.0
_EDGE_NM = 2.0
_TEXTURE_LENGTH_NM = 6.0
_TEXTURE_SIGMA = 0.35
_MAX_WINDOWS = 10_000


@dataclass(frozen=True)
class Landscape:
    """Thickness of contamination, nm, on a grid of 0.5 nm that reaches 40 nm beyond the world; zero in clean windows.

    Windows are roundish holes of `window_min_nm` to `window_max_nm` mean diameter, placed until `clean_fraction` of the
    world is clean; the film rises over 2 nm at their rims and has a log-normal texture of 6 nm (assumptions).
    """

    thickness_nm: np.ndarray  # (rows, columns) float32, cell centres
    x_min_nm: float
    y_min_nm: float
    is_clean: np.ndarray  # same shape, bool
    width_nm: float
    height_nm: float

    @classmethod
    def draw(cls, config: SimulatedConfig) -> Landscape:
        """The landscape of this configuration's hidden seed."""
        columns = int(np.ceil((config.width_nm + 2 * _PAD_NM) / STEP_NM))
        rows = int(np.ceil((config.height_nm + 2 * _PAD_NM) / STEP_NM))
        x_min_nm, y_min_nm = -config.width_nm / 2 - _PAD_NM, -config.height_nm / 2 - _PAD_NM
        x = x_min_nm + (np.arange(columns) + 0.5) * STEP_NM
        y = y_min_nm + (np.arange(rows) + 0.5) * STEP_NM
        inside = (np.abs(y) <= config.height_nm / 2)[:, None] & (np.abs(x) <= config.width_nm / 2)[None, :]
        clean = _windows(config, x, y, inside)
        texture = gaussian_filter(
            generator(config.hidden_seed, Purpose.TEXTURE).standard_normal((rows, columns)),
            _TEXTURE_LENGTH_NM / STEP_NM,
        )
        texture = np.exp(_TEXTURE_SIGMA * texture / texture.std() - _TEXTURE_SIGMA**2 / 2)
        rim = np.clip(distance_transform_edt(~clean) * STEP_NM / _EDGE_NM, 0, 1)
        thickness = (config.contamination_nm * texture * rim * rim * (3 - 2 * rim)).astype(np.float32)
        return cls(thickness, x_min_nm, y_min_nm, clean, config.width_nm, config.height_nm)

    def thickness_at(self, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
        """Bilinear thickness in nm at points of the specimen frame, same shape, float32."""
        coordinates = np.stack([(y_nm - self.y_min_nm) / STEP_NM - 0.5, (x_nm - self.x_min_nm) / STEP_NM - 0.5])
        return map_coordinates(self.thickness_nm, coordinates, order=1, mode="nearest", output=np.float32)

    def clean_at(self, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
        """Whether each point lies in a clean window."""
        column = np.floor((np.asarray(x_nm) - self.x_min_nm) / STEP_NM).astype(int)
        row = np.floor((np.asarray(y_nm) - self.y_min_nm) / STEP_NM).astype(int)
        rows, columns = self.is_clean.shape
        within = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return within & self.is_clean[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]

    def clean_mask(self) -> np.ndarray:
        """(rows, columns) bool on the whole 1 nm cells of the world, lowest y first: at least half of it is clean."""
        x = -self.width_nm / 2 + (np.arange(2 * int(self.width_nm)) + 0.5) * STEP_NM
        y = -self.height_nm / 2 + (np.arange(2 * int(self.height_nm)) + 0.5) * STEP_NM
        fine = self.clean_at(*np.meshgrid(x, y))
        return fine.reshape(len(y) // 2, 2, len(x) // 2, 2).mean(axis=(1, 3)) >= 0.5


def _windows(config: SimulatedConfig, x: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray:
    rng = generator(config.hidden_seed, Purpose.WINDOWS)
    clean = np.zeros(inside.shape, dtype=bool)
    target = config.clean_fraction * inside.sum()
    for _ in range(_MAX_WINDOWS):
        missing = target - clean.sum()
        if missing * STEP_NM**2 < 0.002 * config.width_nm * config.height_nm:
            break
        centre = rng.uniform(-0.5, 0.5, 2) * (config.width_nm, config.height_nm)
        diameter = rng.uniform(config.window_min_nm, config.window_max_nm)
        shape = rng.normal(0, 1, (4, 2)) * 0.08
        window = _window(centre, diameter, shape, x, y) & inside
        if (window & ~clean).sum() > 1.02 * missing:  # the last one: shrink it to fit, if that is still a window
            for smaller in np.arange(diameter, config.window_min_nm - 0.5, -0.5):
                window = _window(centre, max(smaller, config.window_min_nm), shape, x, y) & inside
                if (window & ~clean).sum() <= 1.02 * missing:
                    break
            else:
                continue
        clean |= window
    return clean


def _window(centre: np.ndarray, diameter: float, shape: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A disc whose radius varies with a few harmonics of the angle (star-shaped, so without holes)."""
    u, v = x[None, :] - centre[0], y[:, None] - centre[1]
    angle = np.arctan2(v, u)
    radius = np.ones_like(angle)
    for order, (cosine, sine) in enumerate(shape, start=2):
        radius += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
    return np.hypot(u, v) <= diameter / 2 * radius
