"""Dose on the specimen, cell by cell of 1 nm2, and of 64 nm for wide fields; its neighbour `guards` decides with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import fsum

import numpy as np

from instruments import cards, plotting
from instruments.cell_sums import BLOCK, CellSums
from instruments.commands import AcquireFrame
from instruments.footprints import CELL_NM, WIDE_CELL_NM, Footprint, spot
from instruments.illumination import Exposed, exposed, waits_on
from instruments.regions import Box, box_of, cells_of
from instruments.units import ANGSTROM2_PER_NM2

assert WIDE_CELL_NM == BLOCK * CELL_NM, "a block of cells is one wide cell"
_ONE = np.zeros((1, 1))


@dataclass
class DoseLedger:
    """Electrons per 1 nm2 cell. Two sums are kept: the mean over a cell, and an upper bound of the dose anywhere in it.

    The upper bound counts the full flux of every raster that touches the cell, and of pixels more than half a nanometre
    apart all electrons of those that may lie in it; it is what limits are checked against.
    Of a frame that may lie anywhere in its cells, as on a tilted specimen, each has all of its flux in both sums.
    Fields wider than 4000 nm are kept beside them, on cells of 64 nm, and count wherever either is asked for; so do
    regions beyond all cells, such as the way of a stage whose move was not answered.

    What the specimen got before, from others, is `earlier`: it counts wherever a bound is asked for, and in no sum.
    All sums are exact, so that a debit taken back leaves nothing.
    """

    earlier: DoseLedger | None = None
    _mean: CellSums = field(default_factory=CellSums)
    _peak: CellSums = field(default_factory=CellSums)
    _wide_mean: CellSums = field(default_factory=CellSums)
    _wide_peak: CellSums = field(default_factory=CellSums)
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
        flux = electrons / (marks.area_nm2 * ANGSTROM2_PER_NM2)
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
        """A frame's electrons over its raster, those of the settling blanker where it begins; of none, nothing.

        `cells` are those of the frame where they are known, else as it was commanded.
        """
        if electrons == 0:
            return
        marks, factor = cells or exposed(command.stage, command.scan)
        self.add(marks, electrons - settling_electrons, factor)
        if settling_electrons:
            self.add(waits_on(command.stage, command.scan, marks), settling_electrons)

    @property
    def max_e_per_a2(self) -> float:
        """Upper bound of the dose at any point of the specimen."""
        wide = max((float(block.max()) for _, _, block in self._wide_peak.blocks()), default=0.0)
        over = (
            float(block.max()) + float(self._wide_peak.at(Footprint(column, row, _ONE))[0, 0])
            for row, column, block in self._peak.blocks()
        )
        highest = max(over, default=0.0) if wide == 0.0 else max(wide, *over, 0.0)
        return highest + fsum(bound for _, bound in self._far)

    def mean_map(self, x_min_nm: int, y_min_nm: int, columns: int, rows: int) -> np.ndarray:
        """Mean dose of the cells of a window, e/A2, (rows, columns); row 0 is the lowest y."""
        window = Footprint(x_min_nm, y_min_nm, np.zeros((rows, columns)))
        return self._mean.at(window) + self._from_wide(self._wide_mean, window)

    def window_nm(self) -> tuple[int, int, int, int] | None:
        """(lowest x, lowest y, columns, rows) of the smallest window with every exposed 1 nm cell; None before any.

        What wide fields exposed beyond it is not in it.
        """
        spots = [
            (column * BLOCK + columns, row * BLOCK + rows)
            for row, column, block in self._mean.blocks()
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
            return self._peak.at(marks) + self._from_wide(self._wide_peak, marks)
        return self._wide_peak.at(marks) + self._highest_fine(marks)

    def _from_far(self, box: Box) -> float:
        return fsum(bound for far, bound in self._far if far.meets(box))

    def _book(self, marks: Footprint, mean_e_per_a2: float, bound_e_per_a2: float) -> None:
        is_fine = marks.cell_nm == CELL_NM
        means, peaks = (self._mean, self._peak) if is_fine else (self._wide_mean, self._wide_peak)
        means.add(marks, mean_e_per_a2 * marks.overlap_nm2 / marks.cell_nm**2)
        peaks.add(marks, np.where(marks.overlap_nm2 > 0, bound_e_per_a2, 0.0))

    def _from_wide(self, sums: CellSums, fine: Footprint) -> np.ndarray:
        """What wide fields put on these 1 nm cells."""
        if not sums:
            return np.zeros(fine.overlap_nm2.shape)
        height, width = fine.overlap_nm2.shape
        rows, columns = (fine.first_row + np.arange(height)) // BLOCK, (fine.first_column + np.arange(width)) // BLOCK
        cells = np.zeros((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
        wide = sums.at(Footprint(int(columns[0]), int(rows[0]), cells))
        return wide[np.ix_(rows - rows[0], columns - columns[0])]

    def _highest_fine(self, wide: Footprint) -> np.ndarray:
        """The highest bound among the 1 nm cells of each of these wide ones; a block of them is one wide cell."""
        highest = np.zeros(wide.overlap_nm2.shape)
        rows, columns = wide.overlap_nm2.shape
        for row, column, block in self._peak.blocks():
            r, c = row - wide.first_row, column - wide.first_column
            if 0 <= r < rows and 0 <= c < columns:
                highest[r, c] = block.max()
        return highest
