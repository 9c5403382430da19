"""Sums of exp(-2 pi i k.r) over atoms: exact placement at any point between the pixels of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend
from simulation.wave_grid import WaveGrid

_ATOMS_PER_BLOCK = 4096
_SAME_COORDINATE_DECIMALS = 9


class StructureFactor:
    """On all frequencies of a grid in FFT order, or on the half that a real function needs (columns >= 0)."""

    def __init__(self, grid: WaveGrid, on: Backend, *, half: bool) -> None:
        """Frequencies are kept as vectors: products of a column and a row give the plane."""
        rows, columns = grid.shape_px
        ky, kx = grid.frequencies_per_angstrom()
        self.ky_per_angstrom = ky[:, 0]
        self.kx_per_angstrom = np.abs(kx[0, : columns // 2 + 1]) if half else kx[0]
        self._on = on
        self._row_is_nyquist = rows % 2 == 0
        self._column_is_nyquist = columns % 2 == 0

    @property
    def k_per_angstrom(self) -> NDArray[np.float64]:
        """|k| on the plane."""
        return np.hypot(self.ky_per_angstrom[:, None], self.kx_per_angstrom[None, :])

    def radial(self, function: Callable[[NDArray[np.float64]], NDArray[Any]], kind: type[np.generic]) -> Array:
        """A function of |k| on the plane, worked out where ky and kx are not negative and mirrored."""
        ky, rows = np.unique(np.abs(self.ky_per_angstrom), return_inverse=True)
        kx, columns = np.unique(np.abs(self.kx_per_angstrom), return_inverse=True)
        quarter = self._on.asarray(function(np.hypot(ky[:, None], kx[None, :])).astype(kind))
        taken = self._on.xp.take(quarter, self._on.asarray(rows), axis=0)
        return self._on.xp.take(taken, self._on.asarray(columns), axis=1)

    def of(self, xy_angstrom: NDArray[np.float64]) -> Array:
        """The sum over atoms at (n, 2) of (x, y); real at Nyquist, so that a real function stays real."""
        total: Any = 0.0
        for start in range(0, len(xy_angstrom), _ATOMS_PER_BLOCK):
            block = xy_angstrom[start : start + _ATOMS_PER_BLOCK]
            along_y = _ramp(block[:, 1], self.ky_per_angstrom, self._row_is_nyquist)
            along_y, x = _summed_over_equal_x(along_y, block[:, 0])
            along_x = _ramp(x, self.kx_per_angstrom, self._column_is_nyquist).T
            factors = [self._on.asarray(part.astype(self._on.complex_type)) for part in (along_y, along_x)]
            total = total + self._on.xp.matmul(*factors)
        return total


def _ramp(
    position_angstrom: NDArray[np.float64], k_per_angstrom: NDArray[np.float64], has_nyquist: bool
) -> NDArray[np.complex128]:
    """exp(-2 pi i k r), (frequencies, atoms)."""
    ramp = np.exp(-2j * np.pi * k_per_angstrom[:, None] * position_angstrom[None, :])
    if has_nyquist:
        row = int(np.argmax(np.abs(k_per_angstrom)))
        ramp[row] = ramp[row].real
    return ramp


def _summed_over_equal_x(
    along_y: NDArray[np.complex128], x_angstrom: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Atoms of the same x share one column: crystals need far smaller products."""
    distinct, member = np.unique(np.round(x_angstrom, _SAME_COORDINATE_DECIMALS), return_inverse=True)
    if len(distinct) == len(x_angstrom):
        return along_y, x_angstrom
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(len(distinct)))
    return np.add.reduceat(along_y[:, order], starts, axis=1), distinct
