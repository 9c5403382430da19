"""A frame as a grey picture: contrast as at the microscope, scale in the file. Neighbour: `record_routes`."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from instruments import Frame

_BLACK_PERCENTILE, _WHITE_PERCENTILE = 0.5, 99.8


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePicture:
    """A PNG, and the counts that are black and white in it."""

    png: bytes
    black_counts: float
    white_counts: float


def picture_of(frame: Frame, detector: str) -> FramePicture:
    """One detector's counts of all sub-frames, `Frame.picture`; a few outliers do not set the contrast."""
    counts = frame.picture(detector).astype(np.float64)
    black, white = (float(value) for value in np.percentile(counts, [_BLACK_PERCENTILE, _WHITE_PERCENTILE]))
    span = max(white - black, 1.0)
    grey = np.clip((counts - black) * (255.0 / span), 0, 255).round().astype(np.uint8)
    told = PngInfo()
    scan = frame.requested.scan
    for key, value in {
        "Title": f"{frame.instrument}, {detector}",
        "Pixel size (nm)": f"{frame.pixel_size_nm:.6g}",
        "Field of view (nm)": f"{scan.field_of_view_nm:.6g}",
        "Dose (e/A2)": f"{frame.dose_e_per_a2:.6g}",
        "Black, white (counts)": f"{black:.6g}, {black + span:.6g}",
    }.items():
        told.add_text(key, value)
    file = io.BytesIO()
    Image.fromarray(grey, mode="L").save(file, "PNG", pnginfo=told, compress_level=6)
    return FramePicture(png=file.getvalue(), black_counts=black, white_counts=black + span)
