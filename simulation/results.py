"""Signals as an xarray dataset: one variable a detector, coordinates in nm and mrad, parameters as attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.detectors import Detector, PixelatedDetector, SegmentedDetector
from simulation.scans import Scan

if TYPE_CHECKING:
    from simulation.images import Images

Axes = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Angles (y, x) in mrad of the pixelated detectors, by name."""


def dataset(
    signals: Mapping[str, NDArray[Any]],
    scan: Scan,
    detectors: Mapping[str, Detector],
    axes_mrad: Axes,
    attributes: Mapping[str, Any],
    kind: type[np.floating[Any]] = np.float32,
) -> Images:
    """Assemble the result; `signals[name]` is (*scan shape, *detector shape), `kind` what it is stored in."""
    from simulation.images import Images  # xarray and pandas: not for those who only read kept images

    coordinates: dict[str, Any] = {
        name: (dim, values, {"units": "nm", "long_name": name}) for name, (dim, values) in scan.coordinates().items()
    }
    suffixed = sum(isinstance(detector, PixelatedDetector) for detector in detectors.values()) > 1
    segmented = sum(isinstance(detector, SegmentedDetector) for detector in detectors.values()) > 1
    segmented |= "ring" in detectors or "segment" in detectors  # a variable of its dimension's name is a coordinate
    clipped_mrad, conditions = json.loads(attributes["clipped_outer_mrad"]), _conditions(attributes)
    variables: dict[str, Any] = {}
    for name, detector in detectors.items():
        dims: tuple[str, ...] = ()
        if isinstance(detector, PixelatedDetector):
            dims = tuple(f"{dim}_{name}" if suffixed else dim for dim in ("detector_y", "detector_x"))
            for dim, angles in zip(dims, axes_mrad[name], strict=True):
                coordinates[dim] = (dim, angles, {"units": "mrad", "long_name": f"angle along {dim[9]}"})
        elif isinstance(detector, SegmentedDetector):
            dims = tuple(f"{dim}_{name}" if segmented else dim for dim in ("ring", "segment"))
        notes = {key: value for key, value in asdict(detector).items() if value is not None}
        notes |= {"detector": type(detector).__name__, "units": "fraction of the incident beam"}
        notes |= {"long_name": _named(name, detector, clipped_mrad.get(name)), "conditions": conditions}
        variables[name] = ((*scan.dims, *dims), signals[name].astype(kind, copy=False), notes)
    return Images(variables, coords=coordinates, attrs=dict(attributes))


def _named(name: str, detector: Detector, cutoff_mrad: float | None) -> str:
    """The detector and what it collects."""
    if isinstance(detector, PixelatedDetector):
        return name
    if cutoff_mrad is not None:
        return f"{name}, {detector.inner_mrad:g} to {cutoff_mrad:.1f} mrad (clipped)"
    return f"{name}, {detector.inner_mrad:g} to {detector.outer_mrad:g} mrad"


def _conditions(attributes: Mapping[str, Any]) -> str:
    """Optics and method in a few words, for titles."""
    optics = Optics.model_validate_json(attributes["optics"])
    return (
        f"{optics.beam_energy_ev / 1e3:g} kV, {optics.semi_convergence_angle_mrad:g} mrad,"
        f" defocus {optics.defocus_nm:+g} nm, {attributes['method']}"
    )
