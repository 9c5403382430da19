"""Which cells of the specimen a raster, a lit disc or a standing beam touches; `dose_ledger` keeps their books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, cos, floor, hypot, pi, radians, sin, sqrt

import numpy as np

from instruments.scans import ScanPattern, StagePosition

CELL_NM = 1.0
WIDE_CELL_NM = 64.0
FINE_SIDE_NM = 4000.0
"""Longest side of a raster that is kept on cells of 1 nm (16 million cells)."""
MAX_SIDE_NM = 250_000.0
"""Longest side of a raster the ledger keeps books of."""
MAX_PLACE_NM = 1e8
"""Farthest from the origin: 10 cm."""
MIN_SIDE_NM = 1e-6
"""Shortest side of one; less is lost in the rounding of where it lies."""
EVEN_NM = 0.1
"""Pixels no further apart light a cell evenly."""
_TOUCHED_NM2 = 1e-9
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cells a raster touches: integer cell indices of the lower corner, and the overlap of each in nm2 (rows = y)."""

    first_column: int
    first_row: int
    overlap_nm2: np.ndarray
    cell_nm: float = CELL_NM


def _overlap_1d(low: float, high: float) -> tuple[int, np.ndarray]:
    first = floor(low)
    edges = np.arange(first, max(ceil(high), first + 1) + 1, dtype=float)
    return first, np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)


def footprint(stage: StagePosition, scan: ScanPattern) -> Footprint:
    """Overlap of a raster with the grid of the specimen; exact unrotated, points of a tenth of a cell when rotated.

    Cells are of 1 nm, or of 64 nm where a side is longer than `FINE_SIDE_NM`. Of an exposure at once with
    `illuminated_nm`: of the lit disc, evenly.
    """
    lit_nm = scan.illuminated_nm if scan.at_once else None
    is_wide = max(scan.field_of_view_nm, scan.height_nm, lit_nm or 0.0) > FINE_SIDE_NM
    cell_nm = WIDE_CELL_NM if is_wide else CELL_NM
    x, y = (stage.x_nm + scan.beam_shift_x_nm) / cell_nm, (stage.y_nm + scan.beam_shift_y_nm) / cell_nm
    marks = _disc(x, y, lit_nm / 2 / cell_nm) if lit_nm is not None else _raster(x, y, scan, cell_nm)
    return replace(marks, overlap_nm2=marks.overlap_nm2 * cell_nm**2, cell_nm=cell_nm) if is_wide else marks


def _raster(x: float, y: float, scan: ScanPattern, cell_nm: float) -> Footprint:
    """In units of cells."""
    half_width, half_height = scan.field_of_view_nm / 2 / cell_nm, scan.height_nm / 2 / cell_nm
    if scan.rotation_deg == 0:
        column, width = _overlap_1d(x - half_width, x + half_width)
        row, height = _overlap_1d(y - half_height, y + half_height)
        return Footprint(column, row, height[:, None] * width[None, :])
    return _turned(x, y, half_width, half_height, radians(scan.rotation_deg), scan.area_nm2 / cell_nm**2)


def _turned(
    x_nm: float, y_nm: float, half_width_nm: float, half_height_nm: float, angle: float, area_nm2: float
) -> Footprint:
    """Every cell a turned rectangle touches, however little (separating axes); border cells from 10 x 10 points."""
    reach = hypot(half_width_nm, half_height_nm)
    column, row = floor(x_nm - reach), floor(y_nm - reach)
    c, s = cos(angle), sin(angle)
    dx = np.arange(column, ceil(x_nm + reach) + 1)[None, :] + 0.5 - x_nm
    dy = np.arange(row, ceil(y_nm + reach) + 1)[:, None] + 0.5 - y_nm
    along, across = np.abs(c * dx + s * dy), np.abs(c * dy - s * dx)
    margin = (abs(c) + abs(s)) / 2  # half a cell, seen along the sides of the rectangle
    touched = (along <= half_width_nm + margin) & (across <= half_height_nm + margin)
    touched &= np.abs(dx) <= 0.5 + half_width_nm * abs(c) + half_height_nm * abs(s)
    touched &= np.abs(dy) <= 0.5 + half_width_nm * abs(s) + half_height_nm * abs(c)
    overlap = (touched & (along <= half_width_nm - margin) & (across <= half_height_nm - margin)).astype(float)
    rows, columns = np.nonzero(touched & (overlap == 0))
    sub = (np.arange(10) + 0.5) / 10 - 0.5
    px, py = dx[0, columns, None, None] + sub[None, None, :], dy[rows, 0, None, None] + sub[None, :, None]
    inside = (np.abs(c * px + s * py) <= half_width_nm) & (np.abs(c * py - s * px) <= half_height_nm)
    overlap[rows, columns] = np.maximum(inside.mean(axis=(1, 2)), _TOUCHED_NM2)
    return Footprint(column, row, overlap * (area_nm2 / overlap.sum()))


