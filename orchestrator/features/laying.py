"""Laying the model's lattice on a frame: periodicity, sub-frame shifts, cell fit, and what of the frame is clean.

Neighbours: `lattice`, `cell_fit` and `cleanliness` do the work of each step; `sites` goes on from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy

from instruments.optics import Coherence, Optics
from orchestrator.features.cell_fit import (
    CellFit,
    CellFitter,
    CellTerms,
    ExpectedTerms,
    Measurement,
    TermSolver,
    host_terms,
    rotation_deg,
)
from orchestrator.features.cleanliness import CleanCells, clean_cells, tile_sums
from orchestrator.features.detectors import RingCounts, dark_field
from orchestrator.features.evidence import Exposure
from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.forward import Forward
from orchestrator.features.lattice import (
    SCALE_RANGE_FRACTION,
    Periodicity,
    Picture,
    find_periodicity,
    refine_periodicity,
    subframe_shifts_nm,
    synthesise,
)
from orchestrator.features.lattice_model import FourierTerms, PrimitiveCell

NAME = "lattice_sites"
CLEAN = 0.5
_TILE_NM = 1.0
_STRONG_TERMS = 6
_SMALL_FRAME_NM = 5.0
_SHIFT_MATTERS_NM = 0.008
_BRIGHTNESS_STD = 0.03
_BRIGHTNESS_TILES = 3.0
_COARSE_DEFOCUS_NM = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
_NEAR_DEFOCUS_NM = (-4.0, 0.0, 4.0)


@dataclass(frozen=True, slots=True)
class LatticeHint:
    """The lattice of an earlier frame in nominal specimen coordinates; a small frame then refits only the origin."""

    origin_nm: np.ndarray
    basis_nm: np.ndarray
    defocus_offset_nm: float = 0.0

    @classmethod
    def from_features(cls, features: FeatureSet) -> Self | None:
        """The hint that a frame's features give, None where no lattice was found."""
        if features.extractor != NAME or len(features.arrays["site_x_nm"]) == 0:
            return None
        offset = features.values.get("defocus_offset_nm")
        arrays = features.arrays
        return cls(arrays["lattice_origin_nm"], arrays["lattice_basis_nm"], offset.value if offset else 0.0)


@dataclass(frozen=True, slots=True)
class FrameView:
    """A frame as features work on it: counts by detector, believed optics, scan axes (`turn` takes them to specimen).

    `electrons_per_px` None: intensities are in an unknown unit.
    """

    rings: list[RingCounts]
    pictures: list[Picture]
    optics: Optics
    coherence: Coherence
    terms: FourierTerms
    electrons_per_px: float | None
    scan_rotation_deg: float

    @property
    def half_nm(self) -> np.ndarray:
        """Half the extent, (x, y)."""
        rows, columns = self.pictures[0].counts.shape
        return np.array([columns, rows]) * self.pixel_size_nm / 2

    @property
    def is_small(self) -> bool:
        """Too small for its own basis to be better than an earlier frame's."""
        return float(self.half_nm.min()) * 2 < _SMALL_FRAME_NM

    @property
    def pixel_size_nm(self) -> float:
        """Of the scan."""
        return self.pictures[0].pixel_size_nm

    @property
    def turn(self) -> np.ndarray:
        """(2, 2) from scan axes to specimen axes."""
        angle = np.radians(self.scan_rotation_deg)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def defocused(self, offset_nm: float) -> Optics:
        """The believed optics at another defocus."""
        return self.optics.model_copy(update={"defocus_nm": self.optics.defocus_nm + offset_nm})


