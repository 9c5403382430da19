"""Where the probe really was: row jitter, the flyback's end and drift, before anything is imaged."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from simulation.argument_kinds import check_fields, kinds_checked
from simulation.errors import InvalidParameter
from simulation.scans import GridScan, PointScan
from simulation.world.drift import Wander


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanDistortion:
    """What moves the probe, relative to the specimen, away from the raster.

    `row_jitter_nm`: standard deviation, along x and along y, of a displacement that stays for a row. After the flyback
    the probe is `flyback_error_nm` off along x, decaying with `flyback_settling_us`. Drift has a steady velocity and,
    along each axis, a `Wander`.
    """

    row_jitter_nm: float = 0.0
    flyback_error_nm: float = 0.0
    flyback_settling_us: float = 10.0
    drift_x_nm_per_s: float = 0.0
    drift_y_nm_per_s: float = 0.0
    wander_x: Wander | None = None
    wander_y: Wander | None = None

    def __post_init__(self) -> None:
        """Refuse what is not finite."""
        check_fields(self)
        numbers = (self.row_jitter_nm, self.flyback_error_nm, self.drift_x_nm_per_s, self.drift_y_nm_per_s)
        if not all(isfinite(value) for value in numbers) or self.row_jitter_nm < 0 or not self.flyback_settling_us > 0:
            raise InvalidParameter(
                f"row_jitter_nm = {self.row_jitter_nm} must be 0 or more, flyback_settling_us ="
                f" {self.flyback_settling_us} positive, and everything finite"
            )


@kinds_checked
def pixel_times_s(scan: GridScan, dwell_time_us: float, flyback_time_us: float = 0.0) -> NDArray[np.float64]:
    """When the probe reaches each pixel, from the first one on, (rows, columns); rows one after another."""
    if not (dwell_time_us > 0 and flyback_time_us >= 0):
        raise InvalidParameter(
            f"dwell_time_us = {dwell_time_us} must be positive and flyback_time_us = {flyback_time_us} not negative"
        )
    rows, columns = scan.shape_px
    row_us = columns * dwell_time_us + flyback_time_us
    return (np.arange(rows)[:, None] * row_us + np.arange(columns)[None, :] * dwell_time_us) * 1e-6


@kinds_checked
def distorted_scan(
    scan: GridScan,
    distortion: ScanDistortion,
    rng: np.random.Generator,
    *,
    dwell_time_us: float,
    flyback_time_us: float = 0.0,
    start_s: float = 0.0,
) -> PointScan:
    """The positions really visited, row by row: image them and reshape to (rows, columns), `scan.shape_px`.

    Jitter is drawn from `rng`, the same for the same seed whatever else is distorted; `start_s` is when the first
    pixel begins, so that frames of a series drift on.
    """
    times_s = pixel_times_s(scan, dwell_time_us, flyback_time_us)
    rows, columns = scan.shape_px
    jitter = rng.standard_normal((2, rows, 1)) * distortion.row_jitter_nm
    settled = np.exp(-np.arange(columns) * dwell_time_us / distortion.flyback_settling_us)
    at_s = times_s + start_s
    along_x = jitter[0] + distortion.flyback_error_nm * settled + distortion.drift_x_nm_per_s * at_s
    along_y = jitter[1] + distortion.drift_y_nm_per_s * at_s
    if distortion.wander_x is not None:
        along_x = along_x + distortion.wander_x.at(at_s)
    if distortion.wander_y is not None:
        along_y = along_y + distortion.wander_y.at(at_s)
    return PointScan(scan.points_angstrom() / 10 + np.column_stack([along_x.ravel(), along_y.ravel()]))
