"""Specimens tilted away from the zone axis by a small angle: what the beam does in the frame of the crystal.

A specimen leaning by t towards +x has its atoms at depth z at x + z tan(t). In the frame of the atoms the beam runs the
other way, x - z tan(t), so propagation is that of `Optics.tilt_*` with the opposite sign, while aperture and detectors
stay on the axis. The entrance plane stays where it is, and so does the scan on it. Cells stay periodic.

To first order in the angle. Left out are terms of its square (columns nearer by cos t, thickness longer by 1 / cos t)
and that the surface is inclined: x sin(t) of defocus at a distance x from the middle of the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, isfinite, tan
from numbers import Real

import numpy as np

from instruments.optics import Optics
from simulation.errors import InvalidParameter

LARGEST_TILT_MRAD = 100.0
"""Beyond this, atoms are rotated instead."""


def checked_tilt_mrad(tilt_mrad: Sequence[float]) -> tuple[float, float]:
    """(x, y) as floats; an error for what is no pair of small angles."""
    if np.shape(tilt_mrad) != (2,) or not all(isinstance(value, Real) and isfinite(value) for value in tilt_mrad):
        raise InvalidParameter(f"specimen_tilt_mrad = {tilt_mrad} must be two finite angles (x, y) in mrad")
    x, y = (float(value) for value in tilt_mrad)
    if max(abs(x), abs(y)) > LARGEST_TILT_MRAD:
        raise InvalidParameter(
            f"specimen_tilt_mrad = ({x:g}, {y:g}) is beyond {LARGEST_TILT_MRAD:g} mrad, where a sheared crystal is no"
            " longer a tilted one; rotate the atoms themselves (ase.Atoms.rotate, or simulation.builders.zone_axis)"
        )
    return x, y


def seen_from_specimen(optics: Optics, specimen_tilt_mrad: tuple[float, float]) -> Optics:
    """Optics whose beam tilt does to an upright specimen what these do to a tilted one."""
    if max(abs(optics.tilt_x_mrad), abs(optics.tilt_y_mrad)) > LARGEST_TILT_MRAD:
        raise InvalidParameter(
            f"optics.tilt_x_mrad, tilt_y_mrad = {optics.tilt_x_mrad:g}, {optics.tilt_y_mrad:g} are beyond"
            f" {LARGEST_TILT_MRAD:g} mrad, where the beam no longer runs along the cell; they are in mrad: give smaller"
            " ones, or rotate the atoms"
        )
    if specimen_tilt_mrad == (0.0, 0.0):
        return optics
    x, y = specimen_tilt_mrad
    changed = {
        "tilt_x_mrad": _difference_mrad(optics.tilt_x_mrad, x),
        "tilt_y_mrad": _difference_mrad(optics.tilt_y_mrad, y),
    }
    return optics.model_copy(update=changed)


def _difference_mrad(beam_mrad: float, specimen_mrad: float) -> float:
    return 1e3 * atan(tan(beam_mrad * 1e-3) - tan(specimen_mrad * 1e-3))
