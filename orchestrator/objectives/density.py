"""Density of each species, with an interval, from posterior counts in blocks; unvisited clean area by neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

KERNEL_NM = 30.0
_PRIOR_AREA_NM2 = 400.0


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Expected defects of one species and analysed clean area, block by block; centres in nm."""

    x_nm: np.ndarray
    y_nm: np.ndarray
    count: np.ndarray
    uncertainty: np.ndarray
    visited_area_nm2: np.ndarray
    clean_area_nm2: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Defects per nm2 of clean specimen: where it was analysed, and over all of it; 95 % intervals."""

    analysed_per_nm2: float
    analysed_low_per_nm2: float
    analysed_high_per_nm2: float
    whole_per_nm2: float
    whole_low_per_nm2: float
    whole_high_per_nm2: float
    dispersion: float


def dispersion_of(blocks: BlockCounts) -> float:
    """Variance over mean of the block counts given one common density (1 for an unclustered, Poisson, scatter)."""
    seen = blocks.visited_area_nm2 > 0
    if seen.sum() < 3 or blocks.count[seen].sum() <= 0:
        return 1.0
    expected = blocks.visited_area_nm2[seen] * blocks.count[seen].sum() / blocks.visited_area_nm2[seen].sum()
    return max(1.0, float(((blocks.count[seen] - expected) ** 2 / expected).sum() / (seen.sum() - 1)))


def density_of(blocks: BlockCounts) -> Density:
    """Density and interval of one species.

    Analysed area: Gamma posterior of a Poisson count, widened by the block dispersion and by what is undecided. Whole
    clean area: unvisited blocks take the Gaussian-kernel (30 nm) average of their neighbours, shrunk to the mean with
    the weight of 400 nm2, so that a policy that prefers dense places does not bias the answer much.
    """
    visited = float(blocks.visited_area_nm2.sum())
    if visited <= 0:
        return Density(
            analysed_per_nm2=0.0, analysed_low_per_nm2=0.0, analysed_high_per_nm2=float("inf"),
            whole_per_nm2=0.0, whole_low_per_nm2=0.0, whole_high_per_nm2=float("inf"), dispersion=1.0,
        )  # fmt: skip
    count, spread = float(blocks.count.sum()), dispersion_of(blocks)
    low, high = _interval(count, spread, float(blocks.uncertainty.sum()))
    local = _local_density(blocks, count / visited)
    rest = np.maximum(blocks.clean_area_nm2 - blocks.visited_area_nm2, 0.0)
    unseen = float((local * rest).sum())
    whole = visited + float(rest.sum())
    whole_low, whole_high = _interval(count, spread, float(blocks.uncertainty.sum()) + unseen * spread, shift=unseen)
    return Density(
        analysed_per_nm2=count / visited,
        analysed_low_per_nm2=low / visited,
        analysed_high_per_nm2=high / visited,
        whole_per_nm2=(count + unseen) / whole,
        whole_low_per_nm2=whole_low / whole,
        whole_high_per_nm2=whole_high / whole,
        dispersion=spread,
    )


def _interval(count: float, dispersion: float, extra_variance: float, shift: float = 0.0) -> tuple[float, float]:
    mean = count + shift
    variance = max(count * dispersion + extra_variance, 0.5)
    shape = (mean + 0.5) ** 2 / (variance + 0.5)
    scale = (variance + 0.5) / (mean + 0.5)
    low, high = (float(scipy.special.gammaincinv(shape, probability)) * scale for probability in (0.025, 0.975))
    return low, high


def _local_density(blocks: BlockCounts, mean_per_nm2: float) -> np.ndarray:
    squared = (blocks.x_nm[:, None] - blocks.x_nm) ** 2 + (blocks.y_nm[:, None] - blocks.y_nm) ** 2
    weight = np.exp(-squared / (2 * KERNEL_NM**2))
    counts, areas = weight @ blocks.count, weight @ blocks.visited_area_nm2
    return (counts + mean_per_nm2 * _PRIOR_AREA_NM2) / (areas + _PRIOR_AREA_NM2)
