"""Dose on the specimen, cell by cell of 1 nm2; its neighbour `guards` decides with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, cos, floor, hypot, pi, radians, sin

import numpy as np

from instruments import cards, plotting
from instruments.commands import AcquireFrame
from instruments.scans import ScanPattern, StagePosition
from instruments.units import ANGSTROM2_PER_NM2

CELL_NM = 1.0
MAX_SIDE_NM = 4000.0
"""Longest side of a raster the ledger keeps books of (16 million cells)."""
MAX_PLACE_NM = 1e8
"""Farthest from the origin: 10 cm."""
MIN_SIDE_NM = 1e-6
"""Shortest side of one; less is lost in the rounding of where it lies."""
_TOUCHED_NM2 = 1e-9
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cells a raster touches: integer cell indices of the lower corner, and the overlap of each in nm2 (rows = y)."""

    first_column: int
    first_row: int
    overlap_nm2: np.ndarray


def _overlap_1d(low: float, high: float) -> tuple[int, np.ndarray]:
    first = floor(low)
    edges = np.arange(first, max(ceil(high), first + 1) + 1, dtype=float)
    return first, np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)


def footprint(stage: StagePosition, scan: ScanPattern) -> Footprint:
    """Overlap of a raster with the 1 nm grid of the specimen; exact unrotated, 0.1 nm points when rotated.

    Of an exposure at once with `illuminated_nm`: of the lit disc, evenly.
    """
    if scan.at_once and scan.illuminated_nm is not None:
        return _disc(stage.x_nm + scan.beam_shift_x_nm, stage.y_nm + scan.beam_shift_y_nm, scan.illuminated_nm / 2)
    x, y = stage.x_nm + scan.beam_shift_x_nm, stage.y_nm + scan.beam_shift_y_nm
    half_width, half_height = scan.field_of_view_nm / 2, scan.height_nm / 2
    if scan.rotation_deg == 0:
        column, width = _overlap_1d(x - half_width, x + half_width)
        row, height = _overlap_1d(y - half_height, y + half_height)
        return Footprint(column, row, height[:, None] * width[None, :])
    return _turned(x, y, half_width, half_height, radians(scan.rotation_deg), scan.area_nm2)


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


def spot(x_nm: float, y_nm: float) -> Footprint:
    """The one cell under a beam that stands still."""
    return Footprint(floor(x_nm), floor(y_nm), np.ones((1, 1)))


def first_pixel_nm(stage: StagePosition, scan: ScanPattern) -> tuple[float, float]:
    """Where the beam waits while the blanker settles: the first pixel of the raster, (x, y)."""
    c, s = cos(radians(scan.rotation_deg)), sin(radians(scan.rotation_deg))
    dx, dy = -scan.field_of_view_nm / 2, -scan.height_nm / 2
    return stage.x_nm + scan.beam_shift_x_nm + c * dx - s * dy, stage.y_nm + scan.beam_shift_y_nm + s * dx + c * dy


