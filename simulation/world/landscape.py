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
_MAX_TRIALS = 4000
_GAP_NM = 3.0
_HARMONICS, _ROUGHNESS = 4, 0.08


@dataclass(frozen=True)
class Landscape:
    """Thickness of contamination, nm, on a grid of 0.5 nm that reaches 40 nm beyond the world; zero in clean windows.

    Windows are roundish holes of `window_min_nm` to `window_max_nm` mean diameter, apart from each other while there is
    room, cut until `clean_fraction` of the world is clean; the film rises over 2 nm at their rims and has a log-normal
    texture of 6 nm (assumptions).
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

    def thickness_on_lines(self, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
        """The same on a grid of columns `x_nm` and lines `y_nm`, (lines, columns), much faster."""
        rows, columns = self.thickness_nm.shape
        row, down = _between((y_nm - self.y_min_nm) / STEP_NM - 0.5, rows)
        column, right = _between((x_nm - self.x_min_nm) / STEP_NM - 0.5, columns)
        first, last = int(column.min()), int(column.max()) + 2
        block = self.thickness_nm[:, first:last]
        lines = block[row] * (1 - down)[:, None] + block[row + 1] * down[:, None]
        if not lines.any():
            return np.zeros((len(y_nm), len(x_nm)), dtype=np.float32)
        return lines[:, column - first] * (1 - right) + lines[:, column - first + 1] * right

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


def _between(position: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbour and weight of the upper one, held at the ends."""
    held = np.clip(position, 0, count - 1)
    lower = np.minimum(held.astype(int), count - 2)
    return lower, (held - lower).astype(np.float32)


def _windows(config: SimulatedConfig, x: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray:
    rng = generator(config.hidden_seed, Purpose.WINDOWS)
    clean = np.zeros(inside.shape, dtype=bool)
    target = config.clean_fraction * inside.sum()
    smallest_px = np.pi / 4 * (config.window_min_nm / STEP_NM) ** 2
    for trial in range(_MAX_TRIALS):
        missing = target - clean.sum()
        if missing <= smallest_px / 2:
            break
        centre = rng.uniform(-0.5, 0.5, 2) * (config.width_nm, config.height_nm)
        diameter = rng.uniform(config.window_min_nm, config.window_max_nm)
        shape = rng.normal(0, 1, (_HARMONICS, 2)) * _ROUGHNESS
        apart = trial < _MAX_TRIALS // 2  # a large clean fraction needs windows that touch
        _cut(clean, inside, _Window(centre, diameter, shape), x, y, missing, config.window_min_nm, apart)
    return clean


@dataclass(frozen=True)
class _Window:
    """A disc whose radius varies with a few harmonics of the angle (star-shaped, so without holes)."""

    centre_nm: np.ndarray
    diameter_nm: float
    shape: np.ndarray

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the centre over the relative radius in that direction: below half a diameter is inside."""
        u, v = x[None, :] - self.centre_nm[0], y[:, None] - self.centre_nm[1]
        angle = np.arctan2(v, u)
        radius = np.ones_like(angle)
        for order, (cosine, sine) in enumerate(self.shape, start=2):
            radius += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
        return np.hypot(u, v) / radius


def _cut(
    clean: np.ndarray, inside: np.ndarray, window: _Window, x: np.ndarray, y: np.ndarray, missing_px: float,
    smallest_nm: float, apart: bool,
) -> None:  # fmt: skip
    """Add a window to `clean` where it fits, shrunk if it would clean too much; nothing where it does not.

    The smallest window may overshoot as long as that brings the clean area nearer to what is wanted.
    """
    reach_nm = window.diameter_nm
    columns = slice(*np.searchsorted(x, window.centre_nm[0] + np.array([-reach_nm, reach_nm])))
    rows = slice(*np.searchsorted(y, window.centre_nm[1] + np.array([-reach_nm, reach_nm])))
    here, allowed = clean[rows, columns], inside[rows, columns]
    if apart and here[here.shape[0] // 2, here.shape[1] // 2]:
        return
    distance = window.distance(x[columns], y[rows])
    if apart and (here & (distance <= (window.diameter_nm + _GAP_NM) / 2)).any():
        return
    for diameter_nm in np.arange(window.diameter_nm, smallest_nm - 1e-9, -0.5):
        cut = (distance <= diameter_nm / 2) & allowed
        added = (cut & ~here).sum()
        if added <= 1.02 * missing_px or (diameter_nm < smallest_nm + 0.5 and added < 2.2 * missing_px):
            clean[rows, columns] = here | cut
            return
