"""Any annular or segmented detector, cut out of recorded patterns afterwards."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.detectors import AnnularDetector, SegmentedDetector
from simulation.errors import InvalidParameter
from simulation.phase_contrast.fields import Array, check_axes


@kinds_checked
def detector_masks(
    detector: AnnularDetector | SegmentedDetector,
    y_mrad: ArrayLike,
    x_mrad: ArrayLike,
    *,
    centre_mrad: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """Pixels of each channel, (channels, detector_y, detector_x); rings outermost, as in `SegmentedDetector`.

    inner <= angle < outer, as everywhere; `centre_mrad` is where (y, x) the detector's axis lies.
    """
    if np.ndim(y_mrad) != 1 or np.ndim(x_mrad) != 1:
        raise InvalidParameter("y_mrad and x_mrad must be the angles of the rows and of the columns, one row of each")
    y = np.asarray(y_mrad, dtype=np.float64)[:, None] - centre_mrad[0]
    x = np.asarray(x_mrad, dtype=np.float64)[None, :] - centre_mrad[1]
    polar, azimuth_deg = np.hypot(y, x), np.degrees(np.arctan2(y, x))
    inside = (polar >= detector.inner_mrad) & (polar < detector.outer_mrad)
    if isinstance(detector, AnnularDetector):
        return inside[None]
    width = (detector.outer_mrad - detector.inner_mrad) / detector.ring_count
    ring = np.minimum(np.floor((polar - detector.inner_mrad) / width), detector.ring_count - 1)
    turn = np.mod(azimuth_deg - detector.rotation_deg, 360.0) / 360.0
    segment = np.minimum(np.floor(turn * detector.segment_count), detector.segment_count - 1)
    channel = np.where(inside, ring * detector.segment_count + segment, -1)
    return channel[None] == np.arange(detector.ring_count * detector.segment_count)[:, None, None]


@kinds_checked
def virtual_image(
    patterns: Array,
    y_mrad: ArrayLike,
    x_mrad: ArrayLike,
    detector: AnnularDetector | SegmentedDetector,
    *,
    centre_mrad: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """What that detector would have recorded: (...) for an annular, (..., ring, segment) for a segmented one.

    Exact where the patterns reach as far as the detector and their pixels are those of the simulated diffraction plane.
    """
    xp = array_namespace(patterns)
    check_axes(patterns, y_mrad, x_mrad)
    masks = detector_masks(detector, y_mrad, x_mrad, centre_mrad=centre_mrad)
    if not masks.any():
        raise InvalidParameter(
            f"the patterns hold no pixel between {detector.inner_mrad:g} and {detector.outer_mrad:g} mrad"
        )
    leading = tuple(patterns.shape[:-2])
    weights = xp.asarray(masks.reshape(len(masks), -1).T, dtype=patterns.dtype, device=device(patterns))
    signals = xp.matmul(xp.reshape(patterns, (*leading, weights.shape[0])), weights)
    if isinstance(detector, SegmentedDetector):
        return xp.reshape(signals, (*leading, detector.ring_count, detector.segment_count))
    return signals[..., 0]
