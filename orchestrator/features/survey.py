"""Survey frames, where the lattice is not resolved: which 1 nm cells are clean.

Neighbours: `cleanliness` has the statistics, `sites` reads frames that resolve the lattice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from instruments.frames import Frame
from instruments.optics import Coherence, Optics
from orchestrator.features.cleanliness import clean_cells
from orchestrator.features.detectors import believed, centre_nm, dark_field, electrons_per_px, ring_counts
from orchestrator.features.errors import FeatureError
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.features.lattice_model import LatticeModel

CELL_NM = 1.0


class Survey:
    """Extractor `survey`: probability of being clean on a 1 nm grid in nominal specimen coordinates.

    The clean level is the mean of the model's cell image times the electrons on a pixel; it needs about one electron
    counted per pixel. `coherence` is used where the microscope cannot tell its own.
    """

    def __init__(self, model: LatticeModel, *, coherence: Callable[[Optics], Coherence] | None = None) -> None:
        self._model = model
        self._coherence = coherence

    def extract(self, frame: Frame) -> FeatureSet:
        """Arrays clean_map (rows, columns), clean_map_x_nm, clean_map_y_nm; values clean_fraction, clean_level, ...

        Cells are centred on half nanometres (x.5) of nominal coordinates. Raises FeatureError without a dark-field
        detector, NormalisedCounts where counts are not raw.
        """
        rings = ring_counts(frame)
        optics, coherence = believed(frame, self._coherence)
        number = dark_field(rings, optics.semi_convergence_angle_mrad)
        if number is None:
            raise FeatureError(
                f"frame {frame.action_id}: a survey needs a detector whose inner angle is at least the convergence "
                f"angle {optics.semi_convergence_angle_mrad:g} mrad; choose a mode with one"
            )
        ring = rings[number]
        counts = ring.counts.sum(axis=0, dtype=np.float64)
        cell = self._model.cell_image(ring.inner_mrad, ring.outer_mrad, optics, coherence)
        clean_per_px = float(cell.mean()) * electrons_per_px(frame)
        x_nm, y_nm, summed, pixels = _on_cells(frame, counts)
        found = clean_cells(summed, pixels * clean_per_px)
        seen = pixels > 0.25 * np.median(pixels[pixels > 0])
        probability = np.where(seen, found.probability, np.nan).astype(np.float32)
        clean = float(np.nanmean(probability))
        spread = float(np.sqrt(np.nansum(probability * (1 - probability)))) / max(int(seen.sum()), 1)
        values = {
            "clean_fraction": Feature(value=clean, std=spread),
            "clean_area_nm2": Feature(value=float(np.nansum(probability)) * CELL_NM**2),
            "clean_level_ratio": Feature(value=found.level, std=found.level_std),
            "counts_per_px": Feature(value=float(counts.mean())),
        }
        arrays = {"clean_map": probability, "clean_map_x_nm": x_nm, "clean_map_y_nm": y_nm}
        return FeatureSet(extractor="survey", action_id=frame.action_id, values=values, arrays=arrays)


def _on_cells(frame: Frame, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the 1 nm cells (x and y), counts and number of pixels in each, (rows, columns)."""
    rows, columns = counts.shape
    pixel_nm = frame.pixel_size_nm
    u = (np.arange(columns) - (columns - 1) / 2) * pixel_nm
    v = ((np.arange(rows) - (rows - 1) / 2) * pixel_nm)[:, None]
    angle, centre = np.radians(frame.requested.scan.rotation_deg), centre_nm(frame)
    x = np.cos(angle) * u - np.sin(angle) * v + centre[0]
    y = np.sin(angle) * u + np.cos(angle) * v + centre[1]
    column, row = np.floor(x / CELL_NM).astype(np.int64), np.floor(y / CELL_NM).astype(np.int64)
    left, low = int(column.min()), int(row.min())
    width, height = int(column.max()) - left + 1, int(row.max()) - low + 1
    cell = ((row - low) * width + (column - left)).ravel()
    summed = np.bincount(cell, counts.ravel(), width * height).reshape(height, width)
    pixels = np.bincount(cell, minlength=width * height).reshape(height, width).astype(float)
    x_nm = (left + 0.5 + np.arange(width)) * CELL_NM
    y_nm = (low + 0.5 + np.arange(height)) * CELL_NM
    return x_nm, y_nm, summed, pixels
