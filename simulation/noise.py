"""Shot noise: electrons counted one by one."""

from __future__ import annotations

import numpy as np


def count_electrons(image: np.ndarray, dose_e_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts, uint16, same shape, for a mean image in fractions of the incident beam (negative reads as 0).

    A mean beyond 60,000 electrons a pixel does not fit and is a ValueError.
    """
    mean = np.maximum(image, 0) * dose_e_per_px
    highest = float(mean.max(initial=0.0))
    if highest > 60_000:
        raise ValueError(f"{highest:.0f} electrons on one pixel are beyond 60000; use more, shorter sub-frames")
    return poisson_electrons(image, dose_e_per_px, rng).astype(np.uint16)


def poisson_electrons(image: np.ndarray, dose_e_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """The same without a limit, int64; `counting` makes raw counts of them."""
    return rng.poisson(np.maximum(image, 0) * dose_e_per_px)
