"""The positions of a map: a regular grid of square cells over the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from orchestrator.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class MapGrid:
    """`shape_px` (rows, columns) square cells around (centre_x_nm, centre_y_nm); row 0 is the lowest y."""

    shape_px: tuple[int, int]
    cell_nm: float
    centre_x_nm: float = 0.0
    centre_y_nm: float = 0.0

    @classmethod
    def over_survey(cls, x_nm: np.ndarray, y_nm: np.ndarray, bin_px: int) -> Self:
        """Cells of `bin_px` x `bin_px` survey pixels. Raises SpecError where that does not divide the survey."""
        columns, rows = len(x_nm), len(y_nm)
        if columns < 2 or rows % bin_px or columns % bin_px:
            raise SpecError(
                f"bin_px {bin_px} px does not divide the survey's {rows} x {columns} px; choose a divisor of both"
            )
        pixel_nm = float(x_nm[-1] - x_nm[0]) / (columns - 1)
        return cls(
            shape_px=(rows // bin_px, columns // bin_px),
            cell_nm=pixel_nm * bin_px,
            centre_x_nm=float(x_nm.mean()),
            centre_y_nm=float(y_nm.mean()),
        )

    @property
    def x_nm(self) -> np.ndarray:
        """Centres of the columns, (columns,)."""
        columns = self.shape_px[1]
        return self.centre_x_nm + (np.arange(columns) - (columns - 1) / 2) * self.cell_nm

    @property
    def y_nm(self) -> np.ndarray:
        """Centres of the rows, (rows,)."""
        rows = self.shape_px[0]
        return self.centre_y_nm + (np.arange(rows) - (rows - 1) / 2) * self.cell_nm

    def index_of(self, x_nm: float, y_nm: float) -> int:
        """Flat index, in row order, of the cell that holds a point. Raises SpecError outside the grid."""
        rows, columns = self.shape_px
        row = int(np.floor((y_nm - self.centre_y_nm) / self.cell_nm + rows / 2))
        column = int(np.floor((x_nm - self.centre_x_nm) / self.cell_nm + columns / 2))
        if not (0 <= row < rows and 0 <= column < columns):
            raise SpecError(
                f"the point ({x_nm:g}, {y_nm:g}) nm lies outside the map of {columns * self.cell_nm:g} x "
                f"{rows * self.cell_nm:g} nm; narrow the search space"
            )
        return row * columns + column

    def binned(self, values: np.ndarray) -> np.ndarray:
        """Sums of a finer array over the cells, (rows, columns). Raises ValueError where it does not divide evenly."""
        rows, columns = self.shape_px
        if values.shape[0] % rows or values.shape[1] % columns:
            raise ValueError(f"an array of {values.shape} cannot be binned to {self.shape_px}: sides must be multiples")
        return values.reshape(rows, values.shape[0] // rows, columns, values.shape[1] // columns).sum(axis=(1, 3))
