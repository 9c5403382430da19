"""Sums of exp(-2 pi i k.r) over atoms: exact placement at any point between the pixels of a grid.

`StructureFactor` holds on every frequency and costs atoms times pixels; `SpreadAtoms` serves functions that fade before
the grid's Nyquist frequency, at the cost of a Fourier transform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend
from simulation.wave_grid import WaveGrid

_ATOMS_PER_BLOCK = 4096
_SAME_COORDINATE_DECIMALS = 9
_SPREAD_PX = 1.2
"""Standard deviation of the Gaussian that stands for an atom: its own aliases and its cut are both below 1e-6."""
_REACH_PX = 7


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


class SpreadAtoms:
    """Sums over atoms drawn as Gaussians on the pixels, on the half of the frequencies that a real function needs.

    Their Fourier transform is the structure factor times `drawn`, but for aliases: beyond the Nyquist frequency the
    Gaussian has not quite ended. What is left of a function that falls as exp(-(k / 0.31 Nyquist)^2) is right to 2e-6
    of its value at k = 0.
    """

    def __init__(self, grid: WaveGrid, on: Backend) -> None:
        """One grid serves all elements."""
        self._grid, self._on = grid, on
        self.frequencies = StructureFactor(grid, on, half=True)

    @property
    def drawn(self) -> Array:
        """The Gaussian's Fourier transform, (rows, columns of the half)."""
        along = [
            np.exp(-2 * (np.pi * _SPREAD_PX * step * k) ** 2)
            for step, k in zip(
                self._grid.sampling_angstrom,
                (self.frequencies.ky_per_angstrom, self.frequencies.kx_per_angstrom),
                strict=True,
            )
        ]
        return self._on.asarray((along[0][:, None] * along[1][None, :]).astype(self._on.real_type))

    def of(self, xy_angstrom: NDArray[np.float64]) -> Array:
        """The sum over atoms at (n, 2) of (x, y), times `drawn`."""
        (rows, columns), total = self._grid.shape_px, np.zeros(self._grid.shape_px[0] * self._grid.shape_px[1])
        steps = np.arange(1 - _REACH_PX, _REACH_PX + 1)
        for start in range(0, len(xy_angstrom), _ATOMS_PER_BLOCK):
            pixel = xy_angstrom[start : start + _ATOMS_PER_BLOCK, ::-1] / np.array(self._grid.sampling_angstrom)
            first = np.floor(pixel)
            weights = [_gaussian(steps - (pixel - first)[:, axis, None]) for axis in (0, 1)]
            row, column = ((first[:, axis, None].astype(np.int64) + steps) % count for axis, count in
                           enumerate((rows, columns)))  # fmt: skip
            places = row[:, :, None] * columns + column[:, None, :]
            drawn = weights[0][:, :, None] * weights[1][:, None, :]
            total += np.bincount(places.ravel(), weights=drawn.ravel(), minlength=len(total))
        return self._on.rfft2(self._on.asarray(total.reshape(rows, columns).astype(self._on.real_type)))


def _gaussian(steps_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of `_SPREAD_PX`, summing to 1 over all pixels."""
    return np.exp(-0.5 * (steps_px / _SPREAD_PX) ** 2) / (np.sqrt(2 * np.pi) * _SPREAD_PX)


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
