"""Where the specimen is clean and where it has been looked at: 1 nm cells over the search area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL_NM = 1.0


@dataclass
class CleanMap:
    """Probability that each 1 nm cell is clean (NaN: not surveyed) and the analysed dose it got.

    `clean_at_sites` says the same of cells where lattice sites were analysed, from these sites alone (NaN: none).
    """

    x_nm: np.ndarray
    y_nm: np.ndarray
    clean: np.ndarray
    visited_dose_e_per_a2: np.ndarray
    clean_at_sites: np.ndarray

    @classmethod
    def over(cls, bounds_nm: tuple[float, float, float, float]) -> CleanMap:
        """Empty map over (x low, x high, y low, y high)."""
        x_low, x_high, y_low, y_high = bounds_nm
        x = np.arange(np.floor(x_low) + CELL_NM / 2, x_high, CELL_NM)
        y = np.arange(np.floor(y_low) + CELL_NM / 2, y_high, CELL_NM)
        unknown = np.full((len(y), len(x)), np.nan)
        return cls(x, y, unknown, np.zeros((len(y), len(x))), unknown.copy())

    def merge(self, x_nm: np.ndarray, y_nm: np.ndarray, clean: np.ndarray) -> None:
        """Put a survey frame's cells in; where two frames overlap the mean stands."""
        columns = np.round((x_nm - self.x_nm[0]) / CELL_NM).astype(int)
        rows = np.round((y_nm - self.y_nm[0]) / CELL_NM).astype(int)
        in_x, in_y = (columns >= 0) & (columns < len(self.x_nm)), (rows >= 0) & (rows < len(self.y_nm))
        target = np.ix_(rows[in_y], columns[in_x])
        new, old = clean[np.ix_(in_y, in_x)], self.clean[target]
        self.clean[target] = np.where(np.isnan(old), new, np.where(np.isnan(new), old, (old + new) / 2))

    def mark(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float, dose_e_per_a2: float) -> None:
        """Add an analysed frame's dose to the cells whose centre it covers."""
        rows, columns = self.cells(x_nm, y_nm, width_nm, height_nm)
        self.visited_dose_e_per_a2[rows, columns] += dose_e_per_a2

    def learn(self, x_nm: np.ndarray, y_nm: np.ndarray, clean_probability: np.ndarray) -> None:
        """Take the mean clean probability of the analysed sites in each cell; what was known before stays."""
        edges = (np.append(self.y_nm, self.y_nm[-1] + CELL_NM) - CELL_NM / 2,
                 np.append(self.x_nm, self.x_nm[-1] + CELL_NM) - CELL_NM / 2)  # fmt: skip
        number, *_ = np.histogram2d(y_nm, x_nm, bins=edges)
        total, *_ = np.histogram2d(y_nm, x_nm, bins=edges, weights=clean_probability)
        fresh = (number > 0) & np.isnan(self.clean_at_sites)
        self.clean_at_sites[fresh] = total[fresh] / number[fresh]

    @property
    def known(self) -> np.ndarray:
        """Clean probability as surveyed, else as the sites analysed there say; 0 where nobody has looked."""
        return np.nan_to_num(np.where(np.isnan(self.clean), self.clean_at_sites, self.clean))

    def cells(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> tuple[slice, slice]:
        """Rows and columns of the cells whose centre a rectangle covers."""
        rows = np.searchsorted(self.y_nm, [y_nm - height_nm / 2, y_nm + height_nm / 2])
        columns = np.searchsorted(self.x_nm, [x_nm - width_nm / 2, x_nm + width_nm / 2])
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    @property
    def clean_area_nm2(self) -> float:
        """Expected clean area of what was surveyed."""
        return float(np.nansum(self.clean)) * CELL_NM**2
