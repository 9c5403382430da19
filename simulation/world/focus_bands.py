"""Where an image leans through the focus: the parts of it that have nearly one defocus, and how they are put together.

Neighbours: `frame_images` draws a part at one defocus, `rendering` adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STEP_NM = 1.0
"""From one defocus to the next; between two an image is interpolated, a depth of focus being some nanometres."""
BLURRED_NM = 100.0
"""Beyond this defocus nothing is left of the lattice."""


@dataclass(frozen=True, slots=True)
class Band:
    """A rectangle of the image, the defocus it is drawn at, and the share of that in each of its pixels."""

    place: tuple[slice, slice]  # rows, columns
    defocus_nm: float
    weights: np.ndarray

    @property
    def is_blurred(self) -> bool:
        """Whether it is so far out of focus that the lattice is not seen."""
        return abs(self.defocus_nm) >= BLURRED_NM


def bands(defocus_nm: np.ndarray) -> Iterator[Band]:
    """The bands of an image whose pixels have these defoci, (rows, columns); in each pixel their shares add up to 1."""
    steps = np.clip(defocus_nm, -BLURRED_NM, BLURRED_NM) / STEP_NM
    for step in range(int(np.floor(steps.min())), int(np.ceil(steps.max())) + 1):
        shares = np.clip(1 - np.abs(steps - step), 0, None)
        rows, columns = np.flatnonzero(shares.any(axis=1)), np.flatnonzero(shares.any(axis=0))
        if len(rows):
            place = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
            yield Band(place, step * STEP_NM, shares[place].astype(np.float32))
