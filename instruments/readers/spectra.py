"""Spectra of microscope makers' files as rasters: of one point, or of a spectrum image's every point.

A spectrum is a pattern of one row: values are (rows, columns, 1, channels), channel n has the energy first + n x step.
A single spectrum is a raster of one point, whose pixel is the side of the square that was lit: no file says that.
Neighbours: `digital_micrograph` and `hdf5_images` find them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_EV: Final[dict[str, float]] = {"ev": 1.0, "kev": 1e3}


def ev_per(unit: str) -> float | None:
    """How many eV one of this unit is; None for what is no energy.

    >>> ev_per("keV"), ev_per("nm")
    (1000.0, None)
    """
    return _EV.get(unit.strip().lower())


def as_points(values: np.ndarray) -> np.ndarray:
    """Values of (channels,) or (rows, columns, channels) as (rows, columns, 1, channels).

    >>> as_points(np.zeros(2048)).shape, as_points(np.zeros((6, 8, 100))).shape
    ((1, 1, 1, 2048), (6, 8, 1, 100))
    """
    rows, columns = values.shape[:-1] or (1, 1)
    return values.reshape(rows, columns, 1, values.shape[-1])


def parts_of(spectra: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without a spectrum that is the sum of all others: its counts would be given twice."""
    for name, values in sorted(spectra.items()):
        others = [one for other, one in spectra.items() if other != name]
        if len(others) > 1 and np.array_equal(values, np.sum(others, axis=0)):
            return {other: spectra[other] for other in sorted(spectra) if other != name}
    return dict(sorted(spectra.items()))
