"""Sums and maxima of a map inside square windows at every position, for choosing where to place a field."""

from __future__ import annotations

import numpy as np


def window_sums(values: np.ndarray, cells_count: int) -> np.ndarray:
    """Sum of `values` (rows, columns) in the window of `cells_count` cells a side, for every window wholly inside.

    Result (rows - n + 1, columns - n + 1); entry (r, c) belongs to the window whose first cell is (r, c).
    """
    return sums_from(running_sums(values), cells_count)


def running_sums(values: np.ndarray) -> np.ndarray:
    """(rows + 1, columns + 1) sums of everything before and above; `sums_from` turns them into window sums."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, axis=0), axis=1, out=table[1:, 1:])
    return table


def sums_from(table: np.ndarray, cells_count: int) -> np.ndarray:
    """Window sums from the running sums of a map."""
    n = cells_count
    return table[n:, n:] - table[:-n, n:] - table[n:, :-n] + table[:-n, :-n]


def window_maxima(values: np.ndarray, cells_count: int) -> np.ndarray:
    """Largest value in the same windows."""
    from scipy.ndimage import maximum_filter  # some tenths of a second, which who only reads a catalogue saves

    n = cells_count
    filtered = maximum_filter(values, size=n, mode="nearest")
    before = n // 2
    return filtered[before : values.shape[0] - n + 1 + before, before : values.shape[1] - n + 1 + before]


def window_centres_nm(axis_nm: np.ndarray, cells_count: int) -> np.ndarray:
    """Centre of each window along one axis of cell centres."""
    return (axis_nm[: len(axis_nm) - cells_count + 1] + axis_nm[cells_count - 1 :]) / 2


def cells_inside(
    grid_x_nm: np.ndarray, grid_y_nm: np.ndarray, x_nm: float, y_nm: float, width_nm: float
) -> tuple[slice, slice]:
    """(row, column) slices of the cells whose centres lie in a square."""
    half = width_nm / 2

    def cut(axis_nm: np.ndarray, centre_nm: float) -> slice:
        first = np.searchsorted(axis_nm, centre_nm - half - 1e-9)
        last = np.searchsorted(axis_nm, centre_nm + half - 1e-9)
        return slice(int(first), int(last))

    return cut(grid_y_nm, y_nm), cut(grid_x_nm, x_nm)


def square_means(
    values: np.ndarray, grid_x_nm: np.ndarray, grid_y_nm: np.ndarray, centres_nm: np.ndarray, width_nm: float
) -> np.ndarray:
    """(n,) mean of `values` (rows, columns) over the cells whose centres lie in the square around each (n, 2) x, y.

    A square that holds no cell's centre has the value of the cell nearest to its own centre.
    """
    table = running_sums(values)
    half = width_nm / 2
    column, row = (_first_and_last(axis, centres_nm[:, n], half) for n, axis in enumerate((grid_x_nm, grid_y_nm)))
    sums = table[row[1], column[1]] - table[row[0], column[1]] - table[row[1], column[0]] + table[row[0], column[0]]
    return sums / ((row[1] - row[0]) * (column[1] - column[0]))


def _first_and_last(axis_nm: np.ndarray, centre_nm: np.ndarray, half_nm: float) -> tuple[np.ndarray, np.ndarray]:
    """First cell inside and first cell beyond, at least one cell apart."""
    first = np.searchsorted(axis_nm, centre_nm - half_nm - 1e-9)
    last = np.searchsorted(axis_nm, centre_nm + half_nm - 1e-9)
    nearest = np.searchsorted((axis_nm[1:] + axis_nm[:-1]) / 2, centre_nm)
    return np.where(last > first, first, nearest), np.where(last > first, last, nearest + 1)
