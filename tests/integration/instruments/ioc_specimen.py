"""What the soft IOCs' detectors see: bright blobs at random places of the specimen, counted electron by electron."""

from __future__ import annotations

import numpy as np

_SIDE_NM, _BLOBS, _WIDTH_NM = 400.0, 900, 5.0
_ELECTRONS_PER_PA_US = 6.2415


class Specimen:
    """Blobs over a square of 400 nm, repeated; seeded."""

    def __init__(self, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self._x_nm, self._y_nm = rng.uniform(0, _SIDE_NM, (2, _BLOBS))
        self._rng = rng

    def counts(
        self,
        *,
        centre_nm: tuple[float, float],
        field_nm: float,
        shape: tuple[int, int, int],
        dwell_us: float,
        pa: float,
    ) -> np.ndarray:
        """Poisson counts (sub-frames, rows, columns) of a raster centred there; `pa` 0: a blanked beam."""
        subframes, rows, columns = shape
        pixel_nm = field_nm / columns
        x_nm = centre_nm[0] + (np.arange(columns) - (columns - 1) / 2) * pixel_nm
        y_nm = centre_nm[1] + (np.arange(rows) - (rows - 1) / 2) * pixel_nm
        across, down = _bells(x_nm, self._x_nm), _bells(y_nm, self._y_nm)
        fraction = 0.02 + 0.2 * (down @ across.T)
        return self._rng.poisson(fraction * dwell_us * pa * _ELECTRONS_PER_PA_US, (subframes, rows, columns))


def _bells(at_nm: np.ndarray, centres_nm: np.ndarray) -> np.ndarray:
    away_nm = (at_nm[:, None] - centres_nm[None, :] + _SIDE_NM / 2) % _SIDE_NM - _SIDE_NM / 2
    return np.exp(-0.5 * (away_nm / _WIDTH_NM) ** 2)
