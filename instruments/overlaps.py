"""The area that a rectangle or a disc has in common with each cell of a grid of unit squares, exact to rounding.

Lengths are in cells (px); an array's element (row, column) is the cell at (first row + row, first column + column).
Neighbour: `footprints` makes of them what an exposure touches.
"""

from __future__ import annotations

from math import ceil, cos, floor, hypot, radians, sin
from typing import Final

import numpy as np

TOUCHED: Final = 1e-9
"""Least overlap of a cell that is touched at all."""
_FLAT: Final = 1e-8


def upright(x_px: float, y_px: float, half_width_px: float, half_height_px: float) -> tuple[int, int, np.ndarray]:
    """(first column, first row, overlaps) of a rectangle along the grid."""
    column, width = _overlap_1d(x_px - half_width_px, x_px + half_width_px)
    row, height = _overlap_1d(y_px - half_height_px, y_px + half_height_px)
    return column, row, height[:, None] * width[None, :]


def turned(
    x_px: float, y_px: float, half_width_px: float, half_height_px: float, rotation_deg: float
) -> tuple[int, int, np.ndarray]:
    """The same of a turned one: every cell it touches, however little (separating axes)."""
    reach = hypot(half_width_px, half_height_px)
    column, row = floor(x_px - reach), floor(y_px - reach)
    c, s = cos(radians(rotation_deg)), sin(radians(rotation_deg))
    dx = np.arange(column, ceil(x_px + reach) + 1)[None, :] + 0.5 - x_px
    dy = np.arange(row, ceil(y_px + reach) + 1)[:, None] + 0.5 - y_px
    along, across = np.abs(c * dx + s * dy), np.abs(c * dy - s * dx)
    margin = (abs(c) + abs(s)) / 2  # half a cell, seen along the sides of the rectangle
    touched = (along <= half_width_px + margin) & (across <= half_height_px + margin)
    touched &= np.abs(dx) <= 0.5 + half_width_px * abs(c) + half_height_px * abs(s)
    touched &= np.abs(dy) <= 0.5 + half_width_px * abs(s) + half_height_px * abs(c)
    overlap = (touched & (along <= half_width_px - margin) & (across <= half_height_px - margin)).astype(float)
    rows, columns = np.nonzero(touched & (overlap == 0))
    corners = [(half_width_px, half_height_px), (-half_width_px, half_height_px), (-half_width_px, -half_height_px),
               (half_width_px, -half_height_px)]  # fmt: skip
    placed = [(c * u - s * v, s * u + c * v) for u, v in corners]
    overlap[rows, columns] = np.clip(_polygon(placed, dx[0, columns] - 0.5, dy[rows, 0] - 0.5), TOUCHED, 1.0)
    return column, row, overlap


def disc(x_px: float, y_px: float, radius_px: float) -> tuple[int, int, np.ndarray]:
    """The same of a disc."""
    column, row = floor(x_px - radius_px), floor(y_px - radius_px)
    left, low = np.arange(column, ceil(x_px + radius_px) + 2) - x_px, np.arange(row, ceil(y_px + radius_px) + 2) - y_px
    nearest = np.hypot(*np.meshgrid(*(np.clip(_nearest(edges), 0.0, None) for edges in (left, low))))
    farthest = np.hypot(*np.meshgrid(*(np.maximum(np.abs(e[:-1]), np.abs(e[1:])) for e in (left, low))))
    overlap = (farthest <= radius_px).astype(float)
    rows, columns = np.nonzero((nearest < radius_px) & (farthest > radius_px))
    area = sum(
        sign * _quarter(left[columns + right], low[rows + upper], radius_px)
        for right, upper, sign in ((1, 1, 1.0), (0, 1, -1.0), (1, 0, -1.0), (0, 0, 1.0))
    )
    overlap[rows, columns] = np.clip(area, TOUCHED, 1.0)
    return column, row, overlap


def _overlap_1d(low: float, high: float) -> tuple[int, np.ndarray]:
    first = floor(low)
    edges = np.arange(first, max(ceil(high), first + 1) + 1, dtype=float)
    return first, np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)


def _polygon(corners: list[tuple[float, float]], left: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Area of a polygon (corners anticlockwise) in the unit squares with these lower left corners.

    Under each side as far as it lies over the square: what is under the upper sides less what is under the lower ones.
    """
    area = np.zeros(len(left))
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if x0 == x1:
            continue
        slope = (y1 - y0) / (x1 - x0)
        begin, end = (np.clip(x, left, left + 1) for x in (x0, x1))
        heights = [y0 + slope * (x - x0) - low for x in (begin, end)]
        area += (begin - end) * _mean_clipped(*heights)
    return area


def _mean_clipped(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean of min(max(h, 0), 1) while h goes evenly from `first` to `last`."""
    lowest, highest = np.minimum(first, last), np.maximum(first, last)
    length, inside = highest - lowest, np.clip(highest, 0, 1) - np.clip(lowest, 0, 1)
    between = inside * (np.clip(highest, 0, 1) + np.clip(lowest, 0, 1)) / 2
    above = np.maximum(highest, 1) - np.maximum(lowest, 1)
    is_flat = length < _FLAT
    return np.where(is_flat, np.clip((lowest + highest) / 2, 0, 1), (between + above) / np.where(is_flat, 1.0, length))


def _nearest(edges: np.ndarray) -> np.ndarray:
    """How far each cell between two edges is from 0; below 0 for the one that holds it."""
    return np.maximum(edges[:-1], -edges[1:])


def _quarter(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Area of the disc about 0 left of `x` and below `y`."""
    x, y = np.clip(x, -radius, radius), np.clip(y, -radius, radius)
    width = np.sqrt(np.maximum(radius**2 - y**2, 0.0))
    within = np.clip(x, -width, width)
    under = y * (within + width) + _under_arc(within, radius) + _under_arc(width, radius)
    beside = _under_arc(x, radius) + _under_arc(np.full_like(x, radius), radius)
    beside -= _under_arc(within, radius) + _under_arc(width, radius)
    return under + np.where(y >= 0, 2 * beside, 0.0)


def _under_arc(x: np.ndarray, radius: float) -> np.ndarray:
    """Area under the upper half of the circle, from 0 to `x`."""
    return (x * np.sqrt(np.maximum(radius**2 - x**2, 0.0)) + radius**2 * np.arcsin(np.clip(x / radius, -1, 1))) / 2