@dataclass(frozen=True, slots=True)
class Laid:
    """The lattice as it lies in a frame, and which parts are clean (`cells` None where no detector can tell)."""

    period: Periodicity
    exposures: list[Exposure]
    fit: CellFit
    host_terms: np.ndarray
    cells: CleanCells | None
    tile_px: int
    brightness: np.ndarray

    def at(self, view: FrameView, xy_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clean probability (n,) and brightness (n, D) over the lattice's mean, of sites (n, 2) in scan axes."""
        shape = self.brightness.shape[1:]
        place = (xy_nm + view.half_nm) / (self.tile_px * view.pixel_size_nm)
        column = np.clip(place[:, 0].astype(int), 0, shape[1] - 1)
        row = np.clip(place[:, 1].astype(int), 0, shape[0] - 1)
        probability = np.ones(len(xy_nm)) if self.cells is None else self.cells.probability[row, column]
        return probability, self.brightness[:, row, column].T


class Laying:
    """Lays one forward model on frames; `near_rotation_deg` chooses among equivalent orientations."""

    def __init__(
        self, forward: Forward, near_rotation_deg: float, scale_range_fraction: float = SCALE_RANGE_FRACTION
    ) -> None:
        self._forward = forward
        self._near_rotation_deg = near_rotation_deg
        self._scale_range_fraction = scale_range_fraction

    def lay(self, view: FrameView, hint: LatticeHint | None) -> Laid | Periodicity:
        """The lattice in the frame, or the insignificant periodicity that is all there is."""
        period = self.periodicity(view, hint)
        if not period.is_significant:
            return period
        exposures = self._exposures(view, period)
        fit = self.fit(view, period.matrix, exposures, hint)
        return self._with_clean(view, period, exposures, fit)

    def _strong(self, view: FrameView) -> tuple[np.ndarray, np.ndarray]:
        """The strongest frequencies below Nyquist, (k, 2), and their expected power over the constant's."""
        power = np.abs(self._forward.cell_terms(view.rings, view.terms, view.optics, view.coherence, 0.0)) ** 2
        share = (power[:, 1:] / power[:, :1]).sum(axis=0)
        q = view.terms.q_per_nm[1:]
        share = np.where(np.linalg.norm(q, axis=1) < 0.45 / view.pixel_size_nm, share, 0.0)
        order = np.argsort(-share, kind="stable")[:_STRONG_TERMS]
        order = order[share[order] > 0]
        return q[order], share[order]

    def periodicity(self, view: FrameView, hint: LatticeHint | None) -> Periodicity:
        """Basis of the lattice up to its own rotations; a small frame with a hint keeps the hint's."""
        q, weights = self._strong(view)
        if len(q) < 2:
            return Periodicity(np.eye(2), 0.0)
        if hint is not None and view.is_small:
            matrix = view.turn.T @ hint.basis_nm @ np.linalg.inv(self._forward.cell.vectors_nm)
            # At the given frequencies only: no search, so hardly a chance of a false lattice.
            found = find_periodicity(view.pictures, q @ np.linalg.inv(matrix), weights, 0.0)
            return Periodicity(matrix, found.power)
        turns = max(sum(len(group) for group in self._forward.cell.orientations), 2)
        found = find_periodicity(view.pictures, q, weights, 360.0 / turns, self._scale_range_fraction)
        return refine_periodicity(view.pictures, found, q[:3]) if found.is_significant else found

    def _exposures(self, view: FrameView, period: Periodicity) -> list[Exposure]:
        """One exposure where the lattice stands still between sub-frames, else one for each sub-frame."""
        count = len(view.rings[0].counts)
        whole = [Exposure(np.array([picture.counts for picture in view.pictures]), 1.0, np.zeros(2))]
        if count == 1:
            return whole
        g = self._strong(view)[0][:3] @ np.linalg.inv(period.matrix)
        subframes = [[ring.counts[number] for ring in view.rings] for number in range(count)]
        shifts, errors = subframe_shifts_nm(subframes, view.pixel_size_nm, g)
        if np.abs(shifts).max() < max(_SHIFT_MATTERS_NM, 3 * float(errors.max())):
            return whole
        return [
            Exposure(np.array(subframes[number], dtype=np.float32), 1 / count, shifts[number])
            for number in range(count)
        ]

    def _expected(self, view: FrameView) -> ExpectedTerms:
        def expected(offset_nm: float, turn_deg: float) -> np.ndarray:
            turn_deg += view.scan_rotation_deg
            return self._forward.cell_terms(view.rings, view.terms, view.defocused(offset_nm), view.coherence, turn_deg)

        return expected

    def fit(self, view: FrameView, matrix: np.ndarray, exposures: list[Exposure], hint: LatticeHint | None) -> CellFit:
        """The cell laid on a lattice known up to its own rotations."""
        measured = self._measured(view, exposures, None, matrix @ self._forward.cell.vectors_nm)
        near_deg = self._near_rotation_deg - view.scan_rotation_deg
        focus = _COARSE_DEFOCUS_NM
        if hint is not None:
            near_deg = rotation_deg(view.turn.T @ hint.basis_nm, self._forward.cell)
            focus = tuple(hint.defocus_offset_nm + step_nm for step_nm in _NEAR_DEFOCUS_NM)
        return CellFitter(self._forward.cell, view.terms).fit(
            Measurement.of(measured, view.electrons_per_px),
            matrix,
            self._expected(view),
            near_rotation_deg=near_deg,
            fixed_orientation=hint is not None and view.is_small,
            defocus_nm=focus,
        )

    def _fit_clean(self, view: FrameView, exposures: list[Exposure], fit: CellFit, keep: np.ndarray) -> CellFit:
        """The same lattice again, on the pixels kept."""
        measured = self._measured(view, exposures, keep, fit.basis_nm)
        matrix = fit.basis_nm @ np.linalg.inv(self._forward.cell.vectors_nm)
        again = CellFitter(self._forward.cell, view.terms).fit(
            Measurement.of(measured, view.electrons_per_px),
            matrix,
            self._expected(view),
            near_rotation_deg=0.0,
            fixed_orientation=True,
            defocus_nm=(fit.defocus_offset_nm,),
        )
        return replace(again, log_likelihood_margin=fit.log_likelihood_margin)

    def _measured(
        self, view: FrameView, exposures: list[Exposure], keep: np.ndarray | None, basis_nm: np.ndarray
    ) -> list[CellTerms]:
        """Terms by detector; sub-frames that moved are brought back by their phases first."""
        indices = view.terms.indices
        solver = TermSolver(view.pictures[0], keep, indices, basis_nm)
        if len(exposures) == 1:
            return [solver.terms(picture.counts) for picture in view.pictures]
        g = indices @ np.linalg.inv(basis_nm)
        found: list[CellTerms] = []
        for detector in range(len(view.rings)):
            values, variance = np.zeros(len(indices), dtype=complex), 0.0
            for exposure in exposures:
                part = solver.terms(exposure.counts[detector])
                values += part.values * np.exp(2j * np.pi * (g @ exposure.shift_nm))
                variance += part.variance
            found.append(CellTerms(values, variance))
        return found

    def _with_clean(self, view: FrameView, period: Periodicity, exposures: list[Exposure], fit: CellFit) -> Laid:
        """Clean tiles, and the cell fitted again on them where there are others."""
        tile_px = max(2, round(_TILE_NM / view.pixel_size_nm))
        number = dark_field(view.rings, view.optics.semi_convergence_angle_mrad)
        cells = None
        if number is not None and view.electrons_per_px is not None:
            predicted = self._image(view, fit, view.electrons_per_px * fit.expected[number])
            cells = clean_cells(
                tile_sums(view.pictures[number].counts, tile_px), np.maximum(tile_sums(predicted, tile_px), 1e-9)
            )
            share = float((cells.probability > CLEAN).mean())
            if 0.05 < share < 0.98:
                rows, columns = view.pictures[0].counts.shape
                keep = np.repeat(np.repeat(cells.probability > CLEAN, tile_px, axis=0), tile_px, axis=1)
                fit = self._fit_clean(view, exposures, fit, keep[:rows, :columns])
        terms = host_terms(fit)
        brightness = self._brightness(view, fit, terms, cells, tile_px)
        return Laid(period, exposures, fit, terms, cells, tile_px, brightness)

    def _image(self, view: FrameView, fit: CellFit, terms: np.ndarray) -> np.ndarray:
        g = view.terms.indices @ np.linalg.inv(fit.basis_nm)
        picture = view.pictures[0]
        return synthesise(terms * np.exp(-2j * np.pi * (g @ fit.origin_nm)), picture.x_nm, picture.y_nm, g)

    def _brightness(
        self, view: FrameView, fit: CellFit, terms: np.ndarray, cells: CleanCells | None, tile_px: int
    ) -> np.ndarray:
        """(D, tile rows, tile columns) counts over the lattice's, smoothed over clean tiles, held to 1 +- 3 %."""
        found: list[np.ndarray] = []
        for picture, of_detector in zip(view.pictures, terms, strict=True):
            counts = tile_sums(picture.counts, tile_px).astype(float)
            host = tile_sums(self._image(view, fit, of_detector), tile_px).astype(float)
            weight = np.ones_like(counts) if cells is None else cells.probability
            window = 4 * np.pi * _BRIGHTNESS_TILES**2
            above = scipy.ndimage.gaussian_filter(weight * (counts - host), _BRIGHTNESS_TILES, mode="constant") * window
            below = scipy.ndimage.gaussian_filter(weight * host, _BRIGHTNESS_TILES, mode="constant") * window
            found.append(1 + above / (below + 1 / _BRIGHTNESS_STD**2))
        return np.clip(np.array(found), 0.5, 2.0)


def predicted_sites(cell: PrimitiveCell, fit: CellFit, half_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every site with |x|, |y| below `half_nm` (2,): place (n, 2) in scan axes, number in the primitive cell (n,)."""
    corners = np.array([(x, y) for x in (-half_nm[0], half_nm[0]) for y in (-half_nm[1], half_nm[1])])
    cycles = np.linalg.solve(fit.basis_nm, (corners - fit.origin_nm).T)
    low, high = np.floor(cycles.min(axis=1)).astype(int) - 1, np.ceil(cycles.max(axis=1)).astype(int) + 1
    i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    index = np.stack([i.ravel(), j.ravel()], axis=1)
    places: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    for number, fraction in enumerate(cell.fractions):
        xy_nm = (index + fraction) @ fit.basis_nm.T + fit.origin_nm
        inside = (np.abs(xy_nm) < half_nm).all(axis=1)
        places.append(xy_nm[inside])
        numbers.append(np.full(int(inside.sum()), number))
    return np.concatenate(places), np.concatenate(numbers)
