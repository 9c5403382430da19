"""Rectangles of the specimen within which a beam may have stood; `footprints` knows what one exposure touches."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, radians, sin

import numpy as np

from instruments.footprints import CELL_NM, FINE_SIDE_NM, MAX_SIDE_NM, WIDE_CELL_NM, Footprint
from instruments.scans import ScanPattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle along the axes of the specimen; a point where it has no extent."""

    x_min_nm: float
    x_max_nm: float
    y_min_nm: float
    y_max_nm: float

    @classmethod
    def at(cls, x_nm: float, y_nm: float) -> Box:
        """The point."""
        return cls(x_min_nm=x_nm, x_max_nm=x_nm, y_min_nm=y_nm, y_max_nm=y_nm)

    def grown(self, x_nm: float, y_nm: float) -> Box:
        """So much larger on either side."""
        return Box(
            x_min_nm=self.x_min_nm - x_nm, x_max_nm=self.x_max_nm + x_nm,
            y_min_nm=self.y_min_nm - y_nm, y_max_nm=self.y_max_nm + y_nm,
        )  # fmt: skip

    def joined(self, other: Box) -> Box:
        """The smallest that holds both: everything between them too."""
        return Box(
            x_min_nm=min(self.x_min_nm, other.x_min_nm), x_max_nm=max(self.x_max_nm, other.x_max_nm),
            y_min_nm=min(self.y_min_nm, other.y_min_nm), y_max_nm=max(self.y_max_nm, other.y_max_nm),
        )  # fmt: skip

    def meets(self, other: Box) -> bool:
        """Whether they have a point in common, their borders included."""
        return (
            self.x_min_nm <= other.x_max_nm and other.x_min_nm <= self.x_max_nm
            and self.y_min_nm <= other.y_max_nm and other.y_min_nm <= self.y_max_nm
        )  # fmt: skip


def cells_of(box: Box, fine_side_nm: float = FINE_SIDE_NM) -> Footprint | None:
    """Every cell the box touches, whole: of 1 nm, or of 64 nm for a wide one; None: it is beyond the ledger's cells."""
    longest_nm = max(box.x_max_nm - box.x_min_nm, box.y_max_nm - box.y_min_nm)
    if longest_nm > MAX_SIDE_NM:
        return None
    cell_nm = CELL_NM if longest_nm <= fine_side_nm else WIDE_CELL_NM
    column, row = floor(box.x_min_nm / cell_nm), floor(box.y_min_nm / cell_nm)
    columns, rows = floor(box.x_max_nm / cell_nm) - column + 1, floor(box.y_max_nm / cell_nm) - row + 1
    return Footprint(column, row, np.full((rows, columns), cell_nm**2), cell_nm)


def box_of(marks: Footprint) -> Box:
    """The rectangle of a footprint's cells."""
    rows, columns = marks.overlap_nm2.shape
    return Box(
        x_min_nm=marks.first_column * marks.cell_nm, x_max_nm=(marks.first_column + columns) * marks.cell_nm,
        y_min_nm=marks.first_row * marks.cell_nm, y_max_nm=(marks.first_row + rows) * marks.cell_nm,
    )  # fmt: skip


def half_extent_nm(scan: ScanPattern, widest_nm: float = 0.0) -> tuple[float, float]:
    """How far a raster, or a lit disc as wide as this, reaches from its centre along x and y."""
    c, s = abs(cos(radians(scan.rotation_deg))), abs(sin(radians(scan.rotation_deg)))
    half_width, half_height, disc = scan.field_of_view_nm / 2, scan.height_nm / 2, widest_nm / 2
    return max(c * half_width + s * half_height, disc), max(s * half_width + c * half_height, disc)
