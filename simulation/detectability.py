"""How well two contents of a column can be told apart: the ideal observer of Poisson counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from instruments.optics import Coherence, Optics
from simulation.errors import InvalidParameter
from simulation.lattice_images import LatticeImages


def information_per_dose(
    images: LatticeImages,
    species_a: str,
    species_b: str | None,
    inner_mrad: float,
    outer_mrad: float,
    optics: Optics,
    coherence: Coherence,
) -> float:
    """d'^2 per (electron per square angstrom) of telling two species apart on one detector; `species_b` None: the host.

    d'^2 / dose = integral of (P_a - P_b)^2 / P over the plane of the specimen in square angstrom, P the mean of the
    two images in fractions of the beam (Poisson counts with known means, small differences: Barrett and Myers,
    Foundations of Image Science, ch. 13). Place, optics and background known: a bound; detectors read together add.
    """
    first = images.defect(species_a)
    content_b = None if species_b is None else images.defect(species_b).becomes
    if species_b is not None and images.defect(species_b).column != first.column:
        raise InvalidParameter(
            f"{species_a} is a {first.column} column and {species_b} is not; compare species of one column"
        )
    a = images.site_image(first.column, first.becomes, inner_mrad, outer_mrad, optics, coherence)
    b = images.site_image(first.column, content_b, inner_mrad, outer_mrad, optics, coherence)
    area_a2 = (images.step_nm * 10) ** 2
    return float(np.sum((a - b) ** 2 / (0.5 * (a + b)))) * area_a2


def dose_needed_e_per_a2(
    images: LatticeImages,
    species_a: str,
    species_b: str | None,
    detector_ranges_mrad: Iterable[tuple[float, float]],
    optics: Optics,
    coherence: Coherence,
    *,
    detectability: float = 5.4,
) -> float:
    """Dose at which detectors read together reach a d'; infinite where they see no difference."""
    information = sum(
        information_per_dose(images, species_a, species_b, inner, outer, optics, coherence)
        for inner, outer in detector_ranges_mrad
    )
    return detectability**2 / information if information > 0 else float("inf")