def _disc(x_nm: float, y_nm: float, radius_nm: float) -> Footprint:
    """Every cell a disc touches; cells on its border from 10 x 10 points."""
    column, row = floor(x_nm - radius_nm), floor(y_nm - radius_nm)
    dx = np.arange(column, ceil(x_nm + radius_nm) + 1) + 0.5 - x_nm
    dy = np.arange(row, ceil(y_nm + radius_nm) + 1) + 0.5 - y_nm
    across = np.abs(dx)[None, :], np.abs(dy)[:, None]
    nearest = np.hypot(*(np.clip(side - 0.5, 0.0, None) for side in across))
    farthest = np.hypot(*(side + 0.5 for side in across))
    overlap = (farthest <= radius_nm).astype(float)
    rows, columns = np.nonzero((nearest < radius_nm) & (farthest > radius_nm))
    sub = (np.arange(10) + 0.5) / 10 - 0.5
    px, py = dx[columns, None, None] + sub[None, None, :], dy[rows, None, None] + sub[None, :, None]
    inside = np.hypot(px, py) <= radius_nm
    overlap[rows, columns] = np.maximum(inside.mean(axis=(1, 2)), _TOUCHED_NM2)
    return Footprint(column, row, overlap * (pi * radius_nm**2 / overlap.sum()))


@dataclass(frozen=True, slots=True)
class Lit:
    """How an exposure at once may be lit: anywhere within the widest disc, over no less than the least area.

    `widest_nm` is a diameter, None: the field; `least_nm2` the smallest area that all electrons may have fallen on.
    """

    widest_nm: float | None
    least_nm2: float

    @classmethod
    def between(cls, scan: ScanPattern, known_nm: Sequence[float]) -> Lit | None:
        """From the diameters that facility and instrument tell of; None where there are none: as it was commanded."""
        if not scan.at_once or not known_nm:
            return None
        said_nm, widest_nm = scan.illuminated_nm, max(known_nm)
        said_nm2 = scan.area_nm2 if said_nm is None else pi / 4 * said_nm**2
        least_nm2 = min(said_nm2, pi / 4 * min(known_nm) ** 2)
        if said_nm is not None:
            return cls(max(said_nm, widest_nm), least_nm2)
        reaches_out = widest_nm > min(scan.field_of_view_nm, scan.height_nm)
        return cls(max(widest_nm, hypot(scan.field_of_view_nm, scan.height_nm)) if reaches_out else None, least_nm2)


Exposed = tuple[Footprint, float]
"""Cells, and by how much the flux on one of them may exceed the mean over all."""


def exposed(stage: StagePosition, scan: ScanPattern, lit: Lit | None = None) -> Exposed:
    """The cells that a frame may touch, and by how much the flux on one of them may exceed the mean over all."""
    if lit is None or not scan.at_once:
        return footprint(stage, scan), concentration(scan)
    marks = footprint(stage, scan.model_copy(update={"illuminated_nm": lit.widest_nm}))
    return marks, max(1.0, float(marks.overlap_nm2.sum()) / lit.least_nm2)


def concentration(scan: ScanPattern) -> float:
    """How much more than the mean flux of a raster may fall on one of its 1 nm cells: pixels apart are spots.

    All electrons of every pixel that may lie in one cell, whatever the place of the raster: of an upright one, as many
    a side as its steps begin in 1 nm. Of a turned one: those whose squares touch the cell (area of the sum of two
    squares, Minkowski); of more than half a cell, five (one and its neighbours), from 0.71 nm four. Pixels of up to
    `EVEN_NM` count as even: no probe is much narrower than that.
    """
    pixel = scan.pixel_size_nm / CELL_NM
    if scan.at_once or pixel <= EVEN_NM / CELL_NM:
        return 1.0
    turned_by = radians(scan.rotation_deg)
    is_turned = scan.rotation_deg % 90 != 0
    if pixel <= 0.5:
        if not is_turned:
            return (ceil(1 / pixel * (1 - _ROUNDING)) * pixel) ** 2
        reach = abs(cos(turned_by)) + abs(sin(turned_by))
        return floor((1 + 2 * pixel * reach) / pixel**2 + 1 + _ROUNDING) * pixel**2
    together = 5 if is_turned and pixel < sqrt(0.5) else 4 if pixel <= 1 else 2 if pixel < sqrt(2) else 1
    return together * pixel**2


def spot(x_nm: float, y_nm: float) -> Footprint:
    """The one cell under a beam that stands still."""
    return Footprint(floor(x_nm), floor(y_nm), np.ones((1, 1)))


def first_pixel_nm(stage: StagePosition, scan: ScanPattern) -> tuple[float, float]:
    """Where the beam waits while the blanker settles: the first pixel of the raster, (x, y)."""
    c, s = cos(radians(scan.rotation_deg)), sin(radians(scan.rotation_deg))
    dx, dy = -scan.field_of_view_nm / 2, -scan.height_nm / 2
    return stage.x_nm + scan.beam_shift_x_nm + c * dx - s * dy, stage.y_nm + scan.beam_shift_y_nm + s * dx + c * dy
