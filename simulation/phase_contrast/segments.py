"""Differential phase contrast: deflection from a few detector segments, under one of two assumptions."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from simulation.argument_kinds import kinds_checked
from simulation.detectors import SegmentedDetector
from simulation.errors import InvalidParameter
from simulation.phase_contrast.fields import Array, VectorField, check_fractions


@kinds_checked
def disc_shift_from_segments(
    signals: Array, detector: SegmentedDetector, semi_convergence_angle_mrad: float
) -> VectorField:
    """Shift of an evenly filled disc that gives these signals (..., ring, segment), in fractions of the beam.

    A small shift d of a disc of radius a moves d . integral of the normal along the edge / (pi a^2) into a segment:
    d_x (sin phi2 - sin phi1) / (pi a) + d_y (cos phi1 - cos phi2) / (pi a) for the ring that holds the edge
    (Dekkers, de Lang, Optik 41 (1974) 452, for halves). Segments are combined by least squares. Exact to second
    order in d / a for fields wider than the probe; for finer detail the disc does not move as a whole.
    """
    angle = semi_convergence_angle_mrad
    if not detector.inner_mrad < angle < detector.outer_mrad:
        raise InvalidParameter(
            f"the edge of the disc, {angle:g} mrad, lies outside the detector, {detector.inner_mrad:g} to"
            f" {detector.outer_mrad:g} mrad: no segment sees a shift"
        )
    check_fractions("signals", signals)
    start, stop = _azimuths(detector)
    width = (detector.outer_mrad - detector.inner_mrad) / detector.ring_count
    ring = min(int((angle - detector.inner_mrad) / width), detector.ring_count - 1)
    response = np.zeros((detector.ring_count, detector.segment_count, 2))
    edge = np.column_stack([np.sin(stop) - np.sin(start), np.cos(start) - np.cos(stop)])
    response[ring] = edge / (np.pi * angle)
    return _field(signals, detector, np.asarray(np.linalg.pinv(response.reshape(-1, 2)), dtype=np.float64))


@kinds_checked
def centre_of_mass_from_segments(signals: Array, detector: SegmentedDetector) -> VectorField:
    """The centre of mass with every electron put at the centroid of its segment, signals (..., ring, segment).

    The usual approximation behind iDPC (Lazic, Bosch, Lazar, Ultramicroscopy 160 (2016) 265); it tends
    to the centre of mass as segments get many and small. Centroid radius 2 (o^3 - i^3) / 3 (o^2 - i^2) times
    sin(w/2) / (w/2) for a segment of angular width w.
    """
    start, stop = _azimuths(detector)
    limits = np.linspace(detector.inner_mrad, detector.outer_mrad, detector.ring_count + 1)
    inner, outer = limits[:-1], limits[1:]
    half = np.pi / detector.segment_count
    radius = 2 / 3 * (outer**3 - inner**3) / (outer**2 - inner**2) * np.sin(half) / half
    middle = (start + stop) / 2
    directions = np.stack([np.cos(middle), np.sin(middle)])
    weights = radius[None, :, None] * directions[:, None, :]
    xp = array_namespace(signals)
    total = xp.sum(xp.sum(signals, axis=-1), axis=-1)
    total = xp.where(total > 0, total, xp.full_like(total, float("nan")))
    moment = _field(signals, detector, weights.reshape(2, -1))
    return VectorField(moment.x_mrad / total, moment.y_mrad / total)


def _azimuths(detector: SegmentedDetector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and end of each segment in radians."""
    if detector.segment_count < 3:
        raise InvalidParameter(f"{detector.segment_count} segments cannot tell two directions; use 3 or more")
    edges = np.radians(detector.rotation_deg) + 2 * np.pi * np.arange(detector.segment_count + 1) / (
        detector.segment_count
    )
    return edges[:-1], edges[1:]


def _field(signals: Array, detector: SegmentedDetector, weights: NDArray[np.float64]) -> VectorField:
    shape = (detector.ring_count, detector.segment_count)
    if tuple(signals.shape[-2:]) != shape:
        raise InvalidParameter(f"signals of shape {tuple(signals.shape)} do not end in (ring, segment) = {shape}")
    xp = array_namespace(signals)
    flat = xp.reshape(signals, (*signals.shape[:-2], shape[0] * shape[1]))
    vectors = xp.matmul(flat, xp.asarray(weights.T, dtype=signals.dtype, device=device(signals)))
    return VectorField(vectors[..., 0], vectors[..., 1])
