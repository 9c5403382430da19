"""Signals as an xarray dataset: one variable a detector, coordinates in nm and mrad, parameters as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from simulation.detectors import Detector, PixelatedDetector, SegmentedDetector
from simulation.scans import Scan

Axes = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Angles (y, x) in mrad of the pixelated detectors, by name."""


def dataset(
    signals: Mapping[str, NDArray[Any]],
    scan: Scan,
    detectors: Mapping[str, Detector],
    axes_mrad: Axes,
    attributes: Mapping[str, Any],
    kind: type[np.floating[Any]] = np.float32,
) -> xr.Dataset:
    """Assemble the result; `signals[name]` is (*scan shape, *detector shape), `kind` what it is stored in."""
    coordinates: dict[str, Any] = {
        name: (dim, values, {"units": "nm"}) for name, (dim, values) in scan.coordinates().items()
    }
    suffixed = sum(isinstance(detector, PixelatedDetector) for detector in detectors.values()) > 1
    segmented = sum(isinstance(detector, SegmentedDetector) for detector in detectors.values()) > 1
    variables: dict[str, Any] = {}
    for name, detector in detectors.items():
        dims: tuple[str, ...] = ()
        if isinstance(detector, PixelatedDetector):
            dims = tuple(f"{dim}_{name}" if suffixed else dim for dim in ("detector_y", "detector_x"))
            for dim, angles in zip(dims, axes_mrad[name], strict=True):
                coordinates[dim] = (dim, angles, {"units": "mrad"})
        elif isinstance(detector, SegmentedDetector):
            dims = tuple(f"{dim}_{name}" if segmented else dim for dim in ("ring", "segment"))
        notes = {key: value for key, value in asdict(detector).items() if value is not None}
        notes |= {"detector": type(detector).__name__, "units": "fraction of the incident beam"}
        variables[name] = ((*scan.dims, *dims), signals[name].astype(kind), notes)
    return xr.Dataset(variables, coords=coordinates, attrs=dict(attributes))
