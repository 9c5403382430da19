"""A specimen that leans in the column: what of it lies where under the beam, and how high.

The sheet through the middle of the specimen carries (x, y) of the specimen frame. It is turned by Rx(alpha) Ry(beta),
right-handed about +x and about the holder's y, which alpha carries along; z is up, towards the gun, so the side of +y
rises with alpha and that of +x sinks with beta. Neighbours: `specimen` knows how far the sheet is from the tilt axis,
`frame_images` and `at_once` draw what leans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import atan2, cos, degrees, hypot, radians, sin
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from instruments.scans import StagePosition
from simulation.specimens import Specimen
from simulation.structure_columns import ColumnLattice

T = TypeVar("T", float, np.ndarray)


@dataclass(frozen=True)
class Tilt:
    """Angles of the stage. `(x, y)` is a place across the beam, `(u, v)` one on the sheet, both from the tilt axis."""

    alpha_deg: float = 0.0
    beta_deg: float = 0.0

    @classmethod
    def of(cls, stage: StagePosition) -> Tilt:
        """That of a stage."""
        return cls(stage.alpha_deg, stage.beta_deg) if stage.alpha_deg or stage.beta_deg else UPRIGHT

    @property
    def is_upright(self) -> bool:
        """Whether it does not lean."""
        return self.alpha_deg == 0 and self.beta_deg == 0

    @cached_property
    def _turns(self) -> tuple[float, float, float, float]:
        """Sine and cosine of alpha, then of beta."""
        alpha, beta = radians(self.alpha_deg), radians(self.beta_deg)
        return sin(alpha), cos(alpha), sin(beta), cos(beta)

    @property
    def foreshortening(self) -> float:
        """Area seen along the beam over that of the sheet."""
        _, cos_alpha, _, cos_beta = self._turns
        return cos_alpha * cos_beta

    @property
    def shares(self) -> tuple[float, float]:
        """Lengths across the beam of what is 1 long on the sheet, along its x and along its y."""
        return hypot(*self.seen(1.0, 0.0)), hypot(*self.seen(0.0, 1.0))

    def seen(self, u_nm: T, v_nm: T, height_nm: T | float = 0.0) -> tuple[T, T]:
        """Across the beam, what lies at (u, v) and so high above the tilt axis before tilting."""
        sin_alpha, cos_alpha, sin_beta, cos_beta = self._turns
        x_nm = cos_beta * u_nm + sin_beta * height_nm
        y_nm = sin_alpha * sin_beta * u_nm + cos_alpha * v_nm - sin_alpha * cos_beta * height_nm
        return x_nm, y_nm

    def on_sheet(self, x_nm: T, y_nm: T, height_nm: float = 0.0) -> tuple[T, T]:
        """The point of a sheet so high above the tilt axis that the beam meets at (x, y)."""
        sin_alpha, cos_alpha, sin_beta, cos_beta = self._turns
        u_nm = (x_nm - sin_beta * height_nm) / cos_beta
        v_nm = (y_nm + sin_alpha * cos_beta * height_nm - sin_alpha * sin_beta * u_nm) / cos_alpha
        return u_nm, v_nm

    def raised_nm(self, u_nm: T, v_nm: T, height_nm: T | float = 0.0) -> T:
        """How high that stands now above the tilt axis."""
        sin_alpha, cos_alpha, sin_beta, cos_beta = self._turns
        return cos_alpha * cos_beta * height_nm + sin_alpha * v_nm - cos_alpha * sin_beta * u_nm

    def rectangle(self, width_nm: float, height_nm: float, rotation_deg: float) -> tuple[float, float, float]:
        """Width, height and rotation on the sheet of a rectangle across the beam: area and lines kept, no shear."""
        turn = radians(rotation_deg)
        along = self.on_sheet(cos(turn), sin(turn))
        on_sheet_nm = width_nm * hypot(*along)
        area_nm2 = width_nm * height_nm / self.foreshortening
        return on_sheet_nm, area_nm2 / on_sheet_nm, degrees(atan2(along[1], along[0]))

    def lattice(self, upright: ColumnLattice) -> ColumnLattice:
        """The columns as the beam meets them, each about its place on the sheet; its names are those before.

        The cell is shortened along its sides by `shares`, and what stands above or below the sheet is moved aside. The
        sides of a cell that is tilted both ways meet at no right angle, off by sin(alpha) sin(beta): atoms stand where
        they should all the same, but each looks sheared by that.
        """
        width, height, depth = upright.specimen.cell_angstrom
        shares = self.shares
        middle = sheet_angstrom(upright.specimen)
        positions = upright.specimen.positions_angstrom
        above = middle - positions[:, 2]
        aside = self.on_sheet(*self.seen(np.zeros_like(above), np.zeros_like(above), above))
        moved = np.column_stack([
            np.mod((positions[:, 0] + aside[0]) * shares[0], width * shares[0]),
            np.mod((positions[:, 1] + aside[1]) * shares[1], height * shares[1]),
            middle + (positions[:, 2] - middle) * self.foreshortening,
        ])  # fmt: skip
        cell = width * shares[0], height * shares[1], depth
        columns = tuple(
            replace(column, x_nm=column.x_nm * shares[0], y_nm=column.y_nm * shares[1]) for column in upright.columns
        )
        specimen = Specimen(upright.specimen.numbers, moved, cell)
        return ColumnLattice(specimen, columns, upright.members, upright.translations_angstrom * np.array(shares))

    def turned(self, positions_angstrom: NDArray[np.float64], middle_angstrom: float) -> NDArray[np.float64]:
        """Positions (x, y, depth along the beam) turned about a point of the sheet, from which x and y are counted."""
        u, v, height = positions_angstrom[:, 0], positions_angstrom[:, 1], middle_angstrom - positions_angstrom[:, 2]
        return np.column_stack([*self.seen(u, v, height), -self.raised_nm(u, v, height)])


UPRIGHT: Final = Tilt()


def sheet_angstrom(specimen: Specimen) -> float:
    """Depth of the sheet in the specimen's cell: the middle between its first atoms and its last."""
    depths = specimen.positions_angstrom[:, 2]
    return float(depths.min() + depths.max()) / 2
