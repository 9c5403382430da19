"""Deflection at each probe position; `segments` finds it with fewer channels, `integration` sums it up."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import ArrayLike

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter

_MOST_OF_A_BEAM = 1.5

Array = Any
"""An array of numpy, torch or CuPy: what array-api-compat takes."""


@dataclass(frozen=True, slots=True)
class VectorField:
    """Deflections along x (columns) and y (rows) in mrad, one at each probe position."""

    x_mrad: Array
    y_mrad: Array


@kinds_checked
def centre_of_mass(patterns: Array, y_mrad: ArrayLike, x_mrad: ArrayLike) -> VectorField:
    """Mean scattering angle of the electrons on the detector, for patterns (..., detector_y, detector_x).

    sum(theta I) / sum(I). For a phase object exp(i phi) and a detector that catches everything this is
    lambda / (2 pi) times grad phi convolved with the probe's intensity, exactly and at any strength of phi
    (Lazic, Bosch, Lazar, Ultramicroscopy 160 (2016) 265). A pattern without electrons has no centre: NaN.
    """
    xp = array_namespace(patterns)
    rows, columns = axis_like(patterns, y_mrad, -2), axis_like(patterns, x_mrad, -1)
    along_y, along_x = xp.sum(patterns, axis=-1), xp.sum(patterns, axis=-2)
    total = xp.sum(along_x, axis=-1)
    total = xp.where(total > 0, total, xp.full_like(total, float("nan")))
    return VectorField(xp.sum(along_x * columns, axis=-1) / total, xp.sum(along_y * rows, axis=-1) / total)


def check_axes(patterns: Array, y_mrad: ArrayLike, x_mrad: ArrayLike) -> None:
    """Refuse angles whose number is not that of the detector's pixels."""
    axis_like(patterns, y_mrad, -2)
    axis_like(patterns, x_mrad, -1)


def check_fractions(name: str, values: Array) -> None:
    """Refuse counts where fractions of the beam are wanted: the answer would be that many times too large."""
    xp = array_namespace(values)
    mean = float(xp.sum(values, dtype=xp.float64)) / max(1, prod(values.shape[:-2]))
    if mean > _MOST_OF_A_BEAM:
        raise InvalidParameter(
            f"{name} add up to {mean:.4g} at a probe position, and the whole beam is 1: give fractions of the beam"
            " (counts divided by the electrons on a pixel)"
        )


def axis_like(patterns: Array, angles_mrad: ArrayLike, axis: int) -> Array:
    """The angles as an array of the patterns' library, device and precision; its length must fit."""
    angles = np.asarray(angles_mrad, dtype=np.float64)
    if angles.shape != (patterns.shape[axis],):
        raise InvalidParameter(
            f"{angles.shape} angles in mrad do not fit patterns of shape {tuple(patterns.shape)} along axis {axis}"
        )
    xp = array_namespace(patterns)
    return xp.asarray(angles, dtype=patterns.dtype, device=device(patterns))
