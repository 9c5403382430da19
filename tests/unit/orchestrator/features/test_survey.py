"""Clean and contaminated cells, at one count per pixel and at other doses than believed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from instruments import ScanPattern
from orchestrator.features import FeatureError, NormalisedCounts, Survey
from orchestrator.features.cleanliness import clean_cells
from tests.unit.orchestrator.features.gaussian_lattice import GaussianLattice, Specimen, expose


def windows(rng: np.random.Generator, strength: float):
    """Haze in three quarters of the frame, thin and thick, outside smooth windows."""
    field = gaussian_filter(rng.normal(size=(64, 64)), 6, mode="wrap")
    thick = gaussian_filter(rng.normal(size=(64, 64)), 3, mode="wrap")
    border = np.quantile(field, 0.4)

    def haze(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = np.clip((x / 100 * 64 + 32).astype(int), 0, 63)
        row = np.clip((y / 100 * 64 + 32).astype(int), 0, 63)
        here = strength * (1 + 0.3 * thick / thick.std())
        return np.where(field < border, 0.0, np.maximum(here, 0.3 * strength))[row, column]

    return haze


@pytest.mark.parametrize(("strength", "dose", "least"), [(1.0, 1000.0, 0.97), (0.6, 1000.0, 0.94), (0.6, 4000.0, 0.97)])
def test_cells_are_told_apart(strength: float, dose: float, least: float) -> None:
    rng = np.random.default_rng(5)
    model = GaussianLattice()
    specimen = Specimen(model, rotation_deg=11.0, contamination=windows(rng, strength))
    exposure = expose(
        specimen,
        rng,
        shape_px=(500, 500),
        pixel_size_nm=0.2,
        dose_e_per_a2=dose / 100,
        subframe_count=1,
        centre_nm=(20.3, -7.0),
    )
    features = Survey(model).extract(exposure.frame)
    probability = features.arrays["clean_map"]
    x = (features.arrays["clean_map_x_nm"] - 20.3)[None, :]
    y = (features.arrays["clean_map_y_nm"] + 7.0)[:, None]
    truth = specimen.contamination(x, y) == 0
    seen = ~np.isnan(probability)
    agreement = np.mean((probability > 0.5)[seen] == truth[seen])
    print(f"{exposure.frame.counts['maadf'].mean():.2f} counts per px, agreement {agreement:.4f}")
    assert agreement > least
    assert abs(features.values["clean_fraction"].value - truth[seen].mean()) < 0.05
    assert np.all(np.diff(features.arrays["clean_map_x_nm"]) == 1.0)


@pytest.mark.parametrize("level", [0.8, 1.0, 1.12])
def test_a_wrong_dose_is_no_contamination(level: float) -> None:
    rng = np.random.default_rng(6)
    expected = np.full((60, 60), 40.0)
    found = clean_cells(rng.poisson(expected * level).astype(float), expected)
    assert found.level == pytest.approx(level, rel=0.02)
    assert found.probability.mean() > 0.97


def test_a_hazy_frame_is_not_clean() -> None:
    rng = np.random.default_rng(7)
    expected = np.full((60, 60), 40.0)
    haze = 0.9 + 0.4 * gaussian_filter(rng.normal(size=(60, 60)), 4) * 8
    found = clean_cells(rng.poisson(expected * (1 + np.maximum(haze, 0.3))).astype(float), expected)
    assert found.probability.mean() < 0.05


def test_frames_that_cannot_be_surveyed_are_refused() -> None:
    rng = np.random.default_rng(8)
    exposure = expose(Specimen(GaussianLattice()), rng, shape_px=(64, 64), pixel_size_nm=0.2)
    frame = exposure.frame
    bright_only = frame.mode.model_copy(update={"detectors": frame.mode.detectors[1:]})
    object.__setattr__(frame, "mode", bright_only)
    with pytest.raises(FeatureError, match=r"inner angle is at least the convergence angle 31.5 mrad"):
        Survey(GaussianLattice()).extract(frame)
    frame.counts["bf"] = frame.counts["bf"].astype(float)
    with pytest.raises(NormalisedCounts, match=r"bf.*float64.*raw counts"):
        Survey(GaussianLattice()).extract(frame)
    assert isinstance(frame.requested.scan, ScanPattern)
