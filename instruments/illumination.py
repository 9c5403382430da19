"""Where an exposure may fall if not all is known of it: how wide the beam is, where a tilted specimen is met.

Neighbours: `footprints` knows which cells an upright specimen has there, `dose_ledger` keeps the books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, hypot, pi, radians, sqrt
from typing import Final

from instruments.footprints import MAX_SIDE_NM, Footprint, concentration, first_pixel_nm, footprint, spot
from instruments.regions import Box, cells_of, half_extent_nm
from instruments.scans import ScanPattern, StagePosition

HEIGHT_NM: Final = 1000.0
"""How far a specimen counts as lying from the tilt axis at height 0 of the stage, where nobody says."""
_SHEARED: Final = 2.4  # a field seen as a parallelogram, or as the rectangle of its area and lines
_FINE_SIDE_NM: Final = 1000.0  # nobody knows better where it fell
_STEEPEST: Final = 1e-3


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


@dataclass(frozen=True, slots=True)
class Lean:
    """A stage that is tilted by these angles, of either sign and about any axes, its specimen so far off the axis."""

    alpha_deg: float
    beta_deg: float
    height_nm: float

    @classmethod
    def of(cls, stage: StagePosition, height_nm: float) -> Lean:
        """That of a stage."""
        return cls(stage.alpha_deg, stage.beta_deg, height_nm)

    @property
    def is_upright(self) -> bool:
        """Whether it does not lean."""
        return self.alpha_deg == 0 and self.beta_deg == 0

    def astray_nm(self, reach_nm: float, shift_nm: float = 0.0) -> float:
        """How far from its place on an upright specimen any point of a field may fall.

        The field reaches so far from its middle, which the beam shift holds so far from the tilt axis. What is met is
        M^-1 of a place across the beam, M = ((cos b, 0), (sin a sin b, cos a)), moved aside by the height over the axis
        times the tangent of the whole tilt; the norm of M^-1 - 1 does not ask which way the axes point.
        """
        if self.is_upright:
            return 0.0
        cosines = [max(abs(cos(radians(angle))), _STEEPEST) for angle in (self.alpha_deg, self.beta_deg)]
        tangents = [sqrt(1 / cosine**2 - 1) for cosine in cosines]
        stretch = hypot(*(1 / cosine - 1 for cosine in cosines), tangents[0] * tangents[1])
        aside = sqrt(1 / (cosines[0] * cosines[1]) ** 2 - 1)
        return stretch * (_SHEARED * reach_nm + shift_nm) + aside * self.height_nm


Exposed = tuple[Footprint, float]
"""Cells, and by how much the flux on one of them may exceed the mean over all."""


def exposed(stage: StagePosition, scan: ScanPattern, lit: Lit | None = None, height_nm: float | None = None) -> Exposed:
    """The cells that a frame may touch, and by how much the flux on one of them may exceed the mean over all.

    Of a tilted stage: all cells that may lie under the beam while the specimen is no further than `height_nm` from the
    tilt axis, each with the flux on an upright one; on a tilted one it is less.
    """
    widest_nm = scan.illuminated_nm
    if lit is not None and scan.at_once:
        widest_nm = lit.widest_nm
    scan = scan.model_copy(update={"illuminated_nm": widest_nm})
    lean = Lean.of(stage, height_above_nm(stage) if height_nm is None else height_nm)
    marks = footprint(stage, scan) if lean.is_upright else _aslant(stage, scan, lean)
    if lit is None or not scan.at_once:
        return marks, concentration(scan, is_tilted=not lean.is_upright)
    return marks, max(1.0, marks.area_nm2 / lit.least_nm2)


def height_above_nm(stage: StagePosition, axis_z_nm: float = 0.0, error_nm: float | None = None) -> float:
    """How far from the tilt axis a specimen may lie, whose middle is there at `axis_z_nm` give or take `error_nm`."""
    return abs(stage.z_nm - axis_z_nm) + (HEIGHT_NM if error_nm is None else error_nm)


def reach_on_tilted_nm(stage: StagePosition, scan: ScanPattern, height_nm: float) -> tuple[float, float]:
    """How far along x and y a frame may reach from stage position plus beam shift; of an upright one, exactly."""
    x_nm, y_nm = half_extent_nm(scan, (scan.illuminated_nm or 0.0) if scan.at_once else 0.0)
    corner_nm = max(hypot(scan.field_of_view_nm, scan.height_nm), scan.illuminated_nm or 0.0) / 2
    shift_nm = hypot(scan.beam_shift_x_nm, scan.beam_shift_y_nm)
    astray_nm = Lean.of(stage, height_nm).astray_nm(corner_nm, shift_nm)
    return x_nm + astray_nm, y_nm + astray_nm


def waits_on(stage: StagePosition, scan: ScanPattern, marks: Footprint) -> Footprint:
    """Where the beam waits while the blanker settles: on the first pixel, of a tilted stage in any of these cells."""
    return spot(*first_pixel_nm(stage, scan)) if marks.least_nm2 is None else replace(marks, least_nm2=1.0)


def _aslant(stage: StagePosition, scan: ScanPattern, lean: Lean) -> Footprint:
    lit_nm = scan.illuminated_nm if scan.at_once else None
    least_nm2 = scan.area_nm2 if lit_nm is None else pi / 4 * lit_nm**2
    here = Box.at(stage.x_nm + scan.beam_shift_x_nm, stage.y_nm + scan.beam_shift_y_nm)
    reach_nm = (min(side, 0.499 * MAX_SIDE_NM) for side in reach_on_tilted_nm(stage, scan, lean.height_nm))
    marks = cells_of(here.grown(*reach_nm), _FINE_SIDE_NM)
    assert marks is not None, "no longer than the books are wide"
    return replace(marks, least_nm2=least_nm2)
