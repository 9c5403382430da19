"""Images as PNG files for the page: frames, the ground of the map, objective's maps, single sites; y upwards.

Neighbours: `orchestrator.report.overview` lays survey frames together, `close_ups` cuts a site out.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from orchestrator.report.close_ups import SMOOTHING_NM, Crop
from orchestrator.report.overview import Mosaic

_BLACK_FRACTION, _WHITE_FRACTION = 0.005, 0.998
_SMOOTH_WHITE_FRACTION = 0.995


def contrast(image: np.ndarray, white_fraction: float = _WHITE_FRACTION) -> tuple[float, float]:
    """(black, white) of an image: its 0.5th and 99.8th percentile, apart by at least a little."""
    low, high = np.nanquantile(image, [_BLACK_FRACTION, white_fraction])
    return float(low), float(max(high, low + 1e-6 * max(abs(low), 1.0)))


def grey_png(image: np.ndarray, black_counts: float, white_counts: float) -> bytes:
    """8-bit greyscale, row 0 at the bottom; not a number is transparent."""
    scaled = np.clip((image - black_counts) / (white_counts - black_counts), 0.0, 1.0)
    missing = np.isnan(scaled)
    grey = np.round(255 * np.nan_to_num(scaled)).astype(np.uint8)[::-1]
    if missing.any():
        return _png(Image.fromarray(np.dstack([grey, np.where(missing[::-1], 0, 255).astype(np.uint8)])))
    return _png(Image.fromarray(grey))


def ground_png(mosaic: Mosaic) -> bytes:
    """Survey frames laid together; where none lies it is transparent."""
    return grey_png(mosaic.image, *contrast(mosaic.image, _SMOOTH_WHITE_FRACTION))


def coloured_png(image: np.ndarray) -> bytes:
    """A map of the objective in matplotlib's viridis, its lowest value dark; row 0 at the bottom."""
    from matplotlib import colormaps

    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    scaled = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return _png(Image.fromarray(colormaps["viridis"](scaled[::-1], bytes=True)[..., :3]))


def site_png(crop: Crop) -> bytes:
    """One site close up under the report's Gaussian for the eye."""
    from scipy.ndimage import gaussian_filter

    filled = np.nan_to_num(crop.image, nan=float(np.nanmean(crop.image)))
    smooth = gaussian_filter(filled.astype(float), SMOOTHING_NM / (crop.width_nm / len(crop.image)), mode="nearest")
    return grey_png(smooth, *contrast(smooth, _SMOOTH_WHITE_FRACTION))


def _png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, format="PNG")
    return target.getvalue()
