"""Waves times the windows cut from a periodic function: on a CPU all windows of a scan line at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend


class WindowCuts:
    """Which windows of functions some waves meet; made once for all slices, on the device.

    On a GPU all windows are cut at once (`fused`). Elsewhere successive windows that start in the same row, as those of
    a scan line do, are gathered together, which reads memory in order.
    """

    def __init__(
        self, corners: NDArray[np.int64], shape_px: tuple[int, int], whole_px: tuple[int, int], on: Backend
    ) -> None:
        """`corners` (n, 2) are (row, column) on functions of `whole_px`; windows have `shape_px`."""
        self._on, self._shape = on, shape_px
        self._corners = on.asarray(corners) if on.is_gpu else None
        self._lines: list[tuple[int, int, int, Array]] = []
        if on.is_gpu:
            return
        starts = np.flatnonzero(np.diff(corners[:, 0], prepend=-1))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(corners)], strict=True):
            places = np.mod(corners[start:stop, 1, None] + np.arange(shape_px[1]), whole_px[1])
            self._lines.append((start, stop, int(corners[start, 0]), on.asarray(places.ravel())))

    def multiply(self, waves: Array, function: Array) -> None:
        """Multiply each of `waves` (n, rows, columns) by its window."""
        if self._corners is not None:
            self._on.fused.multiply_by_windows(waves, function, self._corners)
            return
        xp, rows = self._on.xp, function.shape[0]
        height, width = self._shape
        for start, stop, row, places in self._lines:
            band = function[row : row + height]
            if row + height > rows:
                band = xp.concat([band, function[: row + height - rows]], axis=0)
            cut = xp.reshape(xp.take(band, places, axis=1), (height, stop - start, width))
            waves[start:stop] *= xp.permute_dims(cut, (1, 0, 2))
