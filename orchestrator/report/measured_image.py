"""Measured images as a report takes them in: values only; `measured` draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.features.feature_set import FeatureSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitute:
    """An atom that may sit in a column, and how bright the forward model says that column then is, over its kind's."""

    name: str
    column: str
    brightness_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredImage:
    """A file somebody measured, as the extractor sees it.

    `image` (rows, columns) in the file's own unit; `features` are those of an image that is no counts; `told` and
    `assumed`: what the file says of how it was taken, and what had to be supposed; `refusal`: the extractor's words
    when asked for probabilities; `processor_s`: what it cost when it was computed.
    """

    name: str
    material: str
    told: str
    assumed: str
    image: np.ndarray
    pixel_size_nm: float
    column_names: tuple[str, ...]
    substitute: Substitute
    features: FeatureSet
    refusal: str
    processor_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measured images for the box; `note` says in one line how to have some, or what was wrong with a file."""

    images: tuple[MeasuredImage, ...] = ()
    note: str = ""

    @property
    def headline(self) -> str:
        """One sentence for the top of the page."""
        if not self.images:
            return ""
        counts = " and ".join(f"{len(image.features.arrays['site_x_nm']):,}" for image in self.images)
        files = "one measured image" if len(self.images) == 1 else f"{len(self.images)} measured images"
        return f"The same extractor on {files}: {counts} columns, and no probabilities, for the files are normalised."
