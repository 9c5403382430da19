"""Waves times the windows cut from a periodic function: all windows of a scan line at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend


def multiply_by_windows(waves: Array, function: Array, corners: NDArray[np.int64], on: Backend) -> None:
    """Multiply each of `waves` (n, rows, columns) by the window of `function` from its corner (row, column).

    Successive windows that start in the same row, as those of a scan line do, are gathered together.
    """
    xp = on.xp
    _, height, width = waves.shape
    rows, columns = function.shape
    starts = np.flatnonzero(np.diff(corners[:, 0], prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(corners)], strict=True):
        row = int(corners[start, 0])
        band = function[row : row + height]
        if row + height > rows:
            band = xp.concat([band, function[: row + height - rows]], axis=0)
        places = np.mod(corners[start:stop, 1, None] + np.arange(width), columns)
        cut = xp.reshape(xp.take(band, on.asarray(places.ravel()), axis=1), (height, stop - start, width))
        waves[start:stop] *= xp.permute_dims(cut, (1, 0, 2))
