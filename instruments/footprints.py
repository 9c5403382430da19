"""Which cells of an upright specimen a raster, a lit disc or a standing beam touches.

Neighbours: `illumination` knows of tilted ones, and of a beam nobody knows well; `dose_ledger` keeps their books.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, floor, radians, sin, sqrt

import numpy as np

from instruments import overlaps
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
_ROUNDING = 1e-9
_SLANTED_NM = 0.61, 1.04  # points further apart are five, two at most in a cell, whatever their pattern


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cells an exposure touches: integer cell indices of the lower corner, and the overlap of each in nm2 (rows = y).

    With `least_nm2` it may have touched any of them: all its electrons lie somewhere within, on no less than that area.
    """

    first_column: int
    first_row: int
    overlap_nm2: np.ndarray
    cell_nm: float = CELL_NM
    least_nm2: float | None = None

    @property
    def area_nm2(self) -> float:
        """The area that the electrons are spread over."""
        return float(self.overlap_nm2.sum()) if self.least_nm2 is None else self.least_nm2


def footprint(stage: StagePosition, scan: ScanPattern) -> Footprint:
    """Overlap of a raster with the grid of an upright specimen, exact to rounding.

    Of an exposure at once with `illuminated_nm`: of the lit disc, evenly.
    """
    lit_nm = scan.illuminated_nm if scan.at_once else None
    x_nm, y_nm = stage.x_nm + scan.beam_shift_x_nm, stage.y_nm + scan.beam_shift_y_nm
    if lit_nm is not None:
        return disc(x_nm, y_nm, lit_nm, longest_nm=max(scan.field_of_view_nm, scan.height_nm, lit_nm))
    return rectangle(x_nm, y_nm, scan.field_of_view_nm, scan.height_nm, scan.rotation_deg)


def rectangle(x_nm: float, y_nm: float, width_nm: float, height_nm: float, rotation_deg: float) -> Footprint:
    """Overlap of a rectangle; cells are of 1 nm, or of 64 nm where a side is longer than `FINE_SIDE_NM`."""
    cell_nm = _cell_nm(max(width_nm, height_nm))
    place = x_nm / cell_nm, y_nm / cell_nm, width_nm / 2 / cell_nm, height_nm / 2 / cell_nm
    column, row, overlap = overlaps.turned(*place, rotation_deg) if rotation_deg else overlaps.upright(*place)
    return Footprint(column, row, overlap * cell_nm**2, cell_nm)


def disc(x_nm: float, y_nm: float, diameter_nm: float, *, longest_nm: float = 0.0) -> Footprint:
    """Overlap of a disc, on the cells of something so long where that is longer."""
    cell_nm = _cell_nm(max(diameter_nm, longest_nm))
    column, row, overlap = overlaps.disc(x_nm / cell_nm, y_nm / cell_nm, diameter_nm / 2 / cell_nm)
    return Footprint(column, row, overlap * cell_nm**2, cell_nm)


def _cell_nm(longest_nm: float) -> float:
    return WIDE_CELL_NM if longest_nm > FINE_SIDE_NM else CELL_NM


def concentration(scan: ScanPattern, *, is_tilted: bool = False) -> float:
    """How much more than the mean flux of a raster may fall on one of its 1 nm cells: pixels apart are spots.

    All electrons of every pixel that may lie in one cell, whatever the place of the raster: of an upright one, as many
    a side as its steps begin in 1 nm. Of a turned one: those whose squares touch the cell (area of the sum of two
    squares, Minkowski); of more than half a cell, five (one and its neighbours), from 0.71 nm four. Pixels of up to
    `EVEN_NM` count as even: no probe is much narrower than that. On a tilted specimen pixels lie further apart, but
    aslant: a cell seen along the beam is no larger than a square turned by 45 degrees.
    """
    pixel = scan.pixel_size_nm / CELL_NM
    if scan.at_once or pixel <= EVEN_NM / CELL_NM:
        return 1.0
    turned_by = radians(45.0 if is_tilted else scan.rotation_deg)
    is_turned = is_tilted or scan.rotation_deg % 90 != 0
    crowd_nm, four_nm = _SLANTED_NM if is_tilted else (0.5, 1.0)
    if pixel <= crowd_nm:
        if not is_turned:
            return (ceil(1 / pixel * (1 - _ROUNDING)) * pixel) ** 2
        reach = abs(cos(turned_by)) + abs(sin(turned_by))
        return floor((1 + 2 * pixel * reach) / pixel**2 + 1 + _ROUNDING) * pixel**2
    together = 5 if is_turned and pixel < sqrt(0.5) else 4 if pixel <= four_nm else 2 if pixel < sqrt(2) else 1
    return together * pixel**2


def spot(x_nm: float, y_nm: float) -> Footprint:
    """The one cell under a beam that stands still."""
    return Footprint(floor(x_nm), floor(y_nm), np.ones((1, 1)))


def first_pixel_nm(stage: StagePosition, scan: ScanPattern) -> tuple[float, float]:
    """Where the beam waits while the blanker settles: the middle of the first pixel of the raster, (x, y)."""
    c, s = cos(radians(scan.rotation_deg)), sin(radians(scan.rotation_deg))
    dx, dy = (scan.pixel_size_nm - scan.field_of_view_nm) / 2, (scan.pixel_size_nm - scan.height_nm) / 2
    return stage.x_nm + scan.beam_shift_x_nm + c * dx - s * dy, stage.y_nm + scan.beam_shift_y_nm + s * dx + c * dy
