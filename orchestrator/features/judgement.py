"""The verdict on all sites of a frame: two passes of evidence, calibration on the host columns, suspects by sub-frame.

Neighbour: `evidence` has the arithmetic of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.features.evidence import (
    Calibration,
    Exposure,
    Neighbourhood,
    Sites,
    calibrate,
    near_settled,
    place,
    score_exactly,
    score_sites,
    settled,
)
from orchestrator.features.laying import CLEAN
from orchestrator.features.templates import ColumnTemplates, PatchGrid


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Log-likelihood ratios above which a site is a suspect, and above which its content counts as settled."""

    suspect_llr_threshold: float
    settled_llr_threshold: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """`llr` (n, S), `suspect` (m,) site numbers, `by_subframe` (m, sub-frames, S), `amplitude` and its std (n, D)."""

    llr: np.ndarray
    suspect: np.ndarray
    by_subframe: np.ndarray
    amplitude: np.ndarray
    amplitude_std: np.ndarray
    calibration: Calibration
    settled_count: int


def judge(
    exposures: Sequence[Exposure],
    subframes: Sequence[Exposure],
    sites: Sites,
    clean_probability: np.ndarray,
    usable: np.ndarray,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    thresholds: Thresholds,
) -> Judgement:
    """Judge every site; `usable` sites are those whose scatter calibrates (clean, patch inside the frame)."""
    species_count = 1 + max((int(number) for kind in templates for number in kind.species), default=-1)
    found = score_sites(exposures, sites, templates, grid, species_count)
    shape = (exposures[0].counts.shape[1], exposures[0].counts.shape[2])
    offset = place(sites.xy_nm, np.zeros(2), shape, grid.pixel_size_nm).offset
    clean = clean_probability > CLEAN
    honest, _ = calibrate(found.llr, sites, offset, templates, usable)
    neighbours = settled(np.where(clean[:, None], honest, np.nan), thresholds.settled_llr_threshold)
    llr = _second_pass(found.llr, exposures, sites, templates, grid, neighbours)
    honest, calibration = calibrate(llr, sites, offset, templates, usable)
    best = np.where(np.isnan(honest), -np.inf, honest).max(axis=1, initial=-np.inf)
    suspect = np.flatnonzero((best > thresholds.suspect_llr_threshold) & clean)
    split = _by_subframe(subframes, sites, suspect, templates, grid, neighbours, species_count)
    return Judgement(
        llr=honest,
        suspect=suspect,
        by_subframe=_shared(split, honest[suspect], calibration),
        amplitude=found.amplitude,
        amplitude_std=found.amplitude_std,
        calibration=calibration,
        settled_count=len(neighbours.site),
    )


def _second_pass(
    llr: np.ndarray,
    exposures: Sequence[Exposure],
    sites: Sites,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    neighbours: Neighbourhood,
) -> np.ndarray:
    """Sites whose patch a settled neighbour reaches, judged again with the neighbour as it is."""
    again = near_settled(sites.xy_nm, neighbours, 2 * grid.radius_nm)
    if len(again) == 0:
        return llr
    total = np.zeros((len(again), llr.shape[1]))
    for exposure in exposures:
        total += score_exactly(exposure, sites, again, templates, grid, llr.shape[1], neighbours)
    llr = llr.copy()
    llr[again] = total
    return llr


def _by_subframe(
    subframes: Sequence[Exposure],
    sites: Sites,
    suspect: np.ndarray,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    neighbours: Neighbourhood,
    species_count: int,
) -> np.ndarray:
    if len(suspect) == 0:
        return np.zeros((0, len(subframes), species_count))
    parts = [
        score_exactly(exposure, sites, suspect, templates, grid, species_count, neighbours) for exposure in subframes
    ]
    return np.stack(parts, axis=1)


def _shared(split: np.ndarray, whole: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Sub-frame ratios tempered like the whole, and the rest shared out evenly, so that they add up to it."""
    tempered = split / np.maximum(calibration.spread, 1.0) ** 2
    return tempered + (whole - tempered.sum(axis=1))[:, None, :] / max(split.shape[1], 1)
