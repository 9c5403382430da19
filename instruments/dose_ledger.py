"""Dose on the specimen, cell by cell of 1 nm2, and of 64 nm for wide fields; its neighbour `guards` decides with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from instruments import cards, plotting
from instruments.commands import AcquireFrame
from instruments.footprints import CELL_NM, WIDE_CELL_NM, Exposed, Footprint, exposed, first_pixel_nm, spot
from instruments.regions import Box, box_of, cells_of
from instruments.units import ANGSTROM2_PER_NM2

_BLOCK = 64
assert WIDE_CELL_NM == _BLOCK * CELL_NM, "a block of cells is one wide cell"
_ONE = np.zeros((1, 1))


_Blocks = dict[tuple[int, int], np.ndarray]


@dataclass
class DoseLedger:
    """Electrons per 1 nm2 cell. Two sums are kept: the mean over a cell, and an upper bound of the dose anywhere in it.

    The upper bound counts the full flux of every raster that touches the cell, and of pixels more than half a nanometre
    apart all electrons of those that may lie in it; it is what limits are checked against.
    Fields wider than 4000 nm are kept beside them, on cells of 64 nm, and count wherever either is asked for; so do
    regions beyond all cells, such as the way of a stage whose move was not answered.

    What the specimen got before, from others, is `earlier`: it counts wherever a bound is asked for, and in no sum.
    The sum of electrons is kept exactly, so that a debit taken back leaves none of it.
    """

    earlier: DoseLedger | None = None
    _mean: _Blocks = field(default_factory=_Blocks)
    _peak: _Blocks = field(default_factory=_Blocks)
    _wide_mean: _Blocks = field(default_factory=_Blocks)
    _wide_peak: _Blocks = field(default_factory=_Blocks)
    _far: list[tuple[Box, float]] = field(default_factory=list[tuple[Box, float]])
    _electrons: Fraction = Fraction(0)

    @property
    def electrons(self) -> float:
        """All electrons booked, but for those of `earlier`."""
        return float(self._electrons)

    def peak_after(self, marks: Footprint, flux_e_per_a2: float) -> float:
        """The highest dose bound, e/A2, in the touched cells if this flux were added to what they got ever."""
        touched = marks.overlap_nm2 > 0
        before, far = self._bounds(marks), self._from_far(box_of(marks))
        if self.earlier is not None:
            before = before + self.earlier._bounds(marks)
            far += self.earlier._from_far(box_of(marks))
        return float((before[touched] + flux_e_per_a2).max(initial=0.0)) + far

    def add(self, marks: Footprint, electrons: float, bound_factor: float = 1.0) -> None:
        """Spread `electrons` over the footprint; negative corrects an earlier, too high debit.

        The bound is the mean flux times `bound_factor` (`footprints.concentration`).
        """
        area_nm2 = float(marks.overlap_nm2.sum())
        flux = electrons / (area_nm2 * ANGSTROM2_PER_NM2)
        self._electrons += Fraction(float(electrons))
        self._book(marks, flux, flux * bound_factor)

    def add_within(self, box: Box, electrons: float, least_nm2: float = CELL_NM**2, *, is_counted: bool = True) -> None:
        """Electrons that may all have gone to one place of the box, on no less than this area.

        The mean is spread over the box, the bound is not; of a box beyond the ledger's cells the bound alone is kept.
        Those that are not counted are in the sum of electrons already.
        """
        bound, marks = electrons / (least_nm2 * ANGSTROM2_PER_NM2), cells_of(box)
        self._electrons += Fraction(float(electrons) if is_counted else 0.0)
        if marks is None:
            self._far.append((box, bound))
        else:
            self._book(marks, electrons / (float(marks.overlap_nm2.sum()) * ANGSTROM2_PER_NM2), bound)

    def add_point(self, x_nm: float, y_nm: float, electrons: float) -> None:
        """All of it into the one cell under a parked beam."""
        self.add(spot(x_nm, y_nm), electrons)

    def add_frame(
        self, command: AcquireFrame, electrons: float, settling_electrons: float = 0.0, cells: Exposed | None = None
    ) -> None:
        """A frame's electrons over its raster, those of the settling blanker on its first pixel; of none, nothing.

        `cells` are those of the frame where they are known, else as it was commanded.
        """
        if electrons == 0:
            return
        marks, factor = cells or exposed(command.stage, command.scan)
        self.add(marks, electrons - settling_electrons, factor)
        if settling_electrons:
            self.add_point(*first_pixel_nm(command.stage, command.scan), settling_electrons)

    @property
    def max_e_per_a2(self) -> float:
        """Upper bound of the dose at any point of the specimen."""
        wide = max((float(block.max()) for block in self._wide_peak.values()), default=0.0)
        over = (
            float(block.max()) + float(self._read(self._wide_peak, Footprint(column, row, _ONE))[0, 0])
            for (row, column), block in self._peak.items()
        )
        highest = max(over, default=0.0) if wide == 0.0 else max(wide, *over, 0.0)
        return highest + sum(bound for _, bound in self._far)

    def mean_map(self, x_min_nm: int, y_min_nm: int, columns: int, rows: int) -> np.ndarray:
        """Mean dose of the cells of a window, e/A2, (rows, columns); row 0 is the lowest y."""
        window = Footprint(x_min_nm, y_min_nm, np.zeros((rows, columns)))
        return self._read(self._mean, window) + self._from_wide(self._wide_mean, window)

    def window_nm(self) -> tuple[int, int, int, int] | None:
        """(lowest x, lowest y, columns, rows) of the smallest window with every exposed 1 nm cell; None before any.

        What wide fields exposed beyond it is not in it.
        """
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

    def _bounds(self, marks: Footprint) -> np.ndarray:
        """The dose bound of each of these cells, e/A2."""
        if marks.cell_nm == CELL_NM:
            return self._read(self._peak, marks) + self._from_wide(self._wide_peak, marks)
        return self._read(self._wide_peak, marks) + self._highest_fine(marks)

    def _from_far(self, box: Box) -> float:
        return sum(bound for far, bound in self._far if far.meets(box))

    def _book(self, marks: Footprint, mean_e_per_a2: float, bound_e_per_a2: float) -> None:
        is_fine = marks.cell_nm == CELL_NM
        means, peaks = (self._mean, self._peak) if is_fine else (self._wide_mean, self._wide_peak)
        self._write(means, marks, mean_e_per_a2 * marks.overlap_nm2 / marks.cell_nm**2)
        self._write(peaks, marks, np.where(marks.overlap_nm2 > 0, bound_e_per_a2, 0.0))

    def _from_wide(self, blocks: _Blocks, fine: Footprint) -> np.ndarray:
        """What wide fields put on these 1 nm cells."""
        if not blocks:
            return np.zeros(fine.overlap_nm2.shape)
        height, width = fine.overlap_nm2.shape
        rows, columns = (fine.first_row + np.arange(height)) // _BLOCK, (fine.first_column + np.arange(width)) // _BLOCK
        cells = np.zeros((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
        wide = self._read(blocks, Footprint(int(columns[0]), int(rows[0]), cells))
        return wide[np.ix_(rows - rows[0], columns - columns[0])]

    def _highest_fine(self, wide: Footprint) -> np.ndarray:
        """The highest bound among the 1 nm cells of each of these wide ones; a block of them is one wide cell."""
        highest = np.zeros(wide.overlap_nm2.shape)
        rows, columns = wide.overlap_nm2.shape
        for (row, column), block in self._peak.items():
            r, c = row - wide.first_row, column - wide.first_column
            if 0 <= r < rows and 0 <= c < columns:
                highest[r, c] = block.max()
        return highest

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
