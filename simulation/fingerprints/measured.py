"""What was counted, to be held against a library: images, a pattern, a spectrum, and what is not known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from simulation.errors import InvalidParameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Counted electrons and the electrons that were sent.

    `images`: by detector name, shaped as in the library; each pixel got `electrons_e_per_px`. `pattern` got
    `pattern_electrons` (each, of several points), `spectrum` got `spectrum_electrons` in all. Each of the three groups
    has a scale of its own, unknown by `dose_uncertainty_fraction` (standard deviation over mean; 0: exactly known).
    `max_shift_nm`: how far an image may be shifted along each axis (None: anywhere in the period). `image_turns_deg`
    (multiples of 90 degrees) and `pattern_turns_deg`: rotations from +x towards +y that it may have. Images are turned
    with the scan: segments keep their directions in the structure, and one that may lie turned under them is a
    candidate of its own.
    `has_background`: a power law of unknown height and exponent lies under the spectrum. `model_error_fraction`: how
    far off each value of a fingerprint may be itself (standard deviation over mean), by thickness steps, aberrations
    or physics left out; without it many electrons make a ranking too sure.
    """

    images: Mapping[str, NDArray[np.number]] = field(default_factory=dict)
    electrons_e_per_px: float = 0.0
    pattern: NDArray[np.number] | None = None
    pattern_electrons: float = 0.0
    spectrum: NDArray[np.number] | None = None
    spectrum_electrons: float = 0.0
    dose_uncertainty_fraction: float = 0.0
    max_shift_nm: float | None = 0.0
    image_turns_deg: tuple[int, ...] = (0,)
    pattern_turns_deg: tuple[float, ...] = (0.0,)
    has_background: bool = True
    model_error_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what was not counted."""
        groups = [
            ("images", [*self.images.values()], self.electrons_e_per_px),
            ("pattern", [] if self.pattern is None else [self.pattern], self.pattern_electrons),
            ("spectrum", [] if self.spectrum is None else [self.spectrum], self.spectrum_electrons),
        ]
        if not any(arrays for _, arrays, _ in groups):
            raise InvalidParameter("nothing measured was given; give images, a pattern or a spectrum")
        for name, arrays, electrons in groups:
            for array in arrays:
                _check_counts(name, array, electrons)
        if not (isfinite(self.dose_uncertainty_fraction) and 0 <= self.dose_uncertainty_fraction < 1):
            raise InvalidParameter(
                f"dose_uncertainty_fraction = {self.dose_uncertainty_fraction} must be at least 0 and below 1"
            )
        if not (isfinite(self.model_error_fraction) and 0 <= self.model_error_fraction < 1):
            raise InvalidParameter(f"model_error_fraction = {self.model_error_fraction} must be at least 0 and below 1")
        if self.max_shift_nm is not None and not self.max_shift_nm >= 0:
            raise InvalidParameter(f"max_shift_nm = {self.max_shift_nm} must be 0 nm or more, or None for any shift")
        if any(turn % 90 for turn in self.image_turns_deg):
            raise InvalidParameter(f"image_turns_deg = {self.image_turns_deg} must be multiples of 90 degrees")
        if not self.image_turns_deg or not self.pattern_turns_deg:
            raise InvalidParameter("turns need at least one angle; 0 for a known orientation")

    @property
    def electrons(self) -> float:
        """All that were sent."""
        pixels = next(iter(self.images.values())).shape[:2] if self.images else (0, 0)
        patterns = 0 if self.pattern is None else int(np.prod(self.pattern.shape[:-2]))
        return (
            self.electrons_e_per_px * pixels[0] * pixels[1]
            + self.pattern_electrons * patterns
            + (0.0 if self.spectrum is None else self.spectrum_electrons)
        )


def _check_counts(name: str, array: NDArray[np.number], electrons: float) -> None:
    if not (isfinite(electrons) and electrons > 0):
        raise InvalidParameter(f"the electrons sent for the {name} are {electrons}; they must be a positive number")
    values = np.asarray(array, np.float64)
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise InvalidParameter(f"measured {name} must be counts: finite, 0 or more; subtract no background from them")
