"""Sums of numbers for every cell of a grid without borders, exact: what is added and taken back leaves nothing.

Neighbour: `dose_ledger` keeps its books in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from instruments.footprints import Footprint

BLOCK: Final = 64


class CellSums:
    """Blocks of 64 x 64 cells, made where something is added.

    Each sum is two numbers, the second what the first has lost in rounding (TwoSum, Knuth, The Art of Computer
    Programming, vol. 2, 4.2.2): together 106 bits.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], np.ndarray] = {}
        self._lost: dict[tuple[int, int], np.ndarray] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, marks: Footprint, values: np.ndarray) -> None:
        """Add a value to each of these cells."""
        for key, inner, outer in _pieces(marks):
            sums = self._sums.setdefault(key, np.zeros((BLOCK, BLOCK)))
            total, lost = _two_sum(sums[inner], values[outer])
            if key in self._lost or lost.any():
                before = self._lost.setdefault(key, np.zeros((BLOCK, BLOCK)))
                total, before[inner] = _two_sum(total, before[inner] + lost)
            sums[inner] = total

    def at(self, marks: Footprint) -> np.ndarray:
        """The sum of each of these cells."""
        out = np.zeros(marks.overlap_nm2.shape)
        for key, inner, outer in _pieces(marks):
            if key in self._sums:
                out[outer] = self._sums[key][inner]
        return out

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(block row, block column, sums) of every block that was ever added to."""
        yield from ((row, column, sums) for (row, column), sums in self._sums.items())


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _pieces(marks: Footprint) -> list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """The footprint cut at block borders: block key, slices in the block, slices in the footprint."""
    rows, columns = marks.overlap_nm2.shape
    pieces: list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]] = []
    for block_row in range(marks.first_row // BLOCK, (marks.first_row + rows - 1) // BLOCK + 1):
        for block_column in range(marks.first_column // BLOCK, (marks.first_column + columns - 1) // BLOCK + 1):
            inner: list[slice] = []
            outer: list[slice] = []
            for block, first, count in (
                (block_row, marks.first_row, rows),
                (block_column, marks.first_column, columns),
            ):
                low, high = max(first, block * BLOCK), min(first + count, (block + 1) * BLOCK)
                inner.append(slice(low - block * BLOCK, high - block * BLOCK))
                outer.append(slice(low - first, high - first))
            pieces.append(((block_row, block_column), (inner[0], inner[1]), (outer[0], outer[1])))
    return pieces