@dataclass
class DoseLedger:
    """Electrons per 1 nm2 cell. Two sums are kept: the mean over a cell, and an upper bound of the dose anywhere in it.

    The upper bound counts the full flux of every raster that touches the cell; it is what limits are checked against.
    """

    electrons: float = 0.0
    _mean: dict[tuple[int, int], np.ndarray] = field(default_factory=dict[tuple[int, int], np.ndarray])
    _peak: dict[tuple[int, int], np.ndarray] = field(default_factory=dict[tuple[int, int], np.ndarray])

    def peak_after(self, marks: Footprint, flux_e_per_a2: float) -> float:
        """The highest dose bound, e/A2, in the touched cells if this flux were added."""
        touched = marks.overlap_nm2 > 0
        return float((self._read(self._peak, marks)[touched] + flux_e_per_a2).max(initial=0.0))

    def add(self, marks: Footprint, electrons: float) -> None:
        """Spread `electrons` evenly over the footprint; negative corrects an earlier, too high debit."""
        area_nm2 = float(marks.overlap_nm2.sum())
        flux = electrons / (area_nm2 * ANGSTROM2_PER_NM2)
        self.electrons += electrons
        self._write(self._mean, marks, flux * marks.overlap_nm2 / CELL_NM**2)
        self._write(self._peak, marks, np.where(marks.overlap_nm2 > 0, flux, 0.0))

    def add_somewhere(self, marks: Footprint, electrons: float) -> None:
        """Electrons that may all have gone to any one point of the footprint: the mean is spread, the bound is not."""
        area_nm2 = float(marks.overlap_nm2.sum())
        self.electrons += electrons
        mean = electrons / (area_nm2 * ANGSTROM2_PER_NM2)
        self._write(self._mean, marks, mean * marks.overlap_nm2 / CELL_NM**2)
        bound = electrons / (CELL_NM**2 * ANGSTROM2_PER_NM2)
        self._write(self._peak, marks, np.where(marks.overlap_nm2 > 0, bound, 0.0))

    def add_point(self, x_nm: float, y_nm: float, electrons: float) -> None:
        """All of it into the one cell under a parked beam."""
        self.add(spot(x_nm, y_nm), electrons)

    def add_frame(self, command: AcquireFrame, electrons: float, settling_electrons: float = 0.0) -> None:
        """A frame's electrons over its raster, those of the settling blanker on its first pixel; of none, nothing."""
        if electrons == 0:
            return
        self.add(footprint(command.stage, command.scan), electrons - settling_electrons)
        if settling_electrons:
            self.add_point(*first_pixel_nm(command.stage, command.scan), settling_electrons)

    @property
    def max_e_per_a2(self) -> float:
        """Upper bound of the dose at any point of the specimen."""
        return max((float(block.max()) for block in self._peak.values()), default=0.0)

    def mean_map(self, x_min_nm: int, y_min_nm: int, columns: int, rows: int) -> np.ndarray:
        """Mean dose of the cells of a window, e/A2, (rows, columns); row 0 is the lowest y."""
        return self._read(self._mean, Footprint(x_min_nm, y_min_nm, np.zeros((rows, columns))))

    def window_nm(self) -> tuple[int, int, int, int] | None:
        """(lowest x, lowest y, columns, rows) of the smallest window with every exposed cell; None before any."""
        spots = [
            (key[1] * _BLOCK + columns, key[0] * _BLOCK + rows)
            for key, block in self._mean.items()
            for rows, columns in [np.nonzero(block)]
        ]
        x, y = (np.concatenate([spot[n] for spot in spots]) if spots else np.zeros(0, int) for n in (0, 1))
        if not len(x):
            return None
        return int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1

    def plot(self, axes: plotting.Axes | None = None) -> plotting.Axes:
        """Draw the mean dose of every cell; needs matplotlib."""
        return plotting.draw_dose(self, axes)

    def _repr_html_(self) -> str:
        return cards.card(
            "Dose ledger",
            "",
            cards.facts({"electrons": self.electrons, "highest dose (e/Å²)": self.max_e_per_a2}),
        )

    def _read(self, blocks: dict[tuple[int, int], np.ndarray], marks: Footprint) -> np.ndarray:
        out = np.zeros(marks.overlap_nm2.shape)
        for key, inner, outer in _pieces(marks):
            if key in blocks:
                out[outer] = blocks[key][inner]
        return out

    def _write(self, blocks: dict[tuple[int, int], np.ndarray], marks: Footprint, values: np.ndarray) -> None:
        for key, inner, outer in _pieces(marks):
            block = blocks.setdefault(key, np.zeros((_BLOCK, _BLOCK)))
            block[inner] += values[outer]


def _pieces(marks: Footprint) -> list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """The footprint cut at block borders: block key, slices in the block, slices in the footprint."""
    rows, columns = marks.overlap_nm2.shape
    pieces: list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]] = []
    for block_row in range(marks.first_row // _BLOCK, (marks.first_row + rows - 1) // _BLOCK + 1):
        for block_column in range(marks.first_column // _BLOCK, (marks.first_column + columns - 1) // _BLOCK + 1):
            inner: list[slice] = []
            outer: list[slice] = []
            for block, first, count in (
                (block_row, marks.first_row, rows),
                (block_column, marks.first_column, columns),
            ):
                low, high = max(first, block * _BLOCK), min(first + count, (block + 1) * _BLOCK)
                inner.append(slice(low - block * _BLOCK, high - block * _BLOCK))
                outer.append(slice(low - first, high - first))
            pieces.append(((block_row, block_column), (inner[0], inner[1]), (outer[0], outer[1])))
    return pieces
